//! A cluster that is forced to begin anew.

use weir_hashring::cluster::{ClusterNode, ForceNewError, StartError, force_new};

use crate::{
    harness::{TestNode, check_table, found, until},
    members::{check_works, join, join_as, stop_all, voters, wait_for_voters},
};

async fn wait_for_generation(node: &TestNode, generation: u64) {
    until("the node is of the generation", || {
        let status = node.node().status();
        let is_it = status.generation == generation && node.node().ring().borrow().generation == generation;
        if is_it { Ok(()) } else { Err(Box::new(status)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_and_others_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let path = nodes[2].config.data_path.clone();
    assert!(matches!(force_new(&path), Err(ForceNewError::Running(_))));
    assert!(matches!(ClusterNode::start(nodes[2].config.clone()).await, Err(StartError::Locked(_))));
    let (ring, state) = (nodes[2].ring_name(), nodes[2].node().ring_state());
    let slots = check_table(&state);
    stop_all(&mut nodes).await;
    assert!(matches!(force_new(dir.path()), Err(ForceNewError::NoCluster(_))));
    assert!(matches!(force_new(&dir.path().join("none")), Err(ForceNewError::NoCluster(_))));

    let forced = force_new(&path).unwrap();
    assert_eq!((forced.generation, (forced.epoch, forced.digest)), (1, ring));
    assert_eq!(
        (forced.others.as_slice(), forced.is_from_ring_file),
        (["node-0", "node-1"].map(String::from).as_slice(), false)
    );
    assert!(path.join("raft-1").is_dir());
    nodes[2].start_again().await;
    assert!(!path.join("raft").exists());
    assert_eq!(nodes[2].ring_name(), ring);
    wait_for_voters(&[&nodes[2]], &["node-2"]).await;
    check_works(&nodes[2]).await;
    wait_for_generation(&nodes[2], 1).await;
    let now = nodes[2].node().ring_state();
    assert_eq!((nodes[2].ring_name(), check_table(&now)), (ring, slots));
    assert_eq!(now.nodes().count(), 3, "nothing happens to the dead");

    // It stays so after another restart.
    nodes[2].stop().await;
    nodes[2].start_again().await;
    check_works(&nodes[2]).await;

    // New nodes find it, and vote.
    let mut alive: Vec<TestNode> = vec![nodes.remove(2)];
    join_as(dir.path(), &mut alive, "node-3", "zone-0", |_| ()).await;
    join_as(dir.path(), &mut alive, "node-4", "zone-1", |_| ()).await;
    let all: Vec<&TestNode> = alive.iter().collect();
    wait_for_voters(&all, &["node-2", "node-3", "node-4"]).await;

    // An old voter that comes back is of the new generation, keeps its slots, and does not vote.
    nodes[0].start_again().await;
    wait_for_generation(&nodes[0], 1).await;
    assert!(!nodes[0].config.data_path.join("raft").exists());
    let name = alive[0].ring_name();
    nodes[0].publishes(name).await;
    check_works(&nodes[0]).await;
    let status = nodes[0].node().status();
    let own = status.nodes.iter().find(|node| node.uid == status.uid).unwrap();
    assert!(own.slots > 0 && status.raft.is_none(), "{status:#?}");
    // With the other one there are enough for five.
    nodes[1].start_again().await;
    let all: Vec<&TestNode> = alive.iter().chain(&nodes).collect();
    wait_for_voters(&all, &["node-0", "node-1", "node-2", "node-3", "node-4"]).await;
    nodes.append(&mut alive);
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_voters_with_a_leader_of_their_own_follow() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    join(dir.path(), &mut nodes, "zone-1", |_| ()).await;
    stop_all(&mut nodes).await;
    // A node that only watched has the ring too.
    let forced = force_new(&nodes[3].config.data_path).unwrap();
    assert!(forced.is_from_ring_file && forced.generation == 1);
    nodes[0].start_again().await;
    nodes[1].start_again().await;
    check_works(&nodes[0]).await;
    assert_eq!(voters(&nodes[0].node().status()).len(), 3);
    nodes[3].start_again().await;
    for number in [0, 1, 3] {
        wait_for_generation(&nodes[number], 1).await;
    }
    let living = [&nodes[0], &nodes[1], &nodes[3]];
    wait_for_voters(&living, &["node-0", "node-1", "node-3"]).await;
    let ring = nodes[3].ring_name();
    for node in living {
        node.publishes(ring).await;
    }
    // What the last one of the old generation wants it does not get.
    nodes[2].start_again().await;
    wait_for_generation(&nodes[2], 1).await;
    nodes[2].publishes(ring).await;
    stop_all(&mut nodes).await;
}
