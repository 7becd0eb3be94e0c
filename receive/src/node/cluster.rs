//! A node of a cluster: its part in agreeing on the ring, and the ring put in force here.
//!
//! [`ClusterNode`] knows the ring; this module hands it to the two sides of the data path. For each
//! ring the receiving side comes first ([`WriteFence`]), then the sending side
//! ([`WriteState::set_routing`]), so that a node never sends by a ring that it would itself refuse.
//! Nothing on the write path waits for any of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{Gauge, gauge};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use weir_hashring::{
    cluster::{
        ClusterConfig, ClusterFailure, ClusterNode, Report, RingRecord, Surroundings, resolve::PeerResolver,
    },
    ids::{Digest, FeatureLevel, Uid, UnixMillis},
    ring::{Addresses, NodeState},
    view::RingView,
};

use super::{NodeError, drain::Drain, founding::BucketGuard, uploads::Uploads};
use crate::{
    config::ClusterSettings,
    objstore::Bucket,
    readiness::Readiness,
    replicate::{Peers, fence::WriteFence, routing::Routing},
    tenants::{TenantState, Tenants},
    write::WriteState,
};

/// What this program can do, as nodes compare it.
const FEATURES: FeatureLevel = FeatureLevel(1);
/// How often a node that waits for a ring says so.
const WAIT_NOTICE: Duration = Duration::from_secs(10);

/// A node's part in its cluster.
#[derive(Clone)]
pub struct Cluster {
    node: ClusterNode,
    heartbeat: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cluster").field("uid", &self.node.uid()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts it. The node has the ring of its last run at once; all else happens in the background.
    ///
    /// # Errors
    /// If what lies in the data path cannot be used, or is of another cluster.
    pub async fn start(
        settings: &ClusterSettings,
        addresses: Addresses,
        bucket: Option<Bucket>,
    ) -> Result<Self, NodeError> {
        let config = ClusterConfig {
            data_path: settings.data_path.clone(),
            name: settings.name.clone(),
            zone: settings.zone.clone(),
            pool: settings.pool.clone(),
            weight: settings.weight,
            addresses,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES,
            token: settings.join_token.clone(),
            peers: settings.peers.clone(),
            bootstrap_expect: settings.bootstrap_expect,
            only_watches: settings.is_router,
            cluster: settings.id,
            replicas: settings.replicas,
            slots: settings.slots,
            cluster_name: settings.cluster_name.clone(),
            force_new: settings.force_new,
            max_voters: settings.max_voters,
            policies: settings.policies.clone(),
            timers: settings.timers.clone(),
            raft: settings.raft.clone(),
        };
        let surroundings = Surroundings {
            resolver: Arc::new(PeerResolver::default()),
            guard: bucket.map(|bucket| Arc::new(BucketGuard::new(bucket)) as _),
            ..Surroundings::default()
        };
        let node = ClusterNode::start_in(config, surroundings).await.map_err(NodeError::part("cluster"))?;
        Ok(Self { node, heartbeat: settings.timers.heartbeat })
    }

    /// Who this node is.
    pub fn uid(&self) -> Uid {
        self.node.uid()
    }

    /// Serves Raft, the ring, joining and administration until [`Self::shutdown`].
    pub async fn serve(self, listener: TcpListener) {
        if let Err(error) = self.node.serve(listener).await {
            tracing::error!(%error, "the cluster's server ended");
        }
    }

    /// Waits until the node cannot be part of its cluster any more, and tells why.
    pub async fn failed(&self) -> ClusterFailure {
        self.node.failed().await
    }

    /// Ends the node's part in the cluster; the ring in force stays.
    pub async fn shutdown(&self) {
        self.node.shutdown().await;
    }

