//! Cutting blocks off the head.

use std::sync::{Arc, atomic::Ordering};

use ulid::Ulid;

use super::{Shared, newest_end};
use crate::{
    Result,
    block::{self, BlockReader, BlockSpec, HINT_OUT_OF_ORDER},
    types::range_end,
};

impl Shared {
    /// Cuts one block per aligned range while the head spans more than one and a half of them. Appends go
    /// on meanwhile: in order they do not reach back into the range being cut, and what comes late is kept.
    pub(super) fn compact_head(&self) -> Result<Vec<Ulid>> {
        let _maintenance = self.maintenance.lock();
        let mut cut = Vec::new();
        while let Some(end) = self.head.compactable_to() {
            cut.extend(self.cut_off(end)?);
        }
        Ok(cut)
    }

    pub(super) fn cut_whole_head(&self) -> Result<Vec<Ulid>> {
        let _maintenance = self.maintenance.lock();
        let mut cut = Vec::new();
        // What comes later stays in the head, however long this takes.
        let Some((_, last)) = self.head.time_range() else { return Ok(cut) };
        // A block cannot hold the last millisecond of all time: its end would be beyond it.
        let end = last.saturating_add(1);
        while let Some((min, _)) = self.head.time_range()
            && min < end
        {
            // Older ones than that are late, and cut with whatever is cut.
            let min = self.head.oldest_not_in_blocks().unwrap_or(min);
            cut.extend(self.cut_off(range_end(min, self.options.block_range_ms).min(end))?);
        }
        Ok(cut)
    }

    /// Moves the samples before `end` that came in order from the head to a block, with the late ones of
    /// their time; older late ones go to blocks of their own. What comes meanwhile in order and belongs to
    /// them is refused: it would be in neither.
    fn cut_off(&self, end: i64) -> Result<Vec<Ulid>> {
        self.head.begin_cut(end)?;
        let cut = self.cut_blocks(end);
        // The head drops what is in blocks also if the log does not get shorter by it.
        let truncated = if cut.is_ok() { self.head.truncate(end) } else { Ok(()) };
        let ended = self.head.end_cut(cut.is_ok());
        let cut = cut?;
        truncated.and(ended)?;
        self.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(cut)
    }

    fn cut_blocks(&self, end: i64) -> Result<Vec<Ulid>> {
        let mut cut = Vec::new();
        for (late_mint, late_end) in self.head.late_ranges() {
            cut.extend(self.cut_block(late_mint, late_end)?);
        }
        if let Some(mint) = self.head.oldest_not_in_blocks()
            && mint < end
        {
            cut.extend(self.cut_block(mint, end)?);
        }
        Ok(cut)
    }

    /// Writes the samples from `mint` to `end` (exclusive) as a block and adds it to the list. No
    /// samples, no block.
    fn cut_block(&self, mint: i64, end: i64) -> Result<Option<Ulid>> {
        let range = mint..=end - 1;
        let mut series = self.head.sorted_series(range.clone())?.into_iter();
        let mut spec = BlockSpec::new(Ulid::generate(), mint, end);
        spec.chunk_range_ms = self.options.block_range_ms;
        if end <= newest_end(&self.blocks.read()) {
            // Before the end of the newest block the head has only late samples.
            spec.hints.push(HINT_OUT_OF_ORDER.to_owned());
        }
        let written = block::write_block(&self.fs, &self.dir, &spec, |next| {
            let Some((labels, handle)) = series.next() else { return Ok(false) };
            next.labels = labels;
            self.head.samples(handle, range.clone(), &mut next.samples)?;
            Ok(true)
        })?;
        let Some(meta) = written else { return Ok(None) };
        let reader = BlockReader::open(&*self.fs, &self.dir.join(meta.ulid.to_string()))?;
        let mut blocks = self.blocks.write();
        blocks.push(Arc::new(reader));
        blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
        Ok(Some(meta.ulid))
    }
}
