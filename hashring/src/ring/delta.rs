//! What changed from one epoch to the next.

use serde::{Deserialize, Serialize};

use super::{Pool, TenantMapping, TenantMatcher};
use crate::{
    ids::{Digest, PoolName, ReplicaCount, RingEpoch, TenantName},
    table::Move,
};

/// The step to an epoch from the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingDelta {
    /// The epoch after the step.
    pub epoch: RingEpoch,
    /// The digest after the step.
    pub digest: Digest,
    /// What changed.
    pub change: MappingChange,
}

/// One change of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappingChange {
    /// The cluster was founded, with the default pool.
    Founded,
    /// Slots got other owners.
    Moved {
        /// Whose table it was.
        pool: PoolName,
        /// How many owners each slot had before; none if there was no table.
        replicas_before: Option<ReplicaCount>,
        /// How many owners each slot has.
        replicas: ReplicaCount,
        /// The moves.
        moves: Vec<Move>,
    },
    /// A pool was made, or got these matchers.
    PoolSet {
        /// Its name.
        name: PoolName,
        /// Its matchers.
        matchers: Vec<TenantMatcher>,
    },
    /// A pool was removed.
    PoolDeleted {
        /// Its name.
        name: PoolName,
        /// What it was, so that it is known who owned its slots.
        pool: Pool,
    },
    /// A tenant's mapping was set; an empty one is none.
    TenantSet {
        /// Its name.
        tenant: TenantName,
        /// What is set.
        mapping: TenantMapping,
    },
}
