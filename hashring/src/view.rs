//! The ring as the write path sees it: made anew whenever something changes, and then only read.
//!
//! A tenant is resolved once per view into its [`TenantPlacement`]; from there to the owners of a
//! series it is a jump hash and two array accesses, without any allocation.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ids::{
        ClusterId, Digest, HashSeed, NodeNumber, NodesVersion, PoolName, ReplicaCount, RingEpoch, Slot,
        SlotCount, TenantName, TenantSlots, Uid,
    },
    placement::{Permutation, jump},
    ring::{Addresses, HashFunction, NodeState, Pool, RingState, TenantMapping, TenantMatcher},
    table::Table,
};

/// Index of a node in [`RingView::nodes`]. Means nothing in another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u16);

/// A node as the write path sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewNode {
    /// Its identity.
    pub uid: Uid,
    /// Its name in tables.
    pub number: NodeNumber,
    /// Its name for people.
    pub name: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Where it is in its life.
    pub state: NodeState,
}

/// The ring at one moment.
#[derive(Clone, Debug)]
pub struct RingView {
    cluster: ClusterId,
    hash_seed: HashSeed,
    hash_function: HashFunction,
    slots: SlotCount,
    replicas: ReplicaCount,
    epoch: RingEpoch,
    digest: Digest,
    nodes_version: NodesVersion,
    nodes: Vec<ViewNode>,
    pools: BTreeMap<PoolName, Arc<PoolOwners>>,
    tenants: BTreeMap<TenantName, TenantMapping>,
    /// The pools that list tenants by name.
    listed: BTreeMap<String, PoolName>,
    /// Patterns in the order in which they are tried.
    patterns: Vec<(TenantMatcher, PoolName)>,
}

/// The table of a pool by indexes.
#[derive(Debug)]
struct PoolOwners {
    replicas: usize,
    cells: Box<[NodeIndex]>,
}

/// Where the series of one tenant are in one view.
#[derive(Clone, Debug)]
pub struct TenantPlacement {
    epoch: RingEpoch,
    k: TenantSlots,
    /// The slot at each index below `k`.
    slots: Arc<[u16]>,
    pool: Arc<PoolOwners>,
}

impl RingView {
    /// The view of a state; none before there is a cluster.
    pub fn new(state: &RingState) -> Option<Self> {
        let cluster = state.cluster()?;
        let mut nodes: Vec<ViewNode> = state
            .nodes()
            .map(|node| ViewNode {
                uid: node.uid,
                number: node.number,
                name: node.name.clone(),
                zone: node.zone.clone(),
                addresses: node.addresses.clone(),
                state: node.state,
            })
            .collect();
        nodes.sort_by_key(|node| node.number);
        let mapping = state.mapping();
        let mut listed = BTreeMap::new();
        let mut patterns = Vec::new();
        for (name, pool) in &mapping.pools {
            for matcher in &pool.matchers {
                match matcher {
                    TenantMatcher::Exact(tenant) => drop(listed.insert(tenant.clone(), name.clone())),
                    TenantMatcher::Glob(_) => patterns.push((matcher.clone(), name.clone())),
                }
            }
        }
        let owners =
            |(name, pool): (&PoolName, &Pool)| (name.clone(), Arc::new(PoolOwners::new(&pool.table, &nodes)));
        Some(Self {
            cluster: cluster.id,
            hash_seed: cluster.hash_seed,
            hash_function: cluster.hash_function,
            slots: cluster.slots,
            replicas: cluster.replicas,
            epoch: state.epoch(),
            digest: state.digest(),
            nodes_version: state.nodes_version(),
            pools: mapping.pools.iter().map(owners).collect(),
            nodes,
            tenants: mapping.tenants.clone(),
            listed,
            patterns,
        })
    }

    /// The identity of the cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The seed for [`crate::series_hash()`].
    pub fn hash_seed(&self) -> HashSeed {
        self.hash_seed
    }

    /// The function from labels to slots.
    pub fn hash_function(&self) -> HashFunction {
        self.hash_function
    }

    /// How many slots there are.
    pub fn slots(&self) -> SlotCount {
        self.slots
    }

    /// How many nodes shall own each slot. A degraded pool has fewer.
    pub fn replicas(&self) -> ReplicaCount {
        self.replicas
    }

    /// The epoch, which goes with every batch.
    pub fn epoch(&self) -> RingEpoch {
        self.epoch
    }

    /// The digest, which goes with every batch.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Changes with addresses and states of nodes, which the epoch does not.
    pub fn nodes_version(&self) -> NodesVersion {
        self.nodes_version
    }

    /// All nodes in the order of their numbers.
    pub fn nodes(&self) -> &[ViewNode] {
        &self.nodes
    }

    /// The node at an index of this view.
    pub fn node(&self, index: NodeIndex) -> Option<&ViewNode> {
        self.nodes.get(usize::from(index.0))
    }

    /// The index of a node.
    pub fn index_of(&self, uid: Uid) -> Option<NodeIndex> {
        self.nodes.iter().position(|node| node.uid == uid).map(|index| NodeIndex(index as u16))
    }

