//! Waves of moves after which nodes have about as many slots as before.
//!
//! Forming replica groups anew ends with as many slots for each node as there were, but in between
//! some have more and some fewer. The leader mends that, and its moves are lost work. So a wave is made of
//! rows that together take as much from each node as they give to it, or nearly: exactly, it is
//! often impossible with fewer than most of the rows. Some moves in a hundred are mended that way.

use std::collections::BTreeMap;

use weir_hashring::{
    ids::NodeNumber,
    table::{Move, Table},
};

/// What rows give to nodes, less what they take; nodes that have as many as before are left out.
type Balance = BTreeMap<NodeNumber, i64>;

/// The moves from one table to another of the same size.
pub fn moves_between(from: &Table, to: &Table) -> Vec<Move> {
    let rows = from.rows().zip(to.rows());
    let of_row = |((slot, owners), (_, wanted)): ((_, &[NodeNumber]), (_, &[NodeNumber]))| {
        let cells = (0..).zip(owners.iter().copied().zip(wanted.iter().copied()));
        let moves = cells.filter(|(_, (from, to))| from != to);
        moves.map(|(position, (from, to))| Move { slot, position, from: Some(from), to }).collect::<Vec<_>>()
    };
    rows.flat_map(of_row).collect()
}

/// A wave of at most `moves_max` of the moves, or of one row if that has more. Rows are not cut apart.
pub fn balanced_wave(moves: &[Move], moves_max: usize) -> Vec<Move> {
    let mut rows = Rows::new(moves);
    let (mut wave, mut total) = (Vec::new(), Balance::new());
    // Where the wave may end, and how far from balance it is there.
    let (mut end, mut least) = (0, u64::MAX);
    while let Some((kind, row)) = rows.take_next(&total) {
        if !wave.is_empty() && wave.len() + row.len() > moves_max {
            wave.truncate(end);
            return wave;
        }
        wave.extend_from_slice(row);
        total = sum(&total, &kind);
        // A wave of less than half its size is not worth its pause.
        if (wave.len() * 2 >= moves_max && distance(&total) <= least) || end == 0 {
            (end, least) = (wave.len(), if wave.len() * 2 < moves_max { u64::MAX } else { distance(&total) });
        }
    }
    wave
}

/// All waves, if nobody else moves anything.
pub fn balanced_waves(moves: &[Move], moves_max: usize) -> Vec<Vec<Move>> {
    let mut left = moves.to_vec();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let wave = balanced_wave(&left, moves_max);
        let taken: std::collections::BTreeSet<Move> = wave.iter().copied().collect();
        left.retain(|moved| !taken.contains(moved));
        waves.push(wave);
    }
    waves
}

/// Rows that are left, those of the same balance together: there are few of these, as whole groups of
/// nodes change places.
struct Rows<'a>(BTreeMap<Balance, Vec<&'a [Move]>>);

impl<'a> Rows<'a> {
    fn new(moves: &'a [Move]) -> Self {
        let mut rows: BTreeMap<Balance, Vec<&[Move]>> = BTreeMap::new();
        for row in moves.chunk_by(|a, b| a.slot == b.slot) {
            rows.entry(balance(row)).or_default().push(row);
        }
        Self(rows)
    }

    /// Takes a row that brings a set to balance, or else one after which there is such a row, or else
    /// one that brings it closest; of these, one that takes from who has most too many.
    fn take_next(&mut self, total: &Balance) -> Option<(Balance, &'a [Move])> {
        let kind = self.next(total)?;
        let rows = self.0.get_mut(&kind)?;
        let row = rows.pop()?;
        if rows.is_empty() {
            self.0.remove(&kind);
        }
        Some((kind, row))
    }

