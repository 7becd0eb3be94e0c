//! Metrics of tenants' databases, under the names that Prometheus has for its own.

use weir_tsdb::db::DbStats;

use super::{Collect, Exposition, exposition::Kind};

/// Where the figures of all open databases come from.
pub trait TenantStats: Send + Sync {
    /// Calls `visit` with each tenant that has a database open, and its figures. The order of
    /// tenants does not matter. Called once per scrape, on a thread that may block.
    fn visit(&self, visit: &mut dyn FnMut(&str, DbStats));
}

impl<S: TenantStats + ?Sized> TenantStats for std::sync::Arc<S> {
    fn visit(&self, visit: &mut dyn FnMut(&str, DbStats)) {
        (**self).visit(visit);
    }
}

/// Writes `prometheus_tsdb_*` per tenant. A tenant that is closed is not in the next scrape.
#[derive(Debug)]
pub struct TenantCollector<S>(pub S);

/// What of the figures makes a family: the name, what it means, its value if there is one.
type Row = (&'static str, Kind, &'static str, fn(&DbStats) -> Option<i128>);

use Kind::{Counter, Gauge};

const PLAIN: &[Row] = &[
    ("prometheus_tsdb_head_series", Gauge, "Series in the head.", |s| Some(s.head_series.into())),
    ("prometheus_tsdb_head_chunks", Gauge, "Chunks in the head.", |s| Some(s.head_chunks.into())),
    ("prometheus_tsdb_head_series_created_total", Counter, "Series created in the head.", |s| {
        Some(s.head_series_created.into())
    }),
    ("prometheus_tsdb_head_series_removed_total", Counter, "Series removed from the head.", |s| {
        Some(s.head_series_removed.into())
    }),
    ("prometheus_tsdb_head_min_time", Gauge, "Oldest sample in the head, Unix milliseconds.", |s| {
        s.head_min_time.map(Into::into)
    }),
    ("prometheus_tsdb_head_max_time", Gauge, "Newest sample in the head, Unix milliseconds.", |s| {
        s.head_max_time.map(Into::into)
    }),
    ("prometheus_tsdb_out_of_bound_samples_total", Counter, "Samples refused as out of bounds.", |s| {
        Some(s.out_of_bounds.into())
    }),
    ("prometheus_tsdb_blocks_loaded", Gauge, "Blocks loaded.", |s| Some(s.blocks.into())),
    ("prometheus_tsdb_storage_blocks_bytes", Gauge, "Bytes of the blocks loaded.", |s| {
        Some(s.block_bytes.into())
    }),
    ("prometheus_tsdb_wal_segment_current", Gauge, "Number of the log segment being written.", |s| {
        Some(s.wal_segment.into())
    }),
    ("prometheus_tsdb_wal_writes_failed_total", Counter, "Writes to the log that failed.", |s| {
        Some(s.wal_writes_failed.into())
    }),
    ("prometheus_tsdb_wal_corruptions_total", Counter, "Damages found in the log.", |s| {
        Some(s.wal_corruptions.into())
    }),
    ("prometheus_tsdb_mmap_chunk_corruptions_total", Counter, "Damages found in chunks of the head.", |s| {
        Some(s.mmap_chunk_corruptions.into())
    }),
    ("prometheus_tsdb_compactions_total", Counter, "Blocks cut.", |s| Some(s.compactions.into())),
    ("prometheus_tsdb_compactions_failed_total", Counter, "Cuts of blocks that failed.", |s| {
        Some(s.compactions_failed.into())
    }),
    ("prometheus_tsdb_time_retentions_total", Counter, "Blocks deleted because of their age.", |s| {
        Some(s.time_retentions.into())
    }),
    ("prometheus_tsdb_size_retentions_total", Counter, "Blocks deleted because of the bytes of all.", |s| {
        Some(s.size_retentions.into())
    }),
    ("prometheus_tsdb_checkpoint_creations_total", Counter, "Checkpoints of the log begun.", |s| {
        Some(i128::from(s.checkpoints) + i128::from(s.checkpoints_failed))
    }),
    (
        "prometheus_tsdb_checkpoint_creations_failed_total",
        Counter,
        "Checkpoints of the log that failed.",
        |s| Some(s.checkpoints_failed.into()),
    ),
    ("weir_tsdb_corrupt_blocks", Gauge, "Blocks left out because they are damaged.", |s| {
        Some(s.corrupt_blocks.into())
    }),
    ("weir_tsdb_unsupported_records_total", Counter, "Records and chunks of types not supported.", |s| {
        Some(s.unsupported_records.into())
    }),
    (
        "weir_tsdb_chunk_writes_failed_total",
        Counter,
        "Failed writes of full chunks; they stay in memory.",
        |s| Some(s.chunk_writes_failed.into()),
    ),
    ("weir_tsdb_wal_written_bytes_total", Counter, "Bytes written to the log.", |s| {
        Some(s.wal_bytes_written.into())
    }),
    (
        "weir_tsdb_duplicate_timestamp_samples_total",
        Counter,
        "Samples refused: another value has their time.",
        |s| Some(s.duplicate_timestamp.into()),
    ),
    ("weir_tsdb_wbl_written_bytes_total", Counter, "Bytes written to the log of late samples.", |s| {
        Some(s.wbl_bytes_written.into())
    }),
];

