//! Shuffle sharding: each tenant on a few endpoints of the ring only.
//!
//! Two tenants rarely share all of their endpoints, so one that overloads its own does not stop
//! everyone. From each zone as many endpoints are picked as are needed for the size of the shard, the
//! division rounded up. For each pick a number is drawn; the picked endpoint is the first one of the
//! zone, from the point to which the number belongs along the circle, that is not picked yet. With the
//! zones left aside all endpoints count as one zone, but the copies are still spread over the real
//! ones.
//!
//! The numbers come from a generator of our own: number n of a tenant and a zone is the xxh3-64, with
//! seed 0, of tenant, 0xFF, zone, 0xFF and n from 0 as 64 bits, little endian. Thanos draws them from
//! the generator of its language's library, so **the shards of a tenant are others there**; everything
//! else of the rule is the same. A fleet that mixes both must not use shuffle sharding.

use xxhash_rust::xxh3::Xxh3;

use super::{
    error::{Problem, Result},
    file::ShuffleConfig,
    ketama::Ketama,
    zones::Zones,
};

impl ShuffleConfig {
    /// Size of the shard of `tenant`: of the first exception that is for it, else the common one.
    pub(super) fn shard_size_of(&self, tenant: &str) -> usize {
        let exception = self.overrides.iter().find(|exception| exception.tenants.matches(tenant));
        exception.map_or(self.shard_size, |exception| exception.shard_size)
    }

    /// Checks that every shard can be picked and has room for the copies.
    pub(super) fn validate(&self, zones: &Zones, replication_factor: usize) -> Result<()> {
        let overrides = self.overrides.iter().map(|exception| (exception.shard_size, &exception.place));
        for (shard_size, place) in std::iter::once((self.shard_size, &self.place)).chain(overrides) {
            let endpoints = zones.endpoint_count();
            if shard_size > endpoints {
                return Err(place.error(Problem::ShardTooLarge { shard_size, endpoints }));
            }
            if shard_size < replication_factor {
                return Err(place.error(Problem::ShardTooSmall { shard_size, replication_factor }));
            }
            if self.zone_aware {
                let needed = shard_size.div_ceil(zones.len());
                if let Some((zone, endpoints)) = zones.sizes().find(|(_, size)| *size < needed) {
                    let zone = zone.to_owned();
                    return Err(place.error(Problem::ZoneTooSmall { shard_size, needed, zone, endpoints }));
                }
            }
        }
        Ok(())
    }

    /// The circle of the shard of `tenant`. Depends on the arguments alone.
    pub(super) fn shard(&self, ring: &Ketama, zones: &Zones, tenant: &str) -> Ketama {
        let shard_size = self.shard_size_of(tenant);
        let mut is_picked = vec![false; zones.endpoint_count()];
        let mut pick = |zone: Option<usize>, zone_name: &str, count: usize| {
            for number in 0..count as u64 {
                let is_free = |endpoint: &_| zone.is_none_or(|zone| zones.zone_of(*endpoint) == zone);
                let picked = ring
                    .endpoints_from(draw(tenant, zone_name, number))
                    .find(|endpoint| !is_picked[endpoint.get()] && is_free(endpoint));
                if let Some(endpoint) = picked {
                    is_picked[endpoint.get()] = true;
                }
            }
        };
        if self.zone_aware {
            for (zone, (name, _)) in zones.sizes().enumerate() {
                pick(Some(zone), name, shard_size.div_ceil(zones.len()));
            }
        } else {
            pick(None, "", shard_size);
        }
        ring.subset(zones, |endpoint| is_picked[endpoint.get()])
    }
}

/// Number `number` of the generator of a tenant and a zone.
fn draw(tenant: &str, zone: &str, number: u64) -> u64 {
    let mut hasher = Xxh3::new();
    for text in [tenant, zone] {
        hasher.update(text.as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.update(&number.to_le_bytes());
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: whoever changes these values moves every tenant that has a shard.
    #[test]
    fn golden_draws() {
        let found = [draw("team-a", "az-a", 0), draw("team-a", "az-a", 1), draw("team-a", "", 0)];
        assert_eq!(found, [10691979736361006982, 1523799854432373738, 12235299171293204530]);
    }
}
