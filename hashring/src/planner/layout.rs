//! A table from nothing, with as few different rows as can be.
//!
//! Think of each node as a bar as long as its number of cells. The bars are laid end to end, domain
//! after domain, on a line that is cut into as many pieces as there are replicas, each as long as
//! there are slots; the pieces are put below each other, and each column of that is a row of the
//! table. No bar is longer than a piece, so no row has a node twice, and no domain longer than it
//! may be, so no row has too many of it. Where domains are equal, all bars end in the same places:
//! these are the replica groups.

use std::collections::BTreeMap;

use super::board::{Board, Node};

/// Which nodes own a row together, ascending, and how many rows are like that.
pub(super) type ReplicaSets = BTreeMap<Vec<Node>, u64>;

/// Fills an empty board.
pub(super) fn fill(board: &mut Board) {
    let order: Vec<Node> = nodes_by_domain(board);
    let rows = rows(board, &order);
    for (slot, row) in board.slots().zip(rows) {
        board.set_row(slot, &row);
    }
}

/// All nodes, domain after domain.
pub(super) fn nodes_by_domain(board: &Board) -> Vec<Node> {
    let mut order: Vec<Node> = board.nodes().collect();
    order.sort_by_key(|&node| (board.domain(node), node));
    order
}

/// The rows that come of bars in that order.
fn rows(board: &Board, order: &[Node]) -> Vec<Vec<Node>> {
    let slots = board.slots().count();
    let mut rows = vec![Vec::with_capacity(board.replicas()); slots];
    let bars = order.iter().flat_map(|&node| (0..board.target(node)).map(move |_| node));
    for (node, place) in bars.zip((0..slots).cycle()) {
        rows[place].push(node);
    }
    rows
}

/// The sets of nodes that come of bars in that order.
pub(super) fn replica_sets(board: &Board, order: &[Node]) -> ReplicaSets {
    let mut sets = ReplicaSets::new();
    for mut row in rows(board, order) {
        row.sort_unstable();
        *sets.entry(row).or_default() += 1;
    }
    sets
}
