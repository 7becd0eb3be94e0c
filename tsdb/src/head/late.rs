//! Samples that came out of order: late ones.
//!
//! A sample that is older than the newest of its series, or than what the head takes in order, and yet
//! within the window, is late. Late samples have a log of their own, the write-behind log `wbl`, because a
//! replay of the log proper passes over what is not newer. In memory each series has a short sorted
//! buffer of them; when it is full it becomes a chunk in `chunks_head`, marked as out of order.
//!
//! # The write-behind log
//!
//! Its format is upstream's: samples (record 2), and markers (record 5) which say that what was logged of a
//! series is in a chunk. A marker is logged only in the very append that made its chunk, before the
//! samples of that append. A replay takes out of the buffer what the chunk of a marker holds, sample by
//! sample; so a marker whose chunk is lost takes nothing, and samples logged behind the chunk's making
//! and before its marker stay. A chunk without a marker is left alone: its samples are in the log still,
//! or in a block.
//!
//! # Cutting
//!
//! When blocks are cut, the log begins a new segment and the late samples so far are set aside. What of
//! them is older than the end of the cut goes into blocks; the rest is put back like samples that come just
//! then, log included. Only then do the older segments go. If the cut fails, all is put back in memory and
//! the segments stay. So each late sample is in the log until a block has it, and one that comes while
//! blocks are cut is in the next.

use std::{path::Path, sync::Arc};

use hashbrown::HashMap;

use super::series::MappedChunk;
use crate::{
    Error, Result,
    fs::Fs,
    types::{HeadChunkRef, Sample, SegmentIndex},
    wlog,
};

/// Late samples of one series.
#[derive(Debug, Default)]
pub(crate) struct LateSeries {
    /// Those in no chunk yet, ascending, each time once.
    pub buffer: Vec<Sample>,
    /// Chunks of late samples, in the order they were made; they may overlap each other.
    pub chunks: Vec<MappedChunk>,
}

impl LateSeries {
    /// Oldest and newest sample.
    pub fn range(&self) -> Option<(i64, i64)> {
        let chunks = self.chunks.iter().map(|chunk| (chunk.mint, chunk.maxt));
        let buffered = self.buffer.first().zip(self.buffer.last()).map(|(first, last)| (first.t, last.t));
        chunks.chain(buffered).reduce(|left, right| (left.0.min(right.0), left.1.max(right.1)))
    }

    /// Times from which on there are samples, of the buffer those next to `border`.
    pub fn oldest_around(&self, border: i64) -> impl Iterator<Item = i64> {
        let behind = self.buffer.partition_point(|sample| sample.t < border);
        let buffered = [self.buffer.first(), self.buffer.get(behind)];
        let chunks = self.chunks.iter().flat_map(move |chunk| {
            let reaches_over = chunk.mint < border && chunk.maxt >= border;
            [Some(chunk.mint), reaches_over.then_some(border)]
        });
        buffered.into_iter().map(|sample| sample.map(|sample| sample.t)).chain(chunks).flatten()
    }

    /// Puts a sample into the buffer unless there is one of its time.
    pub fn insert(&mut self, sample: Sample) {
        if let Err(at) = self.buffer.binary_search_by_key(&sample.t, |known| known.t) {
            if self.buffer.len() == self.buffer.capacity() {
                // Most series have few; doubling would waste half of it.
                self.buffer.reserve_exact(4);
            }
            self.buffer.insert(at, sample);
        }
    }

    /// Takes over what `other` has.
    pub fn absorb(&mut self, other: Self) {
        self.chunks.extend(other.chunks);
        other.buffer.into_iter().for_each(|sample| self.insert(sample));
    }

    /// True if a sample may lie between these times, both inclusive.
    pub fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        let first = self.buffer.partition_point(|sample| sample.t < mint);
        self.buffer.get(first).is_some_and(|sample| sample.t <= maxt)
            || self.chunks.iter().any(|chunk| chunk.mint <= maxt && chunk.maxt >= mint)
    }
}

