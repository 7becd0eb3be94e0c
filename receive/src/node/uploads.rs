//! Uploads of a node: one shipper per tenant, for tenants that come and go.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use weir_tsdb::{Labels, block::BlockReader, fs::StdFs};

use crate::{
    config::UploadConfig,
    objstore::Bucket,
    ship::{HashFunc, IndexStats, LoopOptions, Shipper, ShipperConfig, ShipperLoop},
    tenants::{Tenant, TenantName, Tenants},
};

/// What all series of a tenant carry in block metadata.
type LabelsOf = Box<dyn Fn(&Tenant) -> Labels + Send + Sync>;

/// The shippers of all tenants, and the bucket they share.
pub struct Uploads {
    labels_of: OnceLock<LabelsOf>,
    /// The labels that each tenant's shipper was made with.
    shipped_as: Mutex<HashMap<TenantName, Labels>>,
    shippers: Arc<ShipperLoop>,
    bucket: Bucket,
    interval: Duration,
    hash_func: Option<HashFunc>,
    concurrency: usize,
}

impl Uploads {
    /// Uploads to `bucket`, none begun.
    pub fn new(bucket: Bucket, config: &UploadConfig) -> Self {
        let interval = config.interval;
        let options = LoopOptions { interval, backoff_max: 10 * interval, ..LoopOptions::default() };
        Self {
            labels_of: OnceLock::new(),
            shipped_as: Mutex::default(),
            shippers: ShipperLoop::new(options),
            bucket,
            interval,
            hash_func: config.hash_files.then_some(HashFunc::Sha256),
            concurrency: config.concurrency,
        }
    }

    /// Says what labels blocks get, which may change with the ring; once. Before, and without, they are
    /// those of the tenant.
    pub fn set_labels(&self, labels_of: impl Fn(&Tenant) -> Labels + Send + Sync + 'static) {
        let set = self.labels_of.set(Box::new(labels_of));
        assert!(set.is_ok(), "a node is opened once");
    }

    /// Whether block `ulid` of `tenant` is in the bucket, verified. Not so while nobody has looked.
    pub fn is_uploaded(&self, tenant: &Tenant, ulid: Ulid) -> bool {
        self.shippers.uploaded(tenant.name.as_str()).is_some_and(|uploaded| uploaded.contains(ulid))
    }

    /// Looks for blocks of `tenant` to upload now, and waits until that is tried.
    ///
    /// # Errors
    /// What went wrong first.
    pub async fn sync_now(&self, tenant: &Tenant) -> Result<(), String> {
        self.join(tenant);
        let report = self.shippers.sync_now(tenant.name.as_str()).await;
        match report.as_ref().and_then(|report| report.first_error()) {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    }

    /// Time of the oldest sample that is not in the bucket yet; `None` if all are.
    pub fn oldest_not_uploaded(&self, tenants: &Tenants) -> Option<i64> {
        let of = |tenant: &Arc<Tenant>| tenant.db.oldest_unsafe(&|ulid| self.is_uploaded(tenant, ulid));
        tenants.list().iter().filter_map(of).min()
    }

    /// Ships the blocks of all open tenants until `stop` is cancelled. Tenants opened meanwhile
    /// join in within an interval.
    pub async fn run(self: Arc<Self>, tenants: Arc<Tenants>, stop: CancellationToken) {
        let joining = async {
            let mut ticks = tokio::time::interval(self.interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                tenants.list().iter().for_each(|tenant| self.join(tenant));
            }
        };
        tokio::select! {
            () = self.shippers.run(stop) => {}
            () = joining => {}
        }
    }

    /// Ships the blocks of a tenant from now on, with the labels that they get now.
    fn join(&self, tenant: &Tenant) {
        let labels = match self.labels_of.get() {
            Some(labels_of) => labels_of(tenant),
            None => tenant.external_labels.clone(),
        };
        let mut shipped_as = self.shipped_as.lock();
        if shipped_as.get(&tenant.name) == Some(&labels) {
            return;
        }
        let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut config = ShipperConfig::new(&tenant.dir, tenant.name.as_str(), pairs.collect());
        config.hash_func = self.hash_func;
        config.upload_concurrency = self.concurrency;
        config.index_stats = Some(Arc::new(index_stats));
        match Shipper::new(config, self.bucket.clone()) {
            Ok(shipper) => {
                self.shippers.add(shipper);
                shipped_as.insert(tenant.name.clone(), labels);
            }
            Err(error) => {
                tracing::error!(tenant = %tenant.name, %error, "blocks of this tenant are not uploaded");
            }
        }
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Uploads").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Figures of the index of the block in `dir`, from its own files.
fn index_stats(dir: &Path) -> Result<IndexStats, String> {
    let stats = BlockReader::open(&StdFs, dir).and_then(|block| block.index_stats());
    let stats = stats.map_err(|error| error.to_string())?;
    Ok(IndexStats { series_max_size: stats.series_max_size, chunk_max_size: stats.chunk_max_size })
}
