//! A name is used for one cluster only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use weir_hashring::{
    cluster::{ClusterConfig, ClusterFailure, ClusterNode, FoundingGuard, GuardError, Surroundings},
    ids::{ClusterId, ReplicaCount, SlotCount},
};

use crate::harness::{Place, TestNode, config, soon};

type Claims = Arc<Mutex<BTreeMap<String, ClusterId>>>;

/// Keeps claims in memory, and goes wrong as told.
#[derive(Debug)]
struct MemoryGuard {
    claims: Claims,
    /// Says so often that nobody knows.
    unavailable: Mutex<u32>,
    /// Does not come back from the claim.
    hangs: bool,
    claimed: watch::Sender<bool>,
}

#[tonic::async_trait]
impl FoundingGuard for MemoryGuard {
    async fn claim(&self, cluster: ClusterId, name: &str) -> Result<(), GuardError> {
        {
            let mut unavailable = self.unavailable.lock().unwrap();
            if *unavailable > 0 {
                *unavailable -= 1;
                return Err(GuardError::Unavailable("the store sleeps".to_owned()));
            }
            let known = *self.claims.lock().unwrap().entry(name.to_owned()).or_insert(cluster);
            if known != cluster {
                return Err(GuardError::Taken(format!("{known} has it")));
            }
        }
        self.claimed.send_replace(true);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn guard(claims: &Claims, unavailable: u32, hangs: bool) -> (Surroundings, watch::Receiver<bool>) {
    let claimed = watch::Sender::new(false);
    let receiver = claimed.subscribe();
    let claims = Arc::clone(claims);
    let guard = MemoryGuard { claims, unavailable: Mutex::new(unavailable), hangs, claimed };
    (Surroundings { guard: Some(Arc::new(guard)), ..Surroundings::default() }, receiver)
}

async fn founder(
    dir: &std::path::Path,
    name: &str,
    surroundings: Surroundings,
    change: fn(&mut ClusterConfig),
) -> TestNode {
    let place = Place::bind().await;
    let mut config = config(dir.join(name), name, "", &place.name());
    config.bootstrap_expect = 1;
    config.replicas = ReplicaCount::new(1).unwrap();
    config.slots = SlotCount::MIN;
    change(&mut config);
    TestNode::start_in(config, surroundings, place).await
}

async fn founded(node: &TestNode) -> ClusterId {
    node.ring("the cluster is founded", |state| state.cluster().is_some()).await;
    node.node().cluster().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let claims = Claims::default();
    let mut first = founder(dir.path(), "first", guard(&claims, 2, false).0, |_| ()).await;
    let cluster = founded(&first).await;
    assert_eq!(claims.lock().unwrap().clone(), BTreeMap::from([("test".to_owned(), cluster)]));

    // A node with an empty disk that hears of nobody looks like the first of a new cluster.
    let mut wiped = founder(dir.path(), "wiped", guard(&claims, 0, false).0, |_| ()).await;
    let failure = soon("the node fails", wiped.node().failed()).await;
    let expected =
        ClusterFailure::AlreadyFounded { name: "test".to_owned(), what: format!("{cluster} has it") };
    assert_eq!(failure, expected);
    assert!(failure.to_string().contains("choose another name or force a new cluster"), "{failure}");
    assert_eq!(wiped.node().cluster(), None);

    let mut other = founder(dir.path(), "other", guard(&claims, 0, false).0, |config| {
        config.cluster_name = "other".to_owned();
    })
    .await;
    let mut forced =
        founder(dir.path(), "forced", guard(&claims, 0, false).0, |config| config.force_new = true).await;
    assert_ne!(founded(&other).await, cluster);
    assert_ne!(founded(&forced).await, cluster);
    for node in [&mut first, &mut wiped, &mut other, &mut forced] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_ends_after_its_claim_founds_the_same_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let claims = Claims::default();
    let (surroundings, mut claimed) = guard(&claims, 0, true);
    let mut node = founder(dir.path(), "node", surroundings, |_| ()).await;
    soon("the name is claimed", claimed.wait_for(|claimed| *claimed)).await.unwrap();
    node.stop().await;
    let cluster = claims.lock().unwrap()["test"];
    node.surroundings = guard(&claims, 0, false).0;
    node.start_again().await;
    assert_eq!(founded(&node).await, cluster);
    node.stop().await;
}

/// Whoever has lost its log may have voted, and does not know for whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_come_back_without_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = founder(dir.path(), "node", Surroundings::default(), |_| ()).await;
    founded(&node).await;
    let state = node.node().ring_state();
    node.stop().await;
    let data = node.config.data_path.clone();
    let (log, away) = (data.join("raft").join("log"), data.join("away"));
    std::fs::rename(&log, &away).unwrap();
    for _ in 0..2 {
        let refused = ClusterNode::start(node.config.clone()).await.err().map(|error| error.to_string());
        let refused = refused.unwrap_or_default();
        assert!(refused.contains("raft/log is missing, though the node took part"), "{refused}");
        assert!(refused.contains("out of the node's --data.path together"), "{refused}");
    }
    let _ = std::fs::remove_dir_all(&log);
    std::fs::rename(&away, &log).unwrap();
    node.start_again().await;
    node.ring("it is back", |found| found.nodes_version() == state.nodes_version()).await;
    node.stop().await;
    // Before it was noted that Raft has begun, nobody knew.
    let file = data.join("node.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let earlier = text.replace(",\n    \"is_begun\": true", "");
    assert_ne!(earlier, text);
    std::fs::write(&file, earlier).unwrap();
    node.start_again().await;
    node.stop().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("\"is_begun\": true").count(), 1);
}
