//! A node whose disk is gone, and the new one in its place.

use std::{path::Path, sync::Arc, time::Duration};

use weir_hashring::{
    cluster::{ClusterConfig, ClusterFailure, ReplacePolicy, Report, RingRecord},
    ids::{NodeNumber, Slot, Uid, UnixMillis},
    ring::{Applied, Command, NodeState, RingState},
};

use crate::harness::{Place, TestNode, config, found, shown, soon, table, waits};

/// Samples may be so far ahead of the time at which their node was lost.
const TAKEN_AHEAD_MS: i64 = 12 * 60 * 1000;

fn slots_of(state: &RingState, uid: Uid) -> Vec<(Slot, usize)> {
    let number = state.node(uid).map_or(NodeNumber(0), |node| node.number);
    let place = |owners: &[NodeNumber]| owners.iter().position(|owner| *owner == number);
    table(state).rows().filter_map(|(slot, owners)| Some((slot, place(owners)?))).collect()
}

/// Starts a node with an empty disk in the place of another.
async fn in_place_of(dir: &Path, node: &TestNode, peer: &TestNode) -> TestNode {
    let place = Place::bind().await;
    let zone = &node.config.zone;
    let path = dir.join(format!("{}-again", node.config.name));
    let mut config = config(path, &node.config.name, zone, &place.name());
    config.peers = vec![peer.config.addresses.cluster.clone()];
    (config.policies, config.timers) = (node.config.policies.clone(), node.config.timers.clone());
    TestNode::start(config, place).await
}

/// Six nodes in three zones, so that there are two replica groups. Five of them become voters, and any of
/// these may lead.
async fn two_groups(dir: &Path, change: impl Fn(&mut ClusterConfig)) -> Vec<TestNode> {
    let soon_silent = |config: &mut ClusterConfig| {
        config.timers.replace_grace = Duration::from_secs(3);
        change(config);
    };
    let mut nodes = found(dir, 3, soon_silent).await;
    for number in 3..6 {
        let place = Place::bind().await;
        let name = format!("node-{number}");
        let mut config = config(dir.join(&name), &name, &format!("zone-{}", number % 3), &place.name());
        config.peers = vec![nodes[0].config.addresses.cluster.clone()];
        soon_silent(&mut config);
        nodes.push(TestNode::start(config, place).await);
    }
    let is_balanced = |state: &RingState| {
        let slots = table(state).slots_of_nodes();
        slots.len() == 6 && slots.values().all(|slots| *slots == 2048)
    };
    for node in &nodes {
        node.ring("all have slots", is_balanced).await;
    }
    nodes
}

/// Those that run: the leader is among them, or will be.
fn running(nodes: &[TestNode]) -> Vec<&TestNode> {
    nodes.iter().filter(|node| node.is_running()).collect()
}

