//! What is counted for a tenant's shipper. Handles are made once per shipper.

use ::metrics::{Counter, Gauge, counter, gauge};

#[derive(Debug)]
pub(super) struct ShipMetrics {
    pub(super) dir_syncs: Counter,
    pub(super) dir_sync_failures: Counter,
    pub(super) uploads: Counter,
    pub(super) upload_failures: Counter,
    /// Each damaged block counts once per process, not once per round.
    pub(super) corrupted_blocks: Counter,
    pub(super) oldest_not_uploaded_seconds: Gauge,
}

impl ShipMetrics {
    pub(super) fn new(tenant: &str) -> Self {
        let count = |name: &'static str| {
            let counter = counter!(name, "tenant" => tenant.to_owned());
            counter.increment(0);
            counter
        };
        // Merged blocks are never uploaded from here.
        gauge!("thanos_shipper_upload_compacted_done", "tenant" => tenant.to_owned()).set(0);
        Self {
            dir_syncs: count("thanos_shipper_dir_syncs_total"),
            dir_sync_failures: count("thanos_shipper_dir_sync_failures_total"),
            uploads: count("thanos_shipper_uploads_total"),
            upload_failures: count("thanos_shipper_upload_failures_total"),
            corrupted_blocks: count("thanos_shipper_corrupted_blocks_total"),
            oldest_not_uploaded_seconds: gauge!(
                "weir_shipper_oldest_not_uploaded_seconds", "tenant" => tenant.to_owned()
            ),
        }
    }
}
