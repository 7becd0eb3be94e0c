//! Saves the moves that a settled board has too many.
//!
//! Bundles are taken by one node after the other, and with an eye on groups. A node may so take what
//! another could have had straight from its owner, while what it left cannot go there: the row has
//! another node of that zone. Then cells are passed on through third nodes, which costs a move for
//! each of them.
//!
//! Here nodes exchange cells in a ring: each gives one to the next, so that quotas stay. A ring is
//! worth it if more cells come back to who owned them before than leave. A board that has no such ring
//! is one with the fewest moves: this is a flow of least cost, from rows through their domains to
//! nodes, and rings are the cycles of negative cost in what is left of the network. A step of a ring
//! is a way from node to node through one row.

use super::{
    board::{Board, HOLE, Node},
    slot_order,
};
use crate::ids::Slot;

/// A cell that goes from one node of a ring to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    slot: Slot,
    position: usize,
    to: Node,
}

/// Exchanges cells until the board is reached by as few moves as can be.
pub(super) fn save_moves(board: &mut Board) {
    let moves_min = board.moves_min();
    while board.moves() > moves_min {
        let Some(ring) = Costs::of(board).cheap_ring() else { return };
        // Mostly there are many cells that can go the same way.
        while let Some(steps) = steps(board, &ring) {
            for step in steps {
                debug_assert!(
                    board.may_take(step.slot, step.position, step.to),
                    "steps are in each other's way"
                );
                board.give(step.slot, step.position, step.to);
            }
        }
    }
}

/// How many moves more it takes if the cell goes to that node.
fn cost(board: &Board, slot: Slot, position: usize, to: Node) -> i32 {
    let from = board.row(slot)[position];
    i32::from(board.owned_before(slot, from)) - i32::from(board.owned_before(slot, to))
}

fn cost_of(board: &Board, steps: &[Step]) -> i32 {
    steps.iter().map(|step| cost(board, step.slot, step.position, step.to)).sum()
}

/// The cheapest steps along a ring of nodes, none if they save nothing.
fn steps(board: &Board, ring: &[Node]) -> Option<Vec<Step>> {
    let next = ring.iter().cycle().skip(1);
    let steps: Option<Vec<Step>> = ring.iter().zip(next).map(|(&from, &to)| step(board, from, to)).collect();
    steps.filter(|steps| cost_of(board, steps) < 0).map(|steps| untangled(board, steps))
}

/// The cheapest step; among equal ones that after which fewest pairs of nodes share a slot.
fn step(board: &Board, from: Node, to: Node) -> Option<Step> {
    let cell = |slot: Slot| {
        let position = board.row(slot).iter().position(|&node| node == from)?;
        board.may_take(slot, position, to).then_some(Step { slot, position, to })
    };
    let pairs = |step: &Step| -> i32 {
        let others = board.row(step.slot).iter().filter(|&&other| other != from && other != HOLE);
        let more = |&other: &Node| {
            i32::from(board.shared_rows(to, other) == 0) - i32::from(board.shared_rows(from, other) == 1)
        };
        others.map(more).sum()
    };
    let order = |step: &Step| (cost(board, step.slot, step.position, to), pairs(step), slot_order(step.slot));
    board.slots().filter_map(cell).min_by_key(order)
}

