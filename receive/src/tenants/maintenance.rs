//! The regular upkeep of tenants: blocks, retention, series tables.

use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{Tenant, Tenants};

/// Tells whether a block of a tenant may be deleted for retention: without a bucket always, with
/// one only when it was uploaded.
pub type MayDelete = Arc<dyn Fn(&Tenant, Ulid) -> bool + Send + Sync>;

impl Tenants {
    /// Keeps the tenants up until `stop` is cancelled: a round each
    /// [`super::TenantsConfig::maintenance_interval`], the next one not before the last has ended.
    /// A round that is under way at the end is finished.
    pub async fn maintain(self: Arc<Self>, may_delete: MayDelete, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.config.maintenance_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is due at once.
        ticks.tick().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.reopen_failed().await;
            self.maintain_once(&may_delete, &stop).await;
        }
    }

    /// One round over all open tenants, a few at a time. No further tenant is begun after `stop`.
    pub async fn maintain_once(&self, may_delete: &MayDelete, stop: &CancellationToken) {
        futures::stream::iter(self.list())
            .for_each_concurrent(self.config.maintenance_parallelism.max(1), |tenant| async move {
                if stop.is_cancelled() {
                    return;
                }
                let (name, may_delete) = (tenant.name.clone(), may_delete.clone());
                let round = move || tenant.maintain(&|block| may_delete(&tenant, block));
                if let Err(error) = tokio::task::spawn_blocking(round).await {
                    tracing::error!(tenant = %name, %error, "upkeep of a tenant panicked");
                }
            })
            .await;
    }
}
