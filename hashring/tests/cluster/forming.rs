//! Founding a cluster, and keeping its ring through restarts and without a quorum.

use std::time::Duration;

use weir_hashring::{cluster::ClusterConfig, ring::NodeState};

use crate::{
    harness::{Place, TestNode, check_table, found, soon, start_founders, table, until},
    members::stop_all,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_found_a_cluster_and_keep_its_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let state = nodes[0].node().ring_state();
    let ring = (state.epoch(), state.digest());
    let cluster = nodes[0].node().cluster();
    for node in &nodes {
        node.publishes(ring).await;
        assert_eq!(node.node().cluster(), cluster);
        let slots = check_table(&node.node().ring_state());
        assert_eq!(slots.into_values().collect::<Vec<_>>(), [4096; 3]);
    }

    // Each restarts alone, and is back with the same ring before it has heard of anybody.
    for number in 0..3 {
        let uid = nodes[number].node().uid();
        let mut stopped = nodes.remove(number);
        stopped.stop().await;
        stopped.config.version = "1.0.1".to_owned();
        stopped.start_again().await;
        assert_eq!((stopped.ring_name(), stopped.node().uid()), (ring, uid));
        assert_eq!(stopped.node().status().boot, 2);
        nodes.insert(number, stopped);
        // What changed about it becomes known within the same epoch.
        for node in &nodes {
            let is_known = |state: &weir_hashring::ring::RingState| {
                state.node(uid).is_some_and(|node| node.version == "1.0.1")
            };
            let record = node.ring("the new version is known", is_known).await;
            assert_eq!((record.state.epoch(), record.state.digest()), ring);
        }
    }

    // Without a quorum the ring stays, also through restarts.
    nodes[0].stop().await;
    nodes[1].stop().await;
    assert_eq!(nodes[2].ring_name(), ring);
    nodes[2].stop().await;
    nodes[2].start_again().await;
    assert_eq!(nodes[2].ring_name(), ring);
    let states: Vec<NodeState> = nodes[2].view().nodes().iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Active; 3], "nothing happens to nodes that are down");
    nodes[0].start_again().await;
    assert_eq!(nodes[0].ring_name(), ring);
    // Two of three lead again, with the ring as it was.
    let barrier = weir_hashring::ring::Command::Barrier { nonce: 7 };
    let applied = soon("there is a leader", nodes[2].node().propose(barrier)).await;
    assert_eq!(applied, Ok(weir_hashring::ring::Applied::Barrier { nonce: 7 }));
    assert_eq!((nodes[0].ring_name(), nodes[2].ring_name()), (ring, ring));
    for node in &mut nodes {
        node.stop().await;
    }
}

/// One question takes as long as it may: who waits for a leader before it says where it is waits for ever.
fn patient(config: &mut ClusterConfig) {
    config.timers.propose = Duration::from_secs(3600);
}

/// Stops all nodes and starts them at other addresses, which only their lists of peers say.
async fn move_all(nodes: &mut [TestNode]) {
    stop_all(nodes).await;
    let mut places = Vec::new();
    for _ in 0..nodes.len() {
        places.push(Place::bind().await);
    }
    let peers: Vec<String> = places.iter().map(Place::name).collect();
    for (node, place) in nodes.iter_mut().zip(places) {
        node.config.peers.clone_from(&peers);
        node.start_at(place).await;
    }
    for node in nodes.iter() {
        let is_known = |state: &weir_hashring::ring::RingState| {
            !table(state).is_empty()
                && peers.iter().all(|peer| state.nodes().any(|node| node.addresses.cluster == *peer))
        };
        node.ring("all are known where they are", is_known).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_all_move_at_once_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, patient).await;
    let ring = nodes[0].ring_name();
    move_all(&mut nodes).await;
    for node in &nodes {
        assert_eq!(node.ring_name(), ring);
    }
    stop_all(&mut nodes).await;
}

/// Maybe nobody has led yet: then only the list of founders says who votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_all_move_at_once_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = start_founders(dir.path(), 3, |config| {
        patient(config);
        // Nobody leads before they are stopped.
        config.raft.election_timeout_min = Duration::from_secs(3);
        config.raft.election_timeout_max = Duration::from_secs(6);
    })
    .await;
    for node in &nodes {
        let entered = || node.node().cluster().map(drop).ok_or("it is in no cluster");
        until("the node is in the cluster", entered).await;
    }
    move_all(&mut nodes).await;
    stop_all(&mut nodes).await;
}
