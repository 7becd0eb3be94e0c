//! Who does not belong to a cluster.

use weir_hashring::{
    cluster::{
        ClusterConfig, ClusterFailure, ClusterNode, ProposeFailed, StartError, bootstrap::BootstrapError,
    },
    ids::{ClusterId, ReplicaCount, SlotCount},
    ring::{NodeState, Rejected, RingState},
};
use weir_proto::weir_cluster::{
    HeartbeatRequest, JoinRequest, ProposeRequest, WatchRequest, cluster_client::ClusterClient,
};

use crate::harness::{Place, TestNode, config, found, soon, state_of};

fn small(config: &mut ClusterConfig) {
    config.replicas = ReplicaCount::new(1).unwrap();
    config.slots = SlotCount::MIN;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_cluster_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = found(&dir.path().join("one"), 1, small).await.remove(0);
    let mut other = found(&dir.path().join("other"), 1, small).await.remove(0);
    let (cluster, other_cluster) = (one.node().cluster().unwrap(), other.node().cluster().unwrap());
    assert_ne!(cluster, other_cluster);

    let mut client =
        ClusterClient::connect(format!("http://{}", one.config.addresses.cluster)).await.unwrap();
    let refused = |result: Result<(), tonic::Status>| {
        let status = result.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    };
    let (version, cluster_id) = (1, other_cluster.0.to_vec());
    let uid = other.node().uid().0.to_be_bytes().to_vec();
    let (registration, command) = (Vec::new(), Vec::new());
    let join = JoinRequest {
        version,
        cluster_id: cluster_id.clone(),
        registration,
        forward: true,
        ..JoinRequest::default()
    };
    refused(client.join(join).await.map(drop));
    let propose = ProposeRequest {
        version,
        cluster_id: cluster_id.clone(),
        command,
        forward: true,
        ..ProposeRequest::default()
    };
    refused(client.propose(propose).await.map(drop));
    let watch = WatchRequest { version, cluster_id: cluster_id.clone(), generation: 0, entries_applied: 0 };
    refused(client.watch_ring(watch).await.map(drop));
    let heartbeat = HeartbeatRequest { version, cluster_id, uid, ..HeartbeatRequest::default() };
    refused(client.heartbeat(heartbeat).await.map(drop));

    // Its disk decides, whatever it is told about peers; unless it is told where it may be.
    other.stop().await;
    other.config.peers = vec![one.config.addresses.cluster.clone()];
    other.start_again().await;
    assert_eq!(other.node().cluster(), Some(other_cluster));
    let mut guarded = other.config.clone();
    other.stop().await;
    guarded.cluster = Some(cluster);
    let refused = ClusterNode::start(guarded).await.err();
    let ids = |error: &StartError| match error {
        StartError::OtherCluster { own, expected, .. } => Some((*own, *expected)),
        _ => None,
    };
    assert_eq!(refused.as_ref().and_then(ids), Some((other_cluster, cluster)), "{refused:?}");
    assert_eq!(one.node().ring_state().nodes().count(), 1);

    // A new node that sees both clusters, or another than it may be in, stops.
    other.start_again().await;
    let start = async |name: &str, guard: Option<ClusterId>, peers: &[&TestNode]| {
        let place = Place::bind().await;
        let mut config = config(dir.path().join(name), name, "", &place.name());
        config.peers = peers.iter().map(|peer| peer.config.addresses.cluster.clone()).collect();
        config.cluster = guard;
        let mut node = TestNode::start(config, place).await;
        let failure = soon("the node fails", node.node().failed()).await;
        node.stop().await;
        failure
    };
    let both = start("both", None, &[&one, &other]).await;
    let ClusterFailure::Bootstrap(BootstrapError::TwoClusters(first, second)) = both else {
        panic!("{both}")
    };
    assert!([(first, second), (second, first)].contains(&(cluster, other_cluster)));
    let expected = BootstrapError::OtherCluster { expected: cluster, found: other_cluster };
    assert_eq!(start("guarded", Some(cluster), &[&other]).await, ClusterFailure::Bootstrap(expected));
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_with_an_old_name_is_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = found(dir.path(), 1, small).await.remove(0);
    let place = Place::bind().await;
    let mut second = config(dir.path().join("second"), "second", "zone-2", &place.name());
    second.peers = vec![one.config.addresses.cluster.clone()];
    let mut second = TestNode::start(second, place).await;
    let is_active = |state: &RingState| state_of(state, "second") == Some(NodeState::Active);
    one.ring("the second node is active", is_active).await;
    let old = second.node().uid();

    let place = Place::bind().await;
    let mut wiped = second.config.clone();
    wiped.data_path = dir.path().join("wiped");
    wiped.addresses.cluster = place.name();
    let mut wiped = TestNode::start(wiped, place).await;
    assert_ne!(wiped.node().uid(), old);
    let mut refusals = wiped.node().refusal();
    let refusal = soon("the node is refused", refusals.wait_for(Option::is_some)).await.unwrap().clone();
    assert_eq!(refusal, Some(ProposeFailed::Rejected(Rejected::NameTaken(old))));
    assert!(wiped.node().view().borrow().is_none() && wiped.node().cluster().is_none());
    assert!(one.node().ring_state().node(wiped.node().uid()).is_none());
    assert!(one.node().ring_state().node(old).is_some());

    // Once the old one is gone, the name is free. It was heard of a moment ago, so it takes force.
    second.stop().await;
    let gone = weir_hashring::ring::Command::SetNodeState {
        uid: old,
        from: NodeState::Active,
        to: NodeState::Lost,
        reason: "its disk is empty".to_owned(),
    };
    soon("the old one is lost", one.node().propose_forced(gone)).await.unwrap();
    let is_known = |state: &RingState| state.node(wiped.node().uid()).is_some();
    one.ring("the new one is known", is_known).await;
    // And the old one can never come back.
    second.start_again().await;
    assert_eq!(soon("the old one fails", second.node().failed()).await, ClusterFailure::Gone);
    for node in [&mut one, &mut second, &mut wiped] {
        node.stop().await;
    }
}

/// Whoever has the address of a node of another cluster now does not speak for the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_another_cluster_has_now_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = found(dir.path(), 1, small).await.remove(0);
    let place = Place::bind().await;
    let mut watcher = config(dir.path().join("watcher"), "watcher", "", &place.name());
    (watcher.peers, watcher.only_watches) = (vec![one.config.addresses.cluster.clone()], true);
    watcher.timers.propose = std::time::Duration::from_secs(1);
    let mut watcher = TestNode::start(watcher, place).await;
    watcher.ring("it knows the ring", |state| state.nodes().count() == 1).await;
    one.stop().await;

    let mut other = one.config.clone();
    other.data_path = dir.path().join("other");
    one.config = other;
    one.start_again().await;
    one.ring("the other cluster is founded", |state| state.cluster().is_some()).await;
    assert_ne!(one.node().cluster(), watcher.node().cluster());
    let barrier = weir_hashring::ring::Command::Barrier { nonce: 1 };
    let failed = soon("it gives up", watcher.node().propose(barrier)).await.unwrap_err();
    let ProposeFailed::NoLeader { last, .. } = &failed else { panic!("{failed}") };
    assert!(last.contains("the request is of"), "{failed}");
    one.stop().await;
    watcher.stop().await;
}
