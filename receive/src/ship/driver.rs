//! The shippers of all tenants, run side by side.
//!
//! One task decides who is due; each round runs in a task of its own, a few at once. After a round that
//! left something to do the tenant waits longer, twice as long each time; a damaged block does not
//! count, as no retry helps it. What each tenant is doing can be asked at any time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Shipper, SyncReport, UploadedBlocks, shipper::Progress};

/// How often tenants are looked at.
#[derive(Clone, Debug)]
pub struct LoopOptions {
    /// From the end of a tenant's round to its next one.
    pub interval: Duration,
    /// Longest pause after rounds that failed.
    pub backoff_max: Duration,
    /// Tenants whose rounds run at the same time.
    pub tenants_at_once: usize,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), backoff_max: Duration::from_secs(300), tenants_at_once: 4 }
    }
}

/// What a tenant's shipper is doing, for the status page.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantShipState {
    /// The tenant.
    pub tenant: String,
    /// True while a round runs.
    pub running: bool,
    /// Rounds in a row that left something to do. At 0 all is well.
    pub failed_rounds: u32,
    /// Why the last round left something to do, or which block is damaged.
    pub last_error: Option<String>,
    /// When the last round ended.
    pub last_round: Option<jiff::Timestamp>,
    /// When the last round ended that left nothing to do.
    pub last_success: Option<jiff::Timestamp>,
    /// How long from now the next round is put off; `None` while one runs.
    pub next_round_in: Option<Duration>,
    /// Blocks not in the bucket.
    pub pending: usize,
    /// When the oldest of them was made, in Unix milliseconds.
    pub oldest_not_uploaded_ms: Option<i64>,
}

/// The shippers of all tenants.
#[derive(Debug)]
pub struct ShipperLoop {
    options: LoopOptions,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    queue: Mutex<Queue>,
    /// Wakes the loop when the queue has a new entry.
    changed: Notify,
}

/// When tenants are due, the first one first. An entry is stale, and passed over, unless its time is
/// the tenant's `next_round`.
#[derive(Debug, Default)]
struct Queue {
    due: BTreeMap<(Instant, u64), Arc<Tenant>>,
    /// Tells entries of the same time apart.
    next_number: u64,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    shipper: tokio::sync::Mutex<Shipper>,
    uploaded: UploadedBlocks,
    progress: Arc<Progress>,
    /// Set once the tenant was removed: a round that has not begun does not begin.
    removed: AtomicBool,
    /// Cancelled once another one has its place: a round that runs is given up, and the other one's goes on
    /// there.
    replaced: CancellationToken,
    /// Whose place it took, until that one's last round has ended: two must not work in one directory.
    before: Mutex<Option<Arc<Tenant>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: bool,
    failed_rounds: u32,
    last_error: Option<String>,
    last_round: Option<jiff::Timestamp>,
    last_success: Option<jiff::Timestamp>,
    next_round: Instant,
}

impl ShipperLoop {
    /// A loop without tenants. [`ShipperLoop::run`] makes it go.
    pub fn new(options: LoopOptions) -> Arc<Self> {
        Arc::new(Self { options, tenants: Mutex::default(), queue: Mutex::default(), changed: Notify::new() })
    }

    /// Adds a tenant; its first round is due at once. A shipper that was there for the same tenant is
    /// replaced. Returns what retention asks.
    pub fn add(&self, shipper: Shipper) -> UploadedBlocks {
        let name = shipper.tenant().to_owned();
        let uploaded = shipper.uploaded();
        let now = Instant::now();
        let tenant = Arc::new(Tenant {
            name: name.clone(),
            uploaded: uploaded.clone(),
            progress: shipper.progress(),
            shipper: tokio::sync::Mutex::new(shipper),
            removed: AtomicBool::new(false),
            replaced: CancellationToken::new(),
            before: Mutex::default(),
            state: Mutex::new(State {
                running: false,
                failed_rounds: 0,
                last_error: None,
                last_round: None,
                last_success: None,
                next_round: now,
            }),
        });
        if let Some(old) = self.tenants.lock().insert(name, Arc::clone(&tenant)) {
            old.removed.store(true, Ordering::Release);
            old.replaced.cancel();
            *tenant.before.lock() = Some(old);
        }
        self.schedule(&tenant, now);
        uploaded
    }

    /// Takes a tenant out and waits until a round of it that runs has ended.
    pub async fn remove(&self, tenant: &str) {
        let removed = self.tenants.lock().remove(tenant);
        if let Some(tenant) = removed {
            tenant.removed.store(true, Ordering::Release);
            drop(tenant.shipper.lock().await);
        }
    }

    /// The blocks of a tenant that are in the bucket; `None` if the tenant is not known.
    pub fn uploaded(&self, tenant: &str) -> Option<UploadedBlocks> {
        self.tenants.lock().get(tenant).map(|tenant| tenant.uploaded.clone())
    }

    /// Does a round of a tenant now, after one that runs, whether or not [`ShipperLoop::run`] does. For
    /// tenants that leave, and nodes that are drained. `None` if the tenant is not known.
    pub async fn sync_now(&self, tenant: &str) -> Option<SyncReport> {
        let tenant = self.tenants.lock().get(tenant).cloned()?;
        self.round(&tenant).await
    }

