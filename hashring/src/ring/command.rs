//! The commands of the replicated log.

use serde::{Deserialize, Serialize};

use super::{HashFunction, NodeState, TenantMatcher};
use crate::{
    ids::{
        ClusterId, Digest, FeatureLevel, HashSeed, NodeNumber, PlanId, PoolName, RaftId, ReplicaCount,
        RingEpoch, SlotCount, TenantName, TenantSlots, TokenId, Uid, UnixMillis, Weight,
    },
    table::Move,
};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Founds the cluster; only on an empty state.
    InitCluster(InitCluster),
    /// Makes a node known, which gets a number and is Joining. Once per uid.
    RegisterNode(NodeRegistration),
    /// Changes what is known of a node.
    UpdateNode(NodeUpdate),
    /// Brings a node from one state to another.
    SetNodeState {
        /// Which node.
        uid: Uid,
        /// In what state it is to be, or else the command comes too late.
        from: NodeState,
        /// In what state it shall be.
        to: NodeState,
        /// Why, for the log.
        reason: String,
    },
    /// Moves slots.
    ApplyPlan(PlanCommand),
    /// Gives all slots of a dead node to another, and the dead node is lost.
    ReplaceNode {
        /// Who is gone for good.
        dead: Uid,
        /// Who takes over: Joining or Active, of the same pool, without any slot.
        new: Uid,
        /// Whether it may be of another zone, and though a node that shared slots with the dead one was
        /// lost lately.
        force: bool,
        /// When, by the clock of the leader, which fills it in.
        #[serde(default)]
        at: Option<UnixMillis>,
    },
    /// Says when a node was lost, if nobody has yet: those who shared its slots have to upload what they
    /// held until then.
    DateLoss {
        /// Who is gone.
        uid: Uid,
        /// When, by the clock of the leader.
        at: UnixMillis,
    },
    /// Forgets that a node was lost: what the others held then is uploaded.
    #[serde(alias = "CloseTakeOver")]
    CloseLoss {
        /// Who is gone.
        uid: Uid,
        /// When it was lost, or else the command is about another time.
        at: UnixMillis,
    },
    /// Gives a node up. One without slots is gone at once; the slots of another may be moved away from then
    /// on, though it is lost.
    ForgetNode {
        /// Which node.
        uid: Uid,
        /// Why, for the log.
        reason: String,
    },
    /// Sets what is special about a tenant.
    SetTenant {
        /// Which tenant.
        tenant: TenantName,
        /// The pool it is in whatever matchers say.
        pool: Setting<PoolName>,
        /// How many slots it has.
        slots: Setting<TenantSlots>,
        /// Its limits, which nothing here reads.
        limits: Setting<String>,
    },
    /// Removes all that is special about a tenant.
    DeleteTenant {
        /// Which tenant.
        tenant: TenantName,
    },
    /// Makes a pool, or sets which tenants belong to it.
    SetPool {
        /// Which pool.
        name: PoolName,
        /// Who belongs to it.
        matchers: Vec<TenantMatcher>,
    },
    /// Removes a pool that no tenant is mapped to and where no node joins or is active.
    DeletePool {
        /// Which pool.
        name: PoolName,
    },
    /// Sets or removes a small setting of the whole cluster.
    SetConfig {
        /// Name of the setting.
        key: String,
        /// Its value; none removes it.
        value: Option<String>,
        /// The version that is to be replaced, 0 if there is none yet; none for any.
        if_version: Option<u64>,
    },
    /// Makes a token known with which nodes may join.
    AddToken {
        /// Its public part.
        id: TokenId,
        /// Hash of its secret part.
        sha256: [u8; 32],
        /// When it ends.
        expires: UnixMillis,
        /// How many nodes may join with it.
        uses: u32,
    },
    /// Removes a token.
    RevokeToken {
        /// Its public part.
        id: TokenId,
    },
    /// Raises what all nodes can do.
    SetFeatureLevel(FeatureLevel),
    /// Changes nothing: whoever sees it applied has seen all before it.
    Barrier {
        /// Comes back in the answer.
        nonce: u64,
    },
}

/// What a cluster is founded with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCluster {
    /// Its identity.
    pub cluster_id: ClusterId,
    /// Seed of the placement hash.
    pub hash_seed: HashSeed,
    /// The placement hash.
    pub hash_function: HashFunction,
    /// How many slots there are, for ever.
    pub slots: SlotCount,
    /// How many nodes own each slot.
    pub replicas: ReplicaCount,
    /// The nodes that found it.
    pub founders: Vec<Uid>,
    /// When.
    pub created: UnixMillis,
}

/// Where a node is reached, as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Replication and StoreAPI.
    pub grpc: String,
    /// Metrics and status page.
    pub http: String,
    /// Raft and administration.
    pub cluster: String,
}

/// A node that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRegistration {
    /// Its identity.
    pub uid: Uid,
    /// Its name, which no other node may have.
    pub name: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its pool, which must exist.
    pub pool: PoolName,
    /// Its share.
    pub weight: Weight,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Version of the program.
    pub version: String,
    /// What it can do.
    pub features: FeatureLevel,
    /// The token it came with. Whether it needs one is not decided here.
    pub token: Option<TokenId>,
    /// When it came, by the clock of who proposes this.
    pub at: UnixMillis,
    /// The dead node of the same name that it shall replace.
    pub replaces: Option<Uid>,
}

/// What changed about a node; none is no change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUpdate {
    /// Which node.
    pub uid: Uid,
    /// Where it is reached.
    pub addresses: Option<Addresses>,
    /// Version of the program.
    pub version: Option<String>,
    /// What it can do.
    pub features: Option<FeatureLevel>,
    /// Its share, for the next plan.
    pub weight: Option<Weight>,
    /// Its pool; only without any slot.
    pub pool: Option<PoolName>,
    /// Its zone; only without any slot.
    pub zone: Option<String>,
}

/// Moves to apply at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCommand {
    /// Whose table is changed.
    pub pool: PoolName,
    /// The epoch that the plan was made from, or else it comes too late.
    pub base_epoch: RingEpoch,
    /// How many owners each slot has afterwards.
    pub replicas: ReplicaCount,
    /// Whether these may be fewer than the cluster was founded with.
    pub degraded: bool,
    /// What moves.
    pub moves: Vec<Move>,
    /// Why, for the log.
    pub reason: String,
    /// Identity of the proposal.
    pub plan_id: PlanId,
}

/// A change of an optional value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// There is none any more.
    Clear,
    /// It is this.
    Set(T),
}

impl<T> Setting<T> {
    /// The value after the change.
    pub fn over(self, value: Option<T>) -> Option<T> {
        match self {
            Self::Keep => value,
            Self::Clear => None,
            Self::Set(new) => Some(new),
        }
    }
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It was so already.
    Unchanged,
    /// Done, in the same epoch.
    Done,
    /// The node is known by these, for ever.
    Node {
        /// In tables.
        number: NodeNumber,
        /// In Raft.
        raft_id: RaftId,
    },
    /// The mapping changed.
    Ring {
        /// The new epoch.
        epoch: RingEpoch,
        /// The digest that goes with it.
        digest: Digest,
    },
    /// A barrier was passed.
    Barrier {
        /// Of the command.
        nonce: u64,
    },
}
