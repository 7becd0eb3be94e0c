//! What changed from one epoch to the next.

use serde::{Deserialize, Serialize};

use super::{Cluster, Mapping, Pool, TenantMapping, TenantMatcher};
use crate::{
    ids::{Digest, PoolName, ReplicaCount, RingEpoch, TenantName},
    table::{Move, MoveFault},
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

/// Why a delta cannot be followed: the whole ring is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaFault {
    /// It is not the step to the next epoch.
    #[error("the step leads to epoch {to}, from epoch {from}")]
    NotNext {
        /// The epoch that it leads to.
        to: RingEpoch,
        /// The epoch that it was to be applied to.
        from: RingEpoch,
    },
    /// Its moves do not fit.
    #[error(transparent)]
    Move(#[from] MoveFault),
    /// It leads to another ring than it should: an alarm.
    #[error("digest {found}, not {expected}")]
    Digest {
        /// The digest that came of it.
        found: Digest,
        /// The one that should have.
        expected: Digest,
    },
}

impl Mapping {
    /// Follows a delta to the next epoch, as watchers do. Nothing is changed on an error.
    pub fn follow(&mut self, cluster: &Cluster, delta: &RingDelta) -> Result<(), DeltaFault> {
        if delta.epoch != self.epoch.next() {
            return Err(DeltaFault::NotNext { to: delta.epoch, from: self.epoch });
        }
        let mut next = self.clone();
        next.change(&delta.change, cluster.slots)?;
        let found = next.digest(cluster);
        if found != delta.digest {
            return Err(DeltaFault::Digest { found, expected: delta.digest });
        }
        *self = next;
        Ok(())
    }
}
