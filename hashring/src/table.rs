//! The table of a pool: which nodes own each slot.
//!
//! A row per slot, with one node per position; the first is the preferred coordinator. A table is
//! empty or complete: a pool has no table until the first plan fills all of it, and from then on
//! every cell names a node. It changes by explicit [`Move`]s only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeNumber, ReplicaCount, Slot, SlotCount};

/// Who owns the slots of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// None as long as there are no cells.
    replicas: Option<ReplicaCount>,
    /// Row by row.
    cells: Vec<NodeNumber>,
}

/// One cell gets another owner.
///
/// Encoded as `[slot, position, from, to]` without names, since a first table has thousands; 0 is
/// no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u8, u32, u32)", into = "(u32, u8, u32, u32)")]
pub struct Move {
    /// The row.
    pub slot: Slot,
    /// The cell of the row, below the table's number of replicas.
    pub position: u8,
    /// Who owns it so far; none if the table does not have this cell yet.
    pub from: Option<NodeNumber>,
    /// Who shall own it.
    pub to: NodeNumber,
}

impl From<(u32, u8, u32, u32)> for Move {
    fn from((slot, position, from, to): (u32, u8, u32, u32)) -> Self {
        let from = (from != 0).then_some(NodeNumber(from));
        Self { slot: Slot(slot), position, from, to: NodeNumber(to) }
    }
}

impl From<Move> for (u32, u8, u32, u32) {
    fn from(to: Move) -> Self {
        (to.slot.0, to.position, to.from.map_or(0, |from| from.0), to.to.0)
    }
}

/// Why moves do not fit a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MoveFault {
    /// No such row or position.
    #[error("there is no position {position} of slot {}", slot.0)]
    OutOfTable {
        /// The row.
        slot: Slot,
        /// The cell.
        position: u8,
    },
    /// A cell is named twice.
    #[error("position {position} of slot {} is moved twice", slot.0)]
    Repeated {
        /// The row.
        slot: Slot,
        /// The cell.
        position: u8,
    },
    /// The cell is not owned by whom the move takes it from, or would not change.
    #[error("position {position} of slot {} is owned by {owner:?}", slot.0)]
    WrongOwner {
        /// The row.
        slot: Slot,
        /// The cell.
        position: u8,
        /// Who owns it.
        owner: Option<NodeNumber>,
    },
    /// Cells of a first plan, or of one for more replicas, stay without an owner.
    #[error("{cells} cells get no owner")]
    Incomplete {
        /// How many.
        cells: u32,
    },
    /// Replicas can be added, not taken away.
    #[error("a table does not get fewer replicas")]
    FewerReplicas,
}

impl Table {
    /// How many nodes own each slot; none while the table is empty.
    pub fn replicas(&self) -> Option<ReplicaCount> {
        self.replicas
    }

    /// True until the first plan.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The owners of a slot, the preferred coordinator first; none if the table is empty.
    pub fn owners(&self, slot: Slot) -> &[NodeNumber] {
        let width = self.width();
        let start = slot.index() * width;
        self.cells.get(start..start + width).unwrap_or_default()
    }

    /// True if the node owns the slot.
    pub fn owns(&self, node: NodeNumber, slot: Slot) -> bool {
        self.owners(slot).contains(&node)
    }

    /// The rows in order of slots.
    pub fn rows(&self) -> impl Iterator<Item = (Slot, &[NodeNumber])> {
        (0..).map(Slot).zip(self.cells.chunks_exact(self.width().max(1)))
    }

    /// All cells, row by row.
    pub fn cells(&self) -> &[NodeNumber] {
        &self.cells
    }

    /// How many slots each node owns; nodes without any are left out.
    pub fn slots_of_nodes(&self) -> BTreeMap<NodeNumber, u32> {
        let mut counts = BTreeMap::new();
        for &node in &self.cells {
            *counts.entry(node).or_default() += 1;
        }
        counts
    }

    /// True if the node owns any slot.
    pub fn holds_any(&self, node: NodeNumber) -> bool {
        self.cells.contains(&node)
    }