    /// What each tenant's shipper is doing, ascending by tenant.
    pub fn states(&self) -> Vec<TenantShipState> {
        let mut states: Vec<_> = self.all().iter().map(|tenant| tenant.visible_state()).collect();
        states.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        states
    }

    /// Runs rounds until `cancel`. Then rounds that run are dropped where they are; the next start of
    /// the process goes on there. To be called once.
    pub async fn run(self: &Arc<Self>, cancel: CancellationToken) {
        let mut rounds = JoinSet::new();
        // Ages grow while nothing happens, too.
        let mut ages = tokio::time::interval(self.options.interval.max(Duration::from_millis(1)));
        loop {
            let next = self.start_due_rounds(&mut rounds);
            let until_next = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = rounds.join_next() => {}
                () = self.changed.notified() => {}
                () = until_next => {}
                _ = ages.tick() => self.all().iter().for_each(|tenant| tenant.progress.publish()),
            }
        }
        rounds.shutdown().await;
    }

    fn all(&self) -> Vec<Arc<Tenant>> {
        self.tenants.lock().values().cloned().collect()
    }

    fn schedule(&self, tenant: &Arc<Tenant>, at: Instant) {
        tenant.state.lock().next_round = at;
        let mut queue = self.queue.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        queue.due.insert((at, number), Arc::clone(tenant));
        drop(queue);
        self.changed.notify_one();
    }

    /// Starts what is due and returns when to look again; `None` if a round must end before that.
    fn start_due_rounds(self: &Arc<Self>, rounds: &mut JoinSet<()>) -> Option<Instant> {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        while rounds.len() < self.options.tenants_at_once.max(1) {
            let first = queue.due.first_entry()?;
            let at = first.key().0;
            if at > now {
                return Some(at);
            }
            let tenant = first.remove();
            let state = tenant.state.lock();
            // A round that runs puts the tenant back into the queue when it ends.
            if state.running || state.next_round != at || tenant.removed.load(Ordering::Acquire) {
                continue;
            }
            drop(state);
            let shippers = Arc::clone(self);
            rounds.spawn(async move {
                shippers.round(&tenant).await;
            });
        }
        None
    }

    /// Does a round of a tenant and writes down how it went. `None` if it was removed or replaced meanwhile.
    async fn round(&self, tenant: &Arc<Tenant>) -> Option<SyncReport> {
        let mut shipper = tenant.shipper.lock().await;
        if tenant.removed.load(Ordering::Acquire) {
            return None;
        }
        tenant.wait_for_those_before().await;
        tenant.state.lock().running = true;
        // Dropped with the round, whether that ended or not.
        let mut running = Running { shippers: self, tenant, pause: self.options.interval };
        let report = tokio::select! {
            biased;
            () = tenant.replaced.cancelled() => return None,
            report = shipper.sync() => report,
        };
        running.pause = pause(&self.options, tenant.note(&report));
        Some(report)
    }
}

impl Tenant {
    /// Waits until the last rounds have ended of those whose place this one took.
    async fn wait_for_those_before(&self) {
        let mut before = self.before.lock().clone();
        while let Some(old) = before {
            drop(old.shipper.lock().await);
            before = old.before.lock().clone();
        }
        self.before.lock().take();
    }

    /// Writes down how a round went. Returns how many of the last ones left something to do.
    fn note(&self, report: &SyncReport) -> u32 {
        let now = jiff::Timestamp::now();
        let mut state = self.state.lock();
        state.last_round = Some(now);
        state.last_error = report.first_error().map(ToString::to_string);
        if report.is_done() {
            state.failed_rounds = 0;
            state.last_success = Some(now);
        } else {
            state.failed_rounds = state.failed_rounds.saturating_add(1);
        }
        state.failed_rounds
    }

    fn visible_state(&self) -> TenantShipState {
        let state = self.state.lock();
        TenantShipState {
            tenant: self.name.clone(),
            running: state.running,
            failed_rounds: state.failed_rounds,
            last_error: state.last_error.clone(),
            last_round: state.last_round,
            last_success: state.last_success,
            next_round_in: (!state.running)
                .then(|| state.next_round.saturating_duration_since(Instant::now())),
            pending: self.progress.pending(),
            oldest_not_uploaded_ms: self.progress.oldest_not_uploaded_ms(),
        }
    }
}

/// A round that runs. When it is dropped the tenant is put back into the queue.
struct Running<'a> {
    shippers: &'a ShipperLoop,
    tenant: &'a Arc<Tenant>,
    pause: Duration,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.tenant.state.lock().running = false;
        if !self.tenant.removed.load(Ordering::Acquire) {
            self.shippers.schedule(self.tenant, Instant::now() + self.pause);
        }
    }
}

/// How long to wait after a round, `failed_rounds` of the last ones having left something to do.
fn pause(options: &LoopOptions, failed_rounds: u32) -> Duration {
    let doubled = options.interval.saturating_mul(2_u32.saturating_pow(failed_rounds));
    doubled.min(options.backoff_max).max(options.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let options = LoopOptions::default();
        let seconds: Vec<u64> =
            [0, 1, 2, 3, 4, 40, u32::MAX].iter().map(|&failed| pause(&options, failed).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 300, 300, 300]);
        // An interval beyond the bound is kept.
        let slow = LoopOptions { interval: Duration::from_secs(1000), ..options };
        assert_eq!(pause(&slow, 3).as_secs(), 1000);
    }
}
