//! The head: the newest samples of a tenant, in memory and in `chunks_head`, backed by the log.
//!
//! # What is where
//!
//! Every accepted sample is in the log. It is also in exactly one chunk of its series: the open one,
//! in memory, or a full one, in `chunks_head`. The log is the truth: `chunks_head` only spares
//! memory and replay time, and may be thrown away. Samples that come out of order go their own way,
//! see `late`.
//!
//! Every [`DbOptions::block_range_ms`](crate::db::DbOptions) the oldest range is written as a block
//! by [`crate::db`]; then [`Head::truncate`] drops those chunks, removes series that have none left,
//! and writes a checkpoint so that old log segments can go.
//!
//! # Series and refs
//!
//! A series has a ref, which names it in the log and in `chunks_head` and is never used again, and a
//! slot, which is where it lies in memory. A series without chunks is not removed at once: its ref
//! stays with it until no log segment can hold samples of that ref any more. If the series comes
//! back before that, it goes on under the same ref. So one label set never has two refs in a log
//! written here; logs written by others may have that, and replay merges such refs.
//!
//! # Locks
//!
//! One lock guards everything that appends change. Queries take it for short spells: once to find
//! the series, once per series to copy its chunks. Compaction does the same, in batches. Two locks
//! are never held at once here.

use std::{path::PathBuf, sync::Arc};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::{
    Result,
    append::RefuseReason,
    chunkenc::{Encoding, decode_floats},
    db::DbOptions,
    fs::Fs,
    head_chunks::{HeadChunkReader, HeadChunkWriter},
    tombstones::Intervals,
    types::{HeadChunkRef, Sample, SeriesRef},
    wlog,
};

mod append;
mod index;
mod late;
mod open_chunks;
mod postings;
mod read;
mod replay;
mod series;
mod slab;
mod symbols;
mod truncate;
mod unwritten;

use index::SeriesIndex;
use late::LateSamples;
use open_chunks::OpenChunks;
use series::MappedChunk;
use unwritten::{UnwrittenChunks, WrittenLate};

/// The newest samples of one tenant.
#[derive(Debug)]
pub(crate) struct Head {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: DbOptions,
    chunk_reader: HeadChunkReader,
    state: Mutex<HeadState>,
}

/// What the lock guards.
#[derive(Debug)]
struct HeadState {
    index: SeriesIndex,
    /// Series that have samples.
    active_series: u64,
    /// Chunks of all series, open ones included.
    chunks: u64,
    /// Ref of the next new series.
    next_ref: u64,
    /// Time of the oldest sample that is not below `min_valid`; `i64::MAX` if there is none.
    min_time: i64,
    /// Time of the oldest late sample below `min_valid`; `i64::MAX` if there is none.
    min_late_time: i64,
    /// Time of the newest sample; `i64::MIN` if there is none.
    max_time: i64,
    /// Samples older than this are in blocks, or gone.
    min_valid: i64,
    /// Samples older than this are being written to a block: none may be added to them.
    being_cut: i64,
    /// How often the head was truncated; a query that sees it change looks at newer blocks.
    truncations: u64,
    wal: wlog::Writer,
    chunk_writer: HeadChunkWriter,
    open_chunks: OpenChunks,
    unwritten: UnwrittenChunks,
    /// Deletions by slot, from tombstone records of other programs.
    tombstones: HashMap<u32, Intervals>,
    late: LateSamples,
    /// Refs that the log uses for a series that has another one, and that series' slot.
    other_refs: HashMap<SeriesRef, u32>,
    counters: Counters,
    records: BatchRecords,
    written_refs: Vec<HeadChunkRef>,
    /// Late chunks that were written to chunks_head in this append.
    written_late: Vec<WrittenLate>,
}

/// The log records of a batch, encoded. Kept for their buffers.
#[derive(Debug, Default)]
struct BatchRecords {
    series: Vec<u8>,
    samples: Vec<u8>,
    late: Vec<u8>,
    markers: Vec<u8>,
    late_left: Vec<u8>,
}

