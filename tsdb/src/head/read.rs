//! Queries on the head.

use std::{convert::Infallible, ops::RangeInclusive};

use super::{Head, HeadState, MappedChunk, OutOfOrderSamples, samples_of};
use crate::{
    Error, Result,
    append::SeriesHandle,
    chunkenc::{Encoding, encode_float_chunks},
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
    /// In order of their first samples.
    pub chunks: Vec<Chunk>,
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
    /// Made of samples that came out of order.
    OutOfOrder(Chunk),
}

impl Head {
    /// Selects series that match and have samples in `range`, or samples that came out of order
    /// from `out_of_order_mint` on.
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: RangeInclusive<i64>,
        out_of_order_mint: i64,
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
                    || state.out_of_order.get(&slot).is_some_and(|samples| {
                        samples_between(samples, out_of_order_mint, *range.end()).next().is_some()
                    });
            if overlaps && let Some(labels) = state.index.labels(slot) {
                series.push((labels, SeriesHandle { slot, series: one.series }));
            }
        }
        Ok(HeadSelection { series, truncations: state.truncations })
    }

    /// Chunks of a series that overlap `range`, deleted samples left out.
    pub fn chunks(
        &self,
        handle: SeriesHandle,
        range: RangeInclusive<i64>,
        out_of_order_mint: i64,
    ) -> Result<HeadChunks> {
        loop {
            let (found, deleted, truncations, min_valid) = {
                let state = self.state.lock();
                let deleted = state.tombstones.get(&handle.slot).cloned();
                let found = state.chunks_in(handle, range.clone(), out_of_order_mint);
                (found, deleted, state.truncations, state.min_valid)
            };
            match self.read_chunks(found, deleted.as_ref(), min_valid) {
                Ok(chunks) => return Ok(HeadChunks { chunks, truncations, min_valid }),
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
            let in_order = !matches!(chunk, HeadChunk::OutOfOrder(_));
            let chunk = self.read_chunk(chunk)?;
            // A chunk goes as a whole, once all of it is in a block.
            let in_block = Interval { mint: i64::MIN, maxt: min_valid.saturating_sub(1) };
            let is_partly_in_block = in_order && chunk.mint <= in_block.maxt;
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
        chunks.sort_by_key(|chunk| chunk.mint);
        Ok(chunks)
    }

    fn read_chunk(&self, chunk: HeadChunk) -> Result<Chunk> {
        match chunk {
            HeadChunk::Copied(chunk) | HeadChunk::OutOfOrder(chunk) => Ok(chunk),
            HeadChunk::Mapped(mapped) => {
                let mut data = Vec::new();
                let meta = self.chunk_reader.read(mapped.at, &mut data)?;
                let encoding = Encoding::from_byte(meta.encoding).unwrap_or(Encoding::Xor);
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
        let chunks = self.chunks(handle, range.clone(), *range.start())?.chunks;
        for chunk in &chunks {
            samples
                .extend(samples_of(chunk.encoding, &chunk.data).filter(|sample| range.contains(&sample.t)));
        }
        // Chunks overlap only where another program took samples out of order. The sort is stable,
        // so the chunk that begins first keeps its sample when two have the same time.
        if !samples.is_sorted_by(|left, right| left.t < right.t) {
            samples.sort_by_key(|sample| sample.t);
            samples.dedup_by_key(|sample| sample.t);
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
    /// Chunks of a series that overlap `range`.
    fn chunks_in(
        &self,
        handle: SeriesHandle,
        range: RangeInclusive<i64>,
        out_of_order_mint: i64,
    ) -> Vec<HeadChunk> {
        let Some(series) = self.index.by_handle(handle) else { return Vec::new() };
        // A truncation lets go of the lock between series: what it has still to drop is not there.
        let from = self.min_valid.max(*range.start());
        let wanted = |mint: i64, maxt: i64| mint <= *range.end() && maxt >= from;
        let chunk = |mint, maxt, data| Chunk { mint, maxt, encoding: Encoding::Xor, data };
        let mut found = Vec::with_capacity(series.chunk_count());
        for mapped in series.mapped.iter().filter(|chunk| wanted(chunk.mint, chunk.maxt)) {
            if mapped.at.file() != 0 {
                found.push(HeadChunk::Mapped(*mapped));
            } else if let Some(data) = self.unwritten.data(mapped.at) {
                found.push(HeadChunk::Copied(chunk(mapped.mint, mapped.maxt, data.to_vec())));
            }
        }
        if let Some((mint, maxt)) = series.open_range()
            && wanted(mint, maxt)
        {
            found.push(HeadChunk::Copied(chunk(mint, maxt, series.copy_open(&self.open_chunks))));
        }
        if let Some(samples) = self.out_of_order.get(&handle.slot) {
            let samples = samples_between(samples, out_of_order_mint, *range.end());
            let Ok(()) = encode_float_chunks::<Infallible>(BLOCK_RANGE_MS, samples, |mint, maxt, data| {
                found.push(HeadChunk::OutOfOrder(chunk(mint, maxt, data.to_vec())));
                Ok(())
            });
        }
        found
    }
}

/// Samples with times from `mint` to `maxt`, both inclusive; none if `mint` is greater.
fn samples_between(samples: &OutOfOrderSamples, mint: i64, maxt: i64) -> impl Iterator<Item = Sample> {
    let range = (mint <= maxt).then(|| samples.range(mint..=maxt));
    range.into_iter().flatten().map(|(&t, &bits)| Sample { t, bits })
}
