//! The head: the newest samples of a tenant, in memory and in `chunks_head`, backed by the log.
//!
//! # What is where
//!
//! Every accepted sample is in the log. It is also in exactly one chunk of its series: the open one,
//! in memory, or a full one, in `chunks_head`. The log is the truth: `chunks_head` only spares
//! memory and replay time, and may be thrown away.
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

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

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
use open_chunks::OpenChunks;
use series::MappedChunk;
use unwritten::UnwrittenChunks;

/// Samples that came out of order, by time. Only replay of a directory that another program wrote
/// fills it. It keeps the first of several samples with the same time.
type OutOfOrderSamples = BTreeMap<i64, u64>;

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
    /// Time of the oldest sample; `i64::MAX` if there is none.
    min_time: i64,
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
    out_of_order: HashMap<u32, OutOfOrderSamples>,
    /// Refs that the log uses for a series that has another one, and that series' slot.
    other_refs: HashMap<SeriesRef, u32>,
    counters: Counters,
    records: BatchRecords,
    written_refs: Vec<HeadChunkRef>,
}

/// The log records of a batch, encoded. Kept for their buffers.
#[derive(Debug, Default)]
struct BatchRecords {
    series: Vec<u8>,
    samples: Vec<u8>,
}

/// Counts since the head was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub series_created: u64,
    pub series_removed: u64,
    pub samples_appended: u64,
    pub out_of_order: u64,
    pub out_of_bounds: u64,
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
        (state.min_time <= state.max_time).then_some((state.min_time, state.max_time))
    }

    /// How often the head was truncated since it was opened.
    pub fn truncations(&self) -> u64 {
        self.state.lock().truncations
    }

    /// True if there are samples that another program took out of order.
    pub fn has_out_of_order(&self) -> bool {
        !self.state.lock().out_of_order.is_empty()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> HeadStats {
        let state = self.state.lock();
        let has_samples = state.min_time <= state.max_time;
        HeadStats {
            series: state.active_series,
            chunks: state.chunks,
            min_time: has_samples.then_some(state.min_time),
            max_time: has_samples.then_some(state.max_time),
            wal_bytes_written: state.wal.bytes_written(),
            wal_segment: u64::from(state.wal.segment_index().0),
            wal_dead: state.wal.check_alive().is_err(),
            counters: state.counters,
        }
    }

    /// Makes everything appended so far survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.state.lock().wal.sync()
    }

    /// Writes what is buffered and closes the log.
    pub fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.write_full_chunks(self);
        let written = state.chunk_writer.cut_new_file();
        state.wal.close()?;
        written
    }
}

/// The samples of a chunk of floats, as far as it can be read.
fn samples_of(encoding: Encoding, data: &[u8]) -> impl Iterator<Item = Sample> {
    decode_floats(encoding, data).into_iter().flatten().map_while(std::result::Result::ok)
}