    /// The table after some moves, with `replicas` owners of each slot.
    pub fn moved(&self, slots: SlotCount, replicas: ReplicaCount, moves: &[Move]) -> Result<Self, MoveFault> {
        if self.replicas.is_some_and(|own| own > replicas) {
            return Err(MoveFault::FewerReplicas);
        }
        let width = replicas.as_len();
        let mut cells: Vec<Option<NodeNumber>> = Vec::with_capacity(slots.as_len() * width);
        for slot in slots.slots() {
            let owners = self.owners(slot);
            cells.extend((0..width).map(|position| owners.get(position).copied()));
        }
        let mut touched = vec![false; cells.len()];
        for &Move { slot, position, from, to } in moves {
            if slot.0 >= slots.get() || position >= replicas.get() {
                return Err(MoveFault::OutOfTable { slot, position });
            }
            let index = slot.index() * width + usize::from(position);
            if std::mem::replace(&mut touched[index], true) {
                return Err(MoveFault::Repeated { slot, position });
            }
            let owner = cells[index].replace(to);
            if owner != from || owner == Some(to) {
                return Err(MoveFault::WrongOwner { slot, position, owner });
            }
        }
        let unowned = cells.iter().filter(|cell| cell.is_none()).count();
        if unowned > 0 {
            return Err(MoveFault::Incomplete { cells: unowned as u32 });
        }
        Ok(Self { replicas: Some(replicas), cells: cells.into_iter().flatten().collect() })
    }

    fn width(&self) -> usize {
        self.replicas.map_or(0, ReplicaCount::as_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: u8) -> ReplicaCount {
        ReplicaCount::new(count).expect("a test's number of replicas is allowed")
    }

    fn at(slot: u32, position: u8, from: Option<u32>, to: u32) -> Move {
        Move { slot: Slot(slot), position, from: from.map(NodeNumber), to: NodeNumber(to) }
    }

    /// Every row is owned by nodes 1 to `width`.
    fn first_moves(width: u8) -> Vec<Move> {
        (0..256).flat_map(|slot| (0..width).map(move |p| at(slot, p, None, u32::from(p) + 1))).collect()
    }

    #[test]
    fn moves_are_checked_one_by_one() {
        let full =
            Table::default().moved(SlotCount::MIN, replicas(2), &first_moves(2)).expect("all cells are set");
        let check = |moves: &[Move], expected: Result<[u32; 2], MoveFault>| {
            let found = full.moved(SlotCount::MIN, replicas(2), moves);
            let owners = found.map(|table| table.owners(Slot(5)).to_vec());
            assert_eq!(owners, expected.map(|owners| owners.map(NodeNumber).to_vec()), "{moves:?}");
        };
        let (slot, owner) = (Slot(5), |number| Some(NodeNumber(number)));
        check(&[], Ok([1, 2]));
        check(&[at(5, 1, Some(2), 3)], Ok([1, 3]));
        check(&[at(5, 0, Some(1), 4), at(5, 1, Some(2), 3)], Ok([4, 3]));
        check(&[at(5, 2, None, 3)], Err(MoveFault::OutOfTable { slot, position: 2 }));
        check(&[at(256, 0, Some(1), 3)], Err(MoveFault::OutOfTable { slot: Slot(256), position: 0 }));
        check(
            &[at(u32::MAX, 255, Some(1), 3)],
            Err(MoveFault::OutOfTable { slot: Slot(u32::MAX), position: 255 }),
        );
        check(&[at(5, 0, Some(1), 4), at(5, 0, Some(4), 3)], Err(MoveFault::Repeated { slot, position: 0 }));
        check(&[at(5, 0, Some(2), 4)], Err(MoveFault::WrongOwner { slot, position: 0, owner: owner(1) }));
        check(&[at(5, 0, None, 4)], Err(MoveFault::WrongOwner { slot, position: 0, owner: owner(1) }));
        check(&[at(5, 0, Some(1), 1)], Err(MoveFault::WrongOwner { slot, position: 0, owner: owner(1) }));
        assert_eq!(full.moved(SlotCount::MIN, replicas(1), &[]), Err(MoveFault::FewerReplicas));
        assert_eq!(
            Table::default().moved(SlotCount::MIN, replicas(2), &first_moves(2)[1..]),
            Err(MoveFault::Incomplete { cells: 1 })
        );
    }

    /// Frozen: logs and snapshots hold it.
    #[test]
    fn moves_are_encoded_without_names() {
        let moves = [at(7, 2, None, 3), at(4095, 0, Some(12), 1)];
        let encoded = serde_json::to_string(&moves).expect("moves are numbers");
        assert_eq!(encoded, "[[7,2,0,3],[4095,0,12,1]]");
        assert_eq!(serde_json::from_str::<[Move; 2]>(&encoded).expect("it was encoded"), moves);
    }
}
