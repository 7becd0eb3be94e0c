//! Starts and stops nodes, and waits for what they know.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use weir_hashring::{
    cluster::{ClusterConfig, ClusterNode, ClusterPolicies, ClusterTimers, Report, RingRecord, Surroundings},
    ids::{Digest, FeatureLevel, NodeNumber, PoolName, ReplicaCount, RingEpoch, SlotCount, Uid, Weight},
    raft::RaftConfig,
    ring::{Addresses, NodeState, RingState},
    table::Table,
    view::RingView,
};

/// How long a state is waited for: far beyond what any needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Looks again and again until there is what must come.
pub async fn shown<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let looks = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    soon(what, looks).await
}

/// Waits until one of these nodes, the one that leads, says that it waits with a node for this.
pub async fn waits(nodes: &[&TestNode], uid: Uid, what: &str) {
    let look = || {
        let statuses = nodes.iter().map(|node| node.node().status());
        let of_leader = statuses.flat_map(|status| status.nodes).filter(|node| node.uid == uid);
        of_leader.filter_map(|node| node.waiting).find(|waiting| waiting.contains(what))
    };
    shown(what, look).await;
}

/// Waits until a look at something gives no error; tells the last one if that does not come.
pub async fn until<E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), E>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(seen) = look() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {seen:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A node that may run or not.
pub struct TestNode {
    pub config: ClusterConfig,
    pub surroundings: Surroundings,
    address: SocketAddr,
    running: Option<(ClusterNode, JoinHandle<()>)>,
}

/// A listener is bound before anybody is told of it.
pub struct Place {
    listener: TcpListener,
    address: SocketAddr,
}

impl Place {
    pub async fn bind() -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Place { listener, address }
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }
}

/// A configuration in which everything happens soon.
pub fn config(data_path: PathBuf, name: &str, zone: &str, address: &str) -> ClusterConfig {
    ClusterConfig {
        data_path,
        name: name.to_owned(),
        zone: zone.to_owned(),
        pool: PoolName::from(PoolName::DEFAULT),
        weight: Weight::DEFAULT,
        addresses: Addresses {
            grpc: format!("{name}:10901"),
            http: format!("{name}:10902"),
            cluster: address.to_owned(),
        },
        version: "1.0.0".to_owned(),
        features: FeatureLevel(1),
        token: None,
        peers: Vec::new(),
        bootstrap_expect: 0,
        only_watches: false,
        cluster: None,
        replicas: ReplicaCount::new(3).unwrap(),
        slots: SlotCount::DEFAULT,
        policies: ClusterPolicies::default(),
        cluster_name: "test".to_owned(),
        force_new: false,
        max_voters: None,
        timers: ClusterTimers {
            bootstrap_round: Duration::from_millis(100),
            heartbeat: Duration::from_millis(200),
            retry: Duration::from_millis(100),
            watch_idle: Duration::from_secs(2),
            join_read_grace: Duration::from_millis(300),
            step_interval: Duration::from_millis(50),
            max_moves_per_step: Some(512),
            leader_round: Duration::from_millis(50),
            voter_stabilization: Duration::from_millis(500),
            voter_dead: Duration::from_secs(3),
            ..ClusterTimers::default()
        },
        raft: RaftConfig {
            heartbeat: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(1000),
            election_timeout_max: Duration::from_millis(2000),
            ..RaftConfig::default()
        },
    }
}

impl TestNode {
    pub async fn start(config: ClusterConfig, place: Place) -> TestNode {
        TestNode::start_in(config, Surroundings::default(), place).await
    }

