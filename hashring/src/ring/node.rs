//! Nodes and their states.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Addresses;
use crate::ids::{FeatureLevel, NodeNumber, NodesVersion, PoolName, RingEpoch, Uid, UnixMillis, Weight};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Known, and read from; owns no slots.
    Joining,
    /// May own slots.
    Active,
    /// Loses its slots, and is read from.
    Draining,
    /// Has no slots, and all it held is uploaded.
    Drained,
    /// Went as it should. Final.
    Left,
    /// Died. Final, though it may be named in tables until its slots are moved.
    Lost,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Joining, Self::Active, Self::Draining, Self::Drained, Self::Left, Self::Lost];

    /// True if a node may go from this state to another.
    pub fn may_become(self, to: Self) -> bool {
        match self {
            Self::Joining => matches!(to, Self::Active | Self::Left | Self::Lost),
            Self::Active => matches!(to, Self::Draining | Self::Lost),
            Self::Draining => matches!(to, Self::Active | Self::Drained | Self::Lost),
            Self::Drained => matches!(to, Self::Left | Self::Lost),
            Self::Left | Self::Lost => false,
        }
    }

    /// True for Left and Lost.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Left | Self::Lost)
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity.
    pub uid: Uid,
    /// Its name in tables.
    pub number: NodeNumber,
    /// Its name for people.
    pub name: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its pool.
    pub pool: PoolName,
    /// Its share.
    pub weight: Weight,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Version of the program.
    pub version: String,
    /// What it can do.
    pub features: FeatureLevel,
    /// Where it is in its life.
    pub state: NodeState,
    /// Since which version of the list of nodes it is in that state.
    pub since: NodesVersion,
    /// The first epoch without any slot of its own, after it had some; 0 if it never had any. Means
    /// nothing while it holds slots.
    pub no_slots_since: RingEpoch,
    /// It is lost, and somebody decided that nobody comes in its place: its slots may be moved.
    #[serde(default)]
    pub forgotten: bool,
}

/// That a node is gone with data that others have too, and not all of them have uploaded it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLoss {
    /// Its name for people.
    pub name: String,
    /// When, by the clock of a leader; none until one said so.
    pub at: Option<UnixMillis>,
    /// Who shared slots with the one that is gone: what they hold from before is all there is of it.
    pub waits_for: BTreeSet<Uid>,
}

/// What is left of a node that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The number it had.
    pub number: NodeNumber,
    /// Left or Lost.
    pub state: NodeState,
    /// Who took over its slots at once.
    pub successor: Option<Uid>,
}
