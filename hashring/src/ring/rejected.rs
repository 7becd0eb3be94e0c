//! Why commands are refused.

use serde::{Deserialize, Serialize};

use super::NodeState;
use crate::{
    ids::{NodeNumber, PoolName, RingEpoch, Slot, TokenId, Uid},
    spread::RowFault,
    table::MoveFault,
};

/// Why a command was refused. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejected {
    /// There is no cluster yet.
    #[error("there is no cluster yet")]
    NoCluster,
    /// There is a cluster already.
    #[error("there is a cluster already")]
    ClusterExists,
    /// No node has this uid.
    #[error("node {0} is unknown")]
    UnknownNode(Uid),
    /// The node left or was lost, which is final.
    #[error("node {0} is gone for good")]
    Gone(Uid),
    /// Another node has the same name.
    #[error("node {0} has the same name")]
    NameTaken(Uid),
    /// Another node has, or had, the same Raft id.
    #[error("the Raft id is that of node {0}")]
    RaftIdTaken(Uid),
    /// The node is in another state than the command says.
    #[error("the node is {state:?}")]
    WrongState {
        /// Its state.
        state: NodeState,
    },
    /// There is no way from the one state to the other.
    #[error("a node does not go from {from:?} to {to:?}")]
    IllegalTransition {
        /// Its state.
        from: NodeState,
        /// Where it shall go.
        to: NodeState,
    },
    /// Only possible without any slot.
    #[error("{0} holds slots")]
    HoldsSlots(NodeNumber),
    /// A node may only be replaced by one of the same pool.
    #[error("the nodes are of different pools")]
    PoolDiffers,
    /// A node may only be replaced by one of the same zone, unless forced.
    #[error("the nodes are of different zones")]
    ZoneDiffers,
    /// A node that shared slots with the dead one was lost, and what the others held then is not uploaded
    /// yet.
    #[error(
        "node {0} was lost lately, and what the others have of its data is not uploaded yet: a second node of its replica group is replaced by force only"
    )]
    ReplacedLately(Uid),
    /// There is no such pool.
    #[error("there is no pool {0}")]
    UnknownPool(PoolName),
    /// The pool is needed.
    #[error("pool {0} is in use")]
    PoolInUse(PoolName),
    /// The same name of a tenant is listed for another pool.
    #[error("pool {0} lists the same tenant")]
    MatcherTaken(PoolName),
    /// A pattern of tenants is not understood.
    #[error("a pattern of tenants may have * and ? only, not brackets, braces or backslashes")]
    BadPattern,
    /// The plan was made from another epoch.
    #[error("the plan is not for epoch {epoch}")]
    StalePlan {
        /// The epoch that it is now.
        epoch: RingEpoch,
    },
    /// The plan moves nothing.
    #[error("the plan moves nothing")]
    EmptyPlan,
    /// The plan has fewer replicas than the cluster, or more.
    #[error("the plan is for another number of replicas")]
    WrongReplicas,
    /// There are not nodes enough to own slots.
    #[error("too few nodes are active")]
    TooFewNodes,
    /// A move does not fit the table.
    #[error(transparent)]
    Move(MoveFault),
    /// A row would not be valid.
    #[error("slot {}: {fault}", slot.0)]
    Row {
        /// Which row.
        slot: Slot,
        /// What is wrong with it.
        fault: RowFault,
    },
    /// A tenant cannot have more slots than there are.
    #[error("there are only {slots} slots")]
    TooManySlots {
        /// How many there are.
        slots: u32,
    },
    /// The setting has another version.
    #[error("the version is {version}")]
    WrongVersion {
        /// Its version.
        version: u64,
    },
    /// The node may not join with the token that it has, or without one.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// There is another token of that name.
    #[error("token {0} exists with other values")]
    TokenExists(TokenId),
    /// Some node cannot do what is asked for, or the cluster does more already.
    #[error("the feature level does not fit")]
    FeatureLevel,
    /// The node expects another number of copies than the cluster keeps.
    #[error("the node expects {node} copies of each series, and the cluster keeps {cluster}")]
    ReplicasDiffer {
        /// What the node expects.
        node: u8,
        /// What the cluster was founded with.
        cluster: u8,
    },
    /// The node's program is older than what the cluster makes use of.
    #[error(
        "the node's program has feature level {node}, and the cluster makes use of level {cluster}: the node needs a newer program"
    )]
    ProgramTooOld {
        /// What the node can do.
        node: u32,
        /// What the cluster does.
        cluster: u32,
    },
    /// A text is empty or too long.
    #[error("{0:?}: empty or too long")]
    BadText(Field),
    /// There are as many as there may be.
    #[error("{0:?}: too many")]
    TooMany(Field),
}

/// Why a node does not join with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TokenFault {
    /// It has none.
    #[error("a join token is needed, and the node has none")]
    Missing,
    /// The cluster does not know it, or not any more.
    #[error("there is no join token {0}")]
    Unknown(TokenId),
    /// It is not what was handed out.
    #[error("the secret of join token {0} is wrong")]
    WrongSecret(TokenId),
    /// Its time is over.
    #[error("join token {0} has expired")]
    Expired(TokenId),
    /// As many nodes as may have joined with it.
    #[error("join token {0} is used up")]
    UsedUp(TokenId),
}

/// What is limited in length or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// Nodes, and their names.
    Node,
    /// Zones.
    Zone,
    /// Addresses of nodes.
    Address,
    /// Versions of the program.
    Version,
    /// Reasons.
    Reason,
    /// Tenants, and their names.
    Tenant,
    /// Limits of tenants.
    Limits,
    /// Pools, and their names.
    Pool,
    /// Matchers of a pool.
    Matcher,
    /// Settings of the cluster.
    Config,
    /// Tokens.
    Token,
    /// Founders.
    Founder,
}