    /// True if each series has the same slot in both, whoever owns it.
    pub fn has_slots_of(&self, other: &RingView) -> bool {
        let numbers = |view: &RingView| {
            let set =
                view.tenants.iter().filter_map(|(tenant, mapping)| Some((tenant.clone(), mapping.slots?)));
            set.collect::<BTreeMap<_, _>>()
        };
        (self.cluster, self.hash_seed, self.hash_function, self.slots)
            == (other.cluster, other.hash_seed, other.hash_function, other.slots)
            && numbers(self) == numbers(other)
    }

    /// The pool of a tenant: what is set for it, else the pool that lists its name, else the first by
    /// name with a pattern that fits, else the default.
    pub fn pool_of(&self, tenant: &str) -> &str {
        let set = self.tenants.get(&TenantName::from(tenant)).and_then(|mapping| mapping.pool.as_ref());
        let by_pattern =
            || self.patterns.iter().find(|(matcher, _)| matcher.matches(tenant)).map(|(_, pool)| pool);
        let found = set.or_else(|| self.listed.get(tenant)).or_else(by_pattern);
        found.map_or(PoolName::DEFAULT, PoolName::as_str)
    }

    /// Where a tenant's series are; none as long as its pool has no table, so that nobody owns them.
    pub fn tenant(&self, tenant: &str) -> Option<TenantPlacement> {
        let pool = self.pools.get(&PoolName::from(self.pool_of(tenant)))?;
        if pool.cells.is_empty() {
            return None;
        }
        let set = self.tenants.get(&TenantName::from(tenant)).and_then(|mapping| mapping.slots);
        let k = set.unwrap_or(TenantSlots::DEFAULT);
        let permutation = Permutation::of_tenant(tenant, self.slots, self.hash_seed);
        // There are at most 65,536 slots, so their numbers fit.
        let slots =
            (0..k.get().min(self.slots.get())).map(|index| permutation.slot(index).0 as u16).collect();
        Some(TenantPlacement { epoch: self.epoch, k, slots, pool: Arc::clone(pool) })
    }
}

impl PoolOwners {
    fn new(table: &Table, nodes: &[ViewNode]) -> Self {
        // Every owner is among the nodes.
        let index =
            |number: &NodeNumber| NodeIndex(nodes.partition_point(|node| node.number < *number) as u16);
        let replicas = table.replicas().map_or(0, ReplicaCount::as_len);
        Self { replicas, cells: table.cells().iter().map(index).collect() }
    }
}

impl TenantPlacement {
    /// The epoch of the view that it is from.
    pub fn epoch(&self) -> RingEpoch {
        self.epoch
    }

    /// How many slots the tenant has.
    pub fn k(&self) -> TenantSlots {
        self.k
    }

    /// The slot of a series, by its [`crate::series_hash()`].
    pub fn slot(&self, series_hash: u64) -> Slot {
        let index = jump(series_hash, self.k.0) as usize;
        Slot(self.slots.get(index).map_or(0, |&slot| u32::from(slot)))
    }

    /// The owners of a slot, the preferred coordinator first.
    pub fn owners_of(&self, slot: Slot) -> &[NodeIndex] {
        let start = slot.index() * self.pool.replicas;
        self.pool.cells.get(start..start + self.pool.replicas).unwrap_or_default()
    }

    /// The owners of a series, the preferred coordinator first.
    pub fn owners(&self, series_hash: u64) -> &[NodeIndex] {
        self.owners_of(self.slot(series_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        placement::slot_of,
        ring::{
            Command, NodeUpdate, Setting,
            tests::{cluster_of, golden_log, replay, set_state, update},
        },
        series_hash,
    };

    fn view(state: &RingState) -> RingView {
        RingView::new(state).expect("the cluster is founded")
    }

    fn hashes() -> impl Iterator<Item = u64> {
        (0..500_u64).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()))
    }

    #[test]
    fn owners_are_those_of_the_table() {
        let mut state = cluster_of(7);
        // So that indexes and numbers are not the same but for one.
        state.apply(&set_state(2, NodeState::Active, NodeState::Lost)).expect("it is Active");
        crate::ring::tests::settle(&mut state, 1000);
        let slots = |slots| Setting::Set(TenantSlots::new(slots).expect("a test's number is not zero"));
        for (tenant, k) in [("b", 1), ("c", 7), ("d", 256)] {
            let (tenant, slots) = (TenantName::from(tenant), slots(k));
            let set = Command::SetTenant { tenant, pool: Setting::Keep, slots, limits: Setting::Keep };
            state.apply(&set).expect("there are as many slots");
        }
        let view = view(&state);
        assert_eq!((view.epoch(), view.digest()), (state.epoch(), state.digest()));
        let table = &state.mapping().pools[&PoolName::from(PoolName::DEFAULT)].table;
        for (tenant, k) in [("a", 2), ("b", 1), ("c", 7), ("d", 256)] {
            let placement = view.tenant(tenant).expect("the pool has a table");
            assert_eq!((placement.k().get(), placement.epoch()), (k, state.epoch()));
            for hash in hashes() {
                let slot = slot_of(tenant, hash, placement.k(), view.slots(), view.hash_seed());
                assert_eq!(placement.slot(hash), slot);
                let number = |index: &NodeIndex| view.node(*index).expect("owners are nodes").number;
                let owners: Vec<NodeNumber> = placement.owners(hash).iter().map(number).collect();
                assert_eq!(owners, table.owners(slot));
            }
        }
    }

