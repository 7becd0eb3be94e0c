//! Small value types that cross module borders: every number that looks like any other gets a type.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

/// Number of a slot, below the cluster's [`SlotCount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many slots a cluster has: fixed when it is founded, 256 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SlotCount(u32);

impl SlotCount {
    /// The fewest slots a cluster may have.
    pub const MIN: Self = Self(256);
    /// The most slots a cluster may have; the number of a slot fits 16 bits.
    pub const MAX: Self = Self(65_536);
    /// Enough for some 500 nodes.
    pub const DEFAULT: Self = Self(4096);

    /// `count` slots, if that many are allowed.
    pub fn new(count: u32) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&count).then_some(Self(count))
    }

    /// The number of slots.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number of slots, for lengths and indexes.
    pub fn as_len(self) -> usize {
        self.0 as usize
    }

    /// All slots in order.
    pub fn slots(self) -> impl Iterator<Item = Slot> {
        (0..self.0).map(Slot)
    }
}

impl TryFrom<u32> for SlotCount {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        Self::new(count).ok_or_else(|| format!("{count} slots: 256 to 65536 are allowed"))
    }
}

impl From<SlotCount> for u32 {
    fn from(count: SlotCount) -> Self {
        count.0
    }
}

/// How many slots hold the series of one tenant: its shuffle shard. At most the cluster's
/// [`SlotCount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantSlots(pub NonZeroU32);

impl TenantSlots {
    /// What a tenant starts with, at any size of the cluster.
    pub const DEFAULT: Self = Self(NonZeroU32::MIN.saturating_add(1));

    /// `count` slots, if not zero.
    pub fn new(count: u32) -> Option<Self> {
        NonZeroU32::new(count).map(Self)
    }

    /// The number of slots.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// How many nodes hold each slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ReplicaCount(u8);

impl ReplicaCount {
    /// The most replicas a cluster may be founded with.
    pub const MAX: Self = Self(7);

    /// `count` replicas, if 1 to 7.
    pub fn new(count: u8) -> Option<Self> {
        (1..=Self::MAX.0).contains(&count).then_some(Self(count))
    }

    /// The number of replicas.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The number of replicas, for lengths and indexes.
    pub fn as_len(self) -> usize {
        usize::from(self.0)
    }
}

impl TryFrom<u8> for ReplicaCount {
    type Error = String;

    fn try_from(count: u8) -> Result<Self, String> {
        Self::new(count).ok_or_else(|| format!("{count} replicas: 1 to 7 are allowed"))
    }
}

impl From<ReplicaCount> for u8 {
    fn from(count: ReplicaCount) -> Self {
        count.0
    }
}

/// Counts the changes of tables, pools and tenants' mapping. 0 is a state without a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingEpoch(pub u64);

impl RingEpoch {
    /// The epoch behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for RingEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Short name of a node in tables: counts up from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeNumber(pub u32);

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// Hash of a ring's canonical encoding: equal epochs of a cluster have equal digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Identity of a cluster, made up when it is founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Seed of the placement hash, made up when the cluster is founded, so that nobody outside can aim
/// series at one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashSeed(pub u64);

/// Identity of a node: a ULID made at its first start. An empty disk is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u128);

impl Uid {
    /// The node's Raft id: the low 64 bits.
    pub fn raft_id(self) -> RaftId {
        RaftId(self.0 as u64)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Identity of a node in Raft, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftId(pub u64);

/// Identity of a plan, so that a repeated proposal is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanId(pub u128);

/// How much of a pool's slots a node wants, in proportion to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weight(pub NonZeroU32);

impl Weight {
    /// What a node has that does not say otherwise.
    pub const DEFAULT: Self = Self(NonZeroU32::MIN);

    /// A weight, if not zero.
    pub fn new(weight: u32) -> Option<Self> {
        NonZeroU32::new(weight).map(Self)
    }

    /// The weight as a number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// What a node can do: commands and formats of later levels are not used before all nodes know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureLevel(pub u32);

/// Counts the changes of the list of nodes, which do not raise the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodesVersion(pub u64);

/// Milliseconds since the Unix epoch by the clock of whoever proposed a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id! {
    /// Name of a group of nodes with a table of its own.
    PoolName
}

text_id! {
    /// Name of a tenant.
    TenantName
}

text_id! {
    /// Public part of a token that lets a node join.
    TokenId
}

impl PoolName {
    /// The pool of all nodes and tenants that name no other.
    pub const DEFAULT: &'static str = "default";
}