    fn next(&self, total: &Balance) -> Option<Balance> {
        let opposite = negative(total);
        if self.0.contains_key(&opposite) {
            return Some(opposite);
        }
        let richest = total.iter().max_by_key(|(_, gain)| **gain).map(|(&node, _)| node);
        let takes =
            |kind: &&Balance| richest.and_then(|richest| kind.get(&richest)).is_some_and(|gain| *gain < 0);
        let rank = |kind: &&Balance| {
            let with = sum(total, kind);
            (!self.0.contains_key(&negative(&with)), distance(&with))
        };
        let found = self.0.keys().filter(takes).min_by_key(rank);
        found.or_else(|| self.0.keys().next()).cloned()
    }
}

fn balance(row: &[Move]) -> Balance {
    let mut balance = Balance::new();
    for moved in row {
        *balance.entry(moved.to).or_default() += 1;
        if let Some(from) = moved.from {
            *balance.entry(from).or_default() -= 1;
        }
    }
    balance.retain(|_, gain| *gain != 0);
    balance
}

fn negative(balance: &Balance) -> Balance {
    balance.iter().map(|(&node, gain)| (node, -gain)).collect()
}

fn sum(one: &Balance, other: &Balance) -> Balance {
    let mut sum = one.clone();
    for (&node, gain) in other {
        *sum.entry(node).or_default() += gain;
    }
    sum.retain(|_, gain| *gain != 0);
    sum
}

fn distance(balance: &Balance) -> u64 {
    balance.values().map(|gain| gain.unsigned_abs()).sum()
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use weir_hashring::ids::Slot;

    use super::*;

    fn row(slot: u32, changes: &[(u32, u32)]) -> Vec<Move> {
        let moved = |(position, &(from, to)): (u8, &(u32, u32))| Move {
            slot: Slot(slot),
            position,
            from: Some(NodeNumber(from)),
            to: NodeNumber(to),
        };
        (0_u8..).zip(changes).map(moved).collect()
    }

    fn slots(wave: &[Move]) -> BTreeSet<u32> {
        wave.iter().map(|moved| moved.slot.0).collect()
    }

    #[test]
    fn rows_that_are_in_balance_go_together() {
        // Two by two, and three.
        let changes =
            [&[(1, 2)][..], &[(3, 4)], &[(5, 6), (7, 8)], &[(2, 1)], &[(6, 5), (8, 7)], &[(4, 9)], &[(9, 3)]];
        let moves: Vec<Move> = (0..).zip(changes).flat_map(|(slot, changes)| row(slot, changes)).collect();
        let waves: BTreeSet<BTreeSet<u32>> =
            balanced_waves(&moves, 4).iter().map(|wave| slots(wave)).collect();
        let found = waves.iter().map(|wave| wave.iter().copied().collect::<Vec<_>>());
        assert_eq!(found.collect::<Vec<_>>(), [vec![0, 3], vec![1, 5, 6], vec![2, 4]]);
        for wave in balanced_waves(&moves, 4) {
            assert_eq!(balance(&wave), Balance::new());
        }
        assert_eq!(balanced_wave(&row(0, &[(1, 2), (3, 4)]), 1).len(), 2, "a row is not cut apart");
    }

    proptest! {
        #[test]
        fn waves_are_all_moves_and_no_row_is_cut(
            rows in proptest::collection::vec(proptest::collection::btree_map(1_u32..9, 1_u32..9, 1..4), 0..40),
            moves_max in 1_usize..20,
        ) {
            let changes = rows.iter().map(|row| row.iter().map(|(&from, &to)| (from, to)).collect::<Vec<_>>());
            let moves: Vec<Move> = (0..).zip(changes).flat_map(|(slot, changes)| row(slot, &changes)).collect();
            let waves = balanced_waves(&moves, moves_max);
            let mut all = waves.concat();
            all.sort_unstable();
            prop_assert_eq!(all, moves);
            let mut seen = BTreeSet::new();
            for wave in &waves {
                prop_assert!(wave.len() <= moves_max || slots(wave).len() == 1, "{wave:?}");
                prop_assert!(slots(wave).into_iter().all(|slot| seen.insert(slot)), "a row is in two waves");
            }
        }
    }
}
