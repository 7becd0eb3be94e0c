//! One tenant's database: a head, the blocks cut off it, and the queries over both.
//!
//! # Between head and block
//!
//! A block is first written whole, then added to the list of blocks, then the head drops what the
//! block holds. A query reads the list of blocks first, and takes from the head only what lies
//! behind the newest of them, so it sees each sample once. Its selection may outlive a cut: then
//! the head's part of a series is looked up in the blocks that came since (see [`Selection`]).
//!
//! # Damage
//!
//! A damaged log fails the opening; the caller keeps such a tenant apart. A damaged block is left
//! out, reported and counted, and the rest serves: its samples may still be in the log or on other
//! replicas, and nothing is deleted.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use crate::{
    Error, Result,
    append::{AppendBatch, DurabilityTicket, SeriesHandle},
    block::BlockReader,
    fs::{DirLock, Fs},
    head::Head,
    labels::Labels,
    query::Query,
    wlog::{Compression, WriterOptions},
};

mod cut;
mod open;
mod retention;
mod select;

pub use select::Selection;

/// How a database behaves.
#[derive(Clone, Debug)]
pub struct DbOptions {
    /// Length of a block's range in milliseconds.
    pub block_range_ms: i64,
    /// Blocks whose newest sample is older than this, counted from the newest block, may go.
    /// `None` keeps them for ever.
    pub retention_ms: Option<i64>,
    /// Bytes that blocks, logs and chunks of the head may take together before the oldest blocks may go; `None`
    /// for no limit.
    pub retention_bytes: Option<u64>,
    /// How much older than the newest sample of the database a late sample may be, in milliseconds; 0: none
    /// may be. One of its series or of others may have come before it.
    pub out_of_order_window_ms: i64,
    /// Late samples of a series that become a chunk together, 1 to 255.
    pub out_of_order_cap: usize,
    /// Whether log records are compressed with snappy.
    pub wal_compression: bool,
    /// Length of a log segment in bytes; a multiple of 32 KiB.
    pub wal_segment_bytes: u64,
    /// Whether to take the lock file.
    pub lock_file: bool,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self {
            block_range_ms: crate::types::BLOCK_RANGE_MS,
            retention_ms: Some(15 * 24 * 60 * 60 * 1000),
            retention_bytes: None,
            out_of_order_window_ms: 0,
            out_of_order_cap: 32,
            wal_compression: true,
            wal_segment_bytes: 128 << 20,
            lock_file: true,
        }
    }
}

impl DbOptions {
    /// How logs and checkpoints are written.
    pub(crate) fn wal_options(&self) -> WriterOptions {
        let compression = if self.wal_compression { Compression::Snappy } else { Compression::None };
        WriterOptions { segment_bytes: self.wal_segment_bytes, compression }
    }
}

/// Figures of one database, all since it was opened unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbStats {
    /// Series in the head now.
    pub head_series: u64,
    /// Chunks in the head now.
    pub head_chunks: u64,
    /// Series created.
    pub head_series_created: u64,
    /// Series removed.
    pub head_series_removed: u64,
    /// Oldest sample in the head, if any.
    pub head_min_time: Option<i64>,
    /// Newest sample in the head, if any.
    pub head_max_time: Option<i64>,
    /// Samples stored.
    pub samples_appended: u64,
    /// Samples stored out of order.
    pub late_appended: u64,
    /// Bytes written to the write-behind log.
    pub wbl_bytes_written: u64,
    /// Samples refused as out of order.
    pub out_of_order: u64,
    /// Samples refused because they are older than the window for late ones.
    pub too_old: u64,
    /// Samples refused as out of bounds.
    pub out_of_bounds: u64,
    /// Samples refused because another value is stored for their time.
    pub duplicate_timestamp: u64,
    /// Blocks loaded now.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub block_bytes: u64,
    /// Bytes written to the log.
    pub wal_bytes_written: u64,
    /// Newest log segment.
    pub wal_segment: u64,
    /// Damages found in the log and repaired at open.
    pub wal_corruptions: u64,
    /// Damages found in chunks_head at open.
    pub mmap_chunk_corruptions: u64,
    /// Head compactions done, and failed.
    pub compactions: u64,
    /// Head compactions that failed.
    pub compactions_failed: u64,
    /// Blocks deleted because of their age.
    pub time_retentions: u64,
    /// Blocks deleted because of the bytes that all take.
    pub size_retentions: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoints_failed: u64,
    /// Log records and chunks ignored at replay because their type is not supported.
    pub unsupported_records: u64,
    /// Blocks that could not be opened and are left out.
    pub corrupt_blocks: u64,
    /// Failed attempts to move full chunks out of memory.
    pub chunk_writes_failed: u64,
    /// Writes to the log that failed. After the first one nothing is accepted until the database is
    /// opened again.
    pub wal_writes_failed: u64,
}

/// Of what kind a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// It cannot be opened.
    Damaged,
    /// It was cut off a head: level 1.
    Cut,
    /// It was made of other blocks.
    Merged,
}

