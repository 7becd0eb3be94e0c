//! One tenant that is open.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

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

    /// One round of upkeep: cuts what is due off the head, deletes blocks beyond retention that may
    /// go, ages the series table. Blocks. What fails is logged, the rest is done nevertheless.
    pub(super) fn maintain(&self, may_delete: &dyn Fn(Ulid) -> bool) {
        match self.db.compact_head() {
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
