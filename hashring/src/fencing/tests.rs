use proptest::prelude::*;

use super::*;
use crate::{
    ids::{NodeNumber, PlanId, PoolName, ReplicaCount, TenantName, TenantSlots},
    ring::{
        Command, PlanCommand, Setting,
        tests::{cluster_of, registration, set_state, settle},
    },
    table::Move,
};

const OWN: Uid = Uid(1);
const MINE: NodeNumber = NodeNumber(1);

/// Gives some cells of slots to other nodes, one epoch.
fn moved(state: &mut RingState, moves: Vec<Move>) {
    let plan = PlanCommand {
        pool: PoolName::from(PoolName::DEFAULT),
        base_epoch: state.epoch(),
        replicas: ReplicaCount::new(3).expect("3 is allowed"),
        degraded: false,
        moves,
        reason: "test".to_owned(),
        plan_id: PlanId(u128::from(state.epoch().0)),
    };
    state.apply(&Command::ApplyPlan(plan)).expect("the plan is valid");
}

/// Swaps the owner of a slot, from node 1 to node 4 or back: both are in zone a.
fn swap(state: &mut RingState, slot: Slot) {
    let table = &state.mapping().pools[&PoolName::from(PoolName::DEFAULT)].table;
    let is_either = |node: &&NodeNumber| [NodeNumber(1), NodeNumber(4)].contains(node);
    let (position, from) =
        (0..).zip(table.owners(slot)).find(|(_, node)| is_either(node)).expect("zone a has two");
    let to = NodeNumber(5 - from.0);
    moved(state, vec![Move { slot, position, from: Some(*from), to }]);
}

/// Raises the epoch without any move.
fn pass_epoch(state: &mut RingState) {
    let slots = Setting::Set(TenantSlots::new(1 + state.epoch().0 as u32).expect("it is not zero"));
    let tenant = TenantName::from("t");
    let command = Command::SetTenant { tenant, pool: Setting::Keep, slots, limits: Setting::Keep };
    state.apply(&command).expect("the number of slots is allowed");
}

fn owns(state: &RingState, slot: Slot) -> bool {
    state.mapping().pools[&PoolName::from(PoolName::DEFAULT)].table.owns(MINE, slot)
}

fn fence(state: &RingState) -> Fence {
    Fence::new(state, OWN, false).expect("it is founded")
}

/// Every combination of what counts: how far sender and receiver are apart, whether the epoch is too old
/// for writes, whether the receiver is closed, and whether the digest is right.
#[test]
fn all_cases() {
    let mut cases = 0;
    for age in [0_u64, 1, 7, 8, 20] {
        for (below_min, closed, wrong_digest) in (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
        {
            let sender = cluster_of(6);
            let mut receiver = sender.clone();
            for step in 0..age {
                if step % 2 == 0 { swap(&mut receiver, Slot(0)) } else { pass_epoch(&mut receiver) }
            }
            let mut digest = sender.digest();
            digest.0 ^= u64::from(wrong_digest);
            let mut fence = Fence::new(&receiver, OWN, closed).expect("it is founded");
            fence.min_write_epoch = RingEpoch(sender.epoch().0 + u64::from(below_min));

            let is_known = age < 8;
            let expected = if wrong_digest && is_known {
                Verdict::DigestMismatch
            } else if !is_known || below_min || closed {
                Verdict::StaleRing { epoch: receiver.epoch() }
            } else {
                Verdict::Accept
            };
            let case = (age, below_min, closed, wrong_digest);
            assert_eq!(fence.judge(sender.epoch(), digest), expected, "{case:?}");
            let ahead = receiver.epoch().next();
            assert_eq!(fence.judge(ahead, digest), Verdict::RingBehind, "{case:?}");
            cases += 1;
        }
    }
    assert_eq!(cases, 5 * 8);
}

#[test]
fn writes_of_epochs_before_a_node_went_are_refused() {
    let mut state = cluster_of(6);
    let before = (state.epoch(), state.digest());
    state.apply(&Command::RegisterNode(registration(7))).expect("the node is new");
    state
        .apply(&Command::ReplaceNode { dead: Uid(4), new: Uid(7), force: false, at: None })
        .expect("both are in zone a");
    assert_eq!(fence(&state).judge(before.0, before.1), Verdict::StaleRing { epoch: state.epoch() });
    assert_eq!(fence(&state).judge(state.epoch(), state.digest()), Verdict::Accept);
}

/// A draining node takes what is on its way until it is closed. When it has said that it can be deleted it
/// takes nothing, by no ring that it knows, from its start on.
#[test]
fn who_drains_takes_what_is_on_its_way_and_who_has_drained_takes_nothing() {
    let mut state = cluster_of(6);
    let before = (state.epoch(), state.digest());
    state.apply(&set_state(1, NodeState::Active, NodeState::Draining)).expect("it is Active");
    settle(&mut state, 100_000);
    let after = (state.epoch(), state.digest());
    assert_ne!(before, after);
    let stale = Verdict::StaleRing { epoch: state.epoch() };
    for (epoch, digest) in [before, after] {
        let mut fence = fence(&state);
        assert_eq!(fence.judge(epoch, digest), Verdict::Accept);
        fence.set_closed(true);
        assert_eq!(fence.judge(epoch, digest), stale);
    }
    state.apply(&set_state(1, NodeState::Draining, NodeState::Drained)).expect("it holds no slots");
    for (epoch, digest) in [before, after] {
        assert_eq!(fence(&state).judge(epoch, digest), stale);
    }
}

#[test]
fn who_is_not_of_the_cluster_takes_and_owns_nothing() {
    assert!(Fence::new(&RingState::default(), OWN, false).is_none());
    let mut state = cluster_of(6);
    let takes_nothing = |state: &RingState, uid| {
        let fence = Fence::new(state, Uid(uid), false).expect("it is founded");
        let stale = Verdict::StaleRing { epoch: state.epoch() };
        assert_eq!(fence.judge(state.epoch(), state.digest()), stale);
        assert!((0..256).all(|slot| !fence.owns(Slot(slot))));
    };
    takes_nothing(&state, 99);
    // A lost node is named in tables, but is not to take anything.
    for uid in 1..=6 {
        let lost = set_state(uid, NodeState::Active, NodeState::Lost);
        state.apply(&lost).expect("it is Active");
        takes_nothing(&state, uid);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A fence takes what was split by any of the epochs that are kept, and owns what the last one says.
    #[test]
    fn the_past_is_known(slots in proptest::collection::vec(0..256_u32, 1..12)) {
        let mut states = vec![cluster_of(6)];
        for slot in slots {
            let mut state = states[states.len() - 1].clone();
            swap(&mut state, Slot(slot));
            states.push(state);
        }
        let last = &states[states.len() - 1];
        let fence = fence(last);
        for (age, then) in states.iter().rev().enumerate() {
            let is_taken = fence.judge(then.epoch(), then.digest()) == Verdict::Accept;
            prop_assert_eq!(is_taken, age < RingState::EPOCHS_KEPT, "{} epochs ago", age);
        }
        for slot in (0..256).map(Slot) {
            prop_assert_eq!(fence.owns(slot), owns(last, slot), "{:?}", slot);
        }
        prop_assert!(!fence.owns(Slot(1 << 20)));
    }
}