    #[test]
    fn without_a_table_nobody_owns_anything() {
        assert!(RingView::new(&RingState::default()).is_none());
        let mut state = RingState::default();
        state.apply(&crate::ring::tests::init()).expect("the state is empty");
        assert!(view(&state).tenant("t").is_none());
        let mut state = cluster_of(3);
        let matchers = vec![TenantMatcher::Glob("x*".to_owned())];
        state.apply(&Command::SetPool { name: PoolName::from("empty"), matchers }).expect("the pool is new");
        assert!(view(&state).tenant("x1").is_none());
        assert!(view(&state).tenant("y1").is_some());
    }

    #[test]
    fn the_pool_of_a_tenant() {
        let mut state = cluster_of(3);
        let exact = |name: &str| TenantMatcher::Exact(name.to_owned());
        let glob = |pattern: &str| TenantMatcher::Glob(pattern.to_owned());
        let pools = [
            ("p", vec![glob("team-*"), exact("a")]),
            ("b", vec![glob("team-b?")]),
            ("default", vec![exact("team-d")]),
        ];
        for (name, matchers) in pools {
            state
                .apply(&Command::SetPool { name: PoolName::from(name), matchers })
                .expect("it is a good pool");
        }
        let set = Command::SetTenant {
            tenant: TenantName::from("team-b1"),
            pool: Setting::Set(PoolName::from("default")),
            slots: Setting::Keep,
            limits: Setting::Keep,
        };
        state.apply(&set).expect("the pool is there");
        let view = view(&state);
        for (tenant, pool) in [
            ("a", "p"),
            ("team-a", "p"),
            ("team-b1", "default"),
            ("team-b2", "b"),
            ("team-d", "default"),
            ("z", "default"),
        ] {
            assert_eq!(view.pool_of(tenant), pool, "{tenant}");
        }
    }

    #[test]
    fn addresses_change_within_an_epoch() {
        let mut state = cluster_of(3);
        let before = view(&state);
        let at = |port: u16| format!("elsewhere:{port}");
        let addresses = Addresses { grpc: at(1), http: at(2), cluster: at(3) };
        let change = NodeUpdate { addresses: Some(addresses.clone()), ..update(2) };
        state.apply(&Command::UpdateNode(change)).expect("the node is there");
        let after = view(&state);
        assert_eq!(after.epoch(), before.epoch());
        assert!(after.nodes_version() > before.nodes_version());
        let index = after.index_of(Uid(2)).expect("the node is there");
        assert_eq!(after.node(index).map(|node| &node.addresses), Some(&addresses));
        assert_eq!(after.index_of(Uid(9)), None);
    }

    #[test]
    fn slots_stay_the_same_while_owners_change() {
        let mut state = cluster_of(4);
        let before = view(&state);
        state.apply(&set_state(2, NodeState::Active, NodeState::Draining)).expect("it is Active");
        crate::ring::tests::settle(&mut state, 1000);
        let moved = view(&state);
        assert!(moved.epoch() > before.epoch() && moved.has_slots_of(&before));
        let (tenant, slots) = (TenantName::from("t"), TenantSlots::new(7).expect("it is not zero"));
        let slots = Setting::Set(slots);
        let set = Command::SetTenant { tenant, pool: Setting::Keep, slots, limits: Setting::Keep };
        state.apply(&set).expect("there are as many slots");
        assert!(!view(&state).has_slots_of(&moved));
    }

    /// Frozen: from labels to nodes, with a table made by hand.
    #[test]
    fn golden_owners() {
        let view = view(&replay(&golden_log()));
        let check = |tenant: &str, metric: &str, slot, names: [&str; 3]| {
            let placement = view.tenant(tenant).expect("the pool has a table");
            let hash = series_hash(view.hash_seed().0, tenant, [("__name__", metric)]);
            let name = |index: &NodeIndex| view.node(*index).map_or("", |node| &node.name);
            let found: Vec<&str> = placement.owners(hash).iter().map(name).collect();
            assert_eq!((placement.slot(hash), &found[..]), (Slot(slot), &names[..]), "{tenant} {metric}");
        };
        check("team-a", "up", 190, ["node-1", "node-2", "node-3"]);
        check("team-a", "go_goroutines", 179, ["node-4", "node-5", "node-9"]);
        check("team-a", "scrape_samples_scraped", 179, ["node-4", "node-5", "node-9"]);
        check("team-b", "up", 146, ["node-1", "node-2", "node-3"]);
        check("team-c", "up", 222, ["node-1", "node-2", "node-3"]);
        check("team-d", "up", 197, ["node-4", "node-5", "node-9"]);
    }
}
