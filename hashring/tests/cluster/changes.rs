//! Nodes that come and go.

use weir_hashring::ring::{Applied, Command, MappingChange, NodeState, RingDelta, RingState};
use weir_proto::weir_cluster::{
    ProposeRequest, StatusRequest, answer::Outcome, cluster_client::ClusterClient,
};

use crate::harness::{Place, TestNode, check_table, config, found, soon, state_of, table};

/// How many cells differ.
fn cells_moved(before: &RingState, after: &RingState) -> usize {
    let cells = table(before).cells().iter().zip(table(after).cells());
    cells.filter(|(before, after)| before != after).count()
}

/// How many cells each wave after an epoch has moved.
fn waves(before: &RingState, after: &RingState) -> Vec<usize> {
    let deltas: Vec<&RingDelta> = after.deltas().filter(|delta| delta.epoch > before.epoch()).collect();
    assert_eq!(deltas.len() as u64, after.epoch().0 - before.epoch().0, "there are few waves");
    let moves = |change: &MappingChange| match change {
        MappingChange::Moved { moves, .. } => moves.len(),
        other => panic!("{other:?}"),
    };
    deltas.iter().map(|delta| moves(&delta.change)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_in_waves_and_another_drains() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let before = nodes[0].node().ring_state();

    let place = Place::bind().await;
    let mut fourth = config(dir.path().join("node-3"), "node-3", "zone-3", &place.name());
    fourth.peers = vec![nodes[1].config.addresses.cluster.clone()];
    nodes.push(TestNode::start(fourth, place).await);
    let is_balanced = |state: &RingState| {
        let slots = table(state).slots_of_nodes();
        slots.len() == 4 && slots.values().all(|slots| *slots == 3072)
    };
    let after = nodes[3].ring("the slots are balanced", is_balanced).await.state.clone();
    assert_eq!(check_table(&after).into_values().collect::<Vec<_>>(), [3072; 4]);
    // The least is what the new node has, a quarter of all cells.
    let moved = cells_moved(&before, &after);
    assert!((3072..=3072 * 11 / 10).contains(&moved), "{moved} cells moved");
    let waves = waves(&before, &after);
    assert_eq!(waves.iter().sum::<usize>(), moved, "each cell moved once");
    assert!(waves.iter().all(|moves| *moves <= 512) && waves.len() >= 6, "{waves:?}");
    for node in &nodes {
        node.publishes((after.epoch(), after.digest())).await;
    }
    assert!(nodes[3].node().status().raft.is_none(), "it watches");

    // It knows whom to tell.
    let drain = Command::SetNodeState {
        uid: nodes[1].node().uid(),
        from: NodeState::Active,
        to: NodeState::Draining,
        reason: "test".to_owned(),
    };
    let drained = soon("a node is drained", nodes[3].node().propose(drain)).await;
    assert_eq!(drained, Ok(Applied::Done));
    let number = nodes[1].node().ring_state().node(nodes[1].node().uid()).unwrap().number;
    let is_empty = |state: &RingState| {
        state_of(state, "node-1") == Some(NodeState::Draining) && !state.holds_slots(number)
    };
    let drained = nodes[3].ring("the slots are moved away", is_empty).await.state.clone();
    assert_eq!(check_table(&drained).into_values().collect::<Vec<_>>(), [4096; 3]);
    for node in &nodes {
        node.publishes((drained.epoch(), drained.digest())).await;
    }

    // The last ring of one that only watches survives too.
    let ring = nodes[3].ring_name();
    for node in &mut nodes {
        node.stop().await;
    }
    nodes[3].start_again().await;
    assert_eq!(nodes[3].ring_name(), ring);
    nodes[3].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_passes_commands_on_and_shows_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    for node in &nodes {
        let address = format!("http://{}", node.config.addresses.cluster);
        let mut client = ClusterClient::connect(address).await.unwrap();
        let command = serde_json::to_vec(&Command::Barrier { nonce: 3 }).unwrap();
        let request = ProposeRequest { version: 1, command, forward: true, ..ProposeRequest::default() };
        let answer = soon("a command is passed on", client.propose(request.clone())).await.unwrap();
        let Some(Outcome::Answer(answer)) = answer.into_inner().outcome else { panic!("no answer") };
        let answer: weir_hashring::cluster::Outcome = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer, Ok(Applied::Barrier { nonce: 3 }));
        for bad in [
            ProposeRequest { version: 2, ..request.clone() },
            ProposeRequest { command: b"{".to_vec(), ..request.clone() },
            ProposeRequest { cluster_id: vec![1], ..request },
        ] {
            let refused = client.propose(bad.clone()).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
        let status = client.status(StatusRequest { version: 1 }).await.unwrap().into_inner().status;
        let status: weir_hashring::cluster::ClusterStatus = serde_json::from_slice(&status).unwrap();
        assert_eq!(status.uid, node.node().uid());
        let shown: Vec<(&str, u32)> =
            status.nodes.iter().map(|node| (node.name.as_str(), node.slots)).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown.iter().all(|(_, slots)| *slots == 4096), "{shown:?}");
        assert_eq!(status.raft.unwrap().voters.len(), 3);
    }
    for node in &mut nodes {
        node.stop().await;
    }
}
