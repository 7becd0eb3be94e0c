//! Who may join a cluster, and who is told why not.

use std::{path::Path, time::Duration};

use weir_hashring::{
    cluster::{
        ClusterConfig, ClusterFailure, ClusterNode, JoinPolicy, Nature, ProposeFailed, RealNature,
        StartError, TokenText, new_join_token,
    },
    ids::{FeatureLevel, ReplicaCount, SlotCount, TokenId, UnixMillis},
    ring::{Command, NodeState, Rejected, RingState, TokenFault},
};

use crate::harness::{Place, TestNode, config, found, shown, soon, state_of};

fn small(config: &mut ClusterConfig) {
    config.replicas = ReplicaCount::new(1).unwrap();
    config.slots = SlotCount::MIN;
}

/// Starts a node that wants to join through another.
async fn join(dir: &Path, name: &str, through: &TestNode, change: impl Fn(&mut ClusterConfig)) -> TestNode {
    let place = Place::bind().await;
    let mut config = config(dir.join(name), name, "", &place.name());
    config.peers = vec![through.config.addresses.cluster.clone()];
    change(&mut config);
    TestNode::start(config, place).await
}

/// Waits until the cluster refuses a node for this reason.
async fn is_refused(node: &TestNode, expected: Rejected) {
    let mut refusals = node.node().refusal();
    let expected = Some(ProposeFailed::Rejected(expected));
    soon("the node is refused", refusals.wait_for(|refusal| *refusal == expected)).await.unwrap();
}

