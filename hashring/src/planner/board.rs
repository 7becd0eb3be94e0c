//! The table while a plan is made: cells may be empty, and how often nodes meet is counted.

use crate::{
    ids::{NodeNumber, ReplicaCount, Slot, SlotCount},
    spread::{Domain, SpreadRule},
    table::Table,
};

use super::{
    Member,
    quota::{Claim, Size, targets},
};

/// Index of a node on the board.
pub(super) type Node = u16;

/// Stands in a cell that has no owner.
pub(super) const HOLE: Node = Node::MAX;

/// The table while a plan is made.
pub(super) struct Board {
    slots: SlotCount,
    replicas: usize,
    domain_nodes_max: usize,
    numbers: Vec<NodeNumber>,
    domains: Vec<Domain>,
    /// How many cells each node shall have.
    targets: Vec<u64>,
    /// How many cells each node has.
    held: Vec<u64>,
    /// Row by row.
    cells: Vec<Node>,
    /// The cells of the table that the plan starts from, with holes for nodes that go.
    cells_before: Vec<Node>,
    /// For each pair of nodes, in both orders, how many rows have both.
    shared_rows: Vec<u32>,
}

impl Board {
    /// A board with all cells of the table whose owners may keep them.
    pub(super) fn new(
        table: &Table,
        slots: SlotCount,
        replicas: ReplicaCount,
        members: &[Member],
        rule: &SpreadRule,
    ) -> Self {
        let width = replicas.as_len();
        let numbers: Vec<NodeNumber> = members.iter().map(|member| member.number).collect();
        let index_of =
            |number: NodeNumber| numbers.binary_search(&number).map_or(HOLE, |index| index as Node);
        let mut cells = vec![HOLE; slots.as_len() * width];
        for (row, slot) in cells.chunks_exact_mut(width).zip(slots.slots()) {
            for (cell, &owner) in row.iter_mut().zip(table.owners(slot)) {
                *cell = index_of(owner);
            }
        }
        let count = numbers.len();
        let mut board = Self {
            slots,
            replicas: width,
            domain_nodes_max: rule.domain_nodes_max(),
            domains: numbers.iter().map(|&number| rule.domain(number).unwrap_or(Domain(0))).collect(),
            numbers,
            targets: vec![0; count],
            held: vec![0; count],
            cells_before: cells.clone(),
            cells,
            shared_rows: Vec::new(),
        };
        for index in 0..board.cells.len() {
            if let Some(held) = board.held.get_mut(usize::from(board.cells[index])) {
                *held += 1;
            }
        }
        board.evict_crowds();
        board.count_shared_rows();
        let claim = |(index, member): (usize, &Member)| Claim {
            domain: board.domains[index],
            weight: member.weight,
            held: board.held[index],
        };
        let claims: Vec<Claim> = members.iter().enumerate().map(claim).collect();
        let size = Size {
            slots: u64::from(slots.get()),
            replicas: width as u64,
            domain_nodes_max: board.domain_nodes_max as u64,
        };
        board.targets = targets(&claims, size);
        board
    }

    /// Empties cells of rows with a node twice or too many of a domain: of these the node that has
    /// most cells.
    fn evict_crowds(&mut self) {
        for slot in self.slots.slots() {
            while let Some(position) = self.crowded(slot) {
                let node = usize::from(self.row(slot)[position]);
                self.held[node] -= 1;
                let index = slot.index() * self.replicas + position;
                self.cells[index] = HOLE;
            }
        }
    }

    fn crowded(&self, slot: Slot) -> Option<usize> {
        let row = self.row(slot);
        let is_crowded = |position: &usize| {
            let node = row[*position];
            let repeated = row.iter().filter(|&&other| other == node).count() > 1;
            node != HOLE && (repeated || self.nodes_of_domain(row, self.domain(node)) > self.domain_nodes_max)
        };
        let held =
            |position: &usize| (self.held[usize::from(row[*position])], super::slot_order(slot), *position);
        (0..row.len()).filter(is_crowded).max_by_key(held)
    }

    fn count_shared_rows(&mut self) {
        let nodes = self.numbers.len();
        self.shared_rows = vec![0; nodes * nodes];
        for row in self.cells.chunks_exact(self.replicas) {
            for &a in row {
                for &b in row {
                    if a != HOLE && b != HOLE && a != b {
                        self.shared_rows[usize::from(a) * nodes + usize::from(b)] += 1;
                    }
                }
            }
        }
    }

