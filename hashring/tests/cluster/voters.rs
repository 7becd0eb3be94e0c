//! Who votes.

use weir_hashring::{raft::RaftConfig, ring::NodeState};
use weir_proto::weir_cluster::{StartRaftRequest, cluster_client::ClusterClient};

use crate::{
    harness::{Place, TestNode, config, found, state_of},
    members::{check_works, join, set_state, stop_all, voters, wait_for_voters, wait_for_watchers},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_founders_and_two_more_become_five_voters() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    join(dir.path(), &mut nodes, "zone-0", |_| ()).await;
    wait_for_watchers(&[&nodes[3]]).await;
    check_start_is_refused(&nodes[3]).await;
    wait_for_watchers(&[&nodes[3]]).await;
    join(dir.path(), &mut nodes, "zone-1", |_| ()).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    wait_for_voters(&all, &["node-0", "node-1", "node-2", "node-3", "node-4"]).await;

    // A voter that was none when the cluster began comes back as one, before it hears of anybody.
    for number in [3, 4] {
        nodes[number].stop().await;
        nodes[number].start_again().await;
        assert_eq!(voters(&nodes[number].node().status()).len(), 5);
    }
    // Two of five may be gone.
    nodes[0].stop().await;
    nodes[1].stop().await;
    check_works(&nodes[4]).await;
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_and_drained_voters_are_replaced_and_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    join(dir.path(), &mut nodes, "zone-1", |_| ()).await;

    // The drained one goes on, and watches.
    set_state(&nodes[3], &nodes[1], NodeState::Active, NodeState::Draining).await;
    wait_for_voters(&[&nodes[0], &nodes[2], &nodes[3]], &["node-0", "node-2", "node-3"]).await;
    wait_for_watchers(&[&nodes[1]]).await;
    check_works(&nodes[1]).await;
    nodes[1].stop().await;
    nodes[1].start_again().await;
    wait_for_watchers(&[&nodes[1]]).await;

    // It stays after all, and takes the place of one that dies. What it promised is still there.
    set_state(&nodes[1], &nodes[1], NodeState::Draining, NodeState::Active).await;
    nodes[3].stop().await;
    wait_for_voters(&[&nodes[0], &nodes[1], &nodes[2]], &["node-0", "node-1", "node-2"]).await;

    // The dead one comes back, hears that it is no voter any more, and disturbs nobody.
    let term = nodes[0].node().status().raft.unwrap().term;
    nodes[3].start_again().await;
    wait_for_watchers(&[&nodes[3]]).await;
    check_works(&nodes[3]).await;
    wait_for_voters(&[&nodes[0]], &["node-0", "node-1", "node-2"]).await;
    assert_eq!(nodes[0].node().status().raft.unwrap().term, term);
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_founder_becomes_three_voters_and_may_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found_alone(dir.path()).await;
    join(dir.path(), &mut nodes, "zone-1", |_| ()).await;
    assert_eq!(voters(&nodes[0].node().status()), ["node-0"]);
    join(dir.path(), &mut nodes, "zone-2", |_| ()).await;
    wait_for_voters(&[&nodes[0], &nodes[1], &nodes[2]], &["node-0", "node-1", "node-2"]).await;
    let ring = nodes[0].node().ring_state();
    nodes[0].stop().await;
    check_works(&nodes[1]).await;
    check_works(&nodes[2]).await;
    assert_eq!(nodes[2].node().ring_state().cluster(), ring.cluster());
    stop_all(&mut nodes).await;
}

/// Who was a voter and has nothing of it any more never votes again, and nobody votes for another.
async fn check_start_is_refused(node: &TestNode) {
    let address = format!("http://{}", node.config.addresses.cluster);
    let mut client = ClusterClient::connect(address).await.unwrap();
    let good = StartRaftRequest {
        version: 1,
        cluster_id: node.node().cluster().unwrap().0.to_vec(),
        generation: 0,
        uid: node.node().uid().0.to_be_bytes().to_vec(),
        is_used: true,
    };
    for (bad, expected) in [
        (good.clone(), "its store is missing"),
        (StartRaftRequest { uid: vec![1; 16], is_used: false, ..good.clone() }, "this is node"),
        (StartRaftRequest { generation: 1, is_used: false, ..good.clone() }, "in generation 0"),
        (StartRaftRequest { cluster_id: vec![1; 16], is_used: false, ..good }, "this node is in cluster"),
    ] {
        let refused = client.start_raft(bad).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains(expected), "{refused}");
    }
}

/// A node that founds a cluster alone; its ring has no table before there are three.
async fn found_alone(dir: &std::path::Path) -> Vec<TestNode> {
    let place = Place::bind().await;
    let mut config = config(dir.join("node-0"), "node-0", "zone-0", &place.name());
    config.bootstrap_expect = 1;
    // What is lost with a leader is found again soon.
    config.raft = RaftConfig { propose_timeout: std::time::Duration::from_secs(3), ..config.raft };
    let node = TestNode::start(config, place).await;
    node.ring("the node is active", |state| state_of(state, "node-0") == Some(NodeState::Active)).await;
    vec![node]
}
