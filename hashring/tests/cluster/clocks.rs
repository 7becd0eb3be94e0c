//! How far clocks of nodes are apart.

use std::sync::Arc;

use weir_hashring::{
    cluster::{Nature, Surroundings},
    ids::UnixMillis,
};

use crate::{
    harness::{Place, TestNode, config, soon, until},
    members::stop_all,
};

/// A clock that has stopped: two of them are as far apart as they are.
#[derive(Debug)]
struct Stopped(i64);

impl Nature for Stopped {
    fn random(&self) -> u128 {
        rand::random()
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_learns_how_far_its_clock_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Vec::new();
    for _ in 0..3 {
        places.push(Place::bind().await);
    }
    let peers: Vec<String> = places.iter().map(Place::name).collect();
    let mut nodes = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        let name = format!("node-{number}");
        let mut config = config(dir.path().join(&name), &name, &format!("zone-{number}"), &place.name());
        (config.peers, config.bootstrap_expect) = (peers.clone(), 3);
        let nature = Arc::new(Stopped(if number == 1 { 11_000_000 } else { 1_000_000 }));
        let surroundings = Surroundings { nature, ..Surroundings::default() };
        nodes.push(TestNode::start_in(config, surroundings, place).await);
    }
    // What a round trip took is counted as if the clocks went on; it is far less than this.
    for (number, node) in nodes.iter().enumerate() {
        let is_right = |offset: &Option<i64>| {
            let near = if number == 1 { 10_000_000 } else { 0 };
            offset.is_some_and(|offset| (offset - near).abs() < 100_000)
        };
        let mut offset = node.node().clock_offset();
        soon("the node knows how far it is off", offset.wait_for(is_right)).await.unwrap();
    }
    until("the leader shows it", || {
        let statuses = nodes.iter().map(|node| node.node().status());
        let shown: Vec<Option<i64>> = statuses
            .flat_map(|status| status.nodes)
            .filter(|node| node.name == "node-1")
            .map(|node| node.report.and_then(|report| report.clock_offset_ms))
            .collect();
        let is_shown = shown.iter().flatten().any(|offset| (offset - 10_000_000).abs() < 100_000);
        if is_shown { Ok(()) } else { Err(shown) }
    })
    .await;

    // One that is in no list of nodes learns it too, and counts for nothing.
    let place = Place::bind().await;
    let mut watcher = config(dir.path().join("watcher"), "watcher", "", &place.name());
    (watcher.peers, watcher.only_watches) = (peers, true);
    let nature = Arc::new(Stopped(31_000_000));
    let surroundings = Surroundings { nature, ..Surroundings::default() };
    let mut watcher = TestNode::start_in(watcher, surroundings, place).await;
    let mut offset = watcher.node().clock_offset();
    let is_off = |offset: &Option<i64>| offset.is_some_and(|offset| (offset - 30_000_000).abs() < 100_000);
    soon("the watcher knows how far it is off", offset.wait_for(is_off)).await.unwrap();
    let status = watcher.node().status();
    assert!(status.has_quorum && status.problems.is_empty(), "{status:?}");
    assert_eq!(nodes[0].node().ring_state().nodes().count(), 3);
    // What was said long ago does not count for ever.
    let mut of_node = nodes[1].node().clock_offset();
    nodes[0].stop().await;
    nodes[2].stop().await;
    soon("the node forgets", of_node.wait_for(Option::is_none)).await.unwrap();
    soon("the watcher forgets", offset.wait_for(Option::is_none)).await.unwrap();
    assert!(!watcher.node().status().has_quorum);
    watcher.stop().await;
    stop_all(&mut nodes).await;
}
