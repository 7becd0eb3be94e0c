//! The rings of a file, ready for lookups.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    algorithm::Algorithm,
    digest::digest,
    endpoint::{Endpoint, EndpointIndex},
    error::{Place, Problem, Result, RingError},
    file::{RingConfig, RingFile, ShuffleConfig},
    ketama::{Ketama, POINTS_PER_ENDPOINT},
    placement::{Hashmod, Placement},
    tenants::TenantMatcher,
    zones::Zones,
};

/// Greatest replication factor.
const REPLICATION_FACTOR_MAX: usize = 100;

/// All rings of a ring file. Does not change: another file makes another one.
#[derive(Clone, Debug)]
pub struct StaticRing {
    rings: Vec<Ring>,
    replication_factor: usize,
    digest: u64,
}

impl StaticRing {
    /// Builds the rings of `file`, each series with `replication_factor` copies. Rings without an
    /// algorithm take `default_algorithm`.
    ///
    /// A ring with which some write could never succeed is refused: with any algorithm it needs as
    /// many endpoints as copies.
    pub fn build(
        file: &RingFile,
        replication_factor: usize,
        default_algorithm: Algorithm,
    ) -> std::result::Result<Self, RingError> {
        if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
            let max = REPLICATION_FACTOR_MAX;
            let problem = Problem::InvalidReplicationFactor { factor: replication_factor, max };
            return Err(Place::default().error(problem));
        }
        // All are judged before the first circle is made.
        for config in &file.rings {
            validate(config, replication_factor, default_algorithm)?;
        }
        let build = |config| Ring::build(config, replication_factor, default_algorithm);
        let rings = file.rings.iter().map(build).collect();
        let mut ring = Self { rings, replication_factor, digest: 0 };
        ring.digest = digest(&ring);
        Ok(ring)
    }

    /// The ring of `tenant`: the first one that is for it.
    pub fn ring_for(&self, tenant: &str) -> Option<&Ring> {
        self.rings.get(self.position_for(tenant)?)
    }

    /// Index of the ring of `tenant` in [`rings`](Self::rings).
    pub(super) fn position_for(&self, tenant: &str) -> Option<usize> {
        self.rings.iter().position(|ring| ring.tenants().is_none_or(|tenants| tenants.matches(tenant)))
    }

    /// The rings in the order of the file.
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// Copies of each series.
    pub fn replication_factor(&self) -> usize {
        self.replication_factor
    }

    /// Two nodes of the same digest place every series of every tenant alike. The order of endpoints
    /// and tenants in the file does not count, that of the rings does.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

/// One ring.
#[derive(Clone, Debug)]
pub struct Ring {
    name: String,
    tenants: Option<TenantMatcher>,
    endpoints: Vec<Endpoint>,
    zones: Zones,
    algorithm: Algorithm,
    external_labels: BTreeMap<String, String>,
    placement: Arc<Placement>,
    shuffle: Option<ShuffleConfig>,
}

impl Ring {
    fn build(config: &RingConfig, replication_factor: usize, default_algorithm: Algorithm) -> Self {
        let mut endpoints = config.endpoints.clone();
        endpoints.sort_unstable();
        let zones = Zones::of(&endpoints);
        let algorithm = config.algorithm.unwrap_or(default_algorithm);
        let placement = match algorithm {
            // The file has at most ENDPOINTS_MAX of them.
            Algorithm::Hashmod => {
                Placement::Hashmod(Hashmod::new(endpoints.len() as u16, replication_factor))
            }
            Algorithm::Ketama => {
                Placement::Ketama(Ketama::new(&endpoints, &zones, POINTS_PER_ENDPOINT, replication_factor))
            }
        };
        Self {
            name: config.name.clone(),
            tenants: config.tenants.clone(),
            endpoints,
            zones,
            algorithm,
            external_labels: config.external_labels.clone(),
            placement: Arc::new(placement),
            shuffle: config.shuffle.clone(),
        }
    }

    /// Name in metrics and logs, possibly empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenants of the ring, or none when it is for every tenant.
    pub fn tenants(&self) -> Option<&TenantMatcher> {
        self.tenants.as_ref()
    }

    /// The endpoints, ascending by address.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint at `index`, which is of this ring.
    ///
    /// # Panics
    ///
    /// Panics when the index is of another ring that has more endpoints.
    pub fn endpoint(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.get()]
    }

    /// How the ring places series.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Labels that the data of the ring's tenants carries.
    pub fn external_labels(&self) -> &BTreeMap<String, String> {
        &self.external_labels
    }

    /// The endpoints that hold a series of this hash, the first copy first. Does not allocate.
    ///
    /// This is the whole ring. Where shuffle sharding is on, a tenant has its own circle: look up by
    /// [`RingLookup`](super::RingLookup), or make it by [`shard`](Self::shard).
    pub fn owners(&self, hash: u64) -> &[EndpointIndex] {
        self.placement.owners(hash)
    }

    /// What finds the owners of the series of `tenant`, made anew, or none when all tenants use the
    /// whole ring. Its indices are of this ring.
    pub fn shard(&self, tenant: &str) -> Option<Placement> {
        match (&self.shuffle, self.placement.as_ref()) {
            (Some(shuffle), Placement::Ketama(ketama)) => {
                Some(Placement::Ketama(shuffle.shard(ketama, &self.zones, tenant)))
            }
            _ => None,
        }
    }

    pub(super) fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    pub(super) fn shuffle(&self) -> Option<&ShuffleConfig> {
        self.shuffle.as_ref()
    }
}

/// Checks what the file alone does not decide.
fn validate(config: &RingConfig, replication_factor: usize, default_algorithm: Algorithm) -> Result<()> {
    let endpoints = config.endpoints.len();
    let place = config.place.member("endpoints");
    if config.algorithm.unwrap_or(default_algorithm) == Algorithm::Hashmod {
        if let Some(index) = config.endpoints.iter().position(|endpoint| !endpoint.zone().is_empty()) {
            return Err(place.item(index).member("az").error(Problem::HashmodZone));
        }
        if let Some(shuffle) = &config.shuffle {
            return Err(shuffle.place.error(Problem::HashmodShuffleSharding));
        }
    }
    if endpoints < replication_factor {
        return Err(place.error(Problem::TooFewEndpoints { endpoints, replication_factor }));
    }
    match &config.shuffle {
        Some(shuffle) => shuffle.validate(&Zones::of(&config.endpoints), replication_factor),
        None => Ok(()),
    }
}
