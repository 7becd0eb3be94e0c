//! Full chunks on their way from memory to `chunks_head`.

use super::{
    index::SeriesIndex,
    late::LateSamples,
    open_chunks::OpenChunks,
    series::{MappedChunk, MemSeries},
};
use crate::{
    Result,
    chunkenc::Encoding,
    head_chunks::{HeadChunk, HeadChunkMeta, HeadChunkWriter, OUT_OF_ORDER_BIT},
    record::MmapMarker,
    types::{HeadChunkRef, SeriesRef},
};

/// A full chunk that is not in `chunks_head` yet.
#[derive(Debug)]
struct UnwrittenChunk {
    /// What its reference says in place of an offset; the file is 0.
    id: u32,
    slot: u32,
    series: SeriesRef,
    mint: i64,
    maxt: i64,
    data: Vec<u8>,
    order: Order,
}

/// Whether the samples of a chunk came in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    In,
    /// They did not. The chunk may be named in the write-behind log only by the append that made it.
    Out {
        may_be_marked: bool,
    },
}

/// Where chunks belong that are written.
#[derive(Debug)]
pub(crate) struct Owners<'a> {
    pub index: &'a mut SeriesIndex,
    pub late: &'a mut LateSamples,
    /// Gets the late chunks that are to be named in the write-behind log.
    pub written_late: &'a mut Vec<WrittenLate>,
}

/// A chunk of late samples that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenLate {
    pub slot: u32,
    pub marker: MmapMarker,
}

/// The queue of such chunks, in the order they were closed.
#[derive(Debug, Default)]
pub(crate) struct UnwrittenChunks {
    queue: Vec<UnwrittenChunk>,
    next_id: u32,
}

impl UnwrittenChunks {
    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The data of the chunk that `at` refers to, if it is still here.
    pub fn data(&self, at: HeadChunkRef) -> Option<&[u8]> {
        self.queue.iter().find(|chunk| chunk.id == at.offset()).map(|chunk| &chunk.data[..])
    }

    /// Closes the open chunk of `series` in `slot`, if it has one, and queues it.
    pub fn close_open(&mut self, slot: u32, series: &mut MemSeries, open_chunks: &mut OpenChunks) {
        let Some((mint, maxt)) = series.open_range() else { return };
        let data = series.copy_open(open_chunks);
        series.clear_open(open_chunks);
        let chunk = self.push(slot, series.series, (mint, maxt), data, Order::In);
        series.mapped.reserve_exact(1);
        series.mapped.push(chunk);
    }

    /// Queues a chunk of late samples.
    pub fn push_late(&mut self, slot: u32, series: SeriesRef, range: (i64, i64), data: &[u8]) -> MappedChunk {
        self.push(slot, series, range, data.to_vec(), Order::Out { may_be_marked: true })
    }

    fn push(
        &mut self,
        slot: u32,
        series: SeriesRef,
        (mint, maxt): (i64, i64),
        data: Vec<u8>,
        order: Order,
    ) -> MappedChunk {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.queue.push(UnwrittenChunk { id, slot, series, mint, maxt, data, order });
        MappedChunk { at: HeadChunkRef::new(0, id), mint, maxt }
    }

    /// A new append begins: what is still here was made by earlier ones.
    pub fn begin_append(&mut self) {
        for chunk in &mut self.queue {
            if chunk.order != Order::In {
                chunk.order = Order::Out { may_be_marked: false };
            }
        }
    }

    /// Writes the chunks to `chunks_head`, tells their series where they are now, and takes them off
    /// the queue. After an error the queue keeps those that were not written. `refs` is for its
    /// memory.
    pub fn write(
        &mut self,
        owners: &mut Owners<'_>,
        writer: &mut HeadChunkWriter,
        refs: &mut Vec<HeadChunkRef>,
    ) -> Result<()> {
        refs.clear();
        let chunks = self.queue.iter().map(|chunk| HeadChunk {
            meta: HeadChunkMeta {
                series: chunk.series,
                mint: chunk.mint,
                maxt: chunk.maxt,
                encoding: Encoding::Xor as u8 | if chunk.order == Order::In { 0 } else { OUT_OF_ORDER_BIT },
            },
            data: &chunk.data,
        });
        let written = writer.write(chunks, refs);
        for (chunk, &at) in self.queue.iter().zip(refs.iter()) {
            let in_memory = HeadChunkRef::new(0, chunk.id);
            if let Order::Out { may_be_marked } = chunk.order {
                owners.late.moved(chunk.slot, in_memory, at);
                if may_be_marked {
                    let marker = MmapMarker { series: chunk.series, chunk: at };
                    owners.written_late.push(WrittenLate { slot: chunk.slot, marker });
                }
                continue;
            }
            let Some(series) = owners.index.slab.get_mut(chunk.slot) else { continue };
            if let Some(mapped) = series.mapped.iter_mut().rev().find(|mapped| mapped.at == in_memory) {
                mapped.at = at;
            }
        }
        self.queue.drain(..refs.len());
        written
    }
}
