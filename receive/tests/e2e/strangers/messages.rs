//! Messages between nodes that are of another version, or are none.

use tonic::{Code, Status, transport::Channel};
use weir_proto::weir_cluster::{
    AdministerRequest, HeartbeatRequest, InfoRequest, JoinRequest, ProposeRequest, RaftCall,
    StartRaftRequest, StatusRequest, WatchRequest, cluster_client::ClusterClient, raft_client::RaftClient,
    raft_reply::Outcome as RaftOutcome,
};

use super::{
    super::{
        harness::{NodeSite, Process},
        ring::RingCluster,
    },
    FEW_SLOTS, ONE_COPY, Witness, later, noise, sum, wait_for_log,
};

async fn connect(cluster: &RingCluster) -> Channel {
    let url = format!("http://127.0.0.1:{}", cluster.cluster_ports[0]);
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

/// Of another version, or with bytes by chance where something encoded should be: refused, and the node
/// goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_changes_no_cluster() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 1, &[FEW_SLOTS, ONE_COPY]);
    let processes = cluster.start().await;
    let mut witness = Witness::new(&cluster, 1).await;
    let state = cluster.state(0).await;
    let (id, uid) = (state.cluster().unwrap().id, state.nodes().next().unwrap().uid);
    let cluster_id = id.0.to_vec();
    let mut client = ClusterClient::new(connect(&cluster).await);
    let mut raft = RaftClient::new(connect(&cluster).await);
    let mut refused = 0.0;
    let mut not_understood = |status: Status, text: &str| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(text), "{status}");
        refused += 1.0;
    };

    let (version, text) = (2, "a message is not understood: version 2 is not known");
    let request = JoinRequest { version, ..Default::default() };
    not_understood(client.join(request).await.unwrap_err(), text);
    let request = WatchRequest { version, ..Default::default() };
    not_understood(client.watch_ring(request).await.unwrap_err(), text);
    let request = HeartbeatRequest { version, ..Default::default() };
    not_understood(client.heartbeat(request).await.unwrap_err(), text);
    let request = ProposeRequest { version, ..Default::default() };
    not_understood(client.propose(request).await.unwrap_err(), text);
    let request = AdministerRequest { version, ..Default::default() };
    not_understood(client.administer(request).await.unwrap_err(), text);
    let request = StartRaftRequest { version, ..Default::default() };
    not_understood(client.start_raft(request).await.unwrap_err(), text);
    not_understood(client.status(StatusRequest { version }).await.unwrap_err(), text);
    let request = InfoRequest { version, ..Default::default() };
    not_understood(client.info(request).await.unwrap_err(), text);
    not_understood(raft.call(RaftCall { version, ..Default::default() }).await.unwrap_err(), text);

    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let wrong_type = br#"{"RegisterNode":{"uid":"x","name":7}}"#.to_vec();
    let huge = br#"{"SetFeatureLevel":99999999999999999999999999}"#.to_vec();
    let bodies =
        (1..30).map(|seed| noise(seed, 13 * seed as usize)).chain([vec![], nested, wrong_type, huge]);
    let (version, text) = (1, "a message is not understood: ");
    for body in bodies {
        let cluster_id = cluster_id.clone();
        let request = JoinRequest {
            version,
            cluster_id: cluster_id.clone(),
            registration: body.clone(),
            ..Default::default()
        };
        not_understood(client.join(request).await.unwrap_err(), text);
        let request = ProposeRequest {
            version,
            cluster_id: cluster_id.clone(),
            command: body.clone(),
            forward: true,
            ..Default::default()
        };
        not_understood(client.propose(request).await.unwrap_err(), text);
        let request = AdministerRequest { version, cluster_id, question: body.clone(), ..Default::default() };
        not_understood(client.administer(request).await.unwrap_err(), text);
        for kind in 1..=3 {
            let own = uid.raft_id().0;
            let (cluster, body) = (id.to_string(), body.clone());
            let call = RaftCall { version, cluster, generation: 0, from: own ^ 1, to: own, kind, body };
            let outcome = raft.call(call).await.unwrap().into_inner().outcome;
            assert!(matches!(outcome, Some(RaftOutcome::Refusal(_))), "kind {kind}: {outcome:?}");
        }
    }
    let call = RaftCall { version, kind: 9, ..Default::default() };
    not_understood(raft.call(call).await.unwrap_err(), "a request of kind 9 is not known");
    for len in [1, 15, 17, 1 << 20] {
        let request = HeartbeatRequest { version, uid: noise(1, len), ..Default::default() };
        not_understood(client.heartbeat(request).await.unwrap_err(), "a uid has 16 bytes");
        let request = WatchRequest { version, cluster_id: noise(1, len), ..Default::default() };
        not_understood(client.watch_ring(request).await.unwrap_err(), "the id of a cluster has 16 bytes");
    }
    assert_eq!(sum(&cluster.sites[0], &["weir_cluster_messages_refused_total"]).await, refused);
    witness.check().await;
    processes.into_iter().for_each(Process::stop);
}

/// Peers of a later version, of both kinds, as the node that meets them sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_a_later_version_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let later = later::serve().await;
    let site = NodeSite::new(&temp.path().join("file"));
    let own = format!("127.0.0.1:{}", site.grpc_port);
    let site = site
        .with_flag(format!(r#"--receive.hashrings=[{{"endpoints": ["{own}", "{later}"]}}]"#))
        .with_flag(format!("--receive.local-endpoint={own}"))
        .with_flag(ONE_COPY);
    let process = site.start().await;
    wait_for_log(&process, "it reads frames of version 2, not 1").await;
    assert_eq!(sum(&site, &["weir_replication_peer_up", &later]).await, 0.0);
    process.stop();

    let cluster =
        RingCluster::new(&temp.path().join("cluster"), 1, &[FEW_SLOTS, ONE_COPY, "--log.level=debug"]);
    let own = cluster.cluster_ports[0];
    let site = cluster.sites[0].clone().with_flag(format!("--cluster.peers=127.0.0.1:{own},{later}"));
    let process = site.spawn();
    let log = wait_for_log(&process, "a peer does not say who it is").await;
    let line = log.lines().find(|line| line.contains("a peer does not say who it is")).unwrap();
    assert!(line.contains(&later) && line.contains("version 2 is not known"), "{line}");
    // By itself it is as many as it was told, and founds its cluster.
    cluster.wait_for_ring(0).await;
    process.stop();
}
