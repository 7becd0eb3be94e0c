//! The zones of a ring, as numbers.

use super::endpoint::{Endpoint, EndpointIndex};

/// Which endpoint is in which zone. Endpoints without a zone are together in the zone of the empty
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zones {
    /// Ascending, each once.
    names: Vec<String>,
    /// For each endpoint the index of its zone's name.
    of_endpoint: Vec<u16>,
}

impl Zones {
    /// The zones of `endpoints`.
    pub(super) fn of(endpoints: &[Endpoint]) -> Self {
        let mut names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.zone().to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        // No more zones than endpoints, of which an index of 16 bits is enough.
        let index =
            |endpoint: &Endpoint| names.partition_point(|name| name.as_str() < endpoint.zone()) as u16;
        let of_endpoint = endpoints.iter().map(index).collect();
        Self { names, of_endpoint }
    }

    /// Number of zones.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Index of the zone of an endpoint.
    pub(super) fn zone_of(&self, endpoint: EndpointIndex) -> usize {
        usize::from(self.of_endpoint[endpoint.get()])
    }

    /// Number of endpoints.
    pub(super) fn endpoint_count(&self) -> usize {
        self.of_endpoint.len()
    }

    /// Names of the zones with the number of their endpoints, in the order of the indices.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        let size = |zone: usize| self.of_endpoint.iter().filter(|of| usize::from(**of) == zone).count();
        self.names.iter().enumerate().map(move |(zone, name)| (name.as_str(), size(zone)))
    }
}