/// Counts since the head was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub series_created: u64,
    pub series_removed: u64,
    pub samples_appended: u64,
    pub late_appended: u64,
    pub out_of_order: u64,
    pub out_of_bounds: u64,
    pub too_old: u64,
    pub duplicate_timestamp: u64,
    pub chunk_writes_failed: u64,
    pub checkpoints: u64,
    pub checkpoints_failed: u64,
    pub unsupported_records: u64,
    pub wal_corruptions: u64,
    pub chunk_corruptions: u64,
}

impl Counters {
    fn count_refused(&mut self, reason: RefuseReason) {
        match reason {
            RefuseReason::OutOfOrder => self.out_of_order += 1,
            RefuseReason::OutOfBounds => self.out_of_bounds += 1,
            RefuseReason::TooOld => self.too_old += 1,
            RefuseReason::DuplicateTimestamp => self.duplicate_timestamp += 1,
        }
    }
}

/// Figures of a head at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadStats {
    pub series: u64,
    pub chunks: u64,
    pub min_time: Option<i64>,
    pub max_time: Option<i64>,
    pub wal_bytes_written: u64,
    pub wbl_bytes_written: u64,
    pub wal_segment: u64,
    pub wal_dead: bool,
    pub counters: Counters,
}

impl Head {
    /// Labels of the series behind `handle`, unless the handle is outdated.
    pub fn labels_of(&self, handle: crate::append::SeriesHandle) -> Option<crate::Labels> {
        let state = self.state.lock();
        state.index.by_handle(handle)?;
        state.index.labels(handle.slot)
    }

    /// Times of the oldest and the newest sample, if there are any.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let state = self.state.lock();
        state.time_range()
    }

    /// Time of the oldest sample that lies behind all that was cut off.
    pub fn oldest_not_in_blocks(&self) -> Option<i64> {
        let state = self.state.lock();
        (state.min_time <= state.max_time).then_some(state.min_time)
    }

    /// How often the head was truncated since it was opened.
    pub fn truncations(&self) -> u64 {
        self.state.lock().truncations
    }

    /// Figures for metrics.
    pub fn stats(&self) -> HeadStats {
        let state = self.state.lock();
        let range = state.time_range();
        HeadStats {
            series: state.active_series,
            chunks: state.chunks,
            min_time: range.map(|(min, _)| min),
            max_time: range.map(|(_, max)| max),
            wal_bytes_written: state.wal.bytes_written(),
            wbl_bytes_written: state.late.log.as_ref().map_or(0, wlog::Writer::bytes_written),
            wal_segment: u64::from(state.wal.segment_index().0),
            wal_dead: state.check_logs_alive().is_err(),
            counters: state.counters,
        }
    }

    /// Makes everything appended so far survive a power cut.
    pub fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(log) = &mut state.late.log {
            log.sync()?;
        }
        state.wal.sync()
    }

    /// Writes what is buffered and closes the log.
    pub fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.write_full_chunks(self);
        let written = state.chunk_writer.cut_new_file();
        if let Some(log) = &mut state.late.log {
            log.close()?;
        }
        state.wal.close()?;
        written
    }
}

impl HeadState {
    /// Times of the oldest and the newest sample, if there are any.
    fn time_range(&self) -> Option<(i64, i64)> {
        let min = self.min_time.min(self.min_late_time);
        (min <= self.max_time).then_some((min, self.max_time))
    }

    /// An error if one of the logs takes nothing any more.
    fn check_logs_alive(&self) -> Result<()> {
        self.wal.check_alive()?;
        self.late.log.as_ref().map_or(Ok(()), wlog::Writer::check_alive)
    }
}

/// The samples of a chunk of floats, as far as it can be read.
fn samples_of(encoding: Encoding, data: &[u8]) -> impl Iterator<Item = Sample> {
    decode_floats(encoding, data).into_iter().flatten().map_while(std::result::Result::ok)
}
