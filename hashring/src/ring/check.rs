//! Whether a ring that came from elsewhere can be what a log led to.
//!
//! What is applied keeps this by itself. A ring from a peer or a file was made by whoever wrote it, and whoever
//! reads it relies on it: the write path looks owners up by their index and would find somebody else.

use std::collections::{BTreeMap, BTreeSet};

use super::RingState;
use crate::ids::{NodeNumber, PoolName, ReplicaCount};

/// More nodes than any ring has: the view numbers them by 16 bits.
const NODES_MAX: usize = u16::MAX as usize;

/// What is wrong with a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// There are nodes or tables and no cluster.
    #[error("the ring has nodes or pools, and no cluster")]
    NoCluster,
    /// A node is listed under the uid or number of another, or there are too many.
    #[error("the list of nodes of the ring is wrong at node {0:?}")]
    Nodes(String),
    /// A table has too many cells or too few.
    #[error("the table of pool {pool} has {cells} cells where {expected} belong")]
    Cells {
        /// Which pool.
        pool: PoolName,
        /// How many there are.
        cells: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A slot is owned by somebody who cannot own it.
    #[error("the table of pool {pool} names {owner}, which is no node of the pool, or twice for a slot")]
    Owner {
        /// Which pool.
        pool: PoolName,
        /// Who is named.
        owner: NodeNumber,
    },
}

impl RingState {
    /// Whether this can be what a log led to, as far as whoever reads it relies on that.
    pub fn check(&self) -> Result<(), Inconsistent> {
        let Some(cluster) = &self.cluster else {
            let is_empty = self.nodes.is_empty() && self.mapping.pools.is_empty();
            return if is_empty { Ok(()) } else { Err(Inconsistent::NoCluster) };
        };
        let mut pools_of: BTreeMap<NodeNumber, &PoolName> = BTreeMap::new();
        for (uid, node) in &self.nodes {
            let is_new = pools_of.insert(node.number, &node.pool).is_none();
            if *uid != node.uid || !is_new || pools_of.len() > NODES_MAX {
                return Err(Inconsistent::Nodes(node.name.clone()));
            }
        }
        for (name, pool) in &self.mapping.pools {
            let (cells, replicas) = (pool.table.cells().len(), pool.table.replicas());
            let expected = cluster.slots.as_len() * replicas.map_or(0, ReplicaCount::as_len);
            if cells != expected {
                return Err(Inconsistent::Cells { pool: name.clone(), cells, expected });
            }
            for (_, owners) in pool.table.rows() {
                let mut row = BTreeSet::new();
                let is_wrong =
                    |owner: &&NodeNumber| pools_of.get(owner) != Some(&name) || !row.insert(**owner);
                if let Some(owner) = owners.iter().find(is_wrong) {
                    return Err(Inconsistent::Owner { pool: name.clone(), owner: *owner });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Uid,
        ring::tests::{cluster_of, golden_log, replay},
        view::RingView,
    };

    #[test]
    fn what_is_wrong_with_a_ring() {
        assert_eq!(replay(&golden_log()).check(), Ok(()));
        assert_eq!(RingState::default().check(), Ok(()));
        let check = |change: &dyn Fn(&mut RingState), expected: &str| {
            let mut state = cluster_of(4);
            change(&mut state);
            let found = state.check().expect_err("it is wrong").to_string();
            assert!(found.contains(expected), "{found}");
        };
        let node = |state: &RingState| state.nodes[&Uid(2)].clone();
        check(&|state| state.cluster = None, "no cluster");
        check(&|state| drop(state.nodes.remove(&Uid(2))), "names node 2, which is no node of the pool");
        check(&|state| drop(state.nodes.insert(Uid(9), node(state))), "wrong at node \"node-2\"");
        let same_number = |state: &mut RingState| {
            let number = node(state).number;
            state.nodes.get_mut(&Uid(3)).expect("it is there").number = number;
        };
        check(&same_number, "wrong at node \"node-3\"");
        let elsewhere = |state: &mut RingState| {
            state.nodes.get_mut(&Uid(2)).expect("it is there").pool = PoolName::from("big");
        };
        check(&elsewhere, "names node 2, which is no node of the pool");
        let fewer_slots = |state: &mut RingState| {
            let slots = crate::ids::SlotCount::new(512).expect("it is allowed");
            state.cluster.as_mut().expect("it is founded").slots = slots;
        };
        check(&fewer_slots, "has 768 cells where 1536 belong");
        let twice = |state: &mut RingState| {
            let text = serde_json::to_string(&state.mapping).expect("it is plain");
            state.mapping = serde_json::from_str(&text.replacen("[1,", "[2,", 1)).expect("it is plain");
        };
        check(&twice, "twice for a slot");
        // What passes can be looked at.
        assert!(RingView::new(&cluster_of(4)).is_some());
    }
}
