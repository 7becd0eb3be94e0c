//! Virtual columns, which stand in for zones where no node has one.
//!
//! Nothing of them is stored. In the row of slot `s` column `c` is at position `(c + s) % replicas`,
//! so that each column is the preferred coordinator equally often; which column a node is in can be
//! seen from its positions.

use std::collections::BTreeMap;

use super::{Domains, Member};
use crate::{
    ids::{NodeNumber, ReplicaCount, Slot},
    spread::Domain,
    table::Table,
};

/// The column at a position of a row.
pub(super) fn column_at(slot: Slot, position: usize, replicas: usize) -> usize {
    (position + replicas - slot.index() % replicas) % replicas
}

/// The position of a column in a row.
pub(super) fn position_at(slot: Slot, column: usize, replicas: usize) -> usize {
    (column + slot.index()) % replicas
}

/// Deals the nodes to columns. Nodes stay in the column that they are in; others go to the one with
/// the smallest weight. If nodes have gone, so that columns differ much, a node changes columns.
pub(super) fn columns(members: &[Member], table: &Table, replicas: ReplicaCount) -> Domains {
    let mut columns: Vec<Column> = vec![Column::default(); replicas.as_len()];
    let seen = seen_columns(table, replicas);
    let mut new: Vec<&Member> = Vec::new();
    for member in members {
        match seen.get(&member.number) {
            Some(&column) => columns[column].add(member),
            None => new.push(member),
        }
    }
    new.sort_by_key(|member| (std::cmp::Reverse(member.weight), member.number));
    for member in new {
        if let Some(column) = columns.iter_mut().min_by_key(|column| column.weight) {
            column.add(member);
        }
    }
    level(&mut columns, table);
    let numbered = columns.iter().zip(0..);
    numbered
        .flat_map(|(column, domain)| column.members.iter().map(move |(n, _)| (*n, Domain(domain))))
        .collect()
}

/// One column while nodes are dealt.
#[derive(Clone, Debug, Default)]
struct Column {
    weight: u64,
    members: Vec<(NodeNumber, u64)>,
}

impl Column {
    fn add(&mut self, member: &Member) {
        let weight = u64::from(member.weight.get());
        self.members.push((member.number, weight));
        self.weight += weight;
    }
}

/// The column in which each node of a table has most of its cells.
fn seen_columns(table: &Table, replicas: ReplicaCount) -> BTreeMap<NodeNumber, usize> {
    let mut counts: BTreeMap<NodeNumber, Vec<u32>> = BTreeMap::new();
    for (slot, owners) in table.rows() {
        for (position, &owner) in owners.iter().enumerate() {
            let counts = counts.entry(owner).or_insert_with(|| vec![0; replicas.as_len()]);
            counts[column_at(slot, position, replicas.as_len())] += 1;
        }
    }
    let most = |counts: Vec<u32>| (0..counts.len()).rev().max_by_key(|&column| counts[column]).unwrap_or(0);
    counts.into_iter().map(|(node, counts)| (node, most(counts))).collect()
}

/// Moves nodes from the heaviest to the lightest column while their weights are more than an eighth
/// apart and that makes them more alike, and so that none is empty. All slots of a node change hands
/// by that, so it is not done for less.
fn level(columns: &mut [Column], table: &Table) {
    let held = table.slots_of_nodes();
    loop {
        let by_weight = |column: &usize| columns[*column].weight;
        let lightest = (0..columns.len()).min_by_key(by_weight);
        let heaviest = (0..columns.len())
            .rev()
            .filter(|&column| columns[column].members.len() > 1)
            .max_by_key(by_weight);
        let (Some(lightest), Some(heaviest)) = (lightest, heaviest) else { return };
        if columns[heaviest].weight * 8 <= columns[lightest].weight * 9 {
            return;
        }
        let difference = columns[heaviest].weight.saturating_sub(columns[lightest].weight);
        let is_empty = columns[lightest].members.is_empty();
        let best = columns[heaviest]
            .members
            .iter()
            .enumerate()
            .filter(|(_, (_, weight))| is_empty || 2 * weight <= difference)
            .min_by_key(|(_, (node, weight))| {
                let cells = held.get(node).copied().unwrap_or(0);
                (std::cmp::Reverse(if is_empty { 0 } else { *weight }), cells, std::cmp::Reverse(*node))
            })
            .map(|(index, _)| index);
        let Some(index) = best else { return };
        let (node, weight) = columns[heaviest].members.remove(index);
        columns[heaviest].weight -= weight;
        columns[lightest].members.push((node, weight));
        columns[lightest].weight += weight;
    }
}
