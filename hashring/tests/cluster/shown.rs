//! What people are shown.

use std::time::Duration;

use weir_hashring::{
    cluster::{ClusterStatus, Report, ReportStatus, new_join_token},
    ids::{ReplicaCount, Uid, UnixMillis},
    ring::{NodeState, RingState},
};

use crate::harness::{TestNode, found, shown, soon, start_founders, table};

/// Waits until a node shows what is wanted.
async fn shows(what: &str, node: &TestNode, is_wanted: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
    shown(what, || Some(node.node().status()).filter(&is_wanted)).await
}

fn says(problems: &[String], text: &str) -> bool {
    problems.iter().any(|problem| problem.contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_nodes_write_nothing_unless_they_may() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = start_founders(dir.path(), 2, |_| ()).await;
    let are_active =
        |state: &RingState| state.nodes().filter(|node| node.state == NodeState::Active).count() == 2;
    for node in &nodes {
        node.ring("both are active", are_active).await;
    }
    let text = "2 nodes may own slots, 3 are needed: there is no table, and writes are refused";
    let status = shows("there are too few nodes", &nodes[1], |status| status.has_quorum).await;
    assert_eq!(status.pools.len(), 1);
    assert_eq!((status.pools[0].members, status.pools[0].replicas), (2, None));
    assert_eq!(status.pools[0].problems, [text]);
    assert!(nodes[1].view().tenant("t").is_none());

    for node in &mut nodes {
        node.stop().await;
        node.config.policies.rf_allow_degraded = true;
        node.config.policies.expected_replicas = ReplicaCount::new(2);
        node.start_again().await;
    }
    for node in &nodes {
        node.ring("there is a table", |state| !table(state).is_empty()).await;
        let status = shows("copies are missing", node, |status| status.has_quorum).await;
        assert_eq!(status.pools[0].replicas, Some(2));
        assert!(says(&status.pools[0].problems, "2 copies of each series are kept, not 3"), "{status:#?}");
        assert!(says(&status.problems, "the node expects 2 copies"), "{status:#?}");
    }
    let (token, add) = new_join_token(Duration::from_secs(60), 3, UnixMillis(7)).unwrap();
    soon("a token is made", nodes[0].node().propose(add)).await.unwrap();
    let status = shows("the token", &nodes[1], |status| !status.tokens.is_empty()).await;
    assert_eq!((&status.tokens[0].id, status.tokens[0].uses_left), (token.id(), 3));
    let epoch = status.epochs.last().expect("there is an epoch");
    assert_eq!(epoch.epoch, status.epoch);
    assert_eq!(
        (epoch.change.as_str(), epoch.reason.as_deref()),
        ("first table of pool default, 8192 cells", Some("first table"))
    );
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<ClusterStatus>(&text).unwrap(), status);
    assert!(!text.contains(token.reveal().split_once('.').unwrap().1));

    nodes[0].stop().await;
    let alone = shows("there is no quorum", &nodes[1], |status| !status.has_quorum).await;
    assert!(says(&alone.problems, "the last ring stays in use"), "{alone:#?}");
    assert!(nodes[1].view().tenant("t").is_some(), "what is known is used for ever");
    nodes[1].stop().await;
}

/// Whoever is shown a node need not know by which rules the leader takes it for alive, or moves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_says_who_lives_and_who_holds_moves_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let uid = nodes[2].node().uid();
    for (ready, head_series, holds_back) in [(true, 90, false), (true, 91, true), (false, 1, true)] {
        let report = Report { ready, head_series, head_series_max: 100, ..Report::default() };
        nodes[2].node().report(report);
        let is_it = |shown: &ReportStatus| (shown.ready, shown.head_series) == (ready, head_series);
        let shown = reported(&nodes, uid, is_it).await;
        assert_eq!((shown.lives, shown.holds_moves_back), (true, holds_back), "{shown:?}");
    }
    nodes[2].stop().await;
    let shown = reported(&nodes[..2], uid, |report| !report.lives).await;
    assert!(shown.ms_ago > 600, "three heartbeats of 200 ms: {shown:?}");
    for node in &mut nodes {
        node.stop().await;
    }
}

/// What the leader says of a node, once it is as wanted.
async fn reported(nodes: &[TestNode], uid: Uid, is_wanted: impl Fn(&ReportStatus) -> bool) -> ReportStatus {
    let look = || {
        let of_node = nodes.iter().flat_map(|node| node.node().status().nodes).filter(|node| node.uid == uid);
        of_node.filter_map(|node| node.report).find(&is_wanted)
    };
    shown("the report of a node", look).await
}
