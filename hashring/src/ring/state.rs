//! What the log leads to.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Mapping, Node, NodeState, OpenLoss, RingDelta, TokenFault, Tombstone};
use crate::{
    ids::{
        ClusterId, Digest, FeatureLevel, HashSeed, NodeNumber, NodesVersion, PlanId, PoolName, ReplicaCount,
        RingEpoch, SlotCount, TenantName, TokenId, Uid, UnixMillis,
    },
    planner::{Goal, Member, Plan, PlanError, Request, plan},
};

/// The state that all nodes agree on. It changes by [`RingState::apply`] only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    pub(super) cluster: Option<Cluster>,
    pub(super) mapping: Mapping,
    pub(super) digest: Digest,
    /// No write of an earlier epoch is taken any more.
    pub(super) min_write_epoch: RingEpoch,
    /// The steps to the latest epochs, the newest last; at most [`Self::EPOCHS_KEPT`].
    pub(super) deltas: VecDeque<RingDelta>,
    /// Why the latest epochs came about, as far as somebody said so; at most [`Self::EPOCHS_KEPT`].
    #[serde(default)]
    pub(super) reasons: VecDeque<(RingEpoch, String)>,
    /// Plans that were applied lately, with the epochs they led to.
    pub(super) recent_plans: VecDeque<(PlanId, RingEpoch, Digest)>,
    pub(super) nodes: BTreeMap<Uid, Node>,
    pub(super) nodes_version: NodesVersion,
    /// The number that was given last.
    pub(super) last_number: u32,
    pub(super) tombstones: BTreeMap<Uid, Tombstone>,
    /// By who is gone. As long as one is open, the loss of any other that it waits for may be one too many.
    #[serde(default)]
    pub(super) open_losses: BTreeMap<Uid, OpenLoss>,
    pub(super) tenant_limits: BTreeMap<TenantName, String>,
    pub(super) config: BTreeMap<String, ConfigValue>,
    /// The version that was given last to any setting.
    pub(super) config_version: u64,
    pub(super) tokens: BTreeMap<TokenId, JoinToken>,
    pub(super) feature_level: FeatureLevel,
}

/// What a cluster was founded with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Seed of the placement hash.
    pub hash_seed: HashSeed,
    /// The placement hash.
    pub hash_function: HashFunction,
    /// How many slots there are.
    pub slots: SlotCount,
    /// How many nodes own each slot.
    pub replicas: ReplicaCount,
    /// The nodes that founded it.
    pub founders: Vec<Uid>,
    /// When.
    pub created: UnixMillis,
}

/// The function from labels to slots, with all of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashFunction {
    /// [`crate::series_hash()`], then [`crate::placement`].
    Xxh3V1,
}

/// A small setting of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigValue {
    /// What it is set to.
    pub value: String,
    /// Its version, which no other value had.
    pub version: u64,
}

/// What lets nodes join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Hash of its secret part.
    pub sha256: [u8; 32],
    /// When it ends.
    pub expires: UnixMillis,
    /// How many nodes may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
}

impl JoinToken {
    /// Whether one more node may join with it at this time.
    pub fn check(&self, id: &TokenId, at: UnixMillis) -> Result<(), TokenFault> {
        if at >= self.expires {
            return Err(TokenFault::Expired(id.clone()));
        }
        if self.used >= self.uses { Err(TokenFault::UsedUp(id.clone())) } else { Ok(()) }
    }
}

impl RingState {
    /// For how many epochs it is known who owned what: the current one and those before it.
    pub const EPOCHS_KEPT: usize = 8;

    /// What the cluster was founded with; none before it was.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Pools and tenants.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The epoch of the mapping.
    pub fn epoch(&self) -> RingEpoch {
        self.mapping.epoch
    }

    /// The digest that goes with the epoch.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// No write of an earlier epoch is to be taken.
    pub fn min_write_epoch(&self) -> RingEpoch {
        self.min_write_epoch
    }

    /// The steps to the latest epochs, the newest last.
    pub fn deltas(&self) -> impl DoubleEndedIterator<Item = &RingDelta> {
        self.deltas.iter()
    }

    /// Why an epoch came about, if somebody said so and it is one of the latest.
    pub fn reason_of(&self, epoch: RingEpoch) -> Option<&str> {
        self.reasons.iter().find(|(of, _)| *of == epoch).map(|(_, reason)| reason.as_str())
    }

    /// All nodes that are not gone, and lost ones that still hold slots.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node that is not gone, or is lost and holds slots.
    pub fn node(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    /// Changes whenever anything about nodes does.
    pub fn nodes_version(&self) -> NodesVersion {
        self.nodes_version
    }

    /// All nodes that are gone.
    pub fn tombstones(&self) -> impl Iterator<Item = (Uid, &Tombstone)> {
        self.tombstones.iter().map(|(&uid, tombstone)| (uid, tombstone))
    }

    /// What is left of a node that is gone.
    pub fn tombstone(&self, uid: Uid) -> Option<&Tombstone> {
        self.tombstones.get(&uid)
    }

    /// The losses whose data is not known to be uploaded yet, by who is gone.
    pub fn open_losses(&self) -> &BTreeMap<Uid, OpenLoss> {
        &self.open_losses
    }

    /// True if any table names the node.
    pub fn holds_slots(&self, number: NodeNumber) -> bool {
        self.mapping.pools.values().any(|pool| pool.table.holds_any(number))
    }

    /// In how many rows of tables a node is.
    pub fn slots_held(&self, number: NodeNumber) -> u32 {
        let cells = self.mapping.pools.values().flat_map(|pool| pool.table.cells());
        // There are fewer cells than that.
        cells.filter(|owner| **owner == number).count() as u32
    }

    /// The limits that are set for tenants.
    pub fn tenant_limits(&self) -> &BTreeMap<TenantName, String> {
        &self.tenant_limits
    }

    /// The settings of the cluster.
    pub fn config(&self) -> &BTreeMap<String, ConfigValue> {
        &self.config
    }

    /// The tokens with which nodes may join.
    pub fn tokens(&self) -> &BTreeMap<TokenId, JoinToken> {
        &self.tokens
    }

    /// What all nodes can do.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// The nodes of a pool that shall own slots, in the order of their numbers.
    pub fn members(&self, pool: &PoolName) -> Vec<Member> {
        let mut members: Vec<Member> = self
            .nodes
            .values()
            .filter(|node| node.state == NodeState::Active && node.pool == *pool)
            .map(|node| Member { number: node.number, zone: node.zone.clone(), weight: node.weight })
            .collect();
        members.sort_by_key(|member| member.number);
        members
    }

    /// Plans the moves of a pool so that these members own its slots: those of [`Self::members`], or
    /// others to see what that would mean. None if there is no such pool.
    pub fn plan(
        &self,
        pool: &PoolName,
        members: &[Member],
        goal: Goal,
        allow_degraded: bool,
    ) -> Option<Result<Plan, PlanError>> {
        let cluster = self.cluster.as_ref()?;
        let table = &self.mapping.pools.get(pool)?.table;
        let (slots, replicas) = (cluster.slots, cluster.replicas);
        Some(plan(&Request { table, slots, replicas, allow_degraded, members, goal }))
    }
}
