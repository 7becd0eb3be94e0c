//! The tenants of this node: one database each, below `--tsdb.path`.
//!
//! Every directory there is a tenant, except `lost+found`. At start all of them are opened, a few
//! at a time; one that cannot be opened is reported and refused, all others serve. A tenant that
//! does not exist is made by its first write. However many writes wait for a tenant, it is opened
//! once, in a task of its own, so that a client that goes away does not stop it half way. After a
//! failure the cause is kept and told to all who ask, and the database is tried again later, each
//! time after a longer pause.
//!
//! Opening, upkeep and closing block, so they run on the threads for blocking work.

mod maintenance;
mod metrics;
mod name;
mod open;
mod series_table;
mod tenant;

pub use maintenance::MayDelete;
pub use metrics::{RequestFigures, WriteMetrics};
pub use name::{InvalidTenantName, TENANT_NAME_BYTES_MAX, TenantName};
pub use open::TenantsError;
pub use series_table::{KnownSeries, SeriesKey, SeriesLookup, SeriesTable};
pub use tenant::Tenant;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use weir_tsdb::{
    db::DbOptions,
    fs::Fs,
    labels::{Labels, LabelsBuilder},
};

use crate::answer::WriteError;
use open::Failure;

/// How the tenants of a node are kept.
#[derive(Clone, Debug)]
pub struct TenantsConfig {
    /// Directory of all tenants: `--tsdb.path`.
    pub path: PathBuf,
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// How each database behaves.
    pub db: DbOptions,
    /// External labels of all tenants: `--label`.
    pub external_labels: Labels,
    /// Name of the external label that holds the tenant: `--receive.tenant-label-name`.
    pub tenant_label: String,
    /// Most tenants this node takes. Those found on disk at start are opened in any case.
    pub tenants_max: usize,
    /// Databases opened or closed at once.
    pub open_parallelism: usize,
    /// Databases under upkeep at once.
    pub maintenance_parallelism: usize,
    /// Time between rounds of upkeep. The series tables count these rounds as minutes.
    pub maintenance_interval: Duration,
    /// Pause before a database that could not be opened is tried again; doubled with each failure
    /// up to 32 times as long.
    pub reopen_pause: Duration,
    /// Most entries of a tenant's series table.
    pub series_table_entries: usize,
}

impl TenantsConfig {
    /// A configuration with the defaults of all but these.
    pub fn new(path: PathBuf, fs: Arc<dyn Fs>, db: DbOptions) -> Self {
        Self {
            path,
            fs,
            db,
            external_labels: Labels::empty(),
            tenant_label: "tenant_id".to_owned(),
            tenants_max: 10_000,
            open_parallelism: 4,
            maintenance_parallelism: 2,
            maintenance_interval: Duration::from_secs(60),
            reopen_pause: Duration::from_secs(10),
            series_table_entries: 4_000_000,
        }
    }

    /// Labels of all series of `tenant` towards readers. The tenant's label wins over a `--label`
    /// of the same name.
    fn labels_of(&self, tenant: &TenantName) -> Labels {
        let mut labels = LabelsBuilder::from_labels(&self.external_labels);
        labels.set(&self.tenant_label, tenant.as_str());
        labels.build()
    }
}

/// Place of one tenant, open or not.
#[derive(Debug)]
struct Slot {
    name: TenantName,
    tenant: ArcSwapOption<Tenant>,
    /// Why it is not open, if it was tried.
    failure: Mutex<Option<Failure>>,
    /// Held while the database is opened or closed.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// How a tenant is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// Its database is open.
    Serving,
    /// Its database is being opened for the first time.
    Opening,
    /// Its database could not be opened; the cause.
    Quarantined(Arc<str>),
}

/// All tenants of this node; see the module's page.
#[derive(Debug)]
pub struct Tenants {
    config: TenantsConfig,
    slots: RwLock<BTreeMap<TenantName, Arc<Slot>>>,
    closed: AtomicBool,
}

impl Tenants {
    /// The tenant, if it is open.
    pub fn get(&self, name: &str) -> Option<Arc<Tenant>> {
        self.slots.read().get(name)?.tenant.load_full()
    }

    /// All tenants that are open, ascending by name.
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.slots.read().values().filter_map(|slot| slot.tenant.load_full()).collect()
    }

    /// All tenants and how they are, ascending by name.
    pub fn states(&self) -> Vec<(TenantName, TenantState)> {
        let state_of = |slot: &Slot| {
            if slot.tenant.load().is_some() {
                return TenantState::Serving;
            }
            match &*slot.failure.lock() {
                Some(failure) => TenantState::Quarantined(failure.cause.clone()),
                None => TenantState::Opening,
            }
        };
        self.slots.read().values().map(|slot| (slot.name.clone(), state_of(slot))).collect()
    }

    /// The tenant, opened or created if it is not open yet. Fails with
    /// [`WriteError::TooManyTenants`], [`WriteError::TenantUnavailable`] or, after [`Self::close`],
    /// [`WriteError::NotReady`]. Safe to cancel: the opening goes on.
    pub async fn get_or_open(self: &Arc<Self>, name: &TenantName) -> Result<Arc<Tenant>, WriteError> {
        let slot = self.slot(name)?;
        if let Some(tenant) = slot.tenant.load_full() {
            return Ok(tenant);
        }
        let opening = tokio::spawn(open::open_slot(self.clone(), slot));
        opening.await.unwrap_or_else(|error| Err(WriteError::Internal(error.to_string().into())))
    }

    /// The place of `name`, made if there is none and room for one.
    fn slot(&self, name: &TenantName) -> Result<Arc<Slot>, WriteError> {
        if let Some(slot) = self.slots.read().get(name) {
            return Ok(slot.clone());
        }
        let mut slots = self.slots.write();
        if self.closed.load(Ordering::Relaxed) {
            return Err(WriteError::NotReady);
        }
        if let Some(slot) = slots.get(name) {
            return Ok(slot.clone());
        }
        let limit = self.config.tenants_max;
        if slots.len() >= limit {
            return Err(WriteError::TooManyTenants { tenant: name.clone(), limit });
        }
        let slot = Arc::new(Slot::new(name.clone()));
        slots.insert(name.clone(), slot.clone());
        Ok(slot)
    }

    /// Closes all databases, a few at a time; no head is cut. From now on no tenant is opened.
    /// Writes must have been drained before. What fails is logged: the logs on disk hold all that
    /// was acknowledged.
    pub async fn close(&self) {
        let slots: Vec<Arc<Slot>> = {
            let slots = self.slots.write();
            self.closed.store(true, Ordering::Relaxed);
            slots.values().cloned().collect()
        };
        let close_one = |slot: Arc<Slot>| async move {
            let _changing = slot.changing.lock().await;
            let Some(tenant) = slot.tenant.swap(None) else { return };
            let name = tenant.name.clone();
            match tokio::task::spawn_blocking(move || tenant.db.close()).await {
                Ok(Ok(())) => tracing::debug!(tenant = %name, "closed"),
                Ok(Err(error)) => tracing::error!(tenant = %name, %error, "could not close the database"),
                Err(error) => tracing::error!(tenant = %name, %error, "closing the database panicked"),
            }
        };
        futures::stream::iter(slots)
            .for_each_concurrent(self.config.open_parallelism.max(1), close_one)
            .await;
    }
}

impl Slot {
    fn new(name: TenantName) -> Self {
        Self { name, tenant: ArcSwapOption::empty(), failure: Mutex::new(None), changing: Arc::default() }
    }
}
