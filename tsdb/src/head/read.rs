//! Queries on the head.

use std::{convert::Infallible, ops::RangeInclusive};

use super::{Head, HeadState, MappedChunk, samples_of};
use crate::{
    Error, Result,
    append::SeriesHandle,
    chunkenc::{Encoding, encode_float_chunks, sort_and_deduplicate},
    head_chunks::OUT_OF_ORDER_BIT,
    labels::Labels,
    matchers::Matcher,
    postings,
    query::Chunk,
    tombstones::{Interval, Intervals, delete_from_chunk},
    types::{BLOCK_RANGE_MS, Sample},
};

/// Series of the head that a query selected.
#[derive(Debug)]
pub(crate) struct HeadSelection {
    /// Labels and handles, in no order.
    pub series: Vec<(Labels, SeriesHandle)>,
    /// [`HeadState::truncations`] at that moment.
    pub truncations: u64,
}

/// Chunks of one series of the head, and the moment they were looked up.
#[derive(Debug)]
pub(crate) struct HeadChunks {
    /// Of samples that came in order, which is also theirs.
    pub chunks: Vec<Chunk>,
    /// Of late samples; they may overlap each other and all others.
    pub late: Vec<Chunk>,
    /// [`HeadState::truncations`] at that moment.
    pub truncations: u64,
    /// [`HeadState::min_valid`] at that moment: blocks that end by then hold what is missing here, and
    /// later ones hold nothing that is not here.
    pub min_valid: i64,
}

/// A chunk of the head, its data read or still to be read without the lock.
#[derive(Debug)]
pub(crate) enum HeadChunk {
    /// Lies in `chunks_head`.
    Mapped(MappedChunk),
    /// Copied from memory.
    Copied(Chunk),
}

/// What the lock is held for when chunks of a series are looked up.
#[derive(Debug, Default)]
struct FoundChunks {
    in_order: Vec<HeadChunk>,
    late: Vec<HeadChunk>,
}

impl Head {
    /// Selects series that match and have samples in `range`, or late samples from `late_mint` on.
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: RangeInclusive<i64>,
        late_mint: i64,
    ) -> Result<HeadSelection> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut series = Vec::new();
        for slot in postings::resolve(&mut state.index, matchers)? {
            let Some(one) = state.index.slab.get(slot) else { continue };
            let overlaps =
                one.mapped.iter().any(|chunk| chunk.mint <= *range.end() && chunk.maxt >= *range.start())
                    || one
                        .open_range()
                        .is_some_and(|(mint, maxt)| mint <= *range.end() && maxt >= *range.start())
                    || state.late.of(slot).any(|late| late.overlaps(late_mint, *range.end()));
            if overlaps && let Some(labels) = state.index.labels(slot) {
                series.push((labels, SeriesHandle { slot, series: one.series }));
            }
        }
        Ok(HeadSelection { series, truncations: state.truncations })
    }

    /// Chunks of a series that overlap `range`, those of late samples from `late_mint` on; deleted samples
    /// left out.
    pub fn chunks(
        &self,
        handle: SeriesHandle,
        range: RangeInclusive<i64>,
        late_mint: i64,
    ) -> Result<HeadChunks> {
        loop {
            let (found, deleted, truncations, min_valid) = {
                let state = self.state.lock();
                let deleted = state.tombstones.get(&handle.slot).cloned();
                let found = state.chunks_in(handle, range.clone(), late_mint);
                (found, deleted, state.truncations, state.min_valid)
            };
            let deleted = deleted.as_ref();
            let in_order = self.read_chunks(found.in_order, deleted, min_valid);
            // Late samples may well be older than what blocks hold.
            let both =
                in_order.and_then(|chunks| Ok((chunks, self.read_chunks(found.late, deleted, i64::MIN)?)));
            match both {
                Ok((chunks, late)) => return Ok(HeadChunks { chunks, late, truncations, min_valid }),
                // A truncation may have deleted a file under way; what is left is looked up anew.
                Err(_) if self.state.lock().truncations != truncations => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_chunks(
        &self,
        found: Vec<HeadChunk>,
        deleted: Option<&Intervals>,
        min_valid: i64,
    ) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::with_capacity(found.len());
        for chunk in found {
            let chunk = self.read_chunk(chunk)?;
            // A chunk goes as a whole, once all of it is in a block.
            let in_block = Interval { mint: i64::MIN, maxt: min_valid.saturating_sub(1) };
            let is_partly_in_block = min_valid > i64::MIN && chunk.mint <= in_block.maxt;
            if deleted.is_none() && !is_partly_in_block {
                chunks.push(chunk);
                continue;
            }
            let mut left_out = deleted.cloned().unwrap_or_default();
            if is_partly_in_block {
                left_out.add(in_block);
            }
            chunks.extend(
                delete_from_chunk(chunk, &left_out)
                    .map_err(|error| Error::corrupt(&self.dir, 0, format!("chunk of the head: {error}")))?,
            );
        }
        Ok(chunks)
    }

    fn read_chunk(&self, chunk: HeadChunk) -> Result<Chunk> {
        match chunk {
            HeadChunk::Copied(chunk) => Ok(chunk),
            HeadChunk::Mapped(mapped) => {
                let mut data = Vec::new();
                let meta = self.chunk_reader.read(mapped.at, &mut data)?;
                let encoding =
                    Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT).unwrap_or(Encoding::Xor);
                Ok(Chunk { mint: meta.mint, maxt: meta.maxt, encoding, data })
            }
        }
    }

    /// Collects the samples of the series behind `handle` that lie in `range`, ascending, each time
    /// once, into `samples`, which is cleared before.
    pub fn samples(
        &self,
        handle: SeriesHandle,
        range: RangeInclusive<i64>,
        samples: &mut Vec<Sample>,
    ) -> Result<()> {
        samples.clear();
        let HeadChunks { chunks, late, .. } = self.chunks(handle, range.clone(), *range.start())?;
        for chunk in chunks.iter().chain(&late) {
            samples
                .extend(samples_of(chunk.encoding, &chunk.data).filter(|sample| range.contains(&sample.t)));
        }
        // Only late ones are out of place.
        if !samples.is_sorted_by(|left, right| left.t < right.t) {
            sort_and_deduplicate(samples);
        }
        Ok(())
    }

    /// Names of labels in the head.
    pub fn label_names(&self) -> Vec<String> {
        self.state.lock().index.label_names().map(str::to_owned).collect()
    }

    /// Values of the label `name` in the head.
    pub fn label_values(&self, name: &str) -> Vec<String> {
        self.state.lock().index.label_values(name).map(str::to_owned).collect()
    }
}