/// A block that could not be opened.
#[derive(Debug)]
pub struct CorruptBlock {
    /// Its name.
    pub ulid: Ulid,
    /// Its directory.
    pub dir: PathBuf,
    /// Why.
    pub error: Error,
}

/// One tenant's database.
#[derive(Clone, Debug)]
pub struct Db {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: DbOptions,
    head: Head,
    /// Ascending by their first time.
    blocks: RwLock<Vec<Arc<BlockReader>>>,
    corrupt_blocks: Vec<CorruptBlock>,
    /// Held while blocks are cut or deleted.
    maintenance: Mutex<()>,
    lock: Mutex<Option<Box<dyn DirLock>>>,
    compactions: AtomicU64,
    compactions_failed: AtomicU64,
    time_retentions: AtomicU64,
    size_retentions: AtomicU64,
}

impl Db {
    /// Stores the samples of `batch`. Blocks the calling thread for a write to the log. What was
    /// refused stands in `batch` afterwards; the rest is stored.
    ///
    /// # Errors
    /// If the log cannot be written. Nothing of the batch may be acknowledged then, and every later
    /// append fails too.
    pub fn append(&self, batch: &mut AppendBatch) -> Result<DurabilityTicket> {
        self.shared.head.append(batch)
    }

    /// Blocks until what `ticket` stands for is as durable as the database promises: written to the
    /// operating system, which it is since the append returned.
    pub fn wait_durable(&self, _ticket: DurabilityTicket) -> Result<()> {
        Ok(())
    }

    /// Labels of the series behind `handle`; `None` if the handle is outdated.
    pub fn labels_of(&self, handle: SeriesHandle) -> Option<Labels> {
        self.shared.head.labels_of(handle)
    }

    /// Selects series that have samples in the range asked for, ascending by labels.
    pub fn select(&self, query: &Query) -> Result<Selection> {
        Selection::new(self.shared.clone(), query)
    }

