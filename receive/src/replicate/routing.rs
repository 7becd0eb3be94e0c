//! Which nodes own a series, and how they are reached.
//!
//! A [`Routing`] never changes: another ring makes another one, and requests under way end with the
//! one they began with. Peers live longer than a routing: a node that stays in the ring keeps its
//! stream.

use std::sync::Arc;

use weir_hashring::static_ring::{self, RingLookup, StaticRing, thanos_hash};

use super::{Peers, connection::RingStamp, peer::Peer, quorum};

/// A node of the ring.
#[derive(Debug)]
pub struct Member {
    /// Its address, as the ring has it.
    pub address: String,
    /// The stream to it; `None` for this node.
    peer: Option<Arc<Peer>>,
}

impl Member {
    /// The stream to it; `None` for this node.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }
}

/// A ring with its nodes.
#[derive(Debug)]
pub struct Routing {
    lookup: RingLookup,
    members: Vec<Member>,
    /// For each ring of the file the member behind each of its endpoints.
    member_of: Vec<Vec<u16>>,
    /// The member that is this node; `None` on a router.
    local: Option<u16>,
    stamp: RingStamp,
}

impl Routing {
    /// The routing of `rings` as seen by the node that they call `local_endpoint`, or by one that
    /// only routes. Peers that are not known yet are connected to.
    ///
    /// # Errors
    /// If no ring has `local_endpoint`.
    pub fn new(
        rings: StaticRing,
        epoch: u64,
        local_endpoint: Option<&str>,
        peers: &Peers,
    ) -> Result<Arc<Self>, String> {
        let mut addresses: Vec<String> = Vec::new();
        let mut member_of = Vec::new();
        for ring in rings.rings() {
            let index_of = |endpoint: &static_ring::Endpoint| {
                let address = endpoint.address();
                let known = addresses.iter().position(|known| known == address);
                known.unwrap_or_else(|| {
                    addresses.push(address.to_owned());
                    addresses.len() - 1
                }) as u16
            };
            member_of.push(ring.endpoints().iter().map(index_of).collect());
        }
        let local = match local_endpoint {
            None => None,
            Some(local) => match addresses.iter().position(|address| address == local) {
                Some(index) => Some(index as u16),
                None => return Err(format!("no ring has this node's endpoint {local}")),
            },
        };
        let remote: Vec<&str> = addresses
            .iter()
            .enumerate()
            .filter(|(index, _)| local != Some(*index as u16))
            .map(|(_, address)| address.as_str())
            .collect();
        peers.keep(&remote);
        let members = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| Member {
                address: address.clone(),
                peer: if local == Some(index as u16) { None } else { peers.get(address) },
            })
            .collect();
        let stamp = RingStamp { epoch, digest: rings.digest() };
        let lookup = RingLookup::new(Arc::new(rings));
        Ok(Arc::new(Self { lookup, members, member_of, local, stamp }))
    }

    /// The ring of `tenant`; `None` if the file has none for it.
    pub fn tenant(self: &Arc<Self>, tenant: &str) -> Option<TenantRing> {
        let found = self.lookup.find(tenant)?;
        Some(TenantRing { routing: self.clone(), found, replica: None })
    }

    /// Epoch and digest.
    pub fn stamp(&self) -> RingStamp {
        self.stamp
    }

    /// All nodes.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// True if this node stores nothing.
    pub fn is_router(&self) -> bool {
        self.local.is_none()
    }

    /// Copies of each series.
    pub fn replication_factor(&self) -> usize {
        self.lookup.rings().replication_factor()
    }

    /// The rings, for metrics.
    pub fn rings(&self) -> &StaticRing {
        self.lookup.rings()
    }
}

/// Where the series of one tenant belong.
#[derive(Clone, Debug)]
pub struct TenantRing {
    routing: Arc<Routing>,
    found: static_ring::TenantRing,
    /// Only this copy is wanted, counted from 0: the request was replicated before.
    replica: Option<usize>,
}

impl TenantRing {
    /// The same for a request that another router has replicated: only copy number `replica`,
    /// counted from 0, is stored, and one is enough.
    pub fn only_replica(mut self, replica: usize) -> Self {
        self.replica = Some(replica);
        self
    }

    /// The slot of a series. It holds for this ring only.
    pub fn slot<'l>(&self, tenant: &str, labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> u32 {
        self.found.slot(thanos_hash(tenant, labels))
    }

    /// The members that own a slot.
    pub fn owners(&self, slot: u32) -> impl ExactSizeIterator<Item = u16> {
        let endpoints = self.found.owners_at(slot);
        let endpoints = match self.replica {
            None => endpoints,
            Some(replica) => endpoints.get(replica..replica + 1).unwrap_or_default(),
        };
        let members = &self.routing.member_of[self.found.index()];
        endpoints.iter().map(|endpoint| members[endpoint.get()])
    }

    /// Copies that make a series with so many owners acknowledged.
    pub fn copies_needed(&self, owners: usize) -> usize {
        if self.replica.is_some() { 1 } else { quorum::copies_needed(owners) }
    }

    /// True if `member` is this node.
    pub fn is_local(&self, member: u16) -> bool {
        self.routing.local == Some(member)
    }

    /// True if this node owns `slot`.
    pub fn owns(&self, slot: u32) -> bool {
        self.owners(slot).any(|member| self.is_local(member))
    }

    /// The member of this number.
    pub fn member(&self, member: u16) -> &Member {
        &self.routing.members[usize::from(member)]
    }

    /// Epoch and digest of the ring.
    pub fn stamp(&self) -> RingStamp {
        self.routing.stamp
    }
}
