//! The canonical encoding of a ring, of which the digest is the hash.
//!
//! ```text
//! "weir ring", 0x01
//! cluster: id 16 bytes │ hash seed u64 │ hash function u8 │ slots u32 │ replicas u8
//! epoch u64
//! number of pools u32, then by name:
//!     name │ number of matchers u32, each: 0 exact, 1 glob u8 │ text
//!     replicas u8, 0 if there is no table │ number of cells u32 │ cells u32 each, row by row
//! number of tenants u32, then by name:
//!     name │ 1 u8 and pool, or 0 u8 │ slots u32, 0 if not set
//! ```
//!
//! Integers are little endian; texts are a length u32 and UTF-8. Any change of this is another version,
//! which all nodes of a cluster must turn to at the same epoch.

use xxhash_rust::xxh3::Xxh3;

use super::{Cluster, HashFunction, Mapping, TenantMatcher};
use crate::ids::{Digest, ReplicaCount};

const MAGIC: &[u8] = b"weir ring";
const VERSION: u8 = 1;

impl Mapping {
    /// The digest of this mapping in a cluster: xxh3-64 of the canonical encoding.
    pub fn digest(&self, cluster: &Cluster) -> Digest {
        let mut encoder = Encoder(Xxh3::new());
        encoder.bytes(MAGIC);
        encoder.byte(VERSION);
        encoder.cluster(cluster);
        encoder.mapping(self);
        Digest(encoder.0.digest())
    }
}

struct Encoder(Xxh3);

impl Encoder {
    fn cluster(&mut self, cluster: &Cluster) {
        self.bytes(&cluster.id.0);
        self.u64(cluster.hash_seed.0);
        self.byte(match cluster.hash_function {
            HashFunction::Xxh3V1 => 1,
        });
        self.u32(cluster.slots.get());
        self.byte(cluster.replicas.get());
    }

    fn mapping(&mut self, mapping: &Mapping) {
        self.u64(mapping.epoch.0);
        self.count(mapping.pools.len());
        for (name, pool) in &mapping.pools {
            self.text(name.as_str());
            self.count(pool.matchers.len());
            for matcher in &pool.matchers {
                self.byte(match matcher {
                    TenantMatcher::Exact(_) => 0,
                    TenantMatcher::Glob(_) => 1,
                });
                self.text(matcher.text());
            }
            self.byte(pool.table.replicas().map_or(0, ReplicaCount::get));
            self.count(pool.table.cells().len());
            pool.table.cells().iter().for_each(|node| self.u32(node.0));
        }
        self.count(mapping.tenants.len());
        for (name, tenant) in &mapping.tenants {
            self.text(name.as_str());
            match &tenant.pool {
                Some(pool) => {
                    self.byte(1);
                    self.text(pool.as_str());
                }
                None => self.byte(0),
            }
            self.u32(tenant.slots.map_or(0, |slots| slots.get()));
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// A number of things, of which there are far fewer than 2^32.
    fn count(&mut self, count: usize) {
        self.u32(count as u32);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }
}
