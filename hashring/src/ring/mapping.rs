//! What decides where series go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MappingChange, TenantMatcher};
use crate::{
    ids::{PoolName, RingEpoch, SlotCount, TenantName, TenantSlots},
    table::{MoveFault, Table},
};

/// Pools and tenants: all that raises the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Counts its changes.
    pub epoch: RingEpoch,
    /// The pools by name.
    pub pools: BTreeMap<PoolName, Pool>,
    /// What is set for tenants; those for which nothing is set are left out.
    pub tenants: BTreeMap<TenantName, TenantMapping>,
}

/// A group of nodes with a table of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The tenants that belong to it.
    pub matchers: Vec<TenantMatcher>,
    /// Who owns its slots.
    pub table: Table,
}

/// What is set for a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantMapping {
    /// Its pool, if matchers shall not decide.
    pub pool: Option<PoolName>,
    /// How many slots it has, if not [`TenantSlots::DEFAULT`].
    pub slots: Option<TenantSlots>,
}

impl Mapping {
    /// Applies a change, which raises the epoch. Nothing is changed if it does not fit.
    pub(super) fn change(&mut self, change: &MappingChange, slots: SlotCount) -> Result<(), MoveFault> {
        match change {
            MappingChange::Founded => {
                self.pools.insert(PoolName::from(PoolName::DEFAULT), Pool::default());
            }
            MappingChange::Moved { pool, replicas, moves, .. } => {
                let pool = self.pools.entry(pool.clone()).or_default();
                pool.table = pool.table.moved(slots, *replicas, moves)?;
            }
            MappingChange::PoolSet { name, matchers } => {
                self.pools.entry(name.clone()).or_default().matchers.clone_from(matchers);
            }
            MappingChange::PoolDeleted { name, .. } => {
                self.pools.remove(name);
            }
            MappingChange::TenantSet { tenant, mapping } => {
                if *mapping == TenantMapping::default() {
                    self.tenants.remove(tenant);
                } else {
                    self.tenants.insert(tenant.clone(), mapping.clone());
                }
            }
        }
        self.epoch = self.epoch.next();
        Ok(())
    }
}