impl HeadState {
    /// Chunks of a series that overlap `range`, those of late samples from `late_mint` on.
    fn chunks_in(&self, handle: SeriesHandle, range: RangeInclusive<i64>, late_mint: i64) -> FoundChunks {
        let mut found = FoundChunks::default();
        let Some(series) = self.index.by_handle(handle) else { return found };
        // A truncation lets go of the lock between series: what it has still to drop is not there.
        let from = self.min_valid.max(*range.start());
        let wanted = |mint: i64, maxt: i64| mint <= *range.end() && maxt >= from;
        found.in_order.reserve(series.chunk_count());
        for mapped in series.mapped.iter().filter(|chunk| wanted(chunk.mint, chunk.maxt)) {
            found.in_order.extend(self.full_chunk(mapped));
        }
        if let Some((mint, maxt)) = series.open_range()
            && wanted(mint, maxt)
        {
            found.in_order.push(copied(mint, maxt, series.copy_open(&self.open_chunks)));
        }
        let wanted = |mint: i64, maxt: i64| mint <= *range.end() && maxt >= late_mint;
        for late in self.late.of(handle.slot) {
            for mapped in late.chunks.iter().filter(|chunk| wanted(chunk.mint, chunk.maxt)) {
                found.late.extend(self.full_chunk(mapped));
            }
            let buffered = late.buffer.iter().copied().filter(|sample| wanted(sample.t, sample.t));
            let Ok(()) = encode_float_chunks::<Infallible>(BLOCK_RANGE_MS, buffered, |mint, maxt, data| {
                found.late.push(copied(mint, maxt, data.to_vec()));
                Ok(())
            });
        }
        found
    }

    /// A full chunk, copied if it is not in `chunks_head` yet.
    fn full_chunk(&self, mapped: &MappedChunk) -> Option<HeadChunk> {
        if mapped.at.file() != 0 {
            return Some(HeadChunk::Mapped(*mapped));
        }
        let data = self.unwritten.data(mapped.at)?;
        Some(copied(mapped.mint, mapped.maxt, data.to_vec()))
    }
}

fn copied(mint: i64, maxt: i64, data: Vec<u8>) -> HeadChunk {
    HeadChunk::Copied(Chunk { mint, maxt, encoding: Encoding::Xor, data })
}
