//! Opening the databases of tenants, at start and on first writes.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use metrics::gauge;
use parking_lot::RwLock;
use tokio::time::Instant;
use weir_tsdb::{db::Db, fs::Fs};

use super::{Slot, Tenant, TenantName, Tenants, TenantsConfig};
use crate::answer::WriteError;

/// File made and removed at start to see whether the data directory can be written.
const PROBE_FILE: &str = ".weir-write-probe";
/// The longest pause before a failed database is tried again, in pauses of the first time.
const REOPEN_PAUSE_FACTOR_MAX: u32 = 32;

/// Why the data directory as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// It cannot be made, read or written.
    #[error("cannot {action} the data directory {} (--tsdb.path): {source}", path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is itself a database, as of a Prometheus server.
    #[error(
        "{} (--tsdb.path) is itself a database: it holds the log segment wal/{segment}; each tenant has a \
         directory of its own below it, move the database into one",
        path.display()
    )]
    IsDatabase {
        /// The directory.
        path: PathBuf,
        /// A segment that was found.
        segment: String,
    },
}

/// An opening that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub cause: Arc<str>,
    /// How often in a row it failed.
    attempts: u32,
    /// When it may be tried again.
    retry_at: Instant,
}

impl Tenants {
    /// Opens all tenants found below the data directory, which is made if it is missing. Tenants
    /// that cannot be opened are logged and quarantined; only a data directory that cannot be used
    /// at all is an error.
    pub async fn open(config: TenantsConfig) -> Result<Arc<Self>, TenantsError> {
        let (fs, path) = (config.fs.clone(), config.path.clone());
        let names = tokio::task::spawn_blocking(move || find_tenants(fs.as_ref(), &path))
            .await
            .expect("listing the data directory does not panic")?;
        if names.len() > config.tenants_max {
            let (found, limit) = (names.len(), config.tenants_max);
            tracing::warn!(found, limit, "more tenants on disk than the limit; no new ones are taken");
        }
        let parallelism = config.open_parallelism.max(1);
        let slots = names.into_iter().map(|name| (name.clone(), Arc::new(Slot::new(name)))).collect();
        let tenants = Arc::new(Self { config, slots: RwLock::new(slots), closed: AtomicBool::new(false) });
        let found: Vec<Arc<Slot>> = tenants.slots.read().values().cloned().collect();
        futures::stream::iter(found)
            .for_each_concurrent(parallelism, |slot| async {
                // The outcome stays in the slot.
                drop(tokio::spawn(open_slot(tenants.clone(), slot)).await);
            })
            .await;
        Ok(tenants)
    }

    /// Tries those again whose pause is over.
    pub(super) async fn reopen_failed(self: &Arc<Self>) {
        let failed: Vec<Arc<Slot>> = self.slots.read().values().cloned().collect();
        for slot in failed {
            let due = slot.failure.lock().as_ref().is_some_and(|failure| failure.retry_at <= Instant::now());
            if due {
                drop(tokio::spawn(open_slot(self.clone(), slot)).await);
            }
        }
    }
}

/// Names of the tenants below `path`.
fn find_tenants(fs: &dyn Fs, path: &Path) -> Result<Vec<TenantName>, TenantsError> {
    let failed = |action| {
        let path = path.to_owned();
        move |source| TenantsError::Path { action, path, source }
    };
    fs.create_dir_all(path).map_err(failed("make"))?;
    let probe = path.join(PROBE_FILE);
    fs.create(&probe).map_err(failed("write to"))?;
    fs.remove_file(&probe).map_err(failed("delete from"))?;
    let entries = fs.read_dir(path).map_err(failed("list"))?;

    // A tenant may be called wal, but its directory holds no segments.
    let is_segment = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    if entries.iter().any(|entry| entry.is_dir && entry.name == "wal") {
        let log = fs.read_dir(&path.join("wal")).map_err(failed("list"))?;
        if let Some(segment) = log.into_iter().find(|entry| !entry.is_dir && is_segment(&entry.name)) {
            return Err(TenantsError::IsDatabase { path: path.to_owned(), segment: segment.name });
        }
    }

    let mut names = Vec::new();
    for entry in entries {
        if !entry.is_dir || entry.name == "lost+found" {
            continue;
        }
        match TenantName::new(&entry.name) {
            Ok(name) => names.push(name),
            Err(cause) => {
                tracing::warn!(directory = %entry.name, %cause, "not the name of a tenant, left alone");
            }
        }
    }
    Ok(names)
}

