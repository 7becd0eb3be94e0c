//! Moves cells until every node has its quota.
//!
//! Cells go from nodes with too many, and from holes, to nodes with too few. Which cells a node gets
//! is decided by bundles: all cells of one owner in rows with the same other nodes. A bundle is the
//! better the fewer nodes share a slot after it than before, so a node that takes several prefers rows
//! with nodes that it meets anyway. Where no cell can go straight from one who has too many to one
//! who has too few, others pass cells on. That is few moves, but not always the fewest: what is too
//! much is saved afterwards, see [`exchange`](super::exchange).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use crate::ids::Slot;

use super::{
    board::{Board, HOLE, Node},
    slot_order,
};

/// A row and a position in it.
type Cell = (Slot, usize);

/// The cells of one owner in rows with the same other nodes.
struct Bundle {
    owner: Node,
    others: Vec<Node>,
    /// In the order in which they are taken, the last first.
    cells: Vec<Cell>,
}

/// Moves cells until there is no hole and every node has its quota.
pub(super) fn settle(board: &mut Board) {
    let mut receivers: Vec<Node> = board.nodes().filter(|&node| board.need(node) > 0).collect();
    receivers.sort_by_key(|&node| (Reverse(board.need(node)), node));
    for receiver in receivers {
        take_bundles(board, receiver);
    }
    pass_on(board);
}

fn take_bundles(board: &mut Board, receiver: Node) {
    let mut bundles = bundles(board, receiver);
    while board.need(receiver) > 0 {
        let best = (0..bundles.len())
            .filter(|&index| board.excess(bundles[index].owner) > 0)
            .min_by_key(|&index| price(board, receiver, &bundles[index]));
        let Some(index) = best else { return };
        let bundle = bundles.swap_remove(index);
        for (slot, position) in bundle.cells.into_iter().rev() {
            if board.need(receiver) == 0 || board.excess(bundle.owner) == 0 {
                break;
            }
            // Others may have been taken from the same row.
            if board.may_take(slot, position, receiver) {
                board.give(slot, position, receiver);
            }
        }
    }
}

/// What the node may take.
fn bundles(board: &Board, receiver: Node) -> Vec<Bundle> {
    let mut found: BTreeMap<(Node, Vec<Node>), Vec<Cell>> = BTreeMap::new();
    let mut slots: Vec<Slot> = board.slots().collect();
    slots.sort_by_key(|&slot| Reverse(slot_order(slot)));
    for slot in slots {
        let row = board.row(slot);
        for (position, &owner) in row.iter().enumerate() {
            if board.excess(owner) > 0 && board.may_take(slot, position, receiver) {
                let mut others: Vec<Node> =
                    row.iter().copied().filter(|&other| other != owner && other != HOLE).collect();
                others.sort_unstable();
                found.entry((owner, others)).or_default().push((slot, position));
                if owner == HOLE {
                    break;
                }
            }
        }
    }
    let bundle = |((owner, others), cells)| Bundle { owner, others, cells };
    found.into_iter().map(bundle).collect()
}

/// The smaller the better: how many more pairs of nodes share a slot afterwards, then how many new
/// ones do, then a bundle that is taken whole, then a small one.
fn price(board: &Board, receiver: Node, bundle: &Bundle) -> (i64, usize, bool, usize, u64) {
    let size = bundle.cells.len();
    let taken = (size as u64).min(board.need(receiver)).min(board.excess(bundle.owner));
    let new = bundle.others.iter().filter(|&&other| board.shared_rows(receiver, other) == 0).count();
    let parted = match bundle.owner {
        HOLE => 0,
        owner => {
            bundle.others.iter().filter(|&&other| u64::from(board.shared_rows(owner, other)) <= taken).count()
        }
    };
    let order = bundle.cells.last().map_or(0, |&(slot, _)| slot_order(slot));
    (new as i64 - parted as i64, new, taken < size as u64, size, order)
}

/// A cell that goes from the one who has it to the next of a chain.
#[derive(Clone, Copy)]
struct Step {
    slot: Slot,
    position: usize,
    to: Node,
}

/// Moves cells along chains of nodes: each gives one to the next, the last lacked one.
fn pass_on(board: &mut Board) {
    // Every chain that is applied at least in part brings a cell nearer to where it is lacking.
    let mut rounds = board.slots().count() * board.replicas() * 4;
    while rounds > 0 {
        rounds -= 1;
        let Some(chain) = shortest_chain(board) else { return };
        // From the end: what is done is right even if the rest does not fit any more, because two
        // steps were in one row.
        for step in chain.into_iter().rev() {
            if !board.may_take(step.slot, step.position, step.to) {
                break;
            }
            board.give(step.slot, step.position, step.to);
        }
    }
}

/// The shortest chain from a hole or a node with too many cells to a node with too few.
fn shortest_chain(board: &Board) -> Option<Vec<Step>> {
    let lacking: Vec<Node> = board.nodes().filter(|&node| board.need(node) > 0).collect();
    if lacking.is_empty() {
        return None;
    }
    let cells = cells_by_owner(board);
    let mut reached: Vec<Option<(Node, Step)>> = vec![None; usize::from(HOLE) + 1];
    let mut queue: VecDeque<Node> = board.nodes().filter(|&node| board.excess(node) > 0).collect();
    queue.push_front(HOLE);
    let starts: Vec<Node> = queue.iter().copied().collect();
    while let Some(from) = queue.pop_front() {
        let mut open: Vec<Node> = board
            .nodes()
            .filter(|&node| node != from && reached[usize::from(node)].is_none() && !starts.contains(&node))
            .collect();
        for &(slot, position) in cells.get(&from).into_iter().flatten() {
            if open.is_empty() {
                break;
            }
            open.retain(|&to| {
                let may = board.may_take(slot, position, to);
                if may {
                    reached[usize::from(to)] = Some((from, Step { slot, position, to }));
                    queue.push_back(to);
                }
                !may
            });
        }
        let found = lacking.iter().find(|&&node| reached[usize::from(node)].is_some());
        if let Some(&last) = found {
            let mut chain = Vec::new();
            let mut node = last;
            while let Some((from, step)) = reached[usize::from(node)] {
                chain.push(step);
                node = from;
            }
            chain.reverse();
            return Some(chain);
        }
    }
    None
}

fn cells_by_owner(board: &Board) -> BTreeMap<Node, Vec<Cell>> {
    let mut cells: BTreeMap<Node, Vec<Cell>> = BTreeMap::new();
    for slot in board.slots() {
        for (position, &owner) in board.row(slot).iter().enumerate() {
            cells.entry(owner).or_default().push((slot, position));
        }
    }
    cells
}
