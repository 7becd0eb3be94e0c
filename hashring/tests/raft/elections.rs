//! Leaders come and go, and what was answered stays.

use std::time::Duration;

use weir_hashring::raft::{
    ProposeError, RaftId, RaftRequest, Refusal, RequestKind, Transport, TransportError,
};

use crate::{
    cluster::{Cluster, ids, numbered, peer},
    writer::Numbers,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_commit_and_survive_a_restart_of_each() {
    let mut cluster = Cluster::found(3).await;
    cluster.propose_to_all(numbered("first", 10)).await;
    for id in 1..=3 {
        cluster.stop_node(id).await;
        let others: Vec<u64> = (1..=3).filter(|&other| other != id).collect();
        cluster.propose(&others, numbered(&format!("without {id}"), 5)).await;
        cluster.start_node(id).await;
        cluster.check_all().await;
    }
    // All at once: votes, log and what was committed come from the disks.
    for id in 1..=3 {
        cluster.stop_node(id).await;
    }
    for id in 1..=3 {
        cluster.start_node(id).await;
        let applied = cluster.nodes[&id].watch().borrow().machine.lines.len();
        assert!(applied >= 10, "{applied} commands are applied before anybody leads");
    }
    cluster.propose_to_all(numbered("last", 5)).await;
    assert_eq!(cluster.check_all().await.len(), 30);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_go_on_without_a_leader_that_is_cut_off() {
    let mut cluster = Cluster::found_with(5, |config| config.propose_timeout = Duration::from_secs(4)).await;
    cluster.propose_to_all(numbered("before", 10)).await;
    let old = cluster.leader().await;
    let ally = old % 5 + 1;
    let (minority, majority): (Vec<u64>, Vec<u64>) = (1..=5).partition(|&id| id == old || id == ally);
    cluster.network.partition(&ids(minority), &ids(majority.clone()));

    // Never answered: it lies in the logs of two.
    let lost = cluster.nodes[&old].clone();
    let lost = tokio::spawn(async move { lost.propose(&"of the minority".to_owned()).await });
    cluster.propose(&majority, numbered("of the majority", 10)).await;
    let lost = lost.await.unwrap();
    assert!(matches!(lost, Err(ProposeError::Unknown(_) | ProposeError::NotLeader { .. })), "{lost:?}");
    // It may still think that it leads; it does not read as if it did.
    cluster.nodes[&old].read_barrier().await.unwrap_err();

    cluster.network.heal();
    let found = cluster.check_all().await;
    assert!(!found.contains(&"of the minority".to_owned()), "another entry took its place");
    cluster.propose_to_all(numbered("after", 3)).await;
    cluster.check_all().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_is_no_failure() {
    let mut cluster = Cluster::found_steady(3).await;
    let leader = cluster.leader().await;
    cluster.network.set_delay(Duration::from_millis(20));
    let term = cluster.nodes[&leader].status().term;
    cluster.propose_to_all(numbered("slow", 20)).await;
    cluster.check_all().await;
    assert_eq!(cluster.nodes[&leader].status().term, term, "nobody else stood for election");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_name_the_leader_and_too_large_commands_hurt_nobody() {
    let mut cluster = Cluster::found_steady(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let refused = cluster.nodes[&follower].propose(&"x".to_owned()).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(peer(leader)) }));

    // With its two quotes the largest that is taken, and one byte more.
    let largest = (1 << 20) - 256 - 2;
    let refused = cluster.nodes[&leader].propose(&"x".repeat(largest + 1)).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes: 1_048_321, bytes_max: 1_048_320 }));
    cluster.propose_to_all(["x".repeat(largest)]).await;
    cluster.check_all().await;
    cluster.stop().await;
}

/// Links are cut, nodes are restarted, and one client goes on. What it was told is there, once and
/// in its order; what it was not told is there once or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_at_random() {
    let seed = 0x5eed_0003;
    let mut numbers = Numbers(seed);
    let timeout = Duration::from_millis(500);
    let mut cluster = Cluster::found_with(5, |config| config.propose_timeout = timeout).await;
    let all = [1, 2, 3, 4, 5];
    let mut unknown = Vec::new();
    for step in 0..100 {
        match numbers.below(0..6) {
            0 => {
                let (part, others) = all.into_iter().partition(|_| numbers.below(0..3) == 0);
                let (part, others): (Vec<u64>, Vec<u64>) = (part, others);
                cluster.network.partition(&ids(part), &ids(others));
            }
            1 | 2 => cluster.network.heal(),
            3 => {
                let id = numbers.below(1..6);
                cluster.stop_node(id).await;
                cluster.start_node(id).await;
            }
            _ => {}
        }
        // Whoever leads in the eyes of one of them, if anybody does.
        let witness = numbers.below(1..6);
        let is_led = cluster.nodes[&witness].wait_for_status(|status| status.leader.is_some());
        let Ok(Some(status)) = tokio::time::timeout(3 * timeout, is_led).await else {
            continue;
        };
        let leader = &cluster.nodes[&status.leader.unwrap_or_default().0];
        let command = format!("step {step}");
        match leader.propose(&command).await {
            Ok(_) => cluster.acked.push(command),
            Err(ProposeError::NotLeader { .. }) => {}
            Err(ProposeError::Unknown(_)) => unknown.push(command),
            Err(error) => panic!("seed {seed:#x}, step {step}: {error}"),
        }
    }
    cluster.network.heal();
    cluster.propose_to_all(["end".to_owned()]).await;
    let found = cluster.check_all().await;
    let told = cluster.acked.len();
    println!("seed {seed:#x}: {told} told, {} not, {} applied", unknown.len(), found.len());
    assert!(told > 10, "the faults leave no room");
    let mut once = found.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), found.len(), "seed {seed:#x}: {found:?}");
    let is_known = |line: &String| cluster.acked.contains(line) || unknown.contains(line);
    assert!(found.iter().all(is_known), "seed {seed:#x}: {found:?}");
    cluster.stop().await;
}

/// Another generation is what is left of the cluster from before it was forced to begin anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_generation_gets_nothing() {
    let mut cluster = Cluster::start(2).await;
    cluster.try_start_node(3, 2).await.unwrap();
    cluster.nodes[&1].initialize(&[1, 2, 3].map(peer)).await.unwrap();
    cluster.propose(&[1, 2], numbered("of two", 30)).await;
    cluster.check_agreement(&[1, 2]).await;
    let status = cluster.nodes[&3].status();
    assert_eq!((status.entries, status.term, status.members.voters.len()), (0, 0, 0));

    let request = RaftRequest {
        cluster: "test".to_owned(),
        generation: 1,
        from: RaftId(1),
        to: RaftId(3),
        kind: RequestKind::Vote,
        body: Vec::new(),
    };
    let refused = cluster.network.call(&peer(3), request).await;
    assert_eq!(refused, Err(TransportError::Refused(Refusal::OtherGeneration { own: 2, theirs: 1 })));
    cluster.stop().await;
}