    pub async fn start_in(config: ClusterConfig, surroundings: Surroundings, place: Place) -> TestNode {
        let mut node = TestNode { config, surroundings, address: place.address, running: None };
        node.start_on(place.listener).await;
        node
    }

    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.start_on(listener).await;
    }

    /// Starts the node at another address than before.
    pub async fn start_at(&mut self, place: Place) {
        self.address = place.address;
        self.config.addresses.cluster = place.name();
        self.start_on(place.listener).await;
    }

    async fn start_on(&mut self, listener: TcpListener) {
        let node = ClusterNode::start_in(self.config.clone(), self.surroundings.clone()).await.unwrap();
        node.report(Report { ready: true, head_series: 1, head_series_max: 100, ..Report::default() });
        let server = tokio::spawn({
            let node = node.clone();
            async move { node.serve(listener).await.unwrap() }
        });
        self.running = Some((node, server));
    }

    pub async fn stop(&mut self) {
        if let Some((node, server)) = self.running.take() {
            soon("the node stops", node.shutdown()).await;
            soon("its server stops", server).await.unwrap();
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn node(&self) -> &ClusterNode {
        &self.running.as_ref().expect("the node runs").0
    }

    /// Waits until the ring of the node is as wanted.
    pub async fn ring(&self, what: &str, is_wanted: impl Fn(&RingState) -> bool) -> Arc<RingRecord> {
        let mut ring = self.node().ring();
        let found = tokio::time::timeout(PATIENCE, ring.wait_for(|record| is_wanted(&record.state))).await;
        match found {
            Ok(record) => Arc::clone(&record.unwrap()),
            Err(_) => panic!("{what}: {:#?}", self.node().status()),
        }
    }

    /// The view as it is now.
    pub fn view(&self) -> Arc<RingView> {
        self.node().view().borrow().clone().expect("the node has a ring")
    }

    /// What names the ring of the node.
    pub fn ring_name(&self) -> (RingEpoch, Digest) {
        // The view comes a moment later.
        let state = self.node().ring_state();
        (state.epoch(), state.digest())
    }

    /// Waits until the node publishes this ring.
    pub async fn publishes(&self, name: (RingEpoch, Digest)) {
        let mut view = self.node().view();
        let is_it = |view: &Option<Arc<RingView>>| {
            view.as_ref().is_some_and(|view| (view.epoch(), view.digest()) == name)
        };
        soon("the node publishes the ring", view.wait_for(is_it)).await.unwrap();
    }
}

/// Starts nodes that found a cluster together, in as many zones, and waits for its first table.
pub async fn found(dir: &std::path::Path, count: u32, change: impl Fn(&mut ClusterConfig)) -> Vec<TestNode> {
    let nodes = start_founders(dir, count, change).await;
    for node in &nodes {
        node.ring("there is a table", |state| !table(state).is_empty()).await;
    }
    nodes
}

/// Starts nodes that found a cluster together, in as many zones.
pub async fn start_founders(
    dir: &std::path::Path,
    count: u32,
    change: impl Fn(&mut ClusterConfig),
) -> Vec<TestNode> {
    let mut places = Vec::new();
    for _ in 0..count {
        places.push(Place::bind().await);
    }
    let peers: Vec<String> = places.iter().map(Place::name).collect();
    let mut nodes = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        let name = format!("node-{number}");
        let mut config = config(dir.join(&name), &name, &format!("zone-{number}"), &place.name());
        config.peers.clone_from(&peers);
        config.bootstrap_expect = count;
        change(&mut config);
        nodes.push(TestNode::start(config, place).await);
    }
    nodes
}

/// The table of the default pool.
pub fn table(state: &RingState) -> &Table {
    static EMPTY: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::default);
    let pool = state.mapping().pools.get(&PoolName::from(PoolName::DEFAULT));
    pool.map_or(&EMPTY, |pool| &pool.table)
}

/// Checks that each row has three nodes of three zones; gives how many slots nodes have, by name.
pub fn check_table(state: &RingState) -> BTreeMap<String, u32> {
    let node_of = |number: &NodeNumber| state.nodes().find(|node| node.number == *number).unwrap();
    assert_eq!(table(state).rows().count(), 4096);
    for (slot, owners) in table(state).rows() {
        let mut zones: Vec<&str> = owners.iter().map(|owner| node_of(owner).zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        assert_eq!((owners.len(), zones.len()), (3, 3), "{slot:?}");
    }
    table(state).slots_of_nodes().iter().map(|(node, &slots)| (node_of(node).name.clone(), slots)).collect()
}

/// The state of a node by its name.
pub fn state_of(state: &RingState, name: &str) -> Option<NodeState> {
    state.nodes().find(|node| node.name == name).map(|node| node.state)
}
