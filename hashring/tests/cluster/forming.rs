//! Founding a cluster, and keeping its ring through restarts and without a quorum.

use weir_hashring::ring::NodeState;

use crate::harness::{check_table, found, soon};

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
