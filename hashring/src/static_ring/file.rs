//! The ring file, read and checked as far as it goes by itself.

use std::collections::BTreeMap;

use super::{
    algorithm::Algorithm,
    endpoint::{Endpoint, node_key},
    error::{Place, Problem, Result, RingError, RingWarning, Suspicion},
    glob::Glob,
    json::{Node, Object},
    tenants::TenantMatcher,
};

/// Endpoints of one ring, at most. With three copies a circle of so many takes 57 MB, and seconds to
/// make.
pub(super) const ENDPOINTS_MAX: usize = 4096;

/// Shards kept ready for one ring, unless the file says otherwise.
const SHARD_CACHE_SIZE: usize = 100;

/// Greatest number of shards that may be kept ready.
const SHARD_CACHE_SIZE_MAX: usize = 1_000_000;

/// A ring file as it was written. Whether its rings can be built depends on the replication factor,
/// too: see [`StaticRing::build`](super::StaticRing::build).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFile {
    pub(super) rings: Vec<RingConfig>,
    warnings: Vec<RingWarning>,
}

/// One ring of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RingConfig {
    pub(super) place: Place,
    pub(super) name: String,
    /// None is every tenant.
    pub(super) tenants: Option<TenantMatcher>,
    /// At least one, no node twice, in the order of the file.
    pub(super) endpoints: Vec<Endpoint>,
    /// None is the default of the flag.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) external_labels: BTreeMap<String, String>,
    pub(super) shuffle: Option<ShuffleConfig>,
}

/// Shuffle sharding of a ring that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShuffleConfig {
    pub(super) place: Place,
    /// At least 1.
    pub(super) shard_size: usize,
    pub(super) cache_size: usize,
    pub(super) zone_aware: bool,
    pub(super) overrides: Vec<ShuffleOverride>,
}

/// Another size of shards for some tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShuffleOverride {
    pub(super) place: Place,
    pub(super) shard_size: usize,
    pub(super) tenants: TenantMatcher,
}

impl RingFile {
    /// Reads the bytes of a file.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, RingError> {
        let place = Place::default();
        let invalid = |error: serde_json::Error| place.error(Problem::InvalidJson(error.to_string()));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(invalid)?;
        let mut warnings = Vec::new();
        let mut rings: Vec<RingConfig> = Vec::new();
        for (index, node) in (Node { value: &value, place: place.clone() }).list()?.enumerate() {
            let ring = read_ring(index, node.value, &mut warnings)?;
            if let Some(earlier) = rings.iter().position(|earlier| earlier.tenants.is_none()) {
                warnings.push(RingWarning {
                    place: ring.place.clone(),
                    what: Suspicion::Unreachable { earlier },
                });
            }
            rings.push(ring);
        }
        if rings.is_empty() {
            return Err(place.error(Problem::NoRing));
        }
        Ok(Self { rings, warnings })
    }

    /// What works, but perhaps not as it was meant.
    pub fn warnings(&self) -> &[RingWarning] {
        &self.warnings
    }
}

fn read_ring(index: usize, value: &serde_json::Value, warnings: &mut Vec<RingWarning>) -> Result<RingConfig> {
    let unnamed = Place { ring: Some((index, String::new())), key: String::new() };
    let name = Node { value, place: unnamed }.object()?.text_or_empty("hashring")?;

    let place = Place { ring: Some((index, name.to_owned())), key: String::new() };
    let mut ring = Node { value, place: place.clone() }.object()?;
    ring.take("hashring");
    let tenants = read_tenants(&mut ring)?.unwrap_or_else(|| TenantMatcher::Exact(Default::default()));
    let endpoints = read_endpoints(&mut ring, &place, warnings)?;
    let algorithm = read_algorithm(&mut ring, warnings)?;
    let external_labels = read_external_labels(&mut ring)?;
    let shuffle =
        ring.take("shuffle_sharding_config").map(|node| read_shuffle(&node, warnings)).transpose()?;
    ring.finish(warnings);
    Ok(RingConfig {
        place,
        name: name.to_owned(),
        tenants: (!tenants.is_empty()).then_some(tenants),
        endpoints,
        algorithm,
        external_labels,
        shuffle: shuffle.flatten(),
    })
}

