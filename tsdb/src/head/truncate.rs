//! Taking the oldest range off the head, once a block holds it.

use std::ops::RangeInclusive;

use hashbrown::HashMap;

use super::{Head, HeadState};
use crate::{
    Labels, Result,
    append::SeriesHandle,
    checkpoint,
    types::{SegmentIndex, SeriesRef},
    wlog,
};

/// Series looked at before the lock is given to appends again.
const SLOTS_PER_LOCK: u32 = 4096;

impl Head {
    /// The range of time that is ready to be cut into a block: from the oldest sample to the end of
    /// its aligned range, once the head spans one and a half ranges. Appends reach back half a
    /// range at most, so nothing is added to it any more. The end is exclusive.
    pub fn compactable_range(&self) -> Option<(i64, i64)> {
        let range_ms = self.options.block_range_ms;
        let (min, max) = self.time_range()?;
        (max.saturating_sub(min) > range_ms / 2 * 3).then(|| (min, crate::types::range_end(min, range_ms)))
    }

    /// From now on no sample older than `end` is taken, because a block is made of those there are;
    /// `None`: as before that.
    pub fn set_being_cut(&self, end: Option<i64>) {
        self.state.lock().being_cut = end.unwrap_or(i64::MIN);
    }

    /// Series with samples in `range`, ascending by labels.
    pub fn sorted_series(&self, range: RangeInclusive<i64>) -> Result<Vec<(Labels, SeriesHandle)>> {
        let out_of_order_mint = *range.start();
        let mut series = self.select(&[], range, out_of_order_mint)?.series;
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
            state.out_of_order.retain(|_, samples| {
                *samples = samples.split_off(&mint);
                !samples.is_empty()
            });
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
                        state.active_series -= 1;
                    }
                }
            }
            slot = end;
            if slot == state.index.slab.slot_end() {
                // A chunk of another program may reach over `mint`; what it has before is gone.
                state.min_time = state.oldest_sample().map_or(i64::MAX, |oldest| oldest.max(mint));
                if state.min_time == i64::MAX {
                    state.max_time = i64::MIN;
                }
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
    /// Time of the oldest sample in any chunk.
    pub(super) fn oldest_sample(&self) -> Option<i64> {
        let in_order = self.index.slab.iter().filter_map(|(_, series)| series.min_time());
        let out_of_order = self.out_of_order.values().filter_map(|samples| samples.keys().next().copied());
        in_order.chain(out_of_order).min()
    }

    /// The lowest number of a chunks_head file that a series still needs.
    fn oldest_chunk_file(&self) -> Option<u32> {
        let files =
            self.index.slab.iter().flat_map(|(_, series)| &series.mapped).map(|chunk| chunk.at.file());
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
                    && !self.out_of_order.contains_key(slot)
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
