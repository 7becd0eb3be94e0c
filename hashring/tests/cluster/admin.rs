//! What people ask about the members of Raft, and change by hand.

use weir_hashring::{
    cluster::{AUTOPILOT_SETTING, AdminAnswer, AdminQuestion, AdminRefused, ProposeFailed, decode_backup},
    ring::Command,
};
use weir_proto::weir_cluster::{AdministerRequest, answer::Outcome, cluster_client::ClusterClient};

use crate::{
    harness::{found, soon},
    members::{join, stop_all, voters, wait_for_voters, wait_for_watchers},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_shown_and_changed_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    join(dir.path(), &mut nodes, "zone-1", |_| ()).await;
    // Whoever only watches passes it on.
    let watcher = nodes[3].node();
    let shown = soon("the members are shown", watcher.raft_members()).await.unwrap();
    assert!(shown.is_autopilot_on && !shown.is_changing && shown.entries > 0);
    let mut names: Vec<&str> = shown.members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["node-0", "node-1", "node-2"]);
    assert!(shown.members.iter().all(|member| member.is_voter));
    assert_eq!(shown.members.iter().filter(|member| member.is_leader).count(), 1);
    for member in &shown.members {
        let node = nodes.iter().find(|node| Some(node.node().uid()) == member.uid).unwrap();
        assert_eq!(member.address, node.config.addresses.cluster);
        assert!(member.lag_entries <= 10 && member.last_contact_ms.is_some(), "{member:?}");
    }

    let promote = AdminQuestion::Promote { uid: watcher.uid() };
    let refused = soon("it is refused", watcher.administer(promote.clone())).await;
    assert!(
        matches!(&refused, Err(ProposeFailed::Refused(what)) if what.contains("raft.autopilot to off first")),
        "{refused:?}"
    );
    let off = Command::SetConfig {
        key: AUTOPILOT_SETTING.to_owned(),
        value: Some("off".to_owned()),
        if_version: None,
    };
    soon("the leader does not choose", watcher.propose(off)).await.unwrap();
    soon("a node is promoted", watcher.administer(promote)).await.unwrap();
    let all: Vec<_> = nodes.iter().collect();
    wait_for_voters(&all, &["node-0", "node-1", "node-2", "node-3"]).await;
    let unknown = AdminQuestion::Promote { uid: weir_hashring::ids::Uid(5) };
    let refused = soon("it is refused", nodes[0].node().administer(unknown)).await;
    assert!(matches!(&refused, Err(ProposeFailed::Refused(what)) if what.contains("no active node")));
    for number in [1, 0] {
        let demote = AdminQuestion::Demote { uid: nodes[number].node().uid() };
        soon("a node is demoted", nodes[3].node().administer(demote)).await.unwrap();
    }
    wait_for_voters(&[&nodes[2], &nodes[3]], &["node-2", "node-3"]).await;
    wait_for_watchers(&[&nodes[0], &nodes[1]]).await;
    assert!(!soon("shown", nodes[0].node().raft_members()).await.unwrap().is_autopilot_on);
    assert_eq!(voters(&nodes[2].node().status()).len(), 2);

    soon("a snapshot is taken", nodes[0].node().administer(AdminQuestion::Snapshot)).await.unwrap();
    soon("there is a snapshot", async {
        while nodes[0].node().raft_members().await.unwrap().entries_in_snapshot == 0 {}
    })
    .await;
    let backup = soon("there is a backup", nodes[0].node().backup()).await.unwrap();
    let record = decode_backup(&backup).unwrap();
    assert_eq!((record.generation, record.state), (0, nodes[2].node().ring_state()));

    let address = format!("http://{}", nodes[1].config.addresses.cluster);
    let mut client = ClusterClient::connect(address).await.unwrap();
    let question = serde_json::to_vec(&AdminQuestion::Members).unwrap();
    let request =
        AdministerRequest { version: 1, cluster_id: Vec::new(), question, forward: true, generation: None };
    let answer = soon("it answers", client.administer(request.clone())).await.unwrap().into_inner().outcome;
    let Some(Outcome::Answer(answer)) = answer else { panic!("no answer") };
    let answer: Result<AdminAnswer, AdminRefused> = serde_json::from_slice(&answer).unwrap();
    assert!(matches!(answer, Ok(AdminAnswer::Members(members)) if members.members.len() == 2));
    let bad = AdministerRequest { question: b"[".to_vec(), ..request.clone() };
    assert_eq!(client.administer(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let other = AdministerRequest { generation: Some(3), ..request };
    let refused = client.administer(other).await.unwrap_err();
    assert!(refused.message().contains("in generation 0 of the cluster, the request is of generation 3"));
    stop_all(&mut nodes).await;
}
