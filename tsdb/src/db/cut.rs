//! Cutting blocks off the head.

use std::sync::{Arc, atomic::Ordering};

use ulid::Ulid;

use super::{Shared, newest_end};
use crate::{
    Error, Result,
    block::{self, BlockReader, BlockSpec, HINT_OUT_OF_ORDER},
};

impl Shared {
    /// Cuts one block per aligned range while the head spans more than one and a half of them.
    /// Appends go on meanwhile: they do not reach back into the range being cut.
    pub(super) fn compact_head(&self) -> Result<Vec<Ulid>> {
        let _maintenance = self.maintenance.lock();
        let mut cut = Vec::new();
        while let Some((mint, end)) = self.head.compactable_range() {
            cut.extend(self.cut_off(mint, end)?);
        }
        self.drop_write_behind_log()?;
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
            cut.extend(
                self.cut_off(min, crate::types::range_end(min, self.options.block_range_ms).min(end))?,
            );
        }
        self.drop_write_behind_log()?;
        Ok(cut)
    }

    /// Moves the samples from `mint` to `end` (exclusive), the oldest ones, from the head to a block. What
    /// comes meanwhile and belongs to them is refused: it would be in neither.
    fn cut_off(&self, mint: i64, end: i64) -> Result<Option<Ulid>> {
        self.head.set_being_cut(Some(end));
        let cut = self.cut_block(mint, end).and_then(|block| {
            self.head.truncate(end)?;
            self.compactions.fetch_add(1, Ordering::Relaxed);
            Ok(block)
        });
        self.head.set_being_cut(None);
        cut
    }

    /// Writes the samples from `mint` to `end` (exclusive) as a block and adds it to the list. No
    /// samples, no block.
    fn cut_block(&self, mint: i64, end: i64) -> Result<Option<Ulid>> {
        let range = mint..=end - 1;
        let mut series = self.head.sorted_series(range.clone())?.into_iter();
        let mut spec = BlockSpec::new(Ulid::generate(), mint, end);
        spec.chunk_range_ms = self.options.block_range_ms;
        if end <= newest_end(&self.blocks.read()) {
            // Before the end of the newest block the head has only what came out of order.
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

    /// Deletes the write-behind log of another program once all of its samples are in blocks.
    fn drop_write_behind_log(&self) -> Result<()> {
        let wbl = self.dir.join("wbl");
        if !self.head.has_out_of_order() && self.fs.exists(&wbl).map_err(Error::io("look for", &wbl))? {
            self.fs.remove_dir_all(&wbl).map_err(Error::io("remove", wbl))?;
        }
        Ok(())
    }
}
