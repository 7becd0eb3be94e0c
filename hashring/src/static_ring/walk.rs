//! The walk along the circle that finds the owners of a point.
//!
//! An endpoint of the way is taken unless it is already taken, or its zone has more copies than the
//! least used zone. The original counts a zone of which all endpoints are taken as the least used
//! one, too: when such a zone lags behind, all others are skipped for ever. Here it no longer counts.
//! The result is the same wherever the original comes to an end: as long as some zone can still be
//! filled up to the least count, both have the same least count, and from then on the original takes
//! nothing more.

use super::{endpoint::EndpointIndex, zones::Zones};

/// Finds owners; keeps its tables from point to point.
pub(super) struct Walk<'a> {
    points: &'a [(u64, EndpointIndex)],
    zones: &'a Zones,
    endpoint_count: usize,
    /// For each zone the number of endpoints that have points.
    zone_sizes: Vec<usize>,
    /// For each endpoint the number of the last walk that took it; walks count from 1.
    taken_by: Vec<u64>,
    walks: u64,
    /// For each zone its copies in this walk.
    copies_of_zone: Vec<usize>,
    /// At index n the number of zones that have n copies and an endpoint that is not taken.
    open_zones: Vec<usize>,
}

impl<'a> Walk<'a> {
    /// A walk along `points`. Each endpoint in them is one of `zones`, not all of which need to have
    /// points.
    pub(super) fn new(points: &'a [(u64, EndpointIndex)], zones: &'a Zones) -> Self {
        let mut zone_sizes = vec![0; zones.len()];
        let mut seen = vec![false; zones.endpoint_count()];
        for (_, endpoint) in points {
            if !std::mem::replace(&mut seen[endpoint.get()], true) {
                zone_sizes[zones.zone_of(*endpoint)] += 1;
            }
        }
        Self {
            points,
            zones,
            endpoint_count: zone_sizes.iter().sum(),
            taken_by: vec![0; seen.len()],
            walks: 0,
            copies_of_zone: vec![0; zone_sizes.len()],
            open_zones: Vec::new(),
            zone_sizes,
        }
    }

    /// Number of endpoints that have points.
    pub(super) fn endpoint_count(&self) -> usize {
        self.endpoint_count
    }

