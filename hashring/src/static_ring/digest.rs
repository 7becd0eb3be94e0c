//! A number by which nodes see whether they place alike.

use xxhash_rust::xxh3::Xxh3;

use super::{
    file::ShuffleConfig,
    ring::{Ring, StaticRing},
    tenants::TenantMatcher,
};

/// Stands at the beginning and changes whenever the encoding or the meaning of an algorithm does.
const VERSION: u64 = 1;

/// xxh3-64 over what decides the placement, in one order whatever the order of the file: tenants,
/// algorithm, endpoints and shards of each ring, and the number of copies. Names of rings, external
/// labels and sizes of caches are left out.
pub(super) fn digest(ring: &StaticRing) -> u64 {
    let mut canon = Canon(Xxh3::new());
    canon.number(VERSION);
    canon.count(ring.replication_factor());
    canon.count(ring.rings().len());
    for ring in ring.rings() {
        canon.ring(ring);
    }
    canon.0.digest()
}

/// Feeds values so that different ones are different bytes: numbers as 64 bits, texts and lists behind
/// their length.
struct Canon(Xxh3);

impl Canon {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.count(texts.len());
        texts.for_each(|text| self.text(text));
    }

    fn ring(&mut self, ring: &Ring) {
        self.tenants(ring.tenants());
        self.text(ring.algorithm().as_str());
        self.texts(ring.endpoints().iter().map(|endpoint| endpoint.address()));
        self.texts(ring.endpoints().iter().map(|endpoint| endpoint.zone()));
        self.shuffle(ring.shuffle());
    }

    fn tenants(&mut self, tenants: Option<&TenantMatcher>) {
        match tenants {
            None => self.text("every"),
            Some(TenantMatcher::Exact(names)) => {
                self.text("exact");
                self.texts(names.iter().map(String::as_str));
            }
            Some(TenantMatcher::Glob(patterns)) => {
                self.text("glob");
                self.texts(patterns.iter().map(|pattern| pattern.as_str()));
            }
        }
    }

    fn shuffle(&mut self, shuffle: Option<&ShuffleConfig>) {
        let Some(shuffle) = shuffle else { return self.number(0) };
        self.count(shuffle.shard_size);
        self.number(u64::from(shuffle.zone_aware));
        self.count(shuffle.overrides.len());
        for exception in &shuffle.overrides {
            self.count(exception.shard_size);
            self.tenants(Some(&exception.tenants));
        }
    }
}
