//! The write path: from a request of remote write to an acknowledged append.
//!
//! A request passes these steps, each in a module of its own; the first that fails answers:
//!
//! 1. `headers`: tenant, encoding, type and replica number;
//! 2. `admission`: the bytes the request holds and will hold are counted against a bound;
//! 3. `body`: read, bounded, into a pooled buffer; its claim to decoded size judged;
//! 4. a turn: a semaphore of about as many permits as cores, so that requests under way are few
//!    and finish, instead of many that wait for each other;
//! 5. `ingest`: decompress, walk (`plan`), on a ring send copies to other owners (`distribute`),
//!    append, on a thread for blocking work; from here on the request is not cancelled when its
//!    connection is;
//! 6. the durability ticket is settled, on a ring a quorum is awaited, without holding the turn;
//! 7. the answer ([`crate::answer`]).
//!
//! A tenant comes to be with its first write that leaves something to store, not before.

mod admission;
mod body;
mod distribute;
mod headers;
mod ingest;
mod key;
mod labels;
mod plan;
mod pool;
mod request;
#[cfg(test)]
mod test_message;

pub use labels::LabelLimits;
pub use request::router;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use weir_tsdb::{Labels, LabelsBuilder};

use crate::{
    replicate::{
        Peers,
        routing::{Routing, TenantRing},
    },
    tenants::{Tenant, TenantName, Tenants, WriteMetrics},
};
use admission::Admission;
use ingest::Scratch;
use key::SeriesKeys;
use plan::Judge;
use pool::{BodyBuffer, Pool};

/// How writes are taken.
#[derive(Clone, Debug)]
pub struct WriteConfig {
    /// Header with the tenant: `--receive.tenant-header`.
    pub tenant_header: HeaderName,
    /// Tenant of requests that name none: `--receive.default-tenant-id`.
    pub default_tenant: TenantName,
    /// Header with the replica number: `--receive.replica-header`.
    pub replica_header: HeaderName,
    /// Most bytes of a body as it comes.
    pub body_bytes_max: usize,
    /// Most bytes of a body decoded.
    pub decoded_bytes_max: usize,
    /// Most bytes that all requests under way hold together; raised to what one request may hold.
    pub bytes_in_flight_max: usize,
    /// Most series of a request.
    pub series_max: usize,
    /// Most samples of a request.
    pub samples_max: usize,
    /// What labels may look like.
    pub labels: LabelLimits,
    /// How far in the future a sample may be; `None` for any time.
    pub future_window: Option<Duration>,
    /// Requests decoded and appended at once.
    pub concurrency: usize,
    /// Longest time for reading a body.
    pub body_timeout: Duration,
    /// Longest wait for a turn.
    pub turn_timeout: Duration,
    /// What refused senders are told to wait.
    pub retry_after: Duration,
    /// Longest wait for the copies of a request, once this node has stored its own
    /// (`--receive-forward-timeout`).
    pub forward_timeout: Duration,
}

impl Default for WriteConfig {
    fn default() -> Self {
        Self {
            tenant_header: headers::THANOS_TENANT,
            default_tenant: TenantName::new("default-tenant").expect("the default tenant is valid"),
            replica_header: HeaderName::from_static("thanos-replica"),
            body_bytes_max: 16 << 20,
            decoded_bytes_max: 64 << 20,
            bytes_in_flight_max: 256 << 20,
            series_max: 1_000_000,
            samples_max: 2_000_000,
            labels: LabelLimits::default(),
            future_window: Some(Duration::from_secs(600)),
            concurrency: default_concurrency(),
            body_timeout: Duration::from_secs(30),
            turn_timeout: Duration::from_secs(5),
            retry_after: Duration::from_secs(1),
            forward_timeout: Duration::from_secs(5),
        }
    }
}

