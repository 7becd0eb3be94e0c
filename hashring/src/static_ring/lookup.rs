//! Lookups by tenant, with the shards of the last tenants kept ready.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    endpoint::EndpointIndex,
    placement::Placement,
    ring::{Ring, StaticRing},
};

/// Finds the ring of a tenant, and in it the tenant's shard. The pure rings never change; the shards
/// that were made stay here, in each ring as many as its file says.
#[derive(Debug)]
pub struct RingLookup {
    rings: Arc<StaticRing>,
    /// For each ring the shards it keeps, none without shuffle sharding.
    shards: Vec<Option<Mutex<Shards>>>,
}

impl RingLookup {
    /// Lookups in `rings`.
    pub fn new(rings: Arc<StaticRing>) -> Self {
        let shards = |ring: &Ring| {
            let shards_max = ring.shuffle()?.cache_size;
            Some(Mutex::new(Shards { by_tenant: HashMap::new(), shards_max, uses: 0 }))
        };
        Self { shards: rings.rings().iter().map(shards).collect(), rings }
    }

    /// The rings in which is looked up.
    pub fn rings(&self) -> &Arc<StaticRing> {
        &self.rings
    }

    /// The ring of `tenant`, or none when the file has none for it. Once per request is enough.
    ///
    /// A shard that is not ready is made here, which takes a time proportional to the endpoints of the
    /// ring: some milliseconds for a few hundred.
    pub fn find(&self, tenant: &str) -> Option<TenantRing> {
        let index = self.rings.position_for(tenant)?;
        let ring = self.rings.rings().get(index)?;
        let placement = match self.shards.get(index).and_then(Option::as_ref) {
            None => ring.placement().clone(),
            Some(shards) => {
                let ready = shards.lock().unwrap_or_else(PoisonError::into_inner).get(tenant);
                match ready.or_else(|| ring.shard(tenant).map(Arc::new)) {
                    None => ring.placement().clone(),
                    Some(shard) => {
                        let mut shards = shards.lock().unwrap_or_else(PoisonError::into_inner);
                        shards.insert(tenant, shard.clone());
                        shard
                    }
                }
            }
        };
        Some(TenantRing { rings: self.rings.clone(), index, placement })
    }
}

/// The ring of a tenant, restricted to its shard where there is one.
#[derive(Clone, Debug)]
pub struct TenantRing {
    rings: Arc<StaticRing>,
    index: usize,
    placement: Arc<Placement>,
}

impl TenantRing {
    /// The ring, of which the indices of endpoints are.
    pub fn ring(&self) -> &Ring {
        &self.rings.rings()[self.index]
    }

    /// Index of the ring in [`StaticRing::rings`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// The endpoints that hold a series of this hash, the first copy first. Does not allocate.
    pub fn owners(&self, hash: u64) -> &[EndpointIndex] {
        self.placement.owners(hash)
    }

    /// The part of the ring that a hash falls into: all hashes of a slot have the same owners. Finding
    /// a slot takes longer than finding its owners, so it is worth keeping; it holds for this ring
    /// and tenant only.
    pub fn slot(&self, hash: u64) -> u32 {
        self.placement.slot(hash)
    }

    /// The endpoints that hold the series of a slot, the first copy first; none if there is no such
    /// slot.
    #[inline]
    pub fn owners_at(&self, slot: u32) -> &[EndpointIndex] {
        self.placement.owners_at(slot)
    }
}

/// Shards that are ready. When there are too many, the one whose last use is the longest ago goes.
#[derive(Debug)]
struct Shards {
    by_tenant: HashMap<String, (Arc<Placement>, u64)>,
    shards_max: usize,
    /// Counts all uses, to put them in an order.
    uses: u64,
}

impl Shards {
    fn get(&mut self, tenant: &str) -> Option<Arc<Placement>> {
        self.uses += 1;
        let (shard, last_use) = self.by_tenant.get_mut(tenant)?;
        *last_use = self.uses;
        Some(shard.clone())
    }

    fn insert(&mut self, tenant: &str, shard: Arc<Placement>) {
        if self.by_tenant.contains_key(tenant) {
            return;
        }
        if self.by_tenant.len() >= self.shards_max {
            // As slow as the making of the shard that comes in, and as rare.
            let oldest = self.by_tenant.iter().min_by_key(|(_, (_, last_use))| *last_use);
            if let Some(oldest) = oldest.map(|(tenant, _)| tenant.clone()) {
                self.by_tenant.remove(&oldest);
            }
        }
        self.by_tenant.insert(tenant.to_owned(), (shard, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::static_ring::placement::Hashmod;

    #[test]
    fn the_shard_unused_for_longest_goes() {
        let mut shards = Shards { by_tenant: HashMap::new(), shards_max: 2, uses: 0 };
        let shard = |count| Arc::new(Placement::Hashmod(Hashmod::new(count, 1)));
        // Each step finds or inserts a tenant, then the tenants that are kept are listed.
        let mut check = |tenant: &str, is_ready: bool, kept: &[&str]| {
            assert_eq!(shards.get(tenant).is_some(), is_ready, "{tenant}");
            shards.insert(tenant, shard(1));
            let mut found: Vec<_> = shards.by_tenant.keys().map(String::as_str).collect();
            found.sort_unstable();
            assert_eq!(found, kept, "{tenant}");
        };
        check("a", false, &["a"]);
        check("b", false, &["a", "b"]);
        check("a", true, &["a", "b"]);
        check("c", false, &["a", "c"]);
        check("b", false, &["b", "c"]);
        check("b", true, &["b", "c"]);
    }
}
