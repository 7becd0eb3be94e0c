//! Owners of a hash, prepared so that a lookup computes next to nothing.

use super::endpoint::EndpointIndex;
use super::ketama::Ketama;

/// What finds the owners of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By the remainder of the hash.
    Hashmod(Hashmod),
    /// By the next point of a circle.
    Ketama(Ketama),
}

impl Placement {
    /// The endpoints that hold a series of this hash, the first copy first. Does not allocate.
    pub fn owners(&self, hash: u64) -> &[EndpointIndex] {
        self.owners_at(self.slot(hash))
    }

    /// The slot of a hash: hashes with the same one have the same owners.
    pub fn slot(&self, hash: u64) -> u32 {
        match self {
            Self::Hashmod(hashmod) => hashmod.slot(hash),
            Self::Ketama(ketama) => ketama.slot(hash),
        }
    }

    /// The endpoints that hold the series of a slot, the first copy first. Does not allocate.
    #[inline]
    pub fn owners_at(&self, slot: u32) -> &[EndpointIndex] {
        match self {
            Self::Hashmod(hashmod) => hashmod.owners_at(slot),
            Self::Ketama(ketama) => ketama.owners_at(slot),
        }
    }
}

/// Copy n of a series is at the endpoint of index (hash + n) modulo the number of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashmod {
    /// The endpoints in order, and the first ones once more for the copies behind the last.
    wrapped: Vec<EndpointIndex>,
    endpoint_count: u64,
    copies: usize,
}

impl Hashmod {
    /// The original adds n before it divides, so for the few topmost hashes of all the sum overflows
    /// and two copies may meet on one endpoint. Here they are distinct for every hash.
    pub(super) fn new(endpoint_count: u16, copies: usize) -> Self {
        let copies = copies.min(usize::from(endpoint_count));
        let wrapped = (0..endpoint_count).chain(0..endpoint_count).map(EndpointIndex).collect();
        Self { wrapped, endpoint_count: u64::from(endpoint_count), copies }
    }

    fn slot(&self, hash: u64) -> u32 {
        hash.checked_rem(self.endpoint_count).unwrap_or(0) as u32
    }

    #[inline]
    fn owners_at(&self, slot: u32) -> &[EndpointIndex] {
        let start = slot as usize;
        self.wrapped.get(start..start + self.copies).unwrap_or_default()
    }
}
