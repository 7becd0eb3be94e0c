//! How much nodes depend on each other.

use std::collections::BTreeSet;

use crate::{ids::NodeNumber, table::Table};

/// How many different rows a table has, and how many pairs of nodes share a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// How many different sets of nodes own a slot together.
    pub replica_sets: usize,
    /// How many pairs of nodes share any slot. With three replicas these are the pairs that stop
    /// writes when both are dead.
    pub sharing_pairs: usize,
    /// How many pairs there are.
    pub pairs: usize,
}

impl Grouping {
    /// Counts them in a table.
    pub fn of(table: &Table) -> Self {
        let mut sets: BTreeSet<Vec<NodeNumber>> = BTreeSet::new();
        for (_, owners) in table.rows() {
            let mut owners = owners.to_vec();
            owners.sort_unstable();
            sets.insert(owners);
        }
        let mut sharing: BTreeSet<(NodeNumber, NodeNumber)> = BTreeSet::new();
        for set in &sets {
            for (index, &node) in set.iter().enumerate() {
                sharing.extend(set[index + 1..].iter().map(|&other| (node, other)));
            }
        }
        let nodes = table.slots_of_nodes().len();
        Self {
            replica_sets: sets.len(),
            sharing_pairs: sharing.len(),
            pairs: nodes * nodes.saturating_sub(1) / 2,
        }
    }
}
