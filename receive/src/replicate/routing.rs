//! Which nodes own a series, and how they are reached.
//!
//! A [`Routing`] never changes: another ring makes another one, and requests under way end with the
//! one they began with. Peers live longer than a routing: a node that stays in the ring keeps its
//! stream.
//!
//! There are two kinds of rings, those of a file and the one that the nodes of a cluster agree on. What
//! differs stands here; the write path sees slots and members.

use std::{
    collections::{BTreeMap, HashMap},
    slice,
    sync::Arc,
};

use parking_lot::RwLock;
use weir_hashring::{
    ids::{Slot, Uid},
    ring::NodeState,
    series_hash,
    static_ring::{self, RingLookup, StaticRing, thanos_hash},
    view::{NodeIndex, RingView, TenantPlacement},
};

use super::{PeerIdentity, Peers, connection::RingStamp, peer::Peer, quorum};

/// A node of the ring.
#[derive(Debug)]
pub struct Member {
    /// Its name for people.
    name: String,
    /// The stream to it; `None` for this node, and for one that cannot own anything.
    peer: Option<Arc<Peer>>,
}

impl Member {
    /// Its name for people: in a ring file its address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stream to it; `None` for this node, and for one that cannot own anything.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }
}

/// Where slots and owners come from.
#[derive(Debug)]
enum Ring {
    /// A ring file.
    File {
        lookup: RingLookup,
        /// For each ring of the file the member behind each of its endpoints.
        member_of: Vec<Vec<u16>>,
    },
    /// The ring of a cluster; members are its nodes, by the same indexes.
    Cluster {
        view: Arc<RingView>,
        /// Tenants that were asked for, because finding out their slots takes a moment.
        placements: RwLock<HashMap<String, TenantPlacement>>,
    },
}

/// Most tenants whose slots are remembered.
const PLACEMENTS_MAX: usize = 100_000;

/// A ring with its nodes.
#[derive(Debug)]
pub struct Routing {
    ring: Ring,
    members: Vec<Member>,
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
    pub fn of_file(
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
        if addresses.len() > usize::from(u16::MAX) {
            return Err(format!("the rings have {} endpoints, at most {} work", addresses.len(), u16::MAX));
        }
        let local = match local_endpoint {
            None => None,
            Some(local) => match addresses.iter().position(|address| address == local) {
                Some(index) => Some(index as u16),
                None => return Err(format!("no ring has this node's endpoint {local}")),
            },
        };
        let is_local = |index: usize| local == Some(index as u16);
        let remote = addresses.iter().enumerate().filter(|(index, _)| !is_local(*index));
        peers.keep(remote.map(|(_, address)| PeerIdentity::endpoint(address)).collect());
        let member = |(index, address): (usize, &String)| Member {
            name: address.clone(),
            peer: if is_local(index) { None } else { peers.get(address) },
        };
        let members = addresses.iter().enumerate().map(member).collect();
        let stamp = RingStamp { epoch, digest: rings.digest() };
        let lookup = RingLookup::new(Arc::new(rings));
        Ok(Arc::new(Self { ring: Ring::File { lookup, member_of }, members, local, stamp }))
    }

    /// The routing of a cluster as seen by the node `own`, which may be one that only routes. Peers
    /// that are not known yet are connected to.
    pub fn of_cluster(view: Arc<RingView>, own: Uid, peers: &Peers) -> Arc<Self> {
        let identities: Vec<Option<PeerIdentity>> = view
            .nodes()
            .iter()
            .map(|node| {
                // What is drained or lost owns nothing, and may never answer again.
                let may_own = !matches!(node.state, NodeState::Drained | NodeState::Lost);
                (may_own && node.uid != own).then(|| PeerIdentity {
                    cluster: view.cluster().0,
                    target: node.uid.to_string(),
                    name: node.name.clone(),
                    address: node.addresses.grpc.clone(),
                })
            })
            .collect();
        peers.keep(identities.iter().flatten().cloned().collect());
        let members = view.nodes().iter().zip(&identities).map(|(node, identity)| Member {
            name: node.name.clone(),
            peer: identity.as_ref().and_then(|identity| peers.get(&identity.target)),
        });
        let members = members.collect();
        let local = view.index_of(own).map(|index| index.0);
        let stamp = RingStamp { epoch: view.epoch().0, digest: view.digest().0 };
        let ring = Ring::Cluster { view, placements: RwLock::default() };
        Arc::new(Self { ring, members, local, stamp })
    }

    /// The ring of `tenant`; `None` if there is none for it.
    pub fn tenant(self: &Arc<Self>, tenant: &str) -> Option<TenantRing> {
        let found = match &self.ring {
            Ring::File { lookup, .. } => Found::File(lookup.find(tenant)?),
            Ring::Cluster { view, placements } => {
                let known = placements.read().get(tenant).cloned();
                let placement = match known {
                    Some(placement) => placement,
                    None => {
                        let placement = view.tenant(tenant)?;
                        let mut placements = placements.write();
                        if placements.len() < PLACEMENTS_MAX {
                            placements.insert(tenant.to_owned(), placement.clone());
                        }
                        placement
                    }
                };
                Found::Cluster { seed: view.hash_seed().0, placement }
            }
        };
        Some(TenantRing { routing: self.clone(), found, replica: None })
    }