async fn is_active(node: &TestNode, name: &str) {
    node.ring("the node is active", |state: &RingState| state_of(state, name) == Some(NodeState::Active))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_so_many_nodes_join() {
    let dir = tempfile::tempdir().unwrap();
    let with_tokens = |config: &mut ClusterConfig| {
        small(config);
        config.policies.join = JoinPolicy::Token;
    };
    // Founders need none.
    let mut one = found(dir.path(), 1, with_tokens).await.remove(0);
    let now = UnixMillis(i64::MAX / 2);
    let (token, add) = new_join_token(Duration::from_secs(60), 1, now).unwrap();
    // It ended a minute ago: one that ended long ago is removed.
    let earlier = UnixMillis(RealNature.now().0 - 120_000);
    let (expired, add_expired) = new_join_token(Duration::from_secs(60), 1, earlier).unwrap();
    one.node().propose(add_expired).await.unwrap();

    let mut second = join(dir.path(), "second", &one, |_| ()).await;
    is_refused(&second, TokenFault::Missing.into()).await;
    let mut try_with = async |token: &TokenText, expected: TokenFault| {
        second.stop().await;
        second.config.token = Some(token.clone());
        second.start_again().await;
        is_refused(&second, expected.into()).await;
    };
    let of = |text: &str| TokenText::parse(text).unwrap();
    try_with(&expired, TokenFault::Expired(expired.id().clone())).await;
    let wrong = of(&format!("{}.wrong", expired.id()));
    try_with(&wrong, TokenFault::WrongSecret(expired.id().clone())).await;
    try_with(&of("none.secret"), TokenFault::Unknown(TokenId::from("none"))).await;
    try_with(&token, TokenFault::Unknown(token.id().clone())).await;
    assert_eq!(one.node().ring_state().nodes().count(), 1);

    // A token that is made later mends it without a restart.
    one.node().propose(add).await.unwrap();
    is_active(&one, "second").await;
    let mut refusals = second.node().refusal();
    soon("nothing is refused any more", refusals.wait_for(Option::is_none)).await.unwrap();
    assert_eq!(one.node().ring_state().tokens()[token.id()].used, 1);

    let mut third = join(dir.path(), "third", &second, |config| config.token = Some(token.clone())).await;
    is_refused(&third, TokenFault::UsedUp(token.id().clone()).into()).await;
    // There is no way around the leader.
    let command = Command::RegisterNode(weir_hashring::ring::NodeRegistration {
        uid: third.node().uid(),
        name: "third".to_owned(),
        zone: String::new(),
        pool: third.config.pool.clone(),
        weight: third.config.weight,
        addresses: third.config.addresses.clone(),
        version: String::new(),
        features: third.config.features,
        token: None,
        at: UnixMillis(0),
        replaces: None,
    });
    let refused = soon("the leader answers", second.node().propose(command)).await.unwrap_err();
    assert!(refused.to_string().contains("registered when it joins"), "{refused}");

    // One that is known needs no token any more.
    one.node().propose(Command::RevokeToken { id: token.id().clone() }).await.unwrap();
    second.stop().await;
    second.config.token = None;
    second.config.version = "1.0.1".to_owned();
    second.start_again().await;
    let is_known = |state: &RingState| state.nodes().any(|node| node.version == "1.0.1");
    one.ring("the new version is known", is_known).await;
    // Whoever prints all that a node was told does not print its secrets.
    assert!(!format!("{:?}", third.config).contains(&token.reveal()));
    for node in [&mut one, &mut second, &mut third] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // It finds itself among its peers, under another name.
    let with_itself = |config: &mut ClusterConfig| {
        small(config);
        let own = config.addresses.cluster.replace("127.0.0.1", "localhost");
        config.peers.push(own);
    };
    let mut one = found(dir.path(), 1, with_itself).await.remove(0);
    let level = Command::SetFeatureLevel(FeatureLevel(1));
    soon("all can do it", one.node().propose(level)).await.unwrap();

    let mut two = join(dir.path(), "two", &one, |config| {
        config.policies.expected_replicas = ReplicaCount::new(2);
        config.peers.push(config.addresses.cluster.clone());
        config.peers.push(config.addresses.cluster.replace("127.0.0.1", "localhost"));
    })
    .await;
    is_refused(&two, Rejected::ReplicasDiffer { node: 2, cluster: 1 }).await;
    two.stop().await;
    two.config.policies.expected_replicas = ReplicaCount::new(1);
    two.config.features = FeatureLevel(0);
    two.start_again().await;
    is_refused(&two, Rejected::ProgramTooOld { node: 0, cluster: 1 }).await;
    two.stop().await;
    two.config.features = FeatureLevel(1);
    two.start_again().await;
    is_active(&one, "two").await;
    one.stop().await;
    two.stop().await;
}

/// Copies the files of a node that does not run.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_of_a_node_one_must_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = found(dir.path(), 1, small).await.remove(0);
    let mut original = join(dir.path(), "original", &one, |_| ()).await;
    is_active(&one, "original").await;
    original.stop().await;
    let place = Place::bind().await;
    let mut cloned = original.config.clone();
    cloned.data_path = dir.path().join("clone");
    copy(&original.config.data_path, &cloned.data_path);
    cloned.addresses.cluster = place.name();
    original.start_again().await;
    let uid = original.node().uid();
    let hears_of = async |boot: u64| {
        let look = || {
            let status = one.node().status();
            let report = status.nodes.into_iter().find(|node| node.uid == uid)?.report;
            report.filter(|report| report.boot == boot)
        };
        shown("the leader hears of it", look).await;
    };
    hears_of(2).await;

    // The copy knows where the original was, and finds it there.
    let mut asks = cloned.clone();
    asks.data_path = dir.path().join("asks");
    copy(&cloned.data_path, &asks.data_path);
    let (path, address) = (asks.data_path.clone(), original.config.addresses.cluster.clone());
    match ClusterNode::start(asks).await.err() {
        Some(StartError::Cloned { uid: found, address: at, path: own }) => {
            assert_eq!((found, at, own), (uid, address, path));
        }
        other => panic!("{other:?}"),
    }

    // Without a ring it does not. Both were started twice, and the leader tells them apart.
    let ring = cloned.data_path.join("ring.bin");
    std::fs::remove_file(&ring).unwrap();
    let mut clone = TestNode::start(cloned, place).await;
    assert_eq!(clone.node().uid(), uid);
    let failure = soon("the copy fails", clone.node().failed()).await;
    assert!(matches!(failure, ClusterFailure::Cloned(_)), "{failure}");
    assert!(failure.to_string().contains("another process runs as node"), "{failure}");
    // Whoever was started more often stays.
    clone.stop().await;
    if ring.exists() {
        std::fs::remove_file(&ring).unwrap();
    }
    clone.start_again().await;
    hears_of(3).await;
    let failure = soon("the original fails", original.node().failed()).await;
    assert!(matches!(failure, ClusterFailure::Cloned(_)), "{failure}");
    for node in [&mut one, &mut original, &mut clone] {
        node.stop().await;
    }
}
