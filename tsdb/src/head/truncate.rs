//! Taking the oldest range off the head, once a block holds it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use hashbrown::{HashMap, HashSet};

use super::{Head, HeadState, late::LateSeries, samples_of, series::MemSeries};
use crate::{
    Error, Labels, Result,
    append::SeriesHandle,
    checkpoint,
    chunkenc::{Encoding, sort_and_deduplicate},
    head_chunks::OUT_OF_ORDER_BIT,
    query::Chunk,
    record::SamplesEncoder,
    types::{Sample, SegmentIndex, SeriesRef, range_end, range_start},
    wlog,
};

/// Series whose late samples are put back before the lock is given to appends again.
const LATE_SERIES_PER_LOCK: usize = 256;

/// Series looked at before the lock is given to appends again.
const SLOTS_PER_LOCK: u32 = 4096;

impl Head {
    /// Up to where the head is ready to be cut, exclusive: to the end of the aligned range of the oldest
    /// sample that no block could hold, once it spans one and a half ranges. Appends in order reach back
    /// half a range at most, so nothing is added to that any more.
    pub fn compactable_to(&self) -> Option<i64> {
        let range_ms = self.options.block_range_ms;
        let min = self.oldest_not_in_blocks()?;
        let (_, max) = self.time_range()?;
        (max.saturating_sub(min) > range_ms / 2 * 3).then(|| range_end(min, range_ms))
    }

    /// Blocks are about to be cut up to `end`: from now on no sample older than that is taken in order, and
    /// late samples that come are kept apart from those there are. Must be followed by [`Self::end_cut`].
    pub fn begin_cut(&self, end: i64) -> Result<()> {
        let mut state = self.state.lock();
        state.late.begin_cut(&self.fs, &self.dir.join("wbl"), self.options.wal_options())?;
        state.being_cut = end;
        Ok(())
    }

    /// Ranges of time that may have late samples and are older than what the head holds in order, ascending,
    /// ends exclusive: they need blocks of their own.
    pub fn late_ranges(&self) -> Vec<(i64, i64)> {
        let range_ms = self.options.block_range_ms;
        let state = self.state.lock();
        let mut ranges: BTreeMap<i64, i64> = BTreeMap::new();
        let mut add = |mint: i64, maxt: i64| {
            // Only chunks of other programs reach over a border; there is no sample where they do not begin or
            // end that the ranges of both ends would miss, as their range is not longer than ours.
            for t in [mint, maxt.min(state.min_valid.saturating_sub(1))] {
                if t < state.min_valid {
                    let from = mint.max(range_start(t, range_ms));
                    let end = range_end(t, range_ms).min(state.min_valid);
                    ranges.entry(end).and_modify(|known| *known = from.min(*known)).or_insert(from);
                }
            }
        };
        for late in state.late.cutting.values() {
            late.chunks.iter().for_each(|chunk| add(chunk.mint, chunk.maxt));
            late.buffer.iter().for_each(|sample| add(sample.t, sample.t));
        }
        ranges.into_iter().map(|(end, from)| (from, end)).collect()
    }

    /// Ends a cut. If it is done, blocks hold all that was set aside of late samples and is older than what the
    /// head has in order now; what they do not hold is put back.
    pub fn end_cut(&self, is_done: bool) -> Result<()> {
        let put_back = if is_done { self.put_back_late() } else { Ok(()) };
        let mut state = self.state.lock();
        state.being_cut = i64::MIN;
        // What could not be put back sample by sample, log included: the old segments stay for it.
        let left = std::mem::take(&mut state.late.cutting);
        for (slot, late) in left {
            state.late.current.entry(slot).or_default().absorb(late);
        }
        let segments_below = state.late.cut_segments_below.take();
        state.recount_times();
        let dir = self.dir.join("wbl");
        if !is_done || put_back.is_err() {
            return put_back;
        }
        if state.late.is_empty() && segments_below.is_some() {
            // Nothing is left for the log to hold.
            if let Some(mut log) = state.late.log.take() {
                log.close()?;
            }
            return self.fs.remove_dir_all(&dir).map_err(Error::io("remove", dir));
        }
        drop(state);
        match segments_below {
            Some(first_kept) => wlog::truncate_before(&*self.fs, &dir, first_kept).map(drop),
            None => Ok(()),
        }
    }

