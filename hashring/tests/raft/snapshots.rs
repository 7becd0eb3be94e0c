//! Members that were away too long get a snapshot; members whose snapshots are gone do not start.

use std::{fs, path::PathBuf, time::Duration};

use weir_hashring::raft::{RaftId, StartError, Status, store::StoreError};

use crate::cluster::{Cluster, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_gets_a_snapshot() {
    let mut cluster = Cluster::found(3).await;
    cluster.propose_to_all(numbered("before", 5)).await;
    cluster.stop_node(3).await;
    cluster.propose(&[1, 2], numbered("away", 150)).await;
    let leader = cluster.leader_of(&[1, 2]).await;
    let purged = |status: &Status| status.entries_in_snapshot > 100;
    cluster.wait(leader, "it has a snapshot", purged).await;
    assert_eq!(cluster.network.snapshots_delivered(), 0);
    cluster.start_node(3).await;
    cluster.check_all().await;
    assert!(cluster.network.snapshots_delivered() > 0);

    // What came as a snapshot is on its disk, and the log goes on behind it.
    cluster.propose_to_all(numbered("after", 5)).await;
    cluster.check_all().await;
    cluster.stop_node(3).await;
    cluster.start_node(3).await;
    assert!(cluster.nodes[&3].watch().borrow().machine.lines.len() >= 155);
    assert_eq!(cluster.check_all().await.len(), 160);
    cluster.stop().await;
}

fn snapshots(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let mut files: Vec<(u64, PathBuf)> = fs::read_dir(cluster.path(id).join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            (stem.rsplit('-').next().unwrap().parse().unwrap(), path)
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_made_up_for_and_two_are_not() {
    let mut cluster = Cluster::found(1).await;
    cluster.propose_to_all(numbered("line", 200)).await;
    cluster.wait(1, "it has a snapshot", |status| status.entries_in_snapshot > 180).await;
    cluster.stop_node(1).await;
    let files = snapshots(&cluster, 1);
    let [_, newest] = files.as_slice() else { panic!("two snapshots: {files:?}") };
    let mut bytes = fs::read(newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(newest, bytes).unwrap();
    cluster.start_node(1).await;
    assert_eq!(cluster.check_all().await.len(), 200);
    cluster.stop_node(1).await;

    snapshots(&cluster, 1).iter().for_each(|file| fs::remove_file(file).unwrap());
    let refused = cluster.try_start_node(1, 1).await.unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::Corrupt { .. })), "{refused}");
    assert!(refused.to_string().contains("the newest readable snapshot has 0 entries"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_write_says_so() {
    let mut cluster = Cluster::found(1).await;
    cluster.propose_to_all(numbered("line", 5)).await;
    let node = cluster.nodes[&1].clone();
    let failed = tokio::spawn(async move { node.failed().await });
    fs::remove_dir_all(cluster.path(1).join("snapshots")).unwrap();
    cluster.nodes[&1].take_snapshot().await.unwrap();
    let cause = tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap().unwrap();
    assert!(cause.contains("No such file or directory"), "{cause}");
    cluster.nodes[&1].propose(&"more".to_owned()).await.unwrap_err();
    cluster.network.disconnect(RaftId(1));
    cluster.stop().await;
}
