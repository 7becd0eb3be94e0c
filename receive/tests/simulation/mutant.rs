//! Bugs put in on purpose.

/// A bug that the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A write counts as stored when enough nodes have stored anything of it.
    QuorumPerRequest,
    /// Owners take every batch.
    EpochUnchecked,
    /// Writes that were refused since a node is gone are taken.
    LeastWriteEpochUnchecked,
    /// The log of Raft reports writes as durable that are not.
    RaftSyncLeftOut,
    /// An owner says that it has stored what is not durable.
    DataSyncLeftOut,
    /// Votes of Raft are not written.
    VoteNotWritten,
    /// A node that lost its disk comes back under its old identity, and so with its old Raft id.
    IdReused,
    /// A node uses a ring that is not durable.
    RingNotWritten,
}

impl Mutant {
    pub const ALL: [Mutant; 8] = [
        Mutant::QuorumPerRequest,
        Mutant::EpochUnchecked,
        Mutant::LeastWriteEpochUnchecked,
        Mutant::RaftSyncLeftOut,
        Mutant::DataSyncLeftOut,
        Mutant::VoteNotWritten,
        Mutant::IdReused,
        Mutant::RingNotWritten,
    ];
}