/// Requests decoded and appended at once unless told otherwise: as many as there are cores.
pub fn default_concurrency() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a request is judged and placed by, from its begin to its end.
#[derive(Debug)]
struct Rules {
    /// Entries of the series tables hold for one generation.
    generation: u32,
    /// The ring, if there is one.
    routing: Option<Arc<Routing>>,
}

/// The state of the write path, shared by all requests.
#[derive(Debug)]
pub struct WriteState {
    config: WriteConfig,
    tenants: Arc<Tenants>,
    rules: ArcSwap<Rules>,
    /// The epoch of the ring in `rules`.
    ring_epoch: watch::Sender<u64>,
    /// Other nodes, if there may be a ring.
    peers: Option<Arc<Peers>>,
    keys: SeriesKeys,
    admission: Arc<Admission>,
    turns: Arc<Semaphore>,
    /// Work that goes on without its connection.
    jobs: TaskTracker,
    bodies: Arc<Pool<BodyBuffer>>,
    scratches: Arc<Pool<Scratch>>,
    /// Counts requests without an accepted tenant.
    anonymous: WriteMetrics,
    clock_is_off: AtomicBool,
}

impl WriteState {
    /// A write path into `tenants`. Made after the metrics recorder is installed.
    pub fn new(config: WriteConfig, tenants: Arc<Tenants>) -> Arc<Self> {
        Self::with_peers(config, tenants, None)
    }

    /// A write path that may get a ring, with the nodes that others are.
    pub fn with_peers(config: WriteConfig, tenants: Arc<Tenants>, peers: Option<Arc<Peers>>) -> Arc<Self> {
        let one_request = config.body_bytes_max.saturating_add(config.decoded_bytes_max);
        let in_flight = config.bytes_in_flight_max.max(one_request);
        let concurrency = config.concurrency.max(1);
        Arc::new(Self {
            tenants,
            rules: ArcSwap::from_pointee(Rules { generation: 0, routing: None }),
            ring_epoch: watch::Sender::new(0),
            peers,
            keys: SeriesKeys::new(),
            admission: Admission::new(in_flight),
            turns: Arc::new(Semaphore::new(concurrency)),
            jobs: TaskTracker::new(),
            // Bodies are also held while they are read and while they wait for their turn.
            bodies: Pool::new(4 * concurrency),
            scratches: Pool::new(concurrency),
            anonymous: WriteMetrics::new(""),
            clock_is_off: AtomicBool::new(false),
            config,
        })
    }

    /// True until [`Self::drain`]. After that every path answers 503.
    pub fn is_ready(&self) -> bool {
        !self.turns.is_closed()
    }

    /// Tenants written to.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Bytes that requests under way hold.
    pub fn bytes_in_flight(&self) -> usize {
        self.admission.in_flight()
    }

    /// The clock of this node cannot be trusted, or can again: until then writes are answered 503.
    pub fn set_clock_is_off(&self, is_off: bool) {
        self.clock_is_off.store(is_off, Ordering::Relaxed);
    }

    /// Takes no more writes and waits until those under way have ended, also those whose
    /// connections are gone. To be called before the tenants are closed.
    pub async fn drain(&self) {
        // With all turns in hand no request is between taking one and beginning its work.
        let turns = self.turns.acquire_many(self.config.concurrency.max(1) as u32).await;
        self.turns.close();
        drop(turns);
        self.jobs.close();
        self.jobs.wait().await;
    }

    /// Places series by `routing` from now on; requests under way end with the one they began with.
    /// Forgets all that was decided about label sets before, if they may have other slots now.
    pub fn set_routing(&self, routing: Arc<Routing>) {
        self.rules.rcu(|rules| {
            let is_like = |before: &Arc<Routing>| routing.has_slots_of(before);
            let keeps_slots = rules.routing.as_ref().is_some_and(is_like);
            let generation = rules.generation + u32::from(!keeps_slots);
            Rules { generation, routing: Some(routing.clone()) }
        });
        self.ring_epoch.send_replace(routing.stamp().epoch);
    }