    /// Names of labels of series that match, ascending. Cheap if the query has no matcher.
    pub fn label_names(&self, query: &Query) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if query.matchers.is_empty() {
            names.extend(self.shared.head.label_names());
            for block in self.shared.overlapping(query) {
                names.extend(block.index().label_names());
            }
        } else {
            let selection = self.select(query)?;
            let series = (0..selection.len()).map(|index| selection.labels(index));
            names.extend(series.flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned())));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Values of the label `name` of series that match, ascending.
    pub fn label_values(&self, name: &str, query: &Query) -> Result<Vec<String>> {
        let mut values = Vec::new();
        if query.matchers.is_empty() {
            values.extend(self.shared.head.label_values(name));
            for block in self.shared.overlapping(query) {
                values.extend(block.index().label_values(name)?);
            }
        } else {
            let selection = self.select(query)?;
            let series = (0..selection.len()).map(|index| selection.labels(index));
            values.extend(series.filter_map(|labels| labels.get(name).map(str::to_owned)));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// Oldest and newest sample of head and blocks, if there are any.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let blocks = self.shared.blocks.read();
        let of_blocks = blocks.iter().map(|block| (block.meta().min_time, block.meta().max_time - 1));
        of_blocks
            .chain(self.shared.head.time_range())
            .reduce(|left, right| (left.0.min(right.0), left.1.max(right.1)))
    }

    /// Figures for metrics and status.
    pub fn stats(&self) -> DbStats {
        let head = self.shared.head.stats();
        let blocks = self.shared.blocks.read();
        DbStats {
            head_series: head.series,
            head_chunks: head.chunks,
            head_series_created: head.counters.series_created,
            head_series_removed: head.counters.series_removed,
            head_min_time: head.min_time,
            head_max_time: head.max_time,
            samples_appended: head.counters.samples_appended,
            late_appended: head.counters.late_appended,
            wbl_bytes_written: head.wbl_bytes_written,
            out_of_order: head.counters.out_of_order,
            too_old: head.counters.too_old,
            out_of_bounds: head.counters.out_of_bounds,
            duplicate_timestamp: head.counters.duplicate_timestamp,
            blocks: blocks.len() as u64,
            block_bytes: blocks.iter().map(|block| block.size_bytes()).sum(),
            wal_bytes_written: head.wal_bytes_written,
            wal_segment: head.wal_segment,
            wal_corruptions: head.counters.wal_corruptions,
            mmap_chunk_corruptions: head.counters.chunk_corruptions,
            compactions: self.shared.compactions.load(Ordering::Relaxed),
            compactions_failed: self.shared.compactions_failed.load(Ordering::Relaxed),
            time_retentions: self.shared.time_retentions.load(Ordering::Relaxed),
            size_retentions: self.shared.size_retentions.load(Ordering::Relaxed),
            checkpoints: head.counters.checkpoints,
            checkpoints_failed: head.counters.checkpoints_failed,
            unsupported_records: head.counters.unsupported_records,
            corrupt_blocks: self.shared.corrupt_blocks.len() as u64,
            chunk_writes_failed: head.counters.chunk_writes_failed,
            wal_writes_failed: u64::from(head.wal_dead),
        }
    }

    /// How much time a block spans, in milliseconds.
    pub fn block_range_ms(&self) -> i64 {
        self.shared.options.block_range_ms
    }

    /// Blocks that could not be opened and are left out.
    pub fn corrupt_blocks(&self) -> &[CorruptBlock] {
        &self.shared.corrupt_blocks
    }

    /// Cuts blocks off the head while it spans more than one and a half ranges. Returns their names.
    pub fn compact_head(&self) -> Result<Vec<Ulid>> {
        let cut = self.shared.compact_head();
        if cut.is_err() {
            self.shared.compactions_failed.fetch_add(1, Ordering::Relaxed);
        }
        cut
    }

    /// Cuts all that the head has now into blocks, one for each range, the last one short. From then on
    /// only what is newer is taken; what is newer and comes meanwhile stays in the head. Returns the names
    /// of the blocks.
    pub fn cut_whole_head(&self) -> Result<Vec<Ulid>> {
        let cut = self.shared.cut_whole_head();
        if cut.is_err() {
            self.shared.compactions_failed.fetch_add(1, Ordering::Relaxed);
        }
        cut
    }

    /// Time of the oldest sample in the head or in a block for which `is_safe` says no; `i64::MIN` if
    /// that block cannot be read, for nobody knows what it has.
    pub fn oldest_unsafe(&self, is_safe: &dyn Fn(Ulid) -> bool) -> Option<i64> {
        // First the head: what it loses meanwhile is in a block that is found afterwards.
        let in_head = self.shared.head.time_range().map(|(min, _)| min);
        let blocks = self.shared.blocks.read();
        let in_blocks = blocks.iter().filter(|block| !is_safe(block.meta().ulid));
        let damaged = self.corrupt_blocks().iter().filter(|block| !is_safe(block.ulid));
        let in_blocks = in_blocks.map(|block| block.meta().min_time).chain(damaged.map(|_| i64::MIN));
        in_blocks.chain(in_head).min()
    }

    /// A block for which `is_safe` says no, damaged ones first.
    pub fn an_unsafe_block(&self, is_safe: &dyn Fn(Ulid) -> bool) -> Option<(Ulid, BlockKind)> {
        let mut damaged = self.corrupt_blocks().iter().filter(|block| !is_safe(block.ulid));
        if let Some(block) = damaged.next() {
            return Some((block.ulid, BlockKind::Damaged));
        }
        let blocks = self.shared.blocks.read();
        let mut found = blocks.iter().map(|block| block.meta()).filter(|meta| !is_safe(meta.ulid));
        let kind = |level| if level > 1 { BlockKind::Merged } else { BlockKind::Cut };
        found.next().map(|meta| (meta.ulid, kind(meta.compaction.level)))
    }

    /// Deletes blocks beyond retention, by age or by size, for which `may_delete` says yes. Returns their names.
    pub fn apply_retention(&self, may_delete: &dyn Fn(Ulid) -> bool) -> Result<Vec<Ulid>> {
        self.shared.apply_retention(may_delete)
    }

    /// Makes everything appended so far survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.shared.head.sync()
    }

    /// Writes what is buffered, closes files, gives up the lock. The head is not cut: the log has
    /// everything.
    pub fn close(&self) -> Result<()> {
        let _maintenance = self.shared.maintenance.lock();
        let closed = self.shared.head.close();
        if let Some(lock) = self.shared.lock.lock().take() {
            let path = lock_path(&self.shared.dir);
            let removed = self.shared.fs.remove_file(&path).map_err(Error::io("remove", path));
            drop(lock);
            closed.and(removed)
        } else {
            closed
        }
    }
}

impl Shared {
    /// Blocks that overlap the range of `query`.
    fn overlapping(&self, query: &Query) -> Vec<Arc<BlockReader>> {
        self.blocks_and_their_end(query).0
    }

    /// Blocks that overlap the range of `query`, and where the part of time begins that only the
    /// head holds: the end of the newest block that was cut off it. Both are of one moment: with a
    /// block added in between, head and block would both give its samples.
    fn blocks_and_their_end(&self, query: &Query) -> (Vec<Arc<BlockReader>>, i64) {
        let blocks = self.blocks.read();
        let newest_end = newest_end(&blocks);
        let wanted = |block: &&Arc<BlockReader>| {
            block.meta().min_time <= query.maxt && query.mint < block.meta().max_time
        };
        (blocks.iter().filter(wanted).cloned().collect(), newest_end)
    }
}

/// End of the newest block that was cut off the head, the start of time if there is none.
fn newest_end(blocks: &[Arc<BlockReader>]) -> i64 {
    let cut_off = blocks.iter().filter(|block| block.meta().bounds_the_log());
    cut_off.map(|block| block.meta().max_time).max().unwrap_or(i64::MIN)
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}