async fn has_replaced(node: &TestNode, old: Uid, new: Uid) -> Arc<RingRecord> {
    let is_replaced = |state: &RingState| {
        let successor = state.tombstone(old).and_then(|tombstone| tombstone.successor);
        successor == Some(new) && state.node(old).is_none()
    };
    node.ring("the node is replaced", is_replaced).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_takes_the_place_of_a_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = two_groups(dir.path(), |_| ()).await;
    let before = nodes[0].node().ring_state();
    let old = nodes[3].node().uid();
    let inherited = slots_of(&before, old);
    nodes[3].stop().await;
    let mut new = in_place_of(dir.path(), &nodes[3], &nodes[1]).await;
    let uid = new.node().uid();
    let after = has_replaced(&nodes[0], old, uid).await.state.clone();
    // The same places, and nothing else has moved.
    assert_eq!(slots_of(&after, uid), inherited);
    assert_eq!(after.epoch().0, before.epoch().0 + 1);
    let moved = table(&before).cells().iter().zip(table(&after).cells()).filter(|(a, b)| a != b).count();
    assert_eq!(moved, inherited.len());
    assert_eq!(after.min_write_epoch(), after.epoch());
    assert_eq!(after.node(uid).map(|node| node.state), Some(NodeState::Active));
    for node in nodes.iter().filter(|node| node.config.name != "node-3").chain([&new]) {
        node.publishes((after.epoch(), after.digest())).await;
    }
    // The old disk never comes back.
    nodes[3].start_again().await;
    assert_eq!(soon("the old one fails", nodes[3].node().failed()).await, ClusterFailure::Gone);
    nodes[3].stop().await;

    // One that shares slots with it has to wait for what the others upload.
    let co_owners: Vec<usize> = [4, 5]
        .into_iter()
        .filter(|number| {
            let loss = after.open_losses().get(&old);
            loss.is_some_and(|it| it.waits_for.contains(&nodes[*number].node().uid()))
        })
        .collect();
    let loss = after.open_losses().get(&old).cloned().expect("others share its slots");
    let uploaded = TAKEN_AHEAD_MS + loss.at.expect("the leader said when").0;
    let dead = *co_owners.first().expect("nodes 4 and 5 share a group with it");
    let second_old = nodes[dead].node().uid();
    let report = |through: i64| Report {
        ready: true,
        head_series: 1,
        head_series_max: 100,
        uploaded_through: Some(UnixMillis(through)),
        ..Report::default()
    };
    nodes[dead].node().report(report(uploaded));
    let says = |status: weir_hashring::cluster::ClusterStatus| {
        let node = status.nodes.into_iter().find(|node| node.uid == second_old);
        node.and_then(|node| node.report)
            .is_some_and(|report| report.uploaded_through == Some(UnixMillis(uploaded)))
    };
    let leader_says = || running(&nodes).iter().any(|node| says(node.node().status())).then_some(());
    shown("the leader hears of the upload", leader_says).await;
    nodes[dead].stop().await;
    let mut second = in_place_of(dir.path(), &nodes[dead], &nodes[1]).await;
    waits(&running(&nodes), second.node().uid(), "was lost lately").await;
    for node in nodes.iter().filter(|node| loss.waits_for.contains(&uid_of(node))) {
        node.node().report(report(uploaded - 1));
    }
    waits(&running(&nodes), uid, "have not uploaded yet").await;
    assert!(nodes[0].node().ring_state().node(second_old).is_some());
    for node in nodes.iter().filter(|node| loss.waits_for.contains(&uid_of(node))) {
        node.node().report(report(uploaded));
    }
    has_replaced(&nodes[0], second_old, second.node().uid()).await;
    for node in nodes.iter_mut().chain([&mut new, &mut second]) {
        node.stop().await;
    }
}

/// The uid of a node, also of one that does not run.
fn uid_of(node: &TestNode) -> Uid {
    if node.is_running() { node.node().uid() } else { Uid(0) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_replaces_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let by_hand = |config: &mut ClusterConfig| config.policies.replace = ReplacePolicy::Manual;
    let mut nodes = two_groups(dir.path(), by_hand).await;
    let old = nodes[3].node().uid();
    let alive = Command::ReplaceNode { dead: old, new: nodes[4].node().uid(), force: false, at: None };
    let refused = soon("the leader answers", nodes[5].node().propose(alive)).await.unwrap_err();
    assert!(refused.to_string().contains("stop it before it is replaced"), "{refused}");

    nodes[3].stop().await;
    let mut new = in_place_of(dir.path(), &nodes[3], &nodes[1]).await;
    let uid = new.node().uid();
    waits(&running(&nodes), uid, "an operator has to let it").await;
    let replace = Command::ReplaceNode { dead: old, new: uid, force: false, at: None };
    let applied = soon("the leader answers", nodes[5].node().propose(replace)).await;
    assert!(matches!(applied, Ok(Applied::Ring { .. })), "{applied:?}");
    let after = has_replaced(&nodes[0], old, uid).await;
    // The leader says when.
    let at = after.state.open_losses().get(&old).and_then(|loss| loss.at);
    assert!(at.is_some_and(|at| at.0 > 1_700_000_000_000), "{at:?}");
    for node in nodes.iter_mut().chain([&mut new]) {
        node.stop().await;
    }
}
