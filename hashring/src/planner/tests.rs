use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

mod figures;
mod histories;

const RF3: u8 = 3;

fn replicas(count: u8) -> ReplicaCount {
    ReplicaCount::new(count).expect("a test's number of replicas is allowed")
}

/// Nodes 1 to `count`, dealt to zones.
fn members(count: u32, zones: &[&str]) -> Vec<Member> {
    (1..=count).map(|number| member(number, zones[(number as usize - 1) % zones.len()], 1)).collect()
}

fn member(number: u32, zone: &str, weight: u32) -> Member {
    let weight = Weight::new(weight).expect("a test's weight is not zero");
    Member { number: NodeNumber(number), zone: zone.to_owned(), weight }
}

fn request<'a>(table: &'a Table, members: &'a [Member]) -> Request<'a> {
    Request {
        table,
        slots: SlotCount::DEFAULT,
        replicas: replicas(RF3),
        allow_degraded: false,
        members,
        goal: Goal::Settle,
    }
}

fn apply(request: &Request<'_>, plan: &Plan) -> Table {
    request.table.moved(request.slots, plan.replicas, &plan.moves).expect("a plan fits its table")
}

/// The table after a plan, and its number of moves.
fn settled(table: &Table, members: &[Member]) -> (Table, usize) {
    let request = request(table, members);
    let plan = plan(&request).expect("there are nodes enough");
    (apply(&request, &plan), plan.moves.len())
}

#[test]
fn too_few_nodes_are_refused_unless_allowed() {
    let empty = Table::default();
    let three = members(3, &["a", "b", "c"]);
    let (full, _) = settled(&empty, &three);
    let check = |table: &Table, count: usize, allow_degraded, expected: Result<u8, PlanError>| {
        let members = &three[..count];
        let found =
            plan(&Request { allow_degraded, ..request(table, members) }).map(|plan| plan.replicas.get());
        assert_eq!(found, expected, "{count} nodes, degraded {allow_degraded}");
    };
    check(&empty, 3, false, Ok(3));
    check(&empty, 2, false, Err(PlanError::TooFewNodes { members: 2, needed: 3 }));
    check(&empty, 2, true, Ok(2));
    check(&empty, 1, true, Ok(1));
    check(&empty, 0, true, Err(PlanError::TooFewNodes { members: 0, needed: 1 }));
    // Once there are three, there are three.
    check(&full, 2, true, Err(PlanError::TooFewNodes { members: 2, needed: 3 }));
    let twice = [three[0].clone(), three[1].clone(), three[0].clone(), three[2].clone()];
    assert_eq!(plan(&request(&empty, &twice)), Err(PlanError::Repeated(NodeNumber(1))));
    let fewer = Request { replicas: replicas(2), ..request(&full, &three) };
    assert_eq!(plan(&fewer), Err(PlanError::FewerReplicas));
}

#[test]
fn a_degraded_table_grows_to_the_wanted_replicas() {
    let empty = Table::default();
    let all = members(4, &[""]);
    let one = Request { allow_degraded: true, ..request(&empty, &all[..1]) };
    let table = apply(&one, &plan(&one).expect("degraded is allowed"));
    assert_eq!(table.slots_of_nodes(), BTreeMap::from([(NodeNumber(1), 4096)]));
    let all = request(&table, &all);
    let wider = plan(&all).expect("there are nodes enough");
    assert_eq!(wider.waves(256).len(), 1, "cells are added at once");
    let wider = apply(&all, &wider);
    assert_eq!(wider.replicas(), Some(replicas(3)));
    assert_eq!(wider.slots_of_nodes().len(), 4);
}

#[test]
fn waves_keep_rows_whole_and_lead_to_the_same_table() {
    let (table, _) = settled(&Table::default(), &members(9, &["a", "b", "c"]));
    // Two zones lose a node each, so some rows change twice.
    let rest: Vec<Member> =
        members(9, &["a", "b", "c"]).into_iter().filter(|m| ![4, 8].contains(&m.number.0)).collect();
    let request = request(&table, &rest);
    let plan = plan(&request).expect("there are nodes enough");
    assert_eq!(plan.moves.len(), 2 * 1365);
    for moves_max in [1, 2, 100, 256, 100_000] {
        let waves = plan.waves(moves_max);
        assert_eq!(waves.concat(), plan.moves);
        let mut seen = BTreeSet::new();
        for wave in &waves {
            let slots: BTreeSet<Slot> = wave.iter().map(|to| to.slot).collect();
            assert!(slots.iter().all(|&slot| seen.insert(slot)), "a row in two waves");
            assert!(wave.len() <= moves_max || slots.len() == 1);
        }
        if moves_max == 100_000 {
            assert_eq!(waves.len(), 1);
        }
    }
    assert!(Plan { moves: Vec::new(), ..plan }.waves(100).is_empty());
}

/// Whoever plans again after each wave needs no more moves than whoever carries one plan out.
#[test]
fn planning_again_after_each_wave_costs_nothing() {
    let (mut table, _) = settled(&Table::default(), &members(9, &["a", "b", "c"]));
    let more = members(12, &["a", "b", "c"]);
    let (at_once, moves_at_once) = settled(&table, &more);
    let mut moves = 0;
    for _ in 0..100 {
        let request = request(&table, &more);
        let plan = plan(&request).expect("there are nodes enough");
        let Some(wave) = plan.waves(256).first().copied() else { break };
        moves += wave.len();
        table = table.moved(request.slots, plan.replicas, wave).expect("a wave fits its table");
    }
    assert_eq!(moves, moves_at_once);
    assert_eq!(table.slots_of_nodes(), at_once.slots_of_nodes());
    assert_eq!(Grouping::of(&table).replica_sets, Grouping::of(&at_once).replica_sets);
}

/// Each node is the preferred coordinator of about its share of slots.
#[test]
fn positions_are_even() {
    for zones in [&["a", "b", "c"][..], &[""]] {
        let (table, _) = settled(&Table::default(), &members(9, zones));
        let mut first = BTreeMap::<NodeNumber, u32>::new();
        table.rows().for_each(|(_, owners)| *first.entry(owners[0]).or_default() += 1);
        assert!(first.values().all(|count| (450..=460).contains(count)), "{first:?}");
    }
}

/// Frozen, so that a change of the planner is seen as one: clusters take any plan that is valid.
#[test]
fn golden_table() {
    let (table, _) = settled(&Table::default(), &members(9, &["a", "b", "c"]));
    let (table, _) = settled(&table, &members(11, &["a", "b", "c"]));
    let digest = |table: &Table| {
        let cells: Vec<u8> = table.cells().iter().flat_map(|node| node.0.to_le_bytes()).collect();
        xxh3_64(&cells)
    };
    assert_eq!(digest(&table), 1_619_103_759_775_275_532);
}
