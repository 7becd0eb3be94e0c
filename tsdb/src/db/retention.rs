//! Deleting blocks that are too old, or of which there are too many.
//!
//! The rules are those of Prometheus: age is counted from the end of the newest block, size is that of all
//! that lies in the directory, and what goes first is the oldest. A block that may not be deleted yet, as it
//! is not in the bucket, stays, and is no reason for a newer one to go in its place.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use ulid::Ulid;

use super::Shared;
use crate::{
    Error, Result,
    block::{self, BlockReader},
    fs::Fs,
};

impl Shared {
    pub(super) fn apply_retention(&self, may_delete: &dyn Fn(Ulid) -> bool) -> Result<Vec<Ulid>> {
        let (age, size) = (self.options.retention_ms, self.options.retention_bytes);
        if age.is_none() && size.is_none() {
            return Ok(Vec::new());
        }
        let _maintenance = self.maintenance.lock();
        let head_bytes = if size.is_some() { self.head_bytes()? } else { 0 };
        let mut blocks = self.blocks.write();
        let too_old = age.map_or(0, |age| count_too_old(&blocks, age));
        let too_large = size.map_or(0, |size| count_too_large(&blocks, head_bytes, size));
        let mut gone = Vec::new();
        let mut kept = Vec::with_capacity(blocks.len());
        for (index, block) in by_end(&blocks).into_iter().enumerate() {
            if index < too_old.max(too_large) && may_delete(block.meta().ulid) {
                let reason = if index < too_old { &self.time_retentions } else { &self.size_retentions };
                reason.fetch_add(1, Ordering::Relaxed);
                gone.push(block);
            } else {
                kept.push(block);
            }
        }
        kept.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
        *blocks = kept;
        drop(blocks);
        for block in &gone {
            block::delete_block(&*self.fs, &self.dir, block.meta().ulid)?;
        }
        Ok(gone.iter().map(|block| block.meta().ulid).collect())
    }

    /// Bytes of the logs and of the chunks of the head.
    fn head_bytes(&self) -> Result<u64> {
        let parts = ["wal", "wbl", "chunks_head"].map(|part| self.dir.join(part));
        parts.iter().map(|part| bytes_below(&*self.fs, part)).sum()
    }
}

/// Blocks ascending by their ends.
fn by_end(blocks: &[Arc<BlockReader>]) -> Vec<Arc<BlockReader>> {
    let mut sorted = blocks.to_vec();
    sorted.sort_by_key(|block| (block.meta().max_time, block.meta().ulid));
    sorted
}

/// How many of the oldest blocks are older than `retention_ms`, counted from the end of the newest.
fn count_too_old(blocks: &[Arc<BlockReader>], retention_ms: i64) -> usize {
    let newest = blocks.iter().map(|block| block.meta().max_time).max().unwrap_or(i64::MIN);
    blocks.iter().filter(|block| newest.saturating_sub(block.meta().max_time) >= retention_ms).count()
}

/// How many of the oldest blocks have to go for the rest to fit into `bytes_max`.
fn count_too_large(blocks: &[Arc<BlockReader>], head_bytes: u64, bytes_max: u64) -> usize {
    let mut bytes = head_bytes;
    let fitting = by_end(blocks).into_iter().rev().take_while(|block| {
        bytes = bytes.saturating_add(block.size_bytes());
        bytes <= bytes_max
    });
    blocks.len() - fitting.count()
}

/// Bytes of all files in a directory and below it; 0 if it is not there.
fn bytes_below(fs: &dyn Fs, dir: &Path) -> Result<u64> {
    if !fs.exists(dir).map_err(Error::io("look for", dir))? {
        return Ok(0);
    }
    let entries = fs.read_dir(dir).map_err(Error::io("list", dir))?;
    entries
        .iter()
        .map(|entry| if entry.is_dir { bytes_below(fs, &dir.join(&entry.name)) } else { Ok(entry.len) })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Labels, Sample,
        append::AppendBatch,
        db::{Db, DbOptions},
        fs::MemFs,
    };

    const RANGE_MS: i64 = 60_000;

    /// A database with five blocks, the oldest first, and their sizes.
    fn five_blocks(options: DbOptions) -> (Db, Vec<(Ulid, u64)>) {
        let options = DbOptions { block_range_ms: RANGE_MS, ..options };
        let db = Db::open(Arc::new(MemFs::new()), "/db".into(), options).unwrap();
        for t in (0..=6 * RANGE_MS + RANGE_MS / 2).step_by(1000) {
            let mut batch = AppendBatch::default();
            batch.push_labels(Labels::from_pairs([("__name__", "x")]));
            // Blocks of different sizes.
            batch.push_sample(Sample::new(t, if t > 2 * RANGE_MS { (t as f64).sqrt() } else { 1.0 }));
            let _ = db.append(&mut batch).unwrap();
        }
        let cut = db.compact_head().unwrap();
        assert_eq!(cut.len(), 5);
        let sizes =
            db.shared.blocks.read().iter().map(|block| (block.meta().ulid, block.size_bytes())).collect();
        (db, sizes)
    }

    #[test]
    fn the_oldest_go_by_age_exactly_at_the_limit() {
        let none = DbOptions { retention_ms: None, ..DbOptions::default() };
        let (db, _) = five_blocks(none.clone());
        assert_eq!(db.apply_retention(&|_| true).unwrap(), []);
        for (retention_ms, expected) in [(3 * RANGE_MS + 1, 1), (3 * RANGE_MS, 2), (1, 4), (5 * RANGE_MS, 0)]
        {
            let (db, blocks) = five_blocks(DbOptions { retention_ms: Some(retention_ms), ..none.clone() });
            let gone = db.apply_retention(&|_| true).unwrap();
            let oldest: Vec<Ulid> = blocks[..expected].iter().map(|block| block.0).collect();
            assert_eq!(gone, oldest, "{retention_ms}");
            assert_eq!((db.stats().time_retentions, db.stats().size_retentions), (expected as u64, 0));
            assert_eq!(db.stats().blocks, 5 - expected as u64);
        }
    }

    #[test]
    fn the_oldest_go_by_size_exactly_at_the_limit() {
        let none = DbOptions { retention_ms: None, ..DbOptions::default() };
        for kept in 0..=5 {
            for missing_bytes in [0, 1] {
                let (db, blocks) = five_blocks(none.clone());
                let sizes = blocks.iter().rev().map(|block| block.1);
                let limit = db.shared.head_bytes().unwrap() + sizes.take(kept).sum::<u64>() - missing_bytes;
                assert_eq!(
                    count_too_large(&db.shared.blocks.read(), db.shared.head_bytes().unwrap(), limit),
                    if missing_bytes == 1 { 5 - kept.saturating_sub(1) } else { 5 - kept },
                    "{kept} blocks kept"
                );
            }
        }
        let (db, blocks) = five_blocks(DbOptions { retention_bytes: Some(1), ..none });
        // What is not in the bucket stays, and those that are go all the same.
        let gone = db.apply_retention(&|ulid| ulid != blocks[1].0).unwrap();
        assert_eq!(gone, [0, 2, 3, 4].map(|index: usize| blocks[index].0));
        assert_eq!((db.stats().blocks, db.stats().size_retentions), (1, 4));
    }
}