    /// True if each series has the same slot as in `other`, whoever owns it.
    pub fn has_slots_of(&self, other: &Self) -> bool {
        match (&self.ring, &other.ring) {
            (Ring::Cluster { view, .. }, Ring::Cluster { view: other, .. }) => view.has_slots_of(other),
            _ => false,
        }
    }

    /// Nodes of a cluster that may own series; `None` where a ring file says who does.
    pub fn active_nodes(&self) -> Option<usize> {
        let Ring::Cluster { view, .. } = &self.ring else { return None };
        Some(view.nodes().iter().filter(|node| node.state == NodeState::Active).count())
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

    /// True if nodes agree on the ring, instead of reading it from a file.
    pub fn is_cluster(&self) -> bool {
        matches!(self.ring, Ring::Cluster { .. })
    }

    /// Copies of each series.
    pub fn replication_factor(&self) -> usize {
        match &self.ring {
            Ring::File { lookup, .. } => lookup.rings().replication_factor(),
            Ring::Cluster { view, .. } => view.replicas().as_len(),
        }
    }

    /// Labels that the ring of `tenant` adds to all its series towards readers; `None` if it adds none.
    pub fn external_labels(&self, tenant: &str) -> Option<&BTreeMap<String, String>> {
        let ring = self.rings()?.ring_for(tenant)?;
        Some(ring.external_labels()).filter(|labels| !labels.is_empty())
    }

    /// The rings of a file, for metrics.
    pub fn rings(&self) -> Option<&StaticRing> {
        match &self.ring {
            Ring::File { lookup, .. } => Some(lookup.rings()),
            Ring::Cluster { .. } => None,
        }
    }
}

/// What a ring says of one tenant.
#[derive(Clone, Debug)]
enum Found {
    File(static_ring::TenantRing),
    Cluster { seed: u64, placement: TenantPlacement },
}

/// Where the series of one tenant belong.
#[derive(Clone, Debug)]
pub struct TenantRing {
    routing: Arc<Routing>,
    found: Found,
    /// Only this copy is wanted, counted from 0: the request was replicated before.
    replica: Option<usize>,
}

/// The members that own a slot.
#[derive(Clone, Debug)]
enum Owners<'a> {
    File { endpoints: slice::Iter<'a, static_ring::EndpointIndex>, members: &'a [u16] },
    Cluster(slice::Iter<'a, NodeIndex>),
}

impl Iterator for Owners<'_> {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        match self {
            Self::File { endpoints, members } => endpoints.next().map(|endpoint| members[endpoint.get()]),
            Self::Cluster(nodes) => nodes.next().map(|node| node.0),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::File { endpoints, .. } => endpoints.size_hint(),
            Self::Cluster(nodes) => nodes.size_hint(),
        }
    }
}

impl ExactSizeIterator for Owners<'_> {}

impl TenantRing {
    /// The same for a request that another router has replicated: only copy number `replica`,
    /// counted from 0, is stored, and one is enough.
    pub fn only_replica(mut self, replica: usize) -> Self {
        self.replica = Some(replica);
        self
    }

    /// The slot of a series, whose labels ascend by name. It holds for this ring only.
    pub fn slot<'l>(&self, tenant: &str, labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> u32 {
        match &self.found {
            Found::File(found) => found.slot(thanos_hash(tenant, labels)),
            Found::Cluster { seed, placement } => placement.slot(series_hash(*seed, tenant, labels)).0,
        }
    }

    /// The members that own a slot.
    pub fn owners(&self, slot: u32) -> impl ExactSizeIterator<Item = u16> {
        match &self.found {
            Found::File(found) => {
                let endpoints = self.wanted(found.owners_at(slot)).iter();
                let members = match &self.routing.ring {
                    Ring::File { member_of, .. } => &member_of[found.index()][..],
                    Ring::Cluster { .. } => &[],
                };
                Owners::File { endpoints, members }
            }
            Found::Cluster { placement, .. } => {
                Owners::Cluster(self.wanted(placement.owners_of(Slot(slot))).iter())
            }
        }
    }

    /// All owners, or the one whose copy is wanted.
    fn wanted<'a, T>(&self, owners: &'a [T]) -> &'a [T] {
        match self.replica {
            None => owners,
            Some(replica) => owners.get(replica..replica + 1).unwrap_or_default(),
        }
    }

    /// Copies that make a series with so many owners acknowledged.
    pub fn copies_needed(&self, owners: usize) -> usize {
        if self.replica.is_some() { 1 } else { quorum::copies_needed(owners) }
    }

    /// True if `member` is this node.
    pub fn is_local(&self, member: u16) -> bool {
        self.routing.local == Some(member)
    }

    /// How many members the ring has.
    pub fn member_count(&self) -> usize {
        self.routing.members.len()
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