/// Late samples by slot.
pub(crate) type LateMap = HashMap<u32, LateSeries>;

/// All late samples of a head.
#[derive(Debug, Default)]
pub(crate) struct LateSamples {
    /// What comes now.
    pub current: LateMap,
    /// What was there when blocks began to be cut; empty at all other times.
    pub cutting: LateMap,
    /// The write-behind log, once there was something to write.
    pub log: Option<wlog::Writer>,
    /// While blocks are cut: segments below this go with what was set aside.
    pub cut_segments_below: Option<SegmentIndex>,
}

impl LateSamples {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty() && self.cutting.is_empty()
    }

    /// True if the series in `slot` has some.
    pub fn has(&self, slot: u32) -> bool {
        self.current.contains_key(&slot) || self.cutting.contains_key(&slot)
    }

    /// What the series in `slot` has.
    pub fn of(&self, slot: u32) -> impl Iterator<Item = &LateSeries> {
        self.current.get(&slot).into_iter().chain(self.cutting.get(&slot))
    }

    /// Everything.
    pub fn iter(&self) -> impl Iterator<Item = &LateSeries> {
        self.current.values().chain(self.cutting.values())
    }

    /// The chunk of `slot` that was `from` lies at `to` now.
    pub fn moved(&mut self, slot: u32, from: HeadChunkRef, to: HeadChunkRef) {
        for late in [&mut self.current, &mut self.cutting].into_iter().filter_map(|map| map.get_mut(&slot)) {
            if let Some(chunk) = late.chunks.iter_mut().find(|chunk| chunk.at == from) {
                chunk.at = to;
            }
        }
    }

    /// The write-behind log in `dir`; begins it if need be.
    pub fn log(
        &mut self,
        fs: &Arc<dyn Fs>,
        dir: &Path,
        options: wlog::WriterOptions,
    ) -> Result<&mut wlog::Writer> {
        if self.log.is_none() {
            self.log = Some(wlog::Writer::create(fs.clone(), dir, SegmentIndex(0), options)?);
        }
        Ok(self.log.as_mut().expect("it was just begun"))
    }

    /// Sets aside what there is, and begins a segment for what comes from now on.
    pub fn begin_cut(&mut self, fs: &Arc<dyn Fs>, dir: &Path, options: wlog::WriterOptions) -> Result<()> {
        debug_assert!(self.cutting.is_empty(), "one cut at a time");
        if self.log.is_none() && !fs.exists(dir).map_err(Error::io("look for", dir))? {
            return Ok(());
        }
        let is_begun = self.log.is_some();
        let log = self.log(fs, dir, options)?;
        let segment = if is_begun { log.next_segment()? } else { log.segment_index() };
        self.cut_segments_below = Some(segment);
        self.cutting = std::mem::take(&mut self.current);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_sorted_and_keeps_the_first_of_a_time() {
        let mut late = LateSeries::default();
        for (t, value) in [(30, 1.0), (10, 2.0), (20, 3.0), (10, 4.0), (40, 5.0), (5, 6.0)] {
            late.insert(Sample::new(t, value));
        }
        let found: Vec<(i64, f64)> = late.buffer.iter().map(|sample| (sample.t, sample.value())).collect();
        assert_eq!(found, [(5, 6.0), (10, 2.0), (20, 3.0), (30, 1.0), (40, 5.0)]);
        assert_eq!(late.range(), Some((5, 40)));
        late.chunks.push(MappedChunk { at: HeadChunkRef(1), mint: 50, maxt: 60 });
        assert_eq!(late.range(), Some((5, 60)));
        let check =
            |mint, maxt, expected| assert_eq!(late.overlaps(mint, maxt), expected, "{mint} to {maxt}");
        check(0, 4, false);
        check(0, 5, true);
        check(6, 9, false);
        check(41, 49, false);
        check(41, 50, true);
        check(60, 60, true);
        check(61, 99, false);
    }
}
