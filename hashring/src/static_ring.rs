//! The static ring: placement by a file that Thanos Receive reads, too.
//!
//! A JSON list of rings says which tenants go to which endpoints. The first ring whose tenants match
//! takes the request, the hash of the series finds its owners in it, one per copy. Placement is the
//! same as upstream byte by byte, so that a fleet may be moved over node by node and each series stays
//! where it is; golden values in the tests pin it. The one exception are the shards of shuffle
//! sharding: the numbers by which they are picked come from a generator of our own, see [`Ring::shard`]
//! and the page of `shuffle.rs`.
//!
//! A file goes through three steps. [`RingFile::parse`] reads it and refuses what is wrong in itself.
//! [`StaticRing::build`] checks it against the replication factor and the default algorithm, and
//! prepares the owners of every point of every circle. [`RingLookup`] finds the ring and the shard of a
//! tenant. Until a step has succeeded, nothing that serves is touched: a new file that fails leaves the
//! old ring in place. There is no clock, no randomness and no I/O in here.
//!
//! Where this differs from upstream:
//!
//! | File | Upstream | Here |
//! |---|---|---|
//! | unknown key | ignored | ignored, with a warning |
//! | unknown `algorithm` | hashmod | hashmod, with a warning |
//! | endpoint listed twice, in whatever spelling | two copies on one node | refused |
//! | address without a port, or an IPv6 address without brackets | fails when dialled | refused |
//! | fewer endpoints than copies | hashmod: each write fails | refused |
//! | shard smaller than the number of copies, or larger than a zone can give | writes of the tenant fail | refused |
//! | exception to the shard size without `tenant_matcher_type` | ignored | refused |
//! | zones so uneven that copies cannot be spread | endless loop | as even as possible |
//! | pattern of tenants that is none | writes fail | refused |

mod algorithm;
mod digest;
mod endpoint;
mod error;
mod file;
mod glob;
mod json;
mod ketama;
mod lookup;
mod placement;
mod ring;
mod shuffle;
mod tenants;
mod thanos_hash;
mod walk;
mod zones;

#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use endpoint::{AddressError, Endpoint, EndpointIndex};
pub use error::{Place, Problem, RingError, RingWarning, Suspicion};
pub use file::RingFile;
pub use glob::{Glob, GlobError};
pub use ketama::Ketama;
pub use lookup::{RingLookup, TenantRing};
pub use placement::{Hashmod, Placement};
pub use ring::{Ring, StaticRing};
pub use tenants::TenantMatcher;
pub use thanos_hash::thanos_hash;