/// These carry the label `type`; there are only floats yet.
const BY_TYPE: &[Row] = &[
    ("prometheus_tsdb_head_samples_appended_total", Counter, "Samples stored.", |s| {
        Some(s.samples_appended.into())
    }),
    (
        "prometheus_tsdb_head_out_of_order_samples_appended_total",
        Counter,
        "Samples stored out of order.",
        |s| Some(s.late_appended.into()),
    ),
    ("prometheus_tsdb_out_of_order_samples_total", Counter, "Samples refused as out of order.", |s| {
        Some(s.out_of_order.into())
    }),
    (
        "prometheus_tsdb_too_old_samples_total",
        Counter,
        "Samples refused as older than the window for late ones.",
        |s| Some(s.too_old.into()),
    ),
];

/// Upstream has the same times in seconds too.
const SECONDS: &[Row] = &[
    ("prometheus_tsdb_head_min_time_seconds", Gauge, "Oldest sample in the head, Unix seconds.", |s| {
        s.head_min_time.map(Into::into)
    }),
    ("prometheus_tsdb_head_max_time_seconds", Gauge, "Newest sample in the head, Unix seconds.", |s| {
        s.head_max_time.map(Into::into)
    }),
];

impl<S: TenantStats> Collect for TenantCollector<S> {
    fn collect(&self, out: &mut Exposition) {
        let mut tenants: Vec<(String, DbStats)> = Vec::new();
        self.0.visit(&mut |tenant, stats| tenants.push((tenant.to_owned(), stats)));
        tenants.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, kind, help, value) in PLAIN {
            let mut family = out.family(name, *kind, help);
            for (tenant, stats) in &tenants {
                if let Some(value) = value(stats) {
                    family.integer(&[("tenant", tenant)], value);
                }
            }
        }
        for (name, kind, help, value) in BY_TYPE {
            let mut family = out.family(name, *kind, help);
            for (tenant, stats) in &tenants {
                if let Some(value) = value(stats) {
                    family.integer(&[("tenant", tenant), ("type", "float")], value);
                }
            }
        }
        for (name, kind, help, value) in SECONDS {
            let mut family = out.family(name, *kind, help);
            for (tenant, stats) in &tenants {
                if let Some(millis) = value(stats) {
                    family.sample(&[("tenant", tenant)], millis as f64 / 1000.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl TenantStats for Two {
        fn visit(&self, visit: &mut dyn FnMut(&str, DbStats)) {
            visit(
                "b",
                DbStats { head_series: 7, checkpoints: 2, checkpoints_failed: 1, ..DbStats::default() },
            );
            let full = DbStats {
                head_series: u64::MAX,
                head_min_time: Some(-5),
                head_max_time: Some(1_700_000_000_250),
                samples_appended: 9,
                out_of_order: 4,
                ..DbStats::default()
            };
            visit("a", full);
        }
    }

    #[test]
    fn figures_have_the_names_of_prometheus() {
        let mut out = Exposition::default();
        TenantCollector(std::sync::Arc::new(Two)).collect(&mut out);
        let text = out.into_text();
        for line in [
            "prometheus_tsdb_head_series{tenant=\"a\"} 18446744073709551615\nprometheus_tsdb_head_series{tenant=\"b\"} 7\n",
            "# TYPE prometheus_tsdb_head_max_time gauge\nprometheus_tsdb_head_max_time{tenant=\"a\"} 1700000000250\n#",
            "prometheus_tsdb_head_max_time_seconds{tenant=\"a\"} 1700000000.25\n",
            "prometheus_tsdb_head_min_time{tenant=\"a\"} -5\n",
            "prometheus_tsdb_head_samples_appended_total{tenant=\"a\",type=\"float\"} 9\n",
            "prometheus_tsdb_out_of_order_samples_total{tenant=\"a\",type=\"float\"} 4\n",
            "prometheus_tsdb_checkpoint_creations_total{tenant=\"b\"} 3\n",
            "prometheus_tsdb_checkpoint_creations_failed_total{tenant=\"b\"} 1\n",
            "prometheus_tsdb_compactions_total{tenant=\"b\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
