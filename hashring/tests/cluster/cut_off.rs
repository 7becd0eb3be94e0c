//! A leader that the others cannot reach any more.

use tonic::Code;
use weir_proto::weir_cluster::{
    HeartbeatRequest, WatchRequest, answer::Outcome, cluster_client::ClusterClient,
};

use crate::{
    harness::{found, soon, until},
    members::stop_all,
};

/// It goes on to believe that it leads, while the others may follow somebody else and the ring changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_watches_a_leader_without_a_majority_or_tells_it_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let is_leader = |node: &crate::harness::TestNode| {
        let raft = node.node().status().raft;
        raft.is_some_and(|raft| raft.is_leader && raft.quorum_acked_ms_ago.is_some())
    };
    until("there is a leader", || if nodes.iter().any(is_leader) { Ok(()) } else { Err("none") }).await;
    let leader = nodes.iter().position(is_leader).unwrap();
    nodes.swap(0, leader);
    let address = format!("http://{}", nodes[0].config.addresses.cluster);
    let mut client = ClusterClient::connect(address).await.unwrap();
    let watch = WatchRequest { version: 1, ..WatchRequest::default() };
    let uid = nodes[1].node().uid().0.to_be_bytes().to_vec();
    let heartbeat = HeartbeatRequest { version: 1, uid, boot: 1, ..HeartbeatRequest::default() };
    let mut watched = soon("it is watched", client.watch_ring(watch.clone())).await.unwrap().into_inner();
    assert!(soon("it tells the ring", watched.message()).await.unwrap().is_some());
    let heard = soon("it hears", client.heartbeat(heartbeat.clone())).await.unwrap().into_inner();
    assert!(matches!(heard.outcome, Some(Outcome::Answer(_))), "{heard:?}");

    nodes[1].stop().await;
    nodes[2].stop().await;
    let cut_off = || {
        let status = nodes[0].node().status();
        if status.has_quorum { Err(Box::new(status)) } else { Ok(()) }
    };
    until("it has no majority", cut_off).await;
    assert!(is_leader(&nodes[0]), "it believes to lead");
    soon("whoever watched has to go", async { while let Ok(Some(_)) = watched.message().await {} }).await;
    let refused = soon("it answers", client.watch_ring(watch)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let heard = soon("it answers", client.heartbeat(heartbeat)).await.unwrap().into_inner();
    assert!(
        matches!(&heard.outcome, Some(Outcome::NotLeader(other)) if other.address.is_empty()),
        "{heard:?}"
    );
    stop_all(&mut nodes).await;
}
