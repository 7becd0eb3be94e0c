//! Who the members are, and changing that.
//!
//! Changes are made by the leader, one at a time. A change of voters goes through a step in which
//! both the old and the new ones have to agree; a leader that ends in between leaves the members in
//! that step, and the next change, or [`RaftNode::settle`], finishes it.

use std::{collections::BTreeSet, future::Future, time::Duration};

use openraft::{
    ChangeMembers, Membership,
    error::{CheckIsLeaderError, ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};

use super::{
    machine::Machine,
    node::{RaftNode, leader_of},
    types::{Member, Peer, RaftId, Types},
};

/// A new member has caught up when it lacks no more entries than this.
const LAG_ENTRIES_MAX: u64 = 10;

/// The members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose majority decides, ascending by id. While voters change, the new and the old ones.
    pub voters: Vec<Peer>,
    /// Those who only listen, ascending by id.
    pub learners: Vec<Peer>,
    /// A change of voters is under way, or was left halfway.
    pub is_changing: bool,
}

impl Members {
    pub(super) fn of(membership: &Membership<RaftId, Member>) -> Members {
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        let peers = membership.nodes().map(|(&id, member)| Peer { id, address: member.address.clone() });
        let (voters, learners) = peers.partition(|peer| voters.contains(&peer.id));
        Members { voters, learners, is_changing: membership.get_joint_config().len() > 1 }
    }

    /// True if the member decides.
    pub fn is_voter(&self, id: RaftId) -> bool {
        self.voters.iter().any(|peer| peer.id == id)
    }

    /// True if the member only listens.
    pub fn is_learner(&self, id: RaftId) -> bool {
        self.learners.iter().any(|peer| peer.id == id)
    }
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another member leads, or none at the moment.
    #[error("this member does not lead; the leader is {}", leader.as_ref().map_or("not known".to_owned(), |peer| peer.id.to_string()))]
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<Peer>,
    },
    /// Whoever had the id was removed. A member without its old disk needs a new id.
    #[error("the id {0} was used before; an id is used once")]
    UsedId(RaftId),
    /// Only a member that listens can become a voter.
    #[error("{0} is not a learner")]
    NotLearner(RaftId),
    /// Without it nobody would decide.
    #[error("{0} is the last voter")]
    LastVoter(RaftId),
    /// Not done in time: the change may be done, half done, or not at all.
    #[error("the change of members was not done within {0:?}")]
    Unknown(Duration),
    /// The library refused.
    #[error("the change of members was refused: {0}")]
    Refused(String),
    /// The node has stopped.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

impl<M: Machine> RaftNode<M> {
    /// Makes a node a member that listens. Nothing changes if it is a member already; its address is
    /// not touched.
    pub async fn add_learner(&self, peer: &Peer) -> Result<(), ChangeError> {
        self.change(async |members: Members| {
            if members.is_voter(peer.id) || members.is_learner(peer.id) {
                return Ok(());
            }
            if self.inner.ids.borrow().contains(&peer.id) {
                return Err(ChangeError::UsedId(peer.id));
            }
            let member = Member { address: peer.address.clone() };
            done(self.inner.raft.add_learner(peer.id, member, false).await)
        })
        .await
    }

    /// As [`RaftNode::add_learner`], and also takes an id that was removed. Only for a node that was
    /// asked and still has all that it had stored under this id; one that has not may have voted and
    /// does not know for whom.
    pub async fn readmit_learner(&self, peer: &Peer) -> Result<(), ChangeError> {
        self.change(async |members: Members| {
            if members.is_voter(peer.id) || members.is_learner(peer.id) {
                return Ok(());
            }
            let member = Member { address: peer.address.clone() };
            done(self.inner.raft.add_learner(peer.id, member, false).await)
        })
        .await
    }

    /// True if the id is or was that of a member.
    pub fn is_used(&self, id: RaftId) -> bool {
        self.inner.ids.borrow().contains(&id)
    }

    /// Makes these, and no others, the voters, in one step, once those of them that only listen have
    /// caught up. A voter that is not among them is removed. Nothing changes if they are the voters.
    pub async fn set_voters(&self, wanted: &BTreeSet<RaftId>) -> Result<(), ChangeError> {
        self.change(async |members: Members| {
            if members.voters.iter().map(|peer| peer.id).eq(wanted.iter().copied()) {
                return Ok(());
            }
            if wanted.is_empty() {
                let last = members.voters.first().map_or(RaftId(0), |peer| peer.id);
                return Err(ChangeError::LastVoter(last));
            }
            for &id in wanted.iter().filter(|&&id| !members.is_voter(id)) {
                self.wait_until_caught_up(&members, id).await?;
            }
            self.change_voters(ChangeMembers::ReplaceAllVoters(wanted.clone())).await
        })
        .await
    }