    /// Appends to `owners` the `copies` owners of the point at index `start`.
    ///
    /// There must be as many endpoints. Then some zone is open before each copy; the least count is
    /// that of an open zone, whose endpoints are met within one round: the walk ends.
    pub(super) fn take_owners(&mut self, start: usize, copies: usize, owners: &mut Vec<EndpointIndex>) {
        self.walks += 1;
        self.copies_of_zone.fill(0);
        self.open_zones.clear();
        self.open_zones.resize(copies + 2, 0);
        self.open_zones[0] = self.zone_sizes.iter().filter(|size| **size > 0).count();
        let mut least = 0;
        let mut left = copies;
        let (before, from) = self.points.split_at(start);
        // Each round takes one endpoint at least.
        let longest_way = self.points.len().saturating_mul(copies);
        for (_, endpoint) in from.iter().chain(before).cycle().take(longest_way) {
            if left == 0 {
                break;
            }
            let zone = self.zones.zone_of(*endpoint);
            let count = self.copies_of_zone[zone];
            if self.taken_by[endpoint.get()] == self.walks || count > least {
                continue;
            }
            self.taken_by[endpoint.get()] = self.walks;
            self.copies_of_zone[zone] = count + 1;
            owners.push(*endpoint);
            left -= 1;
            self.open_zones[count] -= 1;
            if count + 1 < self.zone_sizes[zone] {
                self.open_zones[count + 1] += 1;
            }
            while least < copies && self.open_zones[least] == 0 {
                least += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::static_ring::endpoint::Endpoint;

    fn zones(of_endpoint: &[u8]) -> Zones {
        let endpoint =
            |zone: &u8| Endpoint { address: String::new(), zone: zone.to_string(), capnproto_address: None };
        Zones::of(&of_endpoint.iter().map(endpoint).collect::<Vec<_>>())
    }

    fn points(order: &[u16]) -> Vec<(u64, EndpointIndex)> {
        (0..).zip(order.iter().copied().map(EndpointIndex)).collect()
    }

    fn owners(order: &[u16], of_endpoint: &[u8], start: usize, copies: usize) -> Vec<u16> {
        let (points, zones) = (points(order), zones(of_endpoint));
        let mut walk = Walk::new(&points, &zones);
        let mut owners = Vec::new();
        // The tables must not carry anything over from a walk before.
        for other in 0..points.len() {
            walk.take_owners(other, copies, &mut owners);
        }
        owners.clear();
        walk.take_owners(start, copies, &mut owners);
        owners.iter().map(|owner| owner.0).collect()
    }

    /// The rule to the letter. None when a whole round takes nothing.
    fn to_the_letter(order: &[u16], of_endpoint: &[u8], start: usize, copies: usize) -> Option<Vec<u16>> {
        let mut zone_copies: std::collections::BTreeMap<u8, usize> =
            of_endpoint.iter().map(|zone| (*zone, 0)).collect();
        let mut taken = Vec::new();
        let mut in_vain = 0;
        for endpoint in order.iter().cycle().skip(start) {
            if taken.len() == copies {
                break;
            }
            if in_vain > order.len() {
                return None;
            }
            in_vain += 1;
            let zone = of_endpoint[usize::from(*endpoint)];
            let least = *zone_copies.values().min().expect("a zone");
            let count = zone_copies[&zone];
            if taken.contains(endpoint) || (zone_copies.len() > 1 && count > 0 && count > least) {
                continue;
            }
            taken.push(*endpoint);
            zone_copies.insert(zone, count + 1);
            in_vain = 0;
        }
        Some(taken)
    }

    #[test]
    fn zones_fill_evenly() {
        let check = |of_endpoint: &[u8], copies, expected: &[u16]| {
            assert_eq!(owners(&[0, 1, 2, 3, 4, 5], of_endpoint, 0, copies), expected, "{of_endpoint:?}");
        };
        check(&[0, 0, 0, 0, 0, 0], 3, &[0, 1, 2]);
        check(&[0, 0, 1, 1, 2, 2], 3, &[0, 2, 4]);
        check(&[0, 0, 1, 1, 2, 2], 5, &[0, 2, 4, 5, 1]);
        check(&[0, 0, 0, 0, 0, 1], 2, &[0, 5]);
        check(&[0, 0, 0, 0, 0, 1], 3, &[0, 5, 1]);
        // Here the original walks for ever: zone 1 has one copy and no more endpoints.
        check(&[0, 0, 0, 0, 0, 1], 4, &[0, 5, 1, 2]);
        check(&[0, 0, 0, 0, 0, 1], 6, &[0, 5, 1, 2, 3, 4]);
    }

    #[test]
    fn the_original_has_no_end_where_zones_are_uneven() {
        assert_eq!(to_the_letter(&[0, 1, 2, 3, 4, 5], &[0, 0, 0, 0, 0, 1], 0, 4), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn ends_and_agrees_with_the_letter(
            (of_endpoint, order) in prop::collection::vec(0u8..4, 1..10).prop_flat_map(|zones| {
                let count = zones.len() as u16;
                let every: Vec<u16> = (0..count).flat_map(|endpoint| [endpoint; 3]).collect();
                (Just(zones), Just(every).prop_shuffle())
            }),
            start in any::<prop::sample::Index>(),
            copies in any::<prop::sample::Index>(),
        ) {
            let start = start.index(order.len());
            let copies = copies.index(of_endpoint.len()) + 1;
            let found = owners(&order, &of_endpoint, start, copies);
            let distinct: std::collections::BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(distinct.len(), copies);
            prop_assert_eq!(found[0], order[start]);
            if let Some(expected) = to_the_letter(&order, &of_endpoint, start, copies) {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
