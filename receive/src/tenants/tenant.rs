//! One tenant that is open.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use ulid::Ulid;
use weir_tsdb::{db::Db, labels::Labels};

use super::{TenantName, metrics::WriteMetrics, series_table::SeriesTable};

/// A tenant: its database and what the node keeps about it beside the disk.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Directory of its database.
    pub dir: PathBuf,
    /// Labels that all its series carry towards readers and in block metadata; not stored with the
    /// series.
    pub external_labels: Labels,
    /// Its database. All its methods block.
    pub db: Db,
    /// What was decided about label sets seen before.
    pub series: SeriesTable,
    /// Figures of its writes.
    pub write_metrics: WriteMetrics,
    /// True while writes to its database fail; so that the log tells the change, not each write.
    storage_fails: AtomicBool,
    /// How many samples its database had taken when the upkeep saw the number change last, and when.
    last_change: Mutex<(u64, Instant)>,
}

impl Tenant {
    pub(super) fn new(
        name: TenantName,
        dir: PathBuf,
        external_labels: Labels,
        db: Db,
        series_table_entries: usize,
    ) -> Self {
        let write_metrics = WriteMetrics::new(name.as_str());
        Self {
            name,
            dir,
            external_labels,
            db,
            series: SeriesTable::new(series_table_entries),
            write_metrics,
            storage_fails: AtomicBool::new(false),
            last_change: Mutex::new((0, Instant::now())),
        }
    }

    /// Notes the outcome of a write to the database; logs when it begins to fail and when it is
    /// well again.
    pub fn note_storage(&self, outcome: Result<(), &weir_tsdb::Error>) {
        let fails = outcome.is_err();
        // Nearly always equal: do not dirty the cache line then.
        if self.storage_fails.load(Ordering::Relaxed) == fails
            || self.storage_fails.swap(fails, Ordering::Relaxed) == fails
        {
            return;
        }
        match outcome {
            Err(error) => {
                tracing::error!(tenant = %self.name, %error, "writes of this tenant cannot be stored");
            }
            Ok(()) => tracing::info!(tenant = %self.name, "writes of this tenant are stored again"),
        }
    }

    /// Sets the metrics of the series table to their state of now.
    fn export_table(&self) {
        self.write_metrics.table_entries.set(self.series.len() as f64);
        self.write_metrics.table_bytes.set(self.series.allocated_bytes() as f64);
    }

    /// True if nothing was stored for one and a half block ranges: as long as the head of a tenant that
    /// is written to keeps samples.
    fn is_idle(&self) -> bool {
        let appended = self.db.stats().samples_appended;
        let mut last_change = self.last_change.lock();
        if last_change.0 != appended {
            *last_change = (appended, Instant::now());
        }
        let range_ms = u64::try_from(self.db.block_range_ms()).unwrap_or(u64::MAX);
        last_change.1.elapsed() > Duration::from_millis(range_ms.saturating_add(range_ms / 2))
    }

    /// One round of upkeep: cuts what is due off the head, deletes blocks beyond retention that may
    /// go, ages the series table. Blocks. What fails is logged, the rest is done nevertheless.
    pub(super) fn maintain(&self, may_delete: &dyn Fn(Ulid) -> bool) {
        // A tenant that is written to no more leaves memory, and its samples come into the bucket.
        let cut = if self.is_idle() { self.db.cut_whole_head() } else { self.db.compact_head() };
        match cut {
            Ok(blocks) => {
                for block in blocks {
                    tracing::info!(tenant = %self.name, %block, "cut a block");
                }
            }
            Err(error) => tracing::error!(tenant = %self.name, %error, "could not cut a block"),
        }
        match self.db.apply_retention(may_delete) {
            Ok(blocks) => {
                for block in blocks {
                    tracing::info!(tenant = %self.name, %block, "deleted a block beyond retention");
                }
            }
            Err(error) => tracing::error!(tenant = %self.name, %error, "could not apply retention"),
        }
        self.series.advance_tick();
        self.export_table();
    }
}