    /// Waits until there is a ring, which it takes a founded cluster for.
    pub async fn first_ring(&self) {
        let mut records = self.node.ring();
        let refusal = self.node.refusal();
        loop {
            let founded = records.wait_for(|record| record.state.cluster().is_some());
            if timeout(WAIT_NOTICE, founded).await.is_ok() {
                return;
            }
            match &*refusal.borrow() {
                Some(refusal) => {
                    tracing::warn!(%refusal, "the node waits for a ring: its cluster refuses it")
                }
                None => tracing::info!("the node waits for a ring"),
            }
        }
    }

    /// Puts the rings of the cluster in force as they come.
    pub fn keeper(&self, peers: Arc<Peers>, fence: Arc<WriteFence>, drain: Arc<Drain>) -> RingKeeper {
        RingKeeper {
            own: self.uid(),
            drain,
            records: self.node.ring(),
            peers,
            fence,
            in_force: None,
            metrics: RingMetrics::new(),
        }
    }

    /// Tells the cluster again and again how this node is doing, until `stop` is cancelled.
    pub async fn report(self, doing: Doing, stop: CancellationToken) {
        let mut ticks = interval((self.heartbeat / 2).max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clock = ClockWatch::new();
        let (is_leader, has_quorum) = (gauge!("weir_raft_is_leader"), gauge!("weir_raft_quorum"));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let asked = doing.clone();
            // It asks each head, which may be busy with a write.
            let report = tokio::task::spawn_blocking(move || asked.report()).await;
            self.node.report(report.expect("telling how a node is doing does not panic"));
            self.heed_clock(&doing.write, &mut clock);
            let status = self.node.status();
            is_leader.set(f64::from(u8::from(status.raft.is_some_and(|raft| raft.is_leader))));
            has_quorum.set(f64::from(u8::from(status.has_quorum)));
        }
    }
}

/// How far the clock of a node may be off the middle of all.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(60);

/// What is told of the clock.
struct ClockWatch {
    seconds: Gauge,
    is_off: bool,
}

impl ClockWatch {
    fn new() -> Self {
        Self { seconds: gauge!("weir_cluster_clock_offset_seconds"), is_off: false }
    }
}

impl Cluster {
    /// A node whose clock is far off would refuse good samples as too far in the future, or take bad
    /// ones: it takes no writes, says so, and others take them.
    fn heed_clock(&self, write: &WriteState, watch: &mut ClockWatch) {
        let offset_ms = self.node.clock_offset().borrow().unwrap_or_default();
        watch.seconds.set(offset_ms as f64 / 1000.0);
        let is_off = u128::from(offset_ms.unsigned_abs()) > CLOCK_OFF_MAX.as_millis();
        write.set_clock_is_off(is_off);
        if is_off != watch.is_off {
            watch.is_off = is_off;
            match is_off {
                true => tracing::error!(offset_ms, "the clock of this node is off: it takes no writes"),
                false => tracing::info!(offset_ms, "the clock of this node is right again"),
            }
        }
    }
}

/// What tells how a node is doing.
#[derive(Clone, Debug)]
pub struct Doing {
    /// What takes writes.
    pub write: Arc<WriteState>,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// What it holds.
    pub tenants: Arc<Tenants>,
    /// What of it is in the bucket; `None` without one.
    pub uploads: Option<Arc<Uploads>>,
    /// Whether it has given all of it away.
    pub drain: Arc<Drain>,
}

impl Doing {
    fn report(&self) -> Report {
        let heads = self.tenants.list();
        Report {
            ready: self.readiness.is_ready(),
            head_series: heads.iter().map(|tenant| tenant.db.stats().head_series).sum(),
            head_series_max: 0,
            uploaded_through: self.uploaded_through(),
            drained: self.drain.is_done(),
        }
    }

    /// Every sample older than this that the node holds is in the bucket.
    fn uploaded_through(&self) -> Option<UnixMillis> {
        let is_open = |(_, state): &(_, TenantState)| *state == TenantState::Serving;
        let uploads = self.uploads.as_ref().filter(|_| self.tenants.states().iter().all(is_open))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let now = i64::try_from(now.as_millis()).ok()?;
        Some(UnixMillis(uploads.oldest_not_uploaded(&self.tenants).unwrap_or(now).min(now)))
    }
}