/// A part of a ring that saves moves and has no two steps in each other's way.
///
/// Steps can only be so in one row, if they bring nodes to the same domain or take them from it. But
/// then each of them can as well bring its node to the other's next: the ring falls into two, whose
/// costs add up to its own, so the cheaper one saves moves. Where that is not possible one of the steps
/// stays in a full domain that the other does not touch.
fn untangled(board: &Board, mut steps: Vec<Step>) -> Vec<Step> {
    let tangle = |steps: &[Step]| {
        let pairs = (0..steps.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let mut tangles = pairs.filter(|&(a, b)| {
            let (a, b) = (steps[a], steps[b]);
            a.slot == b.slot
                && board.may_take(a.slot, a.position, b.to)
                && board.may_take(b.slot, b.position, a.to)
        });
        tangles.next()
    };
    while let Some((a, b)) = tangle(&steps) {
        (steps[a].to, steps[b].to) = (steps[b].to, steps[a].to);
        let inner: Vec<Step> = steps.drain(a + 1..=b).collect();
        if cost_of(board, &inner) < cost_of(board, &steps) {
            steps = inner;
        }
    }
    steps
}

/// The cost of a step where none is possible.
const IMPOSSIBLE: i8 = i8::MAX;

/// What the cheapest step from each node to each other costs.
struct Costs {
    nodes: usize,
    /// Row by row, who gives before who takes.
    costs: Vec<i8>,
}

impl Costs {
    fn of(board: &Board) -> Self {
        let nodes = board.nodes().count();
        let takers = Takers::of(board);
        let mut costs = vec![IMPOSSIBLE; nodes * nodes];
        for (cost, takers) in [(1, &takers.of_kept), (0, &takers.of_moved)] {
            for (costs, takers) in costs.chunks_exact_mut(nodes).zip(takers) {
                takers.iter().for_each(|taker| costs[usize::from(taker)] = cost);
            }
        }
        for slot in board.slots() {
            for &back in board.row_before(slot).iter().filter(|&&node| node != HOLE) {
                for (position, &from) in board.row(slot).iter().enumerate() {
                    if from != HOLE && board.may_take(slot, position, back) {
                        let own = &mut costs[usize::from(from) * nodes + usize::from(back)];
                        *own = (*own).min(cost(board, slot, position, back) as i8);
                    }
                }
            }
        }
        Self { nodes, costs }
    }

    /// A ring of steps that cost less than nothing together, after Bellman and Ford: as long as there is
    /// one, ways along it get cheaper without end, and it shows among the last steps of the ways.
    fn cheap_ring(&self) -> Option<Vec<Node>> {
        let mut costs = vec![0_i32; self.nodes];
        let mut last_steps: Vec<Option<Node>> = vec![None; self.nodes];
        let mut cheaper: Vec<Node> = (0..self.nodes as Node).collect();
        while !cheaper.is_empty() {
            let mut next = vec![false; self.nodes];
            for from in cheaper {
                let of_from = &self.costs[usize::from(from) * self.nodes..][..self.nodes];
                for (to, &cost) in of_from.iter().enumerate() {
                    let by_from = costs[usize::from(from)] + i32::from(cost);
                    if cost != IMPOSSIBLE && by_from < costs[to] {
                        costs[to] = by_from;
                        last_steps[to] = Some(from);
                        next[to] = true;
                    }
                }
            }
            if let Some(ring) = ring(&last_steps) {
                return Some(ring);
            }
            cheaper = (0..self.nodes as Node).filter(|&node| next[usize::from(node)]).collect();
        }
        None
    }
}

/// A ring among steps back from nodes, in the direction of the steps.
fn ring(last_steps: &[Option<Node>]) -> Option<Vec<Node>> {
    let mut seen_from: Vec<Option<usize>> = vec![None; last_steps.len()];
    for start in 0..last_steps.len() {
        let mut place = start;
        while seen_from[place].is_none() {
            seen_from[place] = Some(start);
            let Some(from) = last_steps[place] else { break };
            place = usize::from(from);
            if seen_from[place] == Some(start) {
                let back = |&node: &Node| last_steps[usize::from(node)];
                let mut ring: Vec<Node> = std::iter::successors(back(&(place as Node)), back)
                    .take_while(|&node| usize::from(node) != place)
                    .collect();
                ring.push(place as Node);
                ring.reverse();
                return Some(ring);
            }
        }
    }
    None
}

/// For each node who may take any of its cells.
struct Takers {
    /// Of those that it owned before.
    of_kept: Vec<NodeSet>,
    /// Of the others.
    of_moved: Vec<NodeSet>,
}

impl Takers {
    fn of(board: &Board) -> Self {
        let nodes = board.nodes().count();
        let none = NodeSet::none(nodes);
        let domains = board.nodes().map(|node| board.domain(node).0 as usize + 1).max().unwrap_or(0);
        let mut of_domain = vec![none.clone(); domains];
        board.nodes().for_each(|node| of_domain[board.domain(node).0 as usize].insert(node));
        let mut takers = Self { of_kept: vec![none.clone(); nodes], of_moved: vec![none; nodes] };
        for slot in board.slots() {
            let row: Vec<Node> = board.row(slot).iter().copied().filter(|&node| node != HOLE).collect();
            let domain = |node: Node| board.domain(node).0 as usize;
            for &from in &row {
                let crowded = row.iter().filter(|&&node| {
                    let nodes = row.iter().filter(|&&other| domain(other) == domain(node)).count();
                    domain(node) != domain(from) && nodes >= board.domain_nodes_max()
                });
                let barred: Vec<&NodeSet> = crowded.map(|&node| &of_domain[domain(node)]).collect();
                let kept = board.owned_before(slot, from);
                let takers = if kept { &mut takers.of_kept } else { &mut takers.of_moved };
                takers[usize::from(from)].insert_all_but(&barred, &row);
            }
        }
        takers
    }
}

/// Some of the nodes, a bit for each.
#[derive(Clone)]
struct NodeSet {
    nodes: usize,
    words: Vec<u64>,
}

impl NodeSet {
    fn none(nodes: usize) -> Self {
        Self { nodes, words: vec![0; nodes.div_ceil(64)] }
    }

    fn insert(&mut self, node: Node) {
        self.words[usize::from(node) / 64] |= 1 << (node % 64);
    }

    /// Inserts all nodes but those of some sets and some others.
    fn insert_all_but(&mut self, sets: &[&NodeSet], nodes: &[Node]) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let barred = sets.iter().fold(0, |barred, set| barred | set.words[index]);
            let of_word = nodes.iter().filter(|&&node| usize::from(node) / 64 == index);
            let barred = of_word.fold(barred, |barred, &node| barred | 1 << (node % 64));
            *word |= !barred;
        }
    }

    fn iter(&self) -> impl Iterator<Item = Node> {
        let has = |&node: &Node| self.words[usize::from(node) / 64] >> (node % 64) & 1 == 1;
        (0..self.nodes as Node).filter(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{NodeNumber, ReplicaCount, SlotCount, Weight},
        planner::Member,
        spread::SpreadRule,
        table::{Move, Table},
    };

    /// Two steps of a ring each bring a node of zone c to the same row, which may have only one.
    #[test]
    fn steps_in_each_others_way_make_two_rings() {
        let replicas = ReplicaCount::new(2).expect("two are allowed");
        let members: Vec<Member> = (1..)
            .zip(["a", "b", "c", "c", "d"])
            .map(|(number, zone)| Member {
                number: NodeNumber(number),
                zone: zone.to_owned(),
                weight: Weight::new(1).expect("one is not zero"),
            })
            .collect();
        let zones = members.iter().map(|member| (member.number, member.zone.as_str()));
        let rule = SpreadRule::new(zones, replicas).expect("there are nodes enough");
        let row = |slot: Slot| match slot.0 {
            0 => [3, 5],
            1 => [2, 5],
            _ => [1, 5],
        };
        let cells = |slot: Slot| (0..).zip(row(slot)).map(move |(position, number)| (slot, position, number));
        let moves: Vec<Move> = SlotCount::MIN
            .slots()
            .flat_map(cells)
            .map(|(slot, position, number)| Move { slot, position, from: None, to: NodeNumber(number) })
            .collect();
        let table = Table::default().moved(SlotCount::MIN, replicas, &moves).expect("all cells are filled");
        let mut board = Board::new(&table, SlotCount::MIN, replicas, &members, &rule);
        // Nodes of the board count from 0.
        let [a, b, c1, c2] = [0, 1, 2, 3];
        for (slot, position, to) in [(0, 0, a), (0, 1, b), (1, 0, c1), (2, 0, c2)] {
            board.give(Slot(slot), position, to);
        }

        let step = |slot, position, to| Step { slot: Slot(slot), position, to };
        let ring = vec![step(0, 0, c1), step(1, 0, b), step(0, 1, c2), step(2, 0, a)];
        assert!(ring.iter().all(|step| board.may_take(step.slot, step.position, step.to)));
        assert_eq!(cost_of(&board, &ring), -3);
        let found = untangled(&board, ring);
        assert_eq!(found, [step(1, 0, b), step(0, 1, c1)]);
        assert_eq!(cost_of(&board, &found), -2);
    }
}
