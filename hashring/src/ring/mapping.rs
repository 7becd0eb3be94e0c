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
    /// The pool of a tenant: what is set for it, else the pool that lists its name, else the first by
    /// name with a pattern that fits, else the default.
    pub fn pool_of(&self, tenant: &str) -> &str {
        let set = self.tenants.get(&TenantName::from(tenant)).and_then(|mapping| mapping.pool.as_ref());
        if let Some(pool) = set {
            return pool.as_str();
        }
        let first_with = |exact: bool| {
            let fits = |matcher: &TenantMatcher| {
                matches!(matcher, TenantMatcher::Exact(_)) == exact && matcher.matches(tenant)
            };
            self.pools.iter().find(|(_, pool)| pool.matchers.iter().any(fits)).map(|(name, _)| name.as_str())
        };
        first_with(true).or_else(|| first_with(false)).unwrap_or(PoolName::DEFAULT)
    }

    /// How many slots a tenant has.
    pub fn slots_of(&self, tenant: &str) -> TenantSlots {
        let set = self.tenants.get(&TenantName::from(tenant)).and_then(|mapping| mapping.slots);
        set.unwrap_or(TenantSlots::DEFAULT)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_of_a_tenant() {
        let mut mapping = Mapping::default();
        let exact = |name: &str| TenantMatcher::Exact(name.to_owned());
        let glob = |pattern: &str| TenantMatcher::Glob(pattern.to_owned());
        let mut pool = |name: &str, matchers: Vec<TenantMatcher>| {
            let pool = Pool { matchers, table: Table::default() };
            mapping.pools.insert(PoolName::from(name), pool);
        };
        pool("a", vec![glob("team-*"), glob("x?")]);
        pool("b", vec![glob("team-b*"), exact("team-c")]);
        pool(PoolName::DEFAULT, vec![exact("team-d")]);
        let set = TenantMapping { pool: Some(PoolName::from("b")), slots: TenantSlots::new(9) };
        mapping.tenants.insert(TenantName::from("team-d"), set);
        mapping
            .tenants
            .insert(TenantName::from("x1"), TenantMapping { pool: None, slots: TenantSlots::new(3) });

        let check = |tenant, pool, slots| {
            assert_eq!((mapping.pool_of(tenant), mapping.slots_of(tenant).get()), (pool, slots), "{tenant}");
        };
        check("nobody", "default", 2);
        check("team-a", "a", 2);
        check("team-b1", "a", 2);
        check("team-c", "b", 2);
        check("team-d", "b", 9);
        check("x1", "a", 3);
    }
}