/// The tenants of a ring or an exception, or none when the type of the matcher is not given.
fn read_tenants(object: &mut Object<'_>) -> Result<Option<TenantMatcher>> {
    let matcher = object.take("tenant_matcher_type");
    let texts = match object.take("tenants") {
        Some(node) => node.list()?.map(|item| Ok((item.text()?, item.place))).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    let exact = || TenantMatcher::Exact(texts.iter().map(|(text, _)| (*text).to_owned()).collect());
    let glob = |(text, place): &(&str, Place)| {
        let invalid = |cause| place.error(Problem::InvalidGlob { pattern: (*text).to_owned(), cause });
        Glob::new(text).map_err(invalid)
    };
    let Some(matcher) = matcher else {
        return Ok((!texts.is_empty()).then(exact));
    };
    match matcher.text()? {
        "" | "exact" => Ok(Some(exact())),
        "glob" => Ok(Some(TenantMatcher::Glob(texts.iter().map(glob).collect::<Result<_>>()?))),
        other => Err(matcher.place.error(Problem::UnknownMatcherType(other.to_owned()))),
    }
}

fn read_endpoints(
    ring: &mut Object<'_>,
    place: &Place,
    warnings: &mut Vec<RingWarning>,
) -> Result<Vec<Endpoint>> {
    let place = place.member("endpoints");
    let mut endpoints = Vec::new();
    let mut first_of_node = BTreeMap::new();
    if let Some(node) = ring.take("endpoints") {
        for (index, item) in node.list()?.enumerate() {
            let endpoint = read_endpoint(&item, warnings)?;
            let address = || endpoint.address.clone();
            let invalid = |cause| item.place.error(Problem::InvalidAddress { address: address(), cause });
            let key = node_key(&endpoint.address).map_err(invalid)?;
            if let Some(first) = first_of_node.insert(key, index) {
                return Err(item.place.error(Problem::DuplicateEndpoint { address: address(), first }));
            }
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(place.error(Problem::NoEndpoint));
    }
    if endpoints.len() > ENDPOINTS_MAX {
        let problem = Problem::TooManyEndpoints { count: endpoints.len(), max: ENDPOINTS_MAX };
        return Err(place.error(problem));
    }
    let without_zone = endpoints.iter().filter(|endpoint| endpoint.zone.is_empty()).count();
    if without_zone != 0 && without_zone != endpoints.len() {
        warnings.push(RingWarning { place, what: Suspicion::ZoneMissing });
    }
    Ok(endpoints)
}

/// An endpoint: its address alone, or an object.
fn read_endpoint(node: &Node<'_>, warnings: &mut Vec<RingWarning>) -> Result<Endpoint> {
    if let Some(address) = node.value.as_str() {
        return Ok(Endpoint { address: address.to_owned(), zone: String::new(), capnproto_address: None });
    }
    if !node.value.is_object() {
        return Err(node.place.error(Problem::WrongType { expected: "an address or an object" }));
    }
    let mut object = node.object()?;
    let address = object.demand("address")?.text()?.to_owned();
    let zone = object.text_or_empty("az")?.to_owned();
    let capnproto_address = object.text_or_empty("capnproto_address")?.to_owned();
    object.finish(warnings);
    Ok(Endpoint {
        address,
        zone,
        capnproto_address: (!capnproto_address.is_empty()).then_some(capnproto_address),
    })
}

fn read_algorithm(ring: &mut Object<'_>, warnings: &mut Vec<RingWarning>) -> Result<Option<Algorithm>> {
    let Some(node) = ring.take("algorithm") else { return Ok(None) };
    let text = node.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let algorithm = text.parse().unwrap_or_else(|_| {
        let what = Suspicion::UnknownAlgorithm(text.to_owned());
        warnings.push(RingWarning { place: node.place, what });
        Algorithm::Hashmod
    });
    Ok(Some(algorithm))
}

fn read_external_labels(ring: &mut Object<'_>) -> Result<BTreeMap<String, String>> {
    let Some(node) = ring.take("external_labels") else { return Ok(BTreeMap::new()) };
    let Some(members) = node.value.as_object() else {
        return Err(node.place.error(Problem::WrongType { expected: "an object" }));
    };
    let mut labels = BTreeMap::new();
    for (name, value) in members {
        if name.is_empty() {
            return Err(node.place.error(Problem::EmptyLabelName));
        }
        let value = Node { value, place: node.place.member(name) }.text()?;
        // An empty value is the same as no label.
        if !value.is_empty() {
            labels.insert(name.clone(), value.to_owned());
        }
    }
    Ok(labels)
}

/// Shuffle sharding, or none when it is off.
fn read_shuffle(node: &Node<'_>, warnings: &mut Vec<RingWarning>) -> Result<Option<ShuffleConfig>> {
    let count = |node: Option<Node<'_>>, max| node.map_or(Ok(0), |node| node.count(max));
    let mut object = node.object()?;
    let shard_size = count(object.take("shard_size"), ENDPOINTS_MAX)?;
    let cache_size = match count(object.take("cache_size"), SHARD_CACHE_SIZE_MAX)? {
        0 => SHARD_CACHE_SIZE,
        size => size,
    };
    let zone_aware = !object.take("zone_awareness_disabled").map_or(Ok(false), |node| node.flag())?;
    let mut overrides = Vec::new();
    if let Some(list) = object.take("overrides") {
        for item in list.list()? {
            let mut object = item.object()?;
            let size = object.demand("shard_size")?;
            let shard_size = size.count(ENDPOINTS_MAX)?;
            // Thanos passes over an exception without a type, here it is not guessed either.
            object.demand("tenant_matcher_type")?;
            let tenants = read_tenants(&mut object)?.unwrap_or(TenantMatcher::Exact(Default::default()));
            object.finish(warnings);
            if tenants.is_empty() {
                warnings.push(RingWarning { place: item.place, what: Suspicion::NoTenant });
            }
            overrides.push(ShuffleOverride { place: size.place, shard_size, tenants });
        }
    }
    object.finish(warnings);
    if shard_size == 0 {
        if !overrides.is_empty() {
            let place = node.place.member("overrides");
            warnings.push(RingWarning { place, what: Suspicion::ShuffleShardingOff });
        }
        return Ok(None);
    }
    let place = node.place.member("shard_size");
    Ok(Some(ShuffleConfig { place, shard_size, cache_size, zone_aware, overrides }))
}