    /// All slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        self.slots.slots()
    }

    /// The number of cells in a row.
    pub(super) fn replicas(&self) -> usize {
        self.replicas
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        0..self.numbers.len() as Node
    }

    /// What a node may fail with.
    pub(super) fn domain(&self, node: Node) -> Domain {
        self.domains[usize::from(node)]
    }

    /// The cells of a row.
    pub(super) fn row(&self, slot: Slot) -> &[Node] {
        &self.cells[slot.index() * self.replicas..][..self.replicas]
    }

    /// The owners of a row by number.
    pub(super) fn row_numbers(&self, slot: Slot) -> impl Iterator<Item = NodeNumber> {
        self.row(slot).iter().filter_map(|&node| self.numbers.get(usize::from(node)).copied())
    }

    /// How many cells a node shall have.
    pub(super) fn target(&self, node: Node) -> u64 {
        self.targets[usize::from(node)]
    }

    /// How many cells a node lacks.
    pub(super) fn need(&self, node: Node) -> u64 {
        self.targets[usize::from(node)].saturating_sub(self.held[usize::from(node)])
    }

    /// How many cells a node has too many; without end for holes.
    pub(super) fn excess(&self, node: Node) -> u64 {
        match self.held.get(usize::from(node)) {
            Some(held) => held.saturating_sub(self.targets[usize::from(node)]),
            None => u64::MAX,
        }
    }

    /// True if the node owns the slot in the table that the plan starts from.
    pub(super) fn owned_before(&self, slot: Slot, node: Node) -> bool {
        self.row_before(slot).contains(&node)
    }

    /// The members that own the slot in the table that the plan starts from, and holes.
    pub(super) fn row_before(&self, slot: Slot) -> &[Node] {
        &self.cells_before[slot.index() * self.replicas..][..self.replicas]
    }

    /// How many moves lead to the board as it is.
    pub(super) fn moves(&self) -> u64 {
        let new = |slot| self.row(slot).iter().filter(|&&node| !self.owned_before(slot, node)).count() as u64;
        self.slots().map(new).sum()
    }

    /// No plan has fewer moves than this: every node takes what it lacks. There may be none that has so
    /// few, as not every cell can go straight to any node.
    pub(super) fn moves_min(&self) -> u64 {
        let mut lacking = self.targets.clone();
        for &node in &self.cells_before {
            if let Some(lacking) = lacking.get_mut(usize::from(node)) {
                *lacking = lacking.saturating_sub(1);
            }
        }
        lacking.iter().sum()
    }

    /// The most nodes of one domain in a row.
    pub(super) fn domain_nodes_max(&self) -> usize {
        self.domain_nodes_max
    }

    /// How many rows have both nodes.
    pub(super) fn shared_rows(&self, a: Node, b: Node) -> u32 {
        self.shared_rows.get(usize::from(a) * self.numbers.len() + usize::from(b)).copied().unwrap_or(0)
    }

    /// True if the row stays valid, or at least becomes no worse, when the node takes that position.
    pub(super) fn may_take(&self, slot: Slot, position: usize, node: Node) -> bool {
        let row = self.row(slot);
        let domain = self.domain(node);
        let leaves = row[position] != HOLE && self.domain(row[position]) == domain;
        !row.contains(&node)
            && self.nodes_of_domain(row, domain) - usize::from(leaves) < self.domain_nodes_max
    }

    fn nodes_of_domain(&self, row: &[Node], domain: Domain) -> usize {
        row.iter().filter(|&&node| node != HOLE && self.domain(node) == domain).count()
    }

    /// Gives a cell to a node.
    pub(super) fn give(&mut self, slot: Slot, position: usize, to: Node) {
        let start = slot.index() * self.replicas;
        let from = self.cells[start + position];
        if let Some(held) = self.held.get_mut(usize::from(from)) {
            *held -= 1;
        }
        self.held[usize::from(to)] += 1;
        let nodes = self.numbers.len();
        for other in 0..self.replicas {
            let other_node = self.cells[start + other];
            if other == position || other_node == HOLE {
                continue;
            }
            for (a, b) in [(from, other_node), (other_node, from)] {
                if from != HOLE {
                    self.shared_rows[usize::from(a) * nodes + usize::from(b)] -= 1;
                }
            }
            for (a, b) in [(to, other_node), (other_node, to)] {
                self.shared_rows[usize::from(a) * nodes + usize::from(b)] += 1;
            }
        }
        self.cells[start + position] = to;
    }

    /// Fills a row anew.
    pub(super) fn set_row(&mut self, slot: Slot, nodes: &[Node]) {
        let kept: Vec<Node> = self.row(slot).to_vec();
        let mut new = nodes.iter().copied().filter(|node| !kept.contains(node));
        for (position, node) in kept.iter().enumerate() {
            if !nodes.contains(node)
                && let Some(node) = new.next()
            {
                self.give(slot, position, node);
            }
        }
    }
}
