//! What tests of voters have in common.

use weir_hashring::{
    cluster::{ClusterConfig, ClusterStatus},
    ring::{Applied, Command, NodeState, RingState},
};

use crate::harness::{Place, TestNode, config, soon, state_of, until};

/// Another node in a zone, that joins and is waited for.
pub async fn join(
    dir: &std::path::Path,
    nodes: &mut Vec<TestNode>,
    zone: &str,
    configure: fn(&mut ClusterConfig),
) {
    let name = format!("node-{}", nodes.len());
    join_as(dir, nodes, &name, zone, configure).await;
}

/// As [`join`], with a name.
pub async fn join_as(
    dir: &std::path::Path,
    nodes: &mut Vec<TestNode>,
    name: &str,
    zone: &str,
    configure: fn(&mut ClusterConfig),
) {
    let place = Place::bind().await;
    let mut config = config(dir.join(name), name, zone, &place.name());
    config.peers = nodes.iter().map(|node| node.config.addresses.cluster.clone()).collect();
    configure(&mut config);
    let node = TestNode::start(config, place).await;
    let is_active = |state: &RingState| state_of(state, name) == Some(NodeState::Active);
    node.ring("the node is active", is_active).await;
    nodes.push(node);
}

/// The voters that a node knows, by name, ascending.
pub fn voters(status: &ClusterStatus) -> Vec<String> {
    let voters = status.raft.iter().flat_map(|raft| &raft.voters);
    let name = |id: &u64| {
        let node = status.nodes.iter().find(|node| node.uid.raft_id().0 == *id);
        node.map_or_else(|| format!("{id}"), |node| node.name.clone())
    };
    let mut names: Vec<String> = voters.map(name).collect();
    names.sort();
    names
}

/// Waits until all of these nodes, and the leader among them, say that these vote and no others.
pub async fn wait_for_voters(nodes: &[&TestNode], expected: &[&str]) {
    for node in nodes {
        until(&format!("the voters are {expected:?}"), || {
            let status = node.node().status();
            let is_led = status.raft.as_ref().is_some_and(|raft| raft.leader.is_some() && !raft.is_changing);
            if voters(&status) == expected && is_led { Ok(()) } else { Err(Box::new(status)) }
        })
        .await;
    }
}

/// Waits until these nodes take no part in Raft.
pub async fn wait_for_watchers(nodes: &[&TestNode]) {
    for node in nodes {
        until("the node watches", || {
            let status = node.node().status();
            if status.raft.is_none() { Ok(()) } else { Err(Box::new(status)) }
        })
        .await;
    }
}

/// A command is applied by whoever leads.
pub async fn check_works(node: &TestNode) {
    let barrier = Command::Barrier { nonce: 5 };
    let applied = soon("there is a leader", async {
        loop {
            if let Ok(applied) = node.node().propose(barrier.clone()).await {
                return applied;
            }
        }
    });
    assert_eq!(applied.await, Applied::Barrier { nonce: 5 });
}

pub async fn set_state(node: &TestNode, of: &TestNode, from: NodeState, to: NodeState) {
    let (uid, reason) = (of.node().uid(), "test".to_owned());
    let command = Command::SetNodeState { uid, from, to, reason };
    assert_eq!(soon("the state is set", node.node().propose(command)).await, Ok(Applied::Done));
}

pub async fn stop_all(nodes: &mut [TestNode]) {
    for node in nodes {
        node.stop().await;
    }
}