    /// Puts back the late samples that were set aside and are in no block, as if they came now.
    fn put_back_late(&self) -> Result<()> {
        let slots: Vec<u32> = self.state.lock().late.cutting.keys().copied().collect();
        for slots in slots.chunks(LATE_SERIES_PER_LOCK) {
            let mut state = self.state.lock();
            let state = &mut *state;
            state.unwritten.begin_append();
            let mut records = std::mem::take(&mut state.records);
            records.clear();
            let mut encoder = SamplesEncoder::begin(&mut records.late);
            for &slot in slots {
                let Some(late) = state.late.cutting.get(&slot) else { continue };
                let samples = state.samples_of_late(self, late, state.min_valid, i64::MAX)?;
                state.late.cutting.remove(&slot);
                let segment = state.wal.segment_index().0;
                let Some(series) = state.index.slab.get_mut(slot) else { continue };
                let handle = SeriesHandle { slot, series: series.series };
                if series.is_empty() && !state.late.current.contains_key(&slot) {
                    series.retire(segment);
                    state.active_series -= 1;
                }
                for sample in samples {
                    encoder.push(handle.series, sample.t, sample.bits);
                    state.insert_late(self, handle, sample);
                }
            }
            state.write_full_chunks(self);
            let logged = state.log_late(self, &mut records);
            state.records = records;
            logged?;
        }
        Ok(())
    }

    /// Series that have late samples from before the end of the newest block, and that end.
    pub fn late_series_before_blocks_end(&self) -> (Vec<(Labels, SeriesHandle)>, i64) {
        let state = self.state.lock();
        let mut series = Vec::new();
        for (&slot, late) in &state.late.current {
            let is_before = late.range().is_some_and(|(mint, _)| mint < state.min_valid);
            if is_before
                && let (Some(one), Some(labels)) = (state.index.slab.get(slot), state.index.labels(slot))
            {
                series.push((labels, SeriesHandle { slot, series: one.series }));
            }
        }
        (series, state.min_valid)
    }

    /// Forgets the late samples of a series that are in `stored`, which are chunks of blocks.
    pub fn forget_late(&self, handle: SeriesHandle, stored: &[Chunk]) {
        let stored: HashSet<Sample> =
            stored.iter().flat_map(|chunk| samples_of(chunk.encoding, &chunk.data)).collect();
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(late) = state.late.current.get(&handle.slot) else { return };
        // Should a chunk not be readable, all stay.
        let Ok(samples) = state.samples_of_late(self, late, i64::MIN, i64::MAX) else { return };
        if samples.iter().all(|sample| !stored.contains(sample)) {
            return;
        }
        state.late.current.remove(&handle.slot);
        state.active_series -= u64::from(state.index.by_handle(handle).is_some_and(MemSeries::is_empty));
        for sample in samples.into_iter().filter(|sample| !stored.contains(sample)) {
            state.insert_late(self, handle, sample);
        }
        state.recount_times();
    }

    /// Series with samples in `range`, ascending by labels.
    pub fn sorted_series(&self, range: RangeInclusive<i64>) -> Result<Vec<(Labels, SeriesHandle)>> {
        let late_mint = *range.start();
        let mut series = self.select(&[], range, late_mint)?.series;
        series.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(series)
    }

    /// Drops all samples older than `mint`, which a block holds by now, removes series that the log
    /// does not name any more, writes a checkpoint and deletes the log segments before it.
    ///
    /// A failed checkpoint is an error, but does no harm: the log is longer than it had to be.
    pub fn truncate(&self, mint: i64) -> Result<()> {
        self.drop_samples_before(mint);
        let oldest_chunk_file = self.state.lock().oldest_chunk_file();
        if let Some(file) = oldest_chunk_file {
            self.chunk_reader.delete_before(file)?;
        }
        let checkpointed = self.checkpoint(mint);
        let counters = &mut self.state.lock().counters;
        match &checkpointed {
            Ok(true) => counters.checkpoints += 1,
            Ok(false) => {}
            Err(_) => counters.checkpoints_failed += 1,
        }
        checkpointed.map(|_| ())
    }

    fn drop_samples_before(&self, mint: i64) {
        {
            let mut state = self.state.lock();
            state.truncations += 1;
            state.min_valid = state.min_valid.max(mint);
            state.tombstones.retain(|_, deleted| deleted.iter().any(|interval| interval.maxt >= mint));
            state.write_full_chunks(self);
            // Files go as a whole, so a new one for what is needed longer.
            if let Err(error) = state.chunk_writer.cut_new_file() {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot finish a file of chunks_head");
            }
        }
        let mut slot = 0;
        loop {
            let mut state = self.state.lock();
            let state = &mut *state;
            let end = state.index.slab.slot_end().min(slot + SLOTS_PER_LOCK);
            let segment = state.wal.segment_index().0;
            for slot in slot..end {
                if let Some(series) = state.index.slab.get_mut(slot) {
                    state.chunks -= series.truncate(mint, &mut state.open_chunks) as u64;
                    if series.is_empty() && series.retired_in().is_none() {
                        series.retire(segment);
                        state.active_series -= u64::from(!state.late.has(slot));
                    }
                }
            }
            slot = end;
            if slot == state.index.slab.slot_end() {
                state.recount_times();
                return;
            }
        }
    }

