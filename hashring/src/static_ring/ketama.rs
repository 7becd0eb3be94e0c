//! Consistent hashing over points on a circle of 64 bits.

use std::fmt::Write as _;

use xxhash_rust::xxh64::xxh64;

use super::{
    endpoint::{Endpoint, EndpointIndex},
    walk::Walk,
    zones::Zones,
};

/// Points of an endpoint on the circle.
pub(super) const POINTS_PER_ENDPOINT: u32 = 1000;

/// A circle of points, each of an endpoint. A hash belongs to the first point that is not smaller,
/// behind the last one to the first.
///
/// The owners of each point are found once, when the circle is made: a lookup is a binary search in
/// the points and a slice of the owners. Both together take 8 + 2 × copies bytes per point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ketama {
    /// Ascending.
    points: Vec<u64>,
    /// `copies` for each point, the first of them the endpoint whose point it is.
    owners: Vec<EndpointIndex>,
    copies: usize,
}

impl Ketama {
    /// The circle of `endpoints`, each with `points_per_endpoint` points: the hashes of address,
    /// colon and a number that counts from 1.
    pub(super) fn new(
        endpoints: &[Endpoint],
        zones: &Zones,
        points_per_endpoint: u32,
        copies: usize,
    ) -> Self {
        let mut points = Vec::with_capacity(endpoints.len() * points_per_endpoint as usize);
        let mut text = String::new();
        for (index, endpoint) in (0..=u16::MAX).map(EndpointIndex).zip(endpoints) {
            for number in 1..=points_per_endpoint {
                text.clear();
                // Writing to a string does not fail.
                let _ = write!(text, "{}:{number}", endpoint.address());
                points.push((xxh64(text.as_bytes(), 0), index));
            }
        }
        points.sort_unstable();
        Self::from_points(&points, zones, copies)
    }

    /// The circle that remains when only the endpoints of which `is_member` holds keep their points.
    pub(super) fn subset(&self, zones: &Zones, is_member: impl Fn(EndpointIndex) -> bool) -> Self {
        let points: Vec<_> = self.points().filter(|(_, index)| is_member(*index)).collect();
        Self::from_points(&points, zones, self.copies)
    }

    fn from_points(points: &[(u64, EndpointIndex)], zones: &Zones, copies: usize) -> Self {
        let mut walk = Walk::new(points, zones);
        let copies = copies.min(walk.endpoint_count());
        let mut owners = Vec::with_capacity(points.len() * copies);
        for start in 0..points.len() {
            walk.take_owners(start, copies, &mut owners);
        }
        Self { points: points.iter().map(|(point, _)| *point).collect(), owners, copies }
    }

    /// The point that a hash belongs to.
    pub(super) fn slot(&self, hash: u64) -> u32 {
        self.index_of_point(hash) as u32
    }

    /// The endpoints that hold the series of a point, the first copy first. Does not allocate.
    #[inline]
    pub(super) fn owners_at(&self, slot: u32) -> &[EndpointIndex] {
        let start = slot as usize * self.copies;
        self.owners.get(start..start + self.copies).unwrap_or_default()
    }

    /// All points in order, each with the endpoint whose point it is.
    fn points(&self) -> impl Iterator<Item = (u64, EndpointIndex)> {
        let own = |index| self.endpoint_of_point(index);
        self.points.iter().enumerate().filter_map(move |(index, point)| Some((*point, own(index)?)))
    }

    /// Endpoints of the points met when one walks once round the circle, from the point to which
    /// `hash` belongs.
    pub(super) fn endpoints_from(&self, hash: u64) -> impl Iterator<Item = EndpointIndex> {
        let start = self.index_of_point(hash);
        (start..self.points.len()).chain(0..start).filter_map(|index| self.endpoint_of_point(index))
    }

    fn endpoint_of_point(&self, index: usize) -> Option<EndpointIndex> {
        self.owners.get(index * self.copies).copied()
    }

    fn index_of_point(&self, hash: u64) -> usize {
        let index = self.points.partition_point(|point| *point < hash);
        if index == self.points.len() { 0 } else { index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
        let endpoint = |address: &&str| Endpoint {
            address: (*address).to_owned(),
            zone: String::new(),
            capnproto_address: None,
        };
        addresses.iter().map(endpoint).collect()
    }

    fn ketama(addresses: &[&str], points_per_endpoint: u32, copies: usize) -> Ketama {
        let endpoints = endpoints(addresses);
        Ketama::new(&endpoints, &Zones::of(&endpoints), points_per_endpoint, copies)
    }

    #[test]
    fn points_are_hashes_of_address_and_number() {
        let ring = ketama(&["node-1:10901"], 1000, 1);
        assert_eq!(ring.points.len(), 1000);
        assert!(ring.points.is_sorted());
        assert!(ring.points.contains(&0xa4ebc544479b643b), "the point of number 1");
        assert!(ring.points.contains(&0x86978ed48a6483fd), "the point of number 1000");
    }

    #[test]
    fn a_hash_belongs_to_the_next_point() {
        let ring = ketama(&["node-1:10901", "node-2:10901"], 3, 1);
        let owner = |hash| ring.owners_at(ring.slot(hash))[0];
        let points: Vec<_> = ring.points().collect();
        let (last, first) = (points[points.len() - 1], points[0]);
        for ((point, endpoint), (next, next_endpoint)) in points.iter().zip(&points[1..]) {
            assert_eq!(owner(*point), *endpoint, "a point belongs to itself");
            assert_eq!(owner(point + 1), *next_endpoint);
            assert_eq!(owner(*next), *next_endpoint);
        }
        assert_eq!([owner(0), owner(u64::MAX)], [first.1; 2]);
        assert_eq!(owner(last.0 + 1), first.1);
    }

    #[test]
    fn a_subset_is_the_circle_of_its_members() {
        let all = endpoints(&["node-1:10901", "node-2:10901", "node-3:10901", "node-4:10901"]);
        let ring = Ketama::new(&all, &Zones::of(&all), 50, 2);
        let subset = ring.subset(&Zones::of(&all), |index| index.get() < 2);
        let alone = ketama(&["node-1:10901", "node-2:10901"], 50, 2);
        assert_eq!(subset, alone);
    }

    #[test]
    fn nothing_owns_a_hash_of_an_empty_circle() {
        assert!(ketama(&[], 10, 3).owners_at(7).is_empty());
    }
}