/// Puts the rings of a cluster in force.
#[derive(Debug)]
pub struct RingKeeper {
    own: Uid,
    records: watch::Receiver<Arc<RingRecord>>,
    peers: Arc<Peers>,
    fence: Arc<WriteFence>,
    drain: Arc<Drain>,
    /// The ring that was put in force last.
    in_force: Option<RingInForce>,
    metrics: RingMetrics,
}

/// What tells one ring from the other. Generations count their epochs each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RingInForce {
    generation: u64,
    epoch: u64,
    nodes_version: u64,
    digest: Digest,
}

#[derive(Debug)]
struct RingMetrics {
    epoch: Gauge,
    digest: Gauge,
    own_slots: Gauge,
}

impl RingMetrics {
    fn new() -> Self {
        Self {
            epoch: gauge!("weir_ring_epoch"),
            digest: gauge!("weir_ring_digest"),
            own_slots: gauge!("weir_ring_own_slots"),
        }
    }

    fn set(&self, record: &RingRecord, view: &RingView, own: Uid) {
        self.epoch.set(view.epoch().0 as f64);
        // 48 bits, which a float holds exactly.
        self.digest.set((view.digest().0 >> 16) as f64);
        let number = record.state.node(own).map(|node| node.number);
        let pools = record.state.mapping().pools.values();
        let slots = pools.filter_map(|pool| pool.table.slots_of_nodes().get(&number?).copied());
        self.own_slots.set(f64::from(slots.sum::<u32>()));
        for state in NodeState::ALL {
            let name = format!("{state:?}").to_lowercase();
            let count = view.nodes().iter().filter(|node| node.state == state).count();
            gauge!("weir_ring_nodes", "state" => name).set(count as f64);
        }
    }
}

impl RingKeeper {
    /// Puts the ring in force that is known now, if it is another one.
    pub async fn put_in_force(mut self, write: Arc<WriteState>) -> Self {
        // Building it takes a moment, and the fence waits for batches that are being stored.
        let work = move || {
            self.put_in_force_now(&write);
            self
        };
        tokio::task::spawn_blocking(work).await.expect("putting a ring in force does not panic")
    }

    fn put_in_force_now(&mut self, write: &WriteState) {
        let record = self.records.borrow_and_update().clone();
        let state = &record.state;
        let next = RingInForce {
            generation: record.generation,
            epoch: state.epoch().0,
            nodes_version: state.nodes_version().0,
            digest: state.digest(),
        };
        if self.in_force == Some(next) {
            return;
        }
        let Some(view) = RingView::new(state).map(Arc::new) else { return };
        let leaves = state.node(self.own).is_some_and(|node| {
            let is_leaving = matches!(node.state, NodeState::Draining | NodeState::Drained);
            is_leaving && !state.holds_slots(node.number)
        });
        self.fence.set_cluster(state, view.clone(), self.own, leaves);
        let routing = Routing::of_cluster(view.clone(), self.own, &self.peers);
        write.set_routing(routing.clone());
        self.drain.ring_in_force(&routing, leaves);
        self.metrics.set(&record, &view, self.own);
        let of = |ring: RingInForce| (ring.generation, ring.epoch);
        if self.in_force.map(of) != Some(of(next)) {
            let RingInForce { epoch, digest, .. } = next;
            tracing::info!(epoch, %digest, nodes = view.nodes().len(), "a new ring is in force");
        }
        self.in_force = Some(next);
    }

    /// Puts rings in force until `stop` is cancelled.
    pub async fn watch(mut self, write: Arc<WriteState>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.records.changed() => if changed.is_err() {
                    // Only at a stop.
                    return stop.cancelled().await;
                },
            }
            self = self.put_in_force(write.clone()).await;
        }
    }
}