    /// Makes a member that listens a voter, once it has caught up. Nothing changes if it is one.
    pub async fn promote(&self, id: RaftId) -> Result<(), ChangeError> {
        self.change(async |members: Members| {
            if members.is_voter(id) {
                return Ok(());
            }
            self.wait_until_caught_up(&members, id).await?;
            self.change_voters(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
        })
        .await
    }

    /// Removes a member for ever. Nothing changes if it is none.
    pub async fn remove(&self, id: RaftId) -> Result<(), ChangeError> {
        self.change(async |members: Members| {
            let ids = BTreeSet::from([id]);
            if members.is_learner(id) {
                return self.change_voters(ChangeMembers::RemoveNodes(ids)).await;
            }
            if !members.is_voter(id) {
                return Ok(());
            }
            if members.voters.len() == 1 {
                return Err(ChangeError::LastVoter(id));
            }
            self.change_voters(ChangeMembers::RemoveVoters(ids)).await
        })
        .await
    }

    /// Finishes a change that a former leader left halfway; nothing otherwise.
    pub async fn settle(&self) -> Result<(), ChangeError> {
        self.change(async |_| Ok(())).await
    }

    /// Makes one change, after those before it are done and known here.
    async fn change<F>(&self, change: impl FnOnce(Members) -> F) -> Result<(), ChangeError>
    where
        F: Future<Output = Result<(), ChangeError>>,
    {
        let timeout = self.inner.config.change_timeout;
        let work = async {
            let _one_at_a_time = self.inner.changes.lock().await;
            self.inner.raft.ensure_linearizable().await.map_err(|error| match error {
                RaftError::APIError(CheckIsLeaderError::ForwardToLeader(leader)) => {
                    ChangeError::NotLeader { leader: leader_of(leader) }
                }
                RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => {
                    ChangeError::NotLeader { leader: None }
                }
                RaftError::Fatal(fatal) => ChangeError::Stopped(fatal.to_string()),
            })?;
            self.finish_step().await?;
            change(Members::of(&self.membership().await?)).await
        };
        tokio::time::timeout(timeout, work).await.unwrap_or(Err(ChangeError::Unknown(timeout)))
    }

    /// The members as the library has them now; the status is a little behind.
    async fn membership(&self) -> Result<Membership<RaftId, Member>, ChangeError> {
        let membership =
            self.inner.raft.with_raft_state(|state| state.membership_state.effective().membership().clone());
        membership.await.map_err(|fatal| ChangeError::Stopped(fatal.to_string()))
    }

    async fn finish_step(&self) -> Result<(), ChangeError> {
        match self.membership().await?.get_joint_config().as_slice() {
            [_, .., wanted] => self.change_voters(ChangeMembers::ReplaceAllVoters(wanted.clone())).await,
            _ => Ok(()),
        }
    }

    async fn change_voters(&self, change: ChangeMembers<RaftId, Member>) -> Result<(), ChangeError> {
        done(self.inner.raft.change_membership(change, false).await)
    }

    async fn wait_until_caught_up(&self, members: &Members, id: RaftId) -> Result<(), ChangeError> {
        if !members.is_learner(id) {
            return Err(ChangeError::NotLearner(id));
        }
        let caught_up = self.wait_for_status(|status| {
            let entries = status.entries_of.get(&id).copied().unwrap_or(0);
            !status.is_leader || entries + LAG_ENTRIES_MAX >= status.entries
        });
        match caught_up.await {
            Some(status) if status.is_leader => Ok(()),
            Some(_) => Err(ChangeError::NotLeader { leader: None }),
            None => Err(ChangeError::Stopped("while a member was catching up".to_owned())),
        }
    }
}

fn done(
    result: Result<ClientWriteResponse<Types>, RaftError<RaftId, ClientWriteError<RaftId, Member>>>,
) -> Result<(), ChangeError> {
    result.map(drop).map_err(|error| match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(leader)) => {
            ChangeError::NotLeader { leader: leader_of(leader) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Refused(error.to_string())
        }
        RaftError::Fatal(fatal) => ChangeError::Stopped(fatal.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::{CommittedLeaderId, EntryPayload, storage::RaftLogStorageExt};

    use super::*;
    use crate::raft::{
        config::{Identity, RaftConfig},
        log::LogStore,
        machine::counter::Counter,
        memory::MemoryNetwork,
        snapshots::SnapshotFiles,
        store::RaftStore,
        types::{Entry, LogId},
    };

    /// What a leader leaves behind that ends between the two steps of a change.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_left_halfway_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let store = RaftStore::open(&dir.path().join("log")).unwrap();
        let snapshots = SnapshotFiles::open(&dir.path().join("snapshots")).unwrap();
        let steps = vec![BTreeSet::from([RaftId(1)]), BTreeSet::from([RaftId(1)])];
        let nodes = BTreeMap::from([(RaftId(1), Member::default())]);
        let log_id = LogId::new(CommittedLeaderId::new(0, RaftId(0)), 0);
        let payload = EntryPayload::Membership(Membership::new(steps, nodes));
        let mut log = LogStore::new(RaftId(1), store.clone(), snapshots);
        log.blocking_append([Entry { log_id, payload }]).await.unwrap();
        store.close();

        let identity = Identity { id: RaftId(1), cluster: "test".to_owned(), generation: 1 };
        let network = MemoryNetwork::default();
        let node: RaftNode<Counter> =
            RaftNode::start(RaftConfig::default(), identity, dir.path(), network).await.unwrap();
        assert!(node.status().members.is_changing);
        node.wait_for_status(|status| status.is_leader).await.unwrap();
        node.settle().await.unwrap();
        let is_settled = |members: &Members| !members.is_changing && members.is_voter(RaftId(1));
        node.wait_for_status(|status| is_settled(&status.members)).await.unwrap();
        node.shutdown().await;
    }
}
