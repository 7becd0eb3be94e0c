//! Full chunks on their way from memory to `chunks_head`.

use super::{
    index::SeriesIndex,
    open_chunks::OpenChunks,
    series::{MappedChunk, MemSeries},
};
use crate::{
    Result,
    chunkenc::Encoding,
    head_chunks::{HeadChunk, HeadChunkMeta, HeadChunkWriter},
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
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let data = series.copy_open(open_chunks);
        series.clear_open(open_chunks);
        series.mapped.reserve_exact(1);
        series.mapped.push(MappedChunk { at: HeadChunkRef::new(0, id), mint, maxt });
        self.queue.push(UnwrittenChunk { id, slot, series: series.series, mint, maxt, data });
    }

    /// Writes the chunks to `chunks_head`, tells their series where they are now, and takes them off
    /// the queue. After an error the queue keeps those that were not written. `refs` is for its
    /// memory.
    pub fn write(
        &mut self,
        index: &mut SeriesIndex,
        writer: &mut HeadChunkWriter,
        refs: &mut Vec<HeadChunkRef>,
    ) -> Result<()> {
        refs.clear();
        let chunks = self.queue.iter().map(|chunk| HeadChunk {
            meta: HeadChunkMeta {
                series: chunk.series,
                mint: chunk.mint,
                maxt: chunk.maxt,
                encoding: Encoding::Xor as u8,
            },
            data: &chunk.data,
        });
        let written = writer.write(chunks, refs);
        for (chunk, &at) in self.queue.iter().zip(refs.iter()) {
            let Some(series) = index.slab.get_mut(chunk.slot) else { continue };
            let in_memory = HeadChunkRef::new(0, chunk.id);
            if let Some(mapped) = series.mapped.iter_mut().rev().find(|mapped| mapped.at == in_memory) {
                mapped.at = at;
            }
        }
        self.queue.drain(..refs.len());
        written
    }
}