    /// Removes retired series, then makes a checkpoint of the older two thirds of the log. False if
    /// there is too little to gain.
    fn checkpoint(&self, mint: i64) -> Result<bool> {
        let wal_dir = self.dir.join("wal");
        let last = {
            let mut state = self.state.lock();
            let last = state.wal.segment_index();
            state.wal.next_segment()?;
            last
        };
        let segments = wlog::list_segments(&*self.fs, &wal_dir)?;
        let (Some(&first), Some(last_finished)) = (segments.first(), last.0.checked_sub(1)) else {
            return Ok(false);
        };
        let Some(upto) = checkpoint::checkpoint_target(first, SegmentIndex(last_finished)) else {
            return Ok(false);
        };
        // First out of the head, then out of the log: a series that comes back in between gets a
        // new ref and a line in the current segment.
        let mut kept = self.state.lock().remove_retired(upto);
        kept.sort_unstable();
        let mut keep = |series: SeriesRef| kept.binary_search(&series).is_ok();
        checkpoint::write_checkpoint(&self.fs, &wal_dir, upto, mint, &mut keep, self.options.wal_options())?;
        checkpoint::delete_obsolete(&*self.fs, &wal_dir)?;
        Ok(true)
    }
}

impl HeadState {
    /// Finds out anew which samples are the oldest, and whether there are any.
    pub(super) fn recount_times(&mut self) {
        let in_order = self.index.slab.iter().filter_map(|(_, series)| series.min_time()).min();
        // A chunk of another program may reach over the end of a block; what it has before is gone.
        let in_order = in_order.map(|oldest| oldest.max(self.min_valid));
        let late = || self.late.iter().flat_map(|late| late.oldest_around(self.min_valid));
        let behind = late().filter(|&t| t >= self.min_valid);
        self.min_time = in_order.into_iter().chain(behind).min().unwrap_or(i64::MAX);
        self.min_late_time = late().filter(|&t| t < self.min_valid).min().unwrap_or(i64::MAX);
        if self.min_time == i64::MAX && self.min_late_time == i64::MAX {
            self.max_time = i64::MIN;
        }
    }

    /// Late samples of a series from `mint` to `maxt`, both inclusive, ascending. Reads from disk.
    fn samples_of_late(&self, head: &Head, late: &LateSeries, mint: i64, maxt: i64) -> Result<Vec<Sample>> {
        let mut samples = late.buffer.clone();
        let mut data = Vec::new();
        for chunk in late.chunks.iter().filter(|chunk| chunk.mint <= maxt && chunk.maxt >= mint) {
            if chunk.at.file() == 0 {
                samples.extend(samples_of(Encoding::Xor, self.unwritten.data(chunk.at).unwrap_or_default()));
                continue;
            }
            let meta = head.chunk_reader.read(chunk.at, &mut data)?;
            let encoding = Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT).unwrap_or(Encoding::Xor);
            samples.extend(samples_of(encoding, &data));
        }
        samples.retain(|sample| (mint..=maxt).contains(&sample.t));
        sort_and_deduplicate(&mut samples);
        Ok(samples)
    }

    /// The lowest number of a chunks_head file that a series still needs.
    fn oldest_chunk_file(&self) -> Option<u32> {
        let in_order = self.index.slab.iter().flat_map(|(_, series)| &series.mapped);
        let late = self.late.iter().flat_map(|late| &late.chunks);
        let files = in_order.chain(late).map(|chunk| chunk.at.file());
        files.filter(|&file| file != 0).min().or(Some(self.chunk_writer.current_file()))
    }

    /// Removes series without samples whose refs stand in no segment above `upto`. Returns the refs
    /// that the log must go on to define.
    fn remove_retired(&mut self, upto: SegmentIndex) -> Vec<SeriesRef> {
        let retired: Vec<u32> = self
            .index
            .slab
            .iter()
            .filter(|(slot, series)| {
                series.retired_in().is_some_and(|segment| segment <= upto.0)
                    && series.is_empty()
                    && !self.late.has(*slot)
            })
            .map(|(slot, _)| slot)
            .collect();
        self.index.remove(&retired);
        self.counters.series_removed += retired.len() as u64;
        let gone: HashMap<u32, ()> = retired.into_iter().map(|slot| (slot, ())).collect();
        self.other_refs.retain(|_, slot| !gone.contains_key(slot));
        self.tombstones.retain(|slot, _| !gone.contains_key(slot));
        let own = self.index.slab.iter().map(|(_, series)| series.series);
        own.chain(self.other_refs.keys().copied()).collect()
    }
}
