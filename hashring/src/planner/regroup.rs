//! Forms replica groups anew, at the price of moves.
//!
//! The rows are those of a first layout, whose bars are put in an order that keeps together who is
//! together already; then each slot gets the row most like its own.

use crate::ids::Slot;

use super::{
    board::{Board, Node},
    layout::{ReplicaSets, nodes_by_domain, replica_sets},
    slot_order,
};

/// Changes the rows of a settled board so that as few pairs of nodes share a slot as the layout
/// allows. Nothing is changed if that would not be fewer. What comes of it may have a better order
/// yet, so it is done again until nothing changes.
pub(super) fn regroup(board: &mut Board) {
    loop {
        let sets = replica_sets(board, &order(board));
        if sharing_pairs_of(&sets) >= sharing_pairs(board) {
            return;
        }
        assign(board, sets);
    }
}

fn sharing_pairs(board: &Board) -> usize {
    let pairs = board.nodes().flat_map(|a| (0..a).map(move |b| (a, b)));
    pairs.filter(|&(a, b)| board.shared_rows(a, b) > 0).count()
}

fn sharing_pairs_of(sets: &ReplicaSets) -> usize {
    let mut pairs = std::collections::BTreeSet::new();
    for set in sets.keys() {
        for (index, &node) in set.iter().enumerate() {
            pairs.extend(set[index + 1..].iter().map(|&other| (node, other)));
        }
    }
    pairs.len()
}

/// Nodes domain after domain; within one, who comes next shares most rows with those that already
/// lie where its bar will begin.
fn order(board: &Board) -> Vec<Node> {
    let slots = board.slots().count();
    let mut left = nodes_by_domain(board);
    let mut order = Vec::with_capacity(left.len());
    let mut lines: Vec<Vec<Node>> = vec![Vec::new(); slots];
    let mut place = 0;
    while let Some(&first) = left.first() {
        let domain = board.domain(first);
        let shared =
            |node: Node| -> u32 { lines[place].iter().map(|&other| board.shared_rows(node, other)).sum() };
        let best = left
            .iter()
            .enumerate()
            .take_while(|(_, node)| board.domain(**node) == domain)
            .max_by_key(|(index, node)| (shared(**node), std::cmp::Reverse(*index)))
            .map_or(0, |(index, _)| index);
        let node = left.remove(best);
        for _ in 0..board.target(node) {
            lines[place].push(node);
            place = (place + 1) % slots;
        }
        order.push(node);
    }
    order
}

/// Gives each slot one of the sets: first where nothing changes, then where one node does, and so on.
fn assign(board: &mut Board, mut sets: ReplicaSets) {
    let mut open: Vec<Slot> = board.slots().collect();
    open.sort_by_key(|&slot| slot_order(slot));
    for kept in (0..=board.replicas()).rev() {
        let mut later = Vec::new();
        for slot in open {
            let row = board.row(slot);
            let like = |set: &[Node]| row.iter().filter(|node| set.contains(node)).count();
            let found = sets
                .iter()
                .filter(|(set, left)| **left > 0 && like(set) >= kept)
                .max_by_key(|(_, left)| **left)
                .map(|(set, _)| set.clone());
            match found {
                Some(set) => {
                    sets.entry(set.clone()).and_modify(|left| *left -= 1);
                    board.set_row(slot, &set);
                }
                None => later.push(slot),
            }
        }
        open = later;
    }
}
