//! Members come and go.

use weir_hashring::raft::{ChangeError, InitializeFailed, RaftId, Status};

use crate::cluster::{Cluster, numbered, peer};

/// Waits until a node knows of these voters and no others, and of no learners.
async fn wait_for_voters(cluster: &Cluster, id: u64, expected: &[u64]) {
    let is_expected = |status: &Status| {
        let voters = status.members.voters.iter().map(|peer| peer.id.0);
        voters.eq(expected.iter().copied())
            && status.members.learners.is_empty()
            && !status.members.is_changing
    };
    cluster.wait(id, &format!("the voters are {expected:?}"), is_expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_becomes_three_and_others() {
    let mut cluster = Cluster::start(4).await;
    assert_eq!(cluster.nodes[&1].initialize(&[peer(2)]).await, Err(InitializeFailed::NotAmongVoters));
    cluster.nodes[&1].initialize(&[peer(1)]).await.unwrap();
    assert_eq!(cluster.nodes[&1].initialize(&[peer(1)]).await, Err(InitializeFailed::AlreadyMember));
    cluster.propose(&[1], numbered("alone", 70)).await;
    let leader = cluster.nodes[&1].clone();
    assert_eq!(leader.remove(RaftId(1)).await, Err(ChangeError::LastVoter(RaftId(1))));
    assert_eq!(leader.promote(RaftId(2)).await, Err(ChangeError::NotLearner(RaftId(2))));

    // Spawned, as servers do.
    for id in [2, 3] {
        let leader = leader.clone();
        let joined = tokio::spawn(async move {
            leader.add_learner(&peer(id)).await?;
            leader.add_learner(&peer(id)).await?;
            leader.promote(RaftId(id)).await?;
            leader.promote(RaftId(id)).await
        });
        joined.await.unwrap().unwrap();
    }
    wait_for_voters(&cluster, 1, &[1, 2, 3]).await;
    cluster.propose(&[1, 2, 3], numbered("three", 5)).await;
    cluster.check_agreement(&[1, 2, 3]).await;

    // 3 is lost with its disk; 4 takes its place.
    cluster.stop_node(3).await;
    leader.add_learner(&peer(4)).await.unwrap();
    leader.set_voters(&[1, 2, 4].map(RaftId).into()).await.unwrap();
    wait_for_voters(&cluster, 1, &[1, 2, 4]).await;
    cluster.propose(&[1, 2, 4], numbered("other three", 5)).await;
    cluster.check_agreement(&[1, 2, 4]).await;

    // Its id is not used again, whoever leads and whatever the log still has.
    leader.take_snapshot().await.unwrap();
    assert_eq!(leader.add_learner(&peer(3)).await, Err(ChangeError::UsedId(RaftId(3))));
    for id in [1, 2, 4] {
        cluster.stop_node(id).await;
    }
    for id in [1, 2, 4] {
        cluster.start_node(id).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.nodes[&leader].add_learner(&peer(3)).await, Err(ChangeError::UsedId(RaftId(3))));

    // A leader may remove itself.
    cluster.nodes[&leader].remove(RaftId(leader)).await.unwrap();
    let rest: Vec<u64> = [1, 2, 4].into_iter().filter(|&id| id != leader).collect();
    cluster.stop_node(leader).await;
    cluster.propose(&rest, numbered("two", 5)).await;
    cluster.check_agreement(&rest).await;
    wait_for_voters(&cluster, rest[0], &rest).await;
    let leader = cluster.leader_of(&rest).await;
    let follower = rest.iter().find(|&&id| id != leader).unwrap();
    let refused = cluster.nodes[follower].add_learner(&peer(7)).await;
    assert!(matches!(refused, Err(ChangeError::NotLeader { leader: Some(_) })), "{refused:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_removed_gets_nothing_more() {
    let mut cluster = Cluster::found_steady(1).await;
    cluster.start_node(2).await;
    let leader = cluster.nodes[&1].clone();
    cluster.leader_of(&[1]).await;
    leader.add_learner(&peer(2)).await.unwrap();
    cluster.propose(&[1], numbered("heard", 5)).await;
    cluster.check_agreement(&[1, 2]).await;
    leader.remove(RaftId(2)).await.unwrap();
    leader.remove(RaftId(2)).await.unwrap();
    wait_for_voters(&cluster, 1, &[1]).await;
    cluster.propose(&[1], numbered("not heard", 5)).await;
    assert_eq!(cluster.nodes[&2].watch().borrow().machine.lines.len(), 5);
    assert_eq!(leader.add_learner(&peer(2)).await, Err(ChangeError::UsedId(RaftId(2))));
    cluster.stop().await;
}
