//! Nodes that go: as they should, or given up.

use std::{path::Path, time::Duration};

use weir_hashring::{
    cluster::{ClusterConfig, ClusterFailure, ProposeFailed, Report},
    ids::Uid,
    ring::{Applied, Command, NodeState, RingState},
};

use crate::harness::{Place, TestNode, check_table, config, found, soon, state_of, table, waits};

fn set_state(uid: Uid, from: NodeState, to: NodeState) -> Command {
    Command::SetNodeState { uid, from, to, reason: "test".to_owned() }
}

/// Three voters and a node that joined later.
async fn four(dir: &Path) -> Vec<TestNode> {
    let soon_gone = |config: &mut ClusterConfig| {
        config.timers.drain_read_grace = Duration::from_millis(300);
        config.timers.leave_grace = Duration::from_secs(3);
    };
    let mut nodes = found(dir, 3, soon_gone).await;
    let place = Place::bind().await;
    let mut fourth = config(dir.join("node-3"), "node-3", "zone-3", &place.name());
    fourth.peers = vec![nodes[0].config.addresses.cluster.clone()];
    nodes.push(TestNode::start(fourth, place).await);
    let has_slots = |state: &RingState| {
        let slots = table(state).slots_of_nodes();
        slots.len() == 4 && slots.values().all(|slots| *slots == 3072)
    };
    for node in &nodes {
        node.ring("all have slots", has_slots).await;
    }
    nodes
}

fn all(nodes: &[TestNode]) -> Vec<&TestNode> {
    nodes.iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drains_and_leaves_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = four(dir.path()).await;
    let uid = nodes[3].node().uid();
    let drain = set_state(uid, NodeState::Active, NodeState::Draining);
    assert_eq!(soon("it drains", nodes[3].node().propose(drain.clone())).await, Ok(Applied::Done));
    let number = nodes[0].node().ring_state().node(uid).unwrap().number;
    nodes[0].ring("the slots are moved away", |state| !state.holds_slots(number)).await;
    // It may be undone, and then begins again.
    let undrain = set_state(uid, NodeState::Draining, NodeState::Active);
    assert_eq!(soon("it is undrained", nodes[3].node().propose(undrain)).await, Ok(Applied::Done));
    nodes[0].ring("it has slots again", |state| state.slots_held(number) == 3072).await;
    assert_eq!(soon("it drains", nodes[3].node().propose(drain)).await, Ok(Applied::Done));
    let empty = nodes[3].ring("the slots are moved away", |state| !state.holds_slots(number)).await;
    waits(&all(&nodes), uid, "has not uploaded yet").await;
    assert_eq!(state_of(&nodes[0].node().ring_state(), "node-3"), Some(NodeState::Draining));

    nodes[3].node().report(Report { ready: true, drained: true, ..Report::default() });
    let is_drained = |state: &RingState| state_of(state, "node-3") == Some(NodeState::Drained);
    nodes[3].ring("it is drained", is_drained).await;
    waits(&all(&nodes), uid, "safe to delete").await;
    assert!(nodes[0].node().ring_state().tombstone(uid).is_none(), "it is still there");
    nodes[3].stop().await;
    let has_left =
        |state: &RingState| state.tombstone(uid).is_some_and(|tombstone| tombstone.state == NodeState::Left);
    let left = nodes[0].ring("it has left", has_left).await;
    assert_eq!(left.state.min_write_epoch(), empty.state.epoch());
    nodes[3].start_again().await;
    assert_eq!(soon("it cannot come back", nodes[3].node().failed()).await, ClusterFailure::Gone);
    for node in &mut nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_drained_or_given_up_needs_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = four(dir.path()).await;
    let gone = nodes[3].node().uid();
    let forget = || Command::ForgetNode { uid: gone, reason: "it burnt".to_owned() };
    let refused = async |node: &TestNode, command: Command, expected: &str| {
        let error = soon("the leader answers", node.node().propose(command)).await.unwrap_err();
        let ProposeFailed::Refused(why) = &error else { panic!("{error}") };
        assert!(why.contains(expected), "{why}");
    };
    refused(&nodes[0], forget(), "stop it before it is given up").await;
    nodes[3].stop().await;
    let given_up = async || loop {
        match nodes[1].node().propose(forget()).await {
            // As long as it was heard of a moment ago.
            Err(ProposeFailed::Refused(_)) => tokio::task::yield_now().await,
            other => return other,
        }
    };
    assert_eq!(soon("it is silent and given up", given_up()).await, Ok(Applied::Done));
    let is_gone = |state: &RingState| state.node(gone).is_none();
    let after = nodes[0].ring("its slots are moved", is_gone).await;
    assert_eq!(check_table(&after.state).into_values().collect::<Vec<_>>(), [4096; 3]);
    assert_eq!(after.state.tombstone(gone).map(|tombstone| tombstone.state), Some(NodeState::Lost));

    // Three are as few as can be.
    let uid = nodes[2].node().uid();
    let drain = set_state(uid, NodeState::Active, NodeState::Draining);
    refused(&nodes[0], drain.clone(), "cannot be drained: 2 nodes would be left").await;
    assert_eq!(state_of(&nodes[0].node().ring_state(), "node-2"), Some(NodeState::Active));
    // Also through a node that does not lead.
    let leads = |node: &&TestNode| node.node().status().raft.is_some_and(|raft| raft.is_leader);
    let follower = nodes[..3].iter().find(|node| !leads(node)).expect("two of three do not lead");
    let forced = soon("it is forced", follower.node().propose_forced(drain)).await;
    assert_eq!(forced, Ok(Applied::Done));
    waits(&all(&nodes[..3]), uid, "4096 slots are still to be moved away").await;
    for node in &mut nodes {
        node.stop().await;
    }
}