/// Opens the tenant of `slot` unless that is done, or failed a short while ago. To be run as a task
/// of its own: cancelling it would throw an open database away.
pub(super) async fn open_slot(tenants: Arc<Tenants>, slot: Arc<Slot>) -> Result<Arc<Tenant>, WriteError> {
    let _changing = slot.changing.clone().lock_owned().await;
    if tenants.closed.load(Ordering::Relaxed) {
        return Err(WriteError::NotReady);
    }
    if let Some(tenant) = slot.tenant.load_full() {
        return Ok(tenant);
    }
    let unavailable = |cause| WriteError::TenantUnavailable { tenant: slot.name.clone(), cause };
    if let Some(failure) = slot.failure.lock().as_ref().filter(|failure| failure.retry_at > Instant::now()) {
        return Err(unavailable(failure.cause.clone()));
    }

    let started = Instant::now();
    let (config, name) = (tenants.config.clone(), slot.name.clone());
    let opened = tokio::task::spawn_blocking(move || open_tenant(&config, name)).await;
    let outcome = match opened {
        Ok(Ok(tenant)) => Ok(Arc::new(tenant)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("opening panicked: {error}")),
    };
    // A tenant never in quarantine has no such metric.
    let quarantined = || gauge!("weir_tenant_quarantined", "tenant" => slot.name.as_str().to_owned());
    match outcome {
        Ok(tenant) => {
            let millis = started.elapsed().as_millis() as u64;
            tracing::info!(tenant = %slot.name, millis, "opened");
            slot.tenant.store(Some(tenant.clone()));
            if slot.failure.lock().take().is_some() {
                quarantined().set(0.0);
            }
            Ok(tenant)
        }
        Err(cause) => {
            quarantined().set(1.0);
            let cause: Arc<str> = cause.into();
            let mut failure = slot.failure.lock();
            if failure.as_ref().is_some_and(|before| before.cause == cause) {
                tracing::warn!(tenant = %slot.name, error = %cause, "still could not open the database");
            } else {
                tracing::error!(tenant = %slot.name, error = %cause, "could not open the database, tenant is quarantined");
            }
            let attempts = failure.as_ref().map_or(1, |before| before.attempts.saturating_add(1));
            let retry_at = Instant::now() + reopen_pause(tenants.config.reopen_pause, attempts);
            *failure = Some(Failure { cause: cause.clone(), attempts, retry_at });
            Err(unavailable(cause))
        }
    }
}

/// Doubles from `first` on, up to a bound.
fn reopen_pause(first: Duration, attempts: u32) -> Duration {
    let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor.min(REOPEN_PAUSE_FACTOR_MAX))
}

/// Opens the database of one tenant. Blocks.
fn open_tenant(config: &TenantsConfig, name: TenantName) -> weir_tsdb::Result<Tenant> {
    let dir = config.path.join(name.as_str());
    let db = Db::open(config.fs.clone(), dir.clone(), config.db.clone())?;
    let labels = config.labels_of(&name);
    Ok(Tenant::new(name, dir, labels, db, config.series_table_entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, 33, 34, u32::MAX]
            .map(|n| reopen_pause(Duration::from_secs(10), n).as_secs())
            .into();
        assert_eq!(pauses, [10, 20, 40, 320, 320, 320, 320, 320]);
    }
}
