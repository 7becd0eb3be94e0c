//! Administration of Raft by people: who the members are and how far, changing that by hand, a
//! snapshot now, and a copy of the ring.
//!
//! Only the leader knows how far the others are, so all of it is asked of the leader, through any node.

use serde::{Deserialize, Serialize};

use super::{
    autopilot::is_autopilot_on,
    machine::RingMachine,
    ring_file,
    shared::{NotLed, Shared},
    voters::raft_id,
};
use crate::{
    ids::Uid,
    raft::{Members, Peer, ProposeError, RaftNode},
    ring::{Node, NodeState},
};

/// What people ask of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminQuestion {
    /// Who the members are, and how far.
    Members,
    /// Make a node a voter. Refused while the leader chooses the voters, as it would undo it.
    Promote {
        /// The node.
        uid: Uid,
    },
    /// Let a voter only watch from now on. Refused while the leader chooses the voters.
    Demote {
        /// The node.
        uid: Uid,
    },
    /// Have the leader take a snapshot of the ring.
    Snapshot,
    /// Give the whole ring as bytes.
    Backup,
}

impl AdminQuestion {
    /// What it would change, in words; none if it only wants to know something.
    pub(super) fn change(&self) -> Option<String> {
        match self {
            Self::Members | Self::Backup => None,
            Self::Promote { uid } => Some(format!("node {uid} becomes a voter")),
            Self::Demote { uid } => Some(format!("node {uid} becomes no voter")),
            Self::Snapshot => Some("take a snapshot".to_owned()),
        }
    }
}

/// What the leader answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// It is done, or was so before.
    Done,
    /// The members.
    Members(MembersStatus),
}

/// Why the leader does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct AdminRefused(pub String);

/// The members of Raft, as their leader sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersStatus {
    /// The term.
    pub term: u64,
    /// How many entries the log and snapshot of the leader reach.
    pub entries: u64,
    /// How many of them are in its newest snapshot.
    pub entries_in_snapshot: u64,
    /// A change of voters is under way.
    pub is_changing: bool,
    /// The leader chooses the voters by itself.
    pub is_autopilot_on: bool,
    /// Voters first, each ascending by id.
    pub members: Vec<MemberStatus>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name in Raft.
    pub raft_id: u64,
    /// The node; none if the ring does not know it.
    pub uid: Option<Uid>,
    /// Its name; empty if the ring does not know it.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Decides, or else only listens.
    pub is_voter: bool,
    /// Leads.
    pub is_leader: bool,
    /// How many entries the leader has and this member is not known to have.
    pub lag_entries: u64,
    /// Milliseconds since the leader heard how it is doing; none if it has not.
    pub last_contact_ms: Option<u64>,
}

impl Shared {
    /// Answers what people ask, if this node leads.
    pub async fn administer(&self, question: &AdminQuestion) -> Result<Vec<u8>, NotLed> {
        let raft = self.raft.get().filter(|raft| raft.status().is_leader);
        let raft = raft.ok_or_else(|| NotLed::Elsewhere(self.leader_hint()))?;
        // Nobody is told of a state that another leader has changed since.
        raft.read_barrier().await.map_err(|error| match error {
            ProposeError::NotLeader { .. } => NotLed::Elsewhere(None),
            other => NotLed::Failed(other),
        })?;
        let answer = match question {
            AdminQuestion::Backup => return Ok(self.backup_of(&raft)),
            AdminQuestion::Members => Ok(AdminAnswer::Members(self.members_status(&raft))),
            AdminQuestion::Snapshot => done(raft.take_snapshot().await),
            AdminQuestion::Promote { uid } => self.promote(&raft, *uid).await,
            AdminQuestion::Demote { uid } => match by_hand(&raft) {
                Ok(()) => done(raft.remove(raft_id(*uid)).await),
                Err(refused) => Err(refused),
            },
        };
        Ok(super::wire::encode(&answer))
    }

    async fn promote(&self, raft: &RaftNode<RingMachine>, uid: Uid) -> Result<AdminAnswer, AdminRefused> {
        by_hand(raft)?;
        let machine = std::sync::Arc::clone(&raft.watch().borrow().machine);
        let node = machine.state.node(uid).filter(|node| node.state == NodeState::Active);
        let node = node.ok_or_else(|| AdminRefused(format!("{uid} is no active node")))?;
        if raft.status().members.is_voter(raft_id(uid)) {
            return Ok(AdminAnswer::Done);
        }
        let named = |what: String| AdminRefused(format!("{} cannot be made a voter: {what}", node.name));
        self.make_learner(raft, node).await.map_err(named)?;
        raft.promote(raft_id(uid)).await.map_err(|error| named(error.to_string()))?;
        Ok(AdminAnswer::Done)
    }

    fn members_status(&self, raft: &RaftNode<RingMachine>) -> MembersStatus {
        let machine = std::sync::Arc::clone(&raft.watch().borrow().machine);
        let status = raft.status();
        let Members { voters, learners, is_changing } = &status.members;
        let soft = self.soft.lock();
        let member = |peer: &Peer, is_voter: bool| {
            let node: Option<&Node> = machine.state.nodes().find(|node| raft_id(node.uid) == peer.id);
            let is_leader = peer.id == status.id;
            let entries = status.entries_of.get(&peer.id).copied().unwrap_or(0);
            let report = node.and_then(|node| soft.get(node.uid));
            MemberStatus {
                raft_id: peer.id.0,
                uid: node.map(|node| node.uid),
                name: node.map(|node| node.name.clone()).unwrap_or_default(),
                address: node.map_or(&peer.address, |node| &node.addresses.cluster).clone(),
                is_voter,
                is_leader,
                lag_entries: if is_leader { 0 } else { status.entries.saturating_sub(entries) },
                last_contact_ms: report.map(|report| super::shared::millis(report.at.elapsed())),
            }
        };
        let voters = voters.iter().map(|peer| member(peer, true));
        MembersStatus {
            term: status.term,
            entries: status.entries,
            entries_in_snapshot: status.entries_in_snapshot,
            is_changing: *is_changing,
            is_autopilot_on: is_autopilot_on(&machine.state),
            members: voters.chain(learners.iter().map(|peer| member(peer, false))).collect(),
        }
    }

    /// What all that was committed when it was asked for made of the ring, as the file `ring.bin` has it.
    fn backup_of(&self, raft: &RaftNode<RingMachine>) -> Vec<u8> {
        let published = raft.watch().borrow().clone();
        let state = published.machine.state.clone();
        let (generation, entries_applied) = (raft.identity().generation, published.entries_applied);
        ring_file::encode(&ring_file::RingRecord { generation, entries_applied, state })
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>) -> Result<AdminAnswer, AdminRefused> {
    result.map(|()| AdminAnswer::Done).map_err(|error| AdminRefused(error.to_string()))
}

/// What people do to the voters lasts only if the leader does not choose them.
fn by_hand(raft: &RaftNode<RingMachine>) -> Result<(), AdminRefused> {
    if is_autopilot_on(&raft.watch().borrow().machine.state) {
        let setting = super::autopilot::AUTOPILOT_SETTING;
        return Err(AdminRefused(format!(
            "the leader chooses the voters and would undo it: set {setting} to off first"
        )));
    }
    Ok(())
}
