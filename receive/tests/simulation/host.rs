//! A host: the real control plane of a node, and a small data plane beside it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::time::sleep;
use tonic::{body::Body, codegen::Service};
use weir_hashring::{
    cluster::{
        ClusterConfig, ClusterFailure, ClusterNode, ClusterPolicies, ClusterTimers, Nature, ReplacePolicy,
        Report, RingRecord, StaticPeers, Surroundings,
    },
    fencing::Fence,
    ids::{FeatureLevel, PoolName, ReplicaCount, SlotCount, Uid, UnixMillis, Weight},
    raft::RaftConfig,
    ring::{Addresses, NodeState, RingState},
    view::RingView,
};

use crate::{
    chance::Chance,
    disk::HostDisk,
    mutant::Mutant,
    network::{Handler, Network, Sky},
    options::Options,
    oracle::Oracle,
    writes,
};

pub const PORT: u16 = 7000;

/// So long a draining node without slots waits before it cuts its head.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// One host, over all of its starts.
pub struct Host {
    pub index: usize,
    pub disk: HostDisk,
    pub oracle: Arc<Oracle>,
    pub options: Arc<Options>,
    sky: Arc<Mutex<Sky>>,
    port: AtomicU64,
    starts: AtomicU64,
    running: Mutex<Option<Arc<Running>>>,
    /// It has left its cluster, or was replaced.
    is_gone: AtomicBool,
}

/// A host that runs.
pub struct Running {
    pub node: ClusterNode,
    pub network: Network,
    fence: Mutex<Option<KnownFence>>,
}

/// A fence, and what it was made from: the ring, and whether the head was closed.
type KnownFence = (Arc<RingRecord>, bool, Option<Fence>);

pub fn name(index: usize) -> String {
    format!("h{index}")
}

impl Host {
    pub fn new(
        index: usize,
        disk: HostDisk,
        oracle: Arc<Oracle>,
        options: Arc<Options>,
        sky: Arc<Mutex<Sky>>,
    ) -> Host {
        oracle.add_disk(index, &disk);
        Host {
            index,
            disk,
            oracle,
            options,
            sky,
            port: AtomicU64::new(PORT.into()),
            starts: AtomicU64::new(0),
            running: Mutex::default(),
            is_gone: AtomicBool::new(false),
        }
    }

    pub fn address(&self) -> String {
        format!("{}:{}", name(self.index), self.port.load(Ordering::Relaxed))
    }

    /// It will be elsewhere when it starts again.
    pub fn move_away(&self) {
        self.port.fetch_add(1, Ordering::Relaxed);
    }

    pub fn running(&self) -> Option<Arc<Running>> {
        self.running.lock().clone()
    }

    pub fn stopped(&self) {
        *self.running.lock() = None;
    }

    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    pub fn is_mutant(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    /// The program of the host.
    pub async fn run(self: Arc<Host>) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let mut chance = Chance::of(self.options.seed, &[self.index as u64, start]);
        let own: IpAddr = turmoil::lookup(name(self.index));
        let port = self.port.load(Ordering::Relaxed) as u16;
        let network = Network::bind(port, own, chance.next(), Arc::clone(&self.sky)).await?;
        let config = self.config(&mut chance);
        let surroundings = Surroundings {
            resolver: Arc::new(StaticPeers),
            guard: None,
            dialer: Arc::new(network.clone()),
            storage: Arc::new(self.disk.clone()),
            nature: Arc::new(HostNature { chance: Mutex::new(chance), fixed: self.fixed_uid() }),
        };
        let node = match ClusterNode::start_in(config, surroundings).await {
            Ok(node) => node,
            Err(error) => {
                self.oracle.fail(format!("host {} does not start: {error}", self.index));
                return Ok(());
            }
        };
        self.oracle.started(self.index, node.uid(), self.disk.incarnation());
        node.report(Report { ready: true, head_series: 1, head_series_max: 100, ..Report::default() });
        let running =
            Arc::new(Running { node: node.clone(), network: network.clone(), fence: Mutex::default() });
        *self.running.lock() = Some(Arc::clone(&running));
        let handler = self.handler(&running);
        tokio::spawn(async move { network.run(handler).await });
        let mut without_slots = Duration::ZERO;
        let pause = Duration::from_millis(100);
        loop {
            tokio::select! {
                biased;
                failure = node.failed() => {
                    match failure {
                        ClusterFailure::Gone => self.is_gone.store(true, Ordering::Relaxed),
                        other => self.oracle.fail(format!("host {} ends: {other}", self.index)),
                    }
                    self.oracle.note(self.index, "ends");
                    self.stopped();
                    return Ok(());
                }
                () = sleep(pause) => {
                    without_slots = if self.is_drained(&running) { without_slots + pause } else { Duration::ZERO };
                    if without_slots > DRAIN_GRACE {
                        self.upload().await;
                    }
                }
            }
        }
    }

    fn is_drained(&self, running: &Running) -> bool {
        let record = Arc::clone(&running.node.ring().borrow());
        let node = record.state.node(running.node.uid());
        node.is_some_and(|node| node.state == NodeState::Draining && !record.state.holds_slots(node.number))
    }

    /// Cuts the head and uploads it, once.
    async fn upload(&self) {
        if self.disk.is_closed() {
            return;
        }
        self.disk.close();
        while !self.disk.is_synced() {
            sleep(Duration::from_millis(10)).await;
        }
        self.oracle.uploaded(self.index, self.disk.samples());
    }

