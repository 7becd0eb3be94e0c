//! Names of members, and the types the Raft library is told to work with.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The name of a member among the members of a cluster. It is used once: never again after the
/// member was removed, and never by a member that lost its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for RaftId {
    fn from(id: u64) -> RaftId {
        RaftId(id)
    }
}

/// A member and where it was when it became one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub id: RaftId,
    /// Its address at that time. It is not kept current: a transport that knows a newer one by the
    /// id takes that.
    pub address: String,
}

/// What the list of members says about one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub address: String,
}

/// Place of an entry in the logs of all members: of two, the one with the greater place was decided
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPlace {
    /// The term of the leader that took it.
    pub term: u64,
    /// How many entries come before it.
    pub index: u64,
}

impl From<LogId> for LogPlace {
    fn from(id: LogId) -> LogPlace {
        LogPlace { term: id.leader_id.term, index: id.index }
    }
}

/// A command as it lies in the log: JSON that only the machine understands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncodedCommand(pub Box<RawValue>);

/// A machine's answer as JSON; none to entries that are no command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncodedAnswer(pub Option<Box<RawValue>>);

openraft::declare_raft_types!(
    /// The library's parameters.
    pub Types:
        D = EncodedCommand,
        R = EncodedAnswer,
        NodeId = RaftId,
        Node = Member,
        SnapshotData = Vec<u8>,
);

pub type Entry = openraft::Entry<Types>;
pub type LogId = openraft::LogId<RaftId>;
pub type Membership = openraft::StoredMembership<RaftId, Member>;
pub type SnapshotMeta = openraft::SnapshotMeta<RaftId, Member>;
pub type StorageError = openraft::StorageError<RaftId>;
pub type StorageIoError = openraft::StorageIOError<RaftId>;
pub type Vote = openraft::Vote<RaftId>;