    /// Labels that all series of `tenant` carry towards readers and in block metadata: its own, and
    /// those of its ring on top.
    pub fn external_labels(&self, tenant: &Tenant) -> Labels {
        let rules = self.rules.load();
        let of_ring =
            rules.routing.as_ref().and_then(|routing| routing.external_labels(tenant.name.as_str()));
        let Some(of_ring) = of_ring else { return tenant.external_labels.clone() };
        let mut labels = LabelsBuilder::from_labels(&tenant.external_labels);
        for (name, value) in of_ring {
            labels.set(name, value);
        }
        labels.build()
    }

    /// To be called after a change of what labels are judged by: forgets all that was decided about
    /// label sets before.
    pub fn forget_series(&self) {
        self.rules.rcu(|rules| Rules { generation: rules.generation + 1, routing: rules.routing.clone() });
    }

    fn judge<'a>(&'a self, now: SystemTime, ring: Option<(&'a TenantRing, &'a str)>) -> Judge<'a> {
        Judge {
            ring,
            keys: &self.keys,
            limits: &self.config.labels,
            latest_ms: latest_ms(self.config.future_window, now),
            series_max: self.config.series_max,
            samples_max: self.config.samples_max,
        }
    }
}

/// Time in milliseconds of the latest sample that is taken at `now`.
fn latest_ms(window: Option<Duration>, now: SystemTime) -> i64 {
    let Some(window) = window else { return i64::MAX };
    // A clock before 1970 counts as 1970.
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(window).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use weir_tsdb::{db::DbOptions, fs::StdFs};

    use super::*;
    use crate::tenants::TenantsConfig;

    #[test]
    fn the_future_begins_behind_the_window() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(latest_ms(minute, at(1_700_000_000_123)), 1_700_000_060_123);
        assert_eq!(latest_ms(Some(Duration::ZERO), at(5)), 5);
        assert_eq!(latest_ms(None, at(5)), i64::MAX);
        assert_eq!(latest_ms(Some(Duration::MAX), at(5)), i64::MAX);
        assert_eq!(latest_ms(minute, UNIX_EPOCH - Duration::from_secs(1)), 60_000);
    }

    async fn state() -> (tempfile::TempDir, Arc<WriteState>) {
        let dir = tempfile::tempdir().unwrap();
        let config = TenantsConfig::new(dir.path().to_owned(), Arc::new(StdFs), DbOptions::default());
        let state = WriteState::new(WriteConfig::default(), Tenants::open(config).await.unwrap());
        (dir, state)
    }

    #[tokio::test]
    async fn draining_waits_for_turns_and_for_work() {
        let (_dir, state) = state().await;
        let turn = state.turns.clone().acquire_owned().await.unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        state.jobs.spawn_blocking(move || ended.recv());

        let mut drained = pin!(state.drain());
        let mut is_drained = async || {
            // Time for the drain to make what progress it can.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            std::future::poll_fn(|context| Poll::Ready(drained.as_mut().poll(context).is_ready())).await
        };
        assert!(!is_drained().await);
        drop(turn);
        assert!(!is_drained().await, "a request still works, without a turn");
        assert!(!state.is_ready(), "no turn is given any more");
        end.send(()).unwrap();
        drained.await;
    }

    #[tokio::test]
    async fn any_one_request_fits_into_the_room_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let config = TenantsConfig::new(dir.path().to_owned(), Arc::new(StdFs), DbOptions::default());
        let tenants = Tenants::open(config).await.unwrap();
        let limits = WriteConfig { bytes_in_flight_max: 0, ..WriteConfig::default() };
        let (body, decoded) = (limits.body_bytes_max, limits.decoded_bytes_max);
        let state = WriteState::new(limits, tenants);
        let mut request = state.admission.begin();
        assert!(request.take(body).and_then(|()| request.take(decoded)).is_ok());
        assert!(request.take(1).is_err());
    }
}