    /// What a bug gives this host for an identity, whatever it lost.
    fn fixed_uid(&self) -> Option<Uid> {
        let mut chance = Chance::of(self.options.seed, &[0xf1ced, self.index as u64]);
        let uid = Uid((u128::from(chance.next()) << 64) | u128::from(chance.next()));
        self.is_mutant(Mutant::IdReused).then_some(uid)
    }

    fn config(&self, chance: &mut Chance) -> ClusterConfig {
        let name = name(self.index);
        let address = self.address();
        let founders = self.options.founders;
        // The library draws its time from a generator that nobody can seed. Here it has no choice.
        let election_timeout = Duration::from_millis(chance.between(1200, 2400));
        ClusterConfig {
            data_path: self.disk.dir(),
            zone: format!("zone-{}", self.index % 3),
            pool: PoolName::from(PoolName::DEFAULT),
            weight: Weight::DEFAULT,
            addresses: Addresses { grpc: address.clone(), http: address.clone(), cluster: address },
            version: "1".to_owned(),
            features: FeatureLevel(1),
            token: None,
            peers: (0..founders).map(|index| format!("{}:{PORT}", self::name(index))).collect(),
            bootstrap_expect: if self.index < founders { founders as u32 } else { 0 },
            only_watches: false,
            cluster: None,
            replicas: ReplicaCount::new(3).expect("it is allowed"),
            slots: SlotCount::MIN,
            cluster_name: "simulation".to_owned(),
            force_new: false,
            max_voters: None,
            // The operator of the simulation says when.
            policies: ClusterPolicies { replace: ReplacePolicy::Manual, ..ClusterPolicies::default() },
            timers: ClusterTimers {
                bootstrap_round: Duration::from_millis(300),
                connect: Duration::from_millis(500),
                call: Duration::from_millis(800),
                propose: Duration::from_secs(4),
                heartbeat: Duration::from_secs(1),
                retry: Duration::from_millis(300),
                watch_idle: Duration::from_secs(4),
                join_read_grace: Duration::from_secs(2),
                step_interval: Duration::from_secs(1),
                max_moves_per_step: Some(64),
                leader_round: Duration::from_millis(500),
                ..ClusterTimers::default()
            },
            raft: RaftConfig {
                heartbeat: Duration::from_millis(300),
                election_timeout_min: election_timeout,
                election_timeout_max: election_timeout + Duration::from_millis(1),
                install_snapshot_timeout: Duration::from_secs(2),
                snapshot_every_entries: 12,
                entries_kept: 24,
                propose_timeout: Duration::from_secs(3),
                change_timeout: Duration::from_secs(10),
            },
            name,
        }
    }

    fn handler(self: &Arc<Host>, running: &Arc<Running>) -> Handler {
        let (host, running) = (Arc::clone(self), Arc::clone(running));
        let routes = running.node.services();
        Arc::new(move |path, body| {
            let (host, running, mut routes) = (Arc::clone(&host), Arc::clone(&running), routes.clone());
            Box::pin(async move {
                if path.starts_with("/simulation/") {
                    return writes::answer(&host, &running, &path, body).await;
                }
                let request = http::Request::post(&path)
                    .header(http::header::CONTENT_TYPE, "application/grpc")
                    .version(http::Version::HTTP_2)
                    .body(Body::new(Full::<Bytes>::new(body)))
                    .expect("a path was a path before");
                match routes.call(request).await {
                    Ok(response) => response.map(Body::new),
                    Err(never) => match never {},
                }
            })
        })
    }
}

impl Running {
    pub fn view(&self) -> Option<Arc<RingView>> {
        self.node.view().borrow().clone()
    }

    pub fn record(&self) -> Arc<RingRecord> {
        Arc::clone(&self.node.ring().borrow())
    }

    /// Judges with the fence of the ring as it is now, and gives that ring.
    pub fn fence<T>(&self, host: &Host, judge: impl FnOnce(&Fence) -> T) -> Option<(T, Arc<RingRecord>)> {
        let (record, is_closed) = (self.record(), host.disk.is_closed());
        let mut kept = self.fence.lock();
        let is_current =
            kept.as_ref().is_some_and(|(of, closed, _)| Arc::ptr_eq(of, &record) && *closed == is_closed);
        if !is_current {
            let forgets = host.is_mutant(Mutant::LeastWriteEpochUnchecked);
            let state = if forgets { without_least_epoch(&record.state) } else { record.state.clone() };
            *kept = Some((Arc::clone(&record), is_closed, Fence::new(&state, self.node.uid(), is_closed)));
        }
        let (_, _, fence) = kept.as_ref()?;
        Some((judge(fence.as_ref()?), record))
    }
}

/// The state as if no node had ever gone.
fn without_least_epoch(state: &RingState) -> RingState {
    let json = serde_json::to_string(state).expect("a state is text and numbers");
    let field = "\"min_write_epoch\":";
    let (before, rest) = json.split_once(field).expect("a state has it");
    let after = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    serde_json::from_str(&format!("{before}{field}0{after}")).expect("it is a state")
}

/// Chance and time of one start of a host.
#[derive(Debug)]
struct HostNature {
    chance: Mutex<Chance>,
    fixed: Option<Uid>,
}

impl Nature for HostNature {
    fn random(&self) -> u128 {
        let mut chance = self.chance.lock();
        (u128::from(chance.next()) << 64) | u128::from(chance.next())
    }

    fn now(&self) -> UnixMillis {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        UnixMillis(1_700_000_000_000 + elapsed.as_millis() as i64)
    }

    fn new_uid(&self) -> Uid {
        // Any order of the uids of founders must do.
        self.fixed.unwrap_or_else(|| Uid(self.random()))
    }
}
