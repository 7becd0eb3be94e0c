//! Why a command of an administrator failed.

use std::process::ExitCode;

use weir_hashring::{ids::Uid, planner::PlanError, ring::Rejected};

/// Why a command of an administrator failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is none.
    #[error("{0:?} is no address; it is written like node-1.example:10903")]
    BadAddress(String),
    /// Nobody answers there.
    #[error("no connection to {address}: {what}")]
    Unreachable {
        /// Who was asked.
        address: String,
        /// What was wrong.
        what: String,
    },
    /// A node answers that it cannot.
    #[error("{address} answers: {what}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it says.
        what: String,
    },
    /// What a node says is not understood.
    #[error("the answer of {address} is not understood: {what}")]
    NotUnderstood {
        /// Who was asked.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// The node waits for a cluster.
    #[error("the node at {0} is not in a cluster yet")]
    NoCluster(String),
    /// The ring that a node tells is older than what is looked for.
    #[error("the ring that is told is not new enough: {0}")]
    NoRing(String),
    /// It may be that the change is made after all.
    #[error("it is not known whether this was done, now or later: {address}: {what}")]
    Unknown {
        /// Who was asked.
        address: String,
        /// What was wrong.
        what: String,
    },
    /// The cluster refuses the change.
    #[error("the cluster refuses: {0}")]
    Rejected(#[from] Rejected),
    /// There is no such node.
    #[error("there is no node {name:?}; there are: {known}")]
    UnknownNode {
        /// What was asked for.
        name: String,
        /// The names of all nodes.
        known: String,
    },
    /// There are several.
    #[error("several nodes are named {name:?}; take a uid: {uids}")]
    AmbiguousNode {
        /// What was asked for.
        name: String,
        /// The uids of the nodes, and their states.
        uids: String,
    },
    /// There is no such pool.
    #[error("there is no pool {name:?}; there are: {known}")]
    UnknownPool {
        /// What was asked for.
        name: String,
        /// The names of all pools.
        known: String,
    },
    /// There is no plan.
    #[error("this cannot be planned: {0}")]
    Plan(#[from] PlanError),
    /// The state of the cluster does not allow it.
    #[error("{0}")]
    NotPossible(String),
    /// A node was lost while it was waited for.
    #[error("node {0} was lost; it was not drained to the end")]
    Lost(Uid),
    /// The answer was no.
    #[error("nothing was changed")]
    Declined,
    /// There is no terminal to ask on.
    #[error("nothing was changed: there is no terminal to ask on, so --yes is needed")]
    NobodyToAsk,
}

impl AdminError {
    /// 2 for wrong usage, 1 for all else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadAddress(_) | Self::NobodyToAsk => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}
