//! The figures that speak for a table: movement, balance, grouping.

use super::*;

const ZONES: [&str; 3] = ["a", "b", "c"];

/// Where there are no zones, the same comes of virtual columns.
const BOTH: [&[&str]; 2] = [&ZONES, &[""]];

fn moved_share(moves: usize) -> f64 {
    moves as f64 / (3.0 * 4096.0)
}

fn max_to_mean(table: &Table) -> f64 {
    let counts = table.slots_of_nodes();
    let max = counts.values().copied().max().unwrap_or(0);
    f64::from(max) * counts.len() as f64 / table.cells().len() as f64
}

/// The share of pairs of nodes that stop writes if both are dead.
fn deadly_share(table: &Table) -> f64 {
    let grouping = Grouping::of(table);
    grouping.sharing_pairs as f64 / grouping.pairs as f64
}

fn close(found: f64, expected: f64, by: f64) {
    assert!((found - expected).abs() <= by, "{found}, not {expected}");
}

#[test]
fn first_tables_are_groups_of_three() {
    for zones in BOTH {
        for (count, share) in [(9, 0.25), (30, 0.069), (99, 0.0204)] {
            let (table, _) = settled(&Table::default(), &members(count, zones));
            let grouping = Grouping::of(&table);
            assert_eq!(grouping.replica_sets, count as usize / 3);
            assert_eq!(grouping.sharing_pairs, count as usize);
            close(deadly_share(&table), share, 0.0005);
            close(max_to_mean(&table), 1.0, 0.008);
        }
    }
}

#[test]
fn one_of_thirty_moves_its_share() {
    for zones in BOTH {
        let (table, _) = settled(&Table::default(), &members(30, zones));
        let (added, moves) = settled(&table, &members(31, zones));
        close(moved_share(moves), 0.030, 0.001);
        close(max_to_mean(&added), 31.0 / 30.0, 0.005);
        let mut fewer = members(30, zones);
        fewer.remove(15);
        let (removed, moves) = settled(&table, &fewer);
        close(moved_share(moves), 0.0335, 0.0005);
        // Nine nodes share what the others of three zones share among ten.
        close(max_to_mean(&removed), 29.0 / 27.0, 0.005);
    }
}

/// Node by node from 3 to 102, then 30 leave at random, then groups are formed anew.
#[test]
fn growth_keeps_groups_and_removals_are_repaired() {
    for zones in BOTH {
        let (mut table, _) = settled(&Table::default(), &members(3, zones));
        let (mut moves, mut least) = (0.0, 0.0);
        for count in 4..=102 {
            let of_column =
                members(count, &ZONES).iter().filter(|m| m.zone == ZONES[(count as usize - 1) % 3]).count();
            // What the new node takes from the others of its zone or column.
            least += 4096.0 / of_column as f64;
            let (next, moved) = settled(&table, &members(count, zones));
            moves += moved as f64;
            table = next;
            if count % 3 == 0 {
                assert_eq!(Grouping::of(&table).replica_sets, count as usize / 3, "grown to {count}");
            }
        }
        close(moves / least, 1.0, 0.01);
        close(max_to_mean(&table), 1.0, 0.013);

        let mut left = members(102, zones);
        let mut chance = 1_u64;
        for _ in 0..30 {
            chance = xxh3_64(&chance.to_le_bytes());
            left.remove((chance % left.len() as u64) as usize);
            table = settled(&table, &left).0;
        }
        close(deadly_share(&table), 0.37, 0.03);
        let regroup = Request { goal: Goal::Regroup, ..request(&table, &left) };
        let plan = plan(&regroup).expect("there are nodes enough");
        let table = apply(&regroup, &plan);
        assert!(deadly_share(&table) < 0.06, "{:?}", Grouping::of(&table));
        assert!(moved_share(plan.moves.len()) < 0.6);
    }
}

#[test]
fn weights_are_followed() {
    let members: Vec<Member> = (1..=30).map(|n| member(n, ZONES[n as usize % 3], 1 + n % 2)).collect();
    let (table, _) = settled(&Table::default(), &members);
    for (number, count) in table.slots_of_nodes() {
        let quota = 4096.0 * f64::from(1 + number.0 % 2) / 15.0;
        close(f64::from(count), quota, 1.0);
    }
}

/// More zones than replicas: no zone has to own every slot, and nodes are even over all of them.
#[test]
fn five_zones_are_even() {
    let zones = ["a", "b", "c", "d", "e"];
    let (table, _) = settled(&Table::default(), &members(32, &zones));
    close(max_to_mean(&table), 1.0, 0.003);
    let (table, moves) = settled(&table, &members(33, &zones));
    close(max_to_mean(&table), 1.0, 0.003);
    // Some cells are passed on by others, as the row of most donors has the new node's zone.
    assert!(moved_share(moves) < 1.5 / 33.0, "{}", moved_share(moves));
}
