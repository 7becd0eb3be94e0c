use proptest::prelude::*;

use super::*;
use crate::{
    ids::{PlanId, PoolName, ReplicaCount, TenantName, TenantSlots},
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

fn header(state: &RingState, slot: Slot) -> BatchHeader {
    let cluster = state.cluster().expect("it is founded").id;
    BatchHeader { cluster, target: OWN, epoch: state.epoch(), digest: state.digest(), slot }
}

/// Every combination of what counts: how far sender and receiver are apart, whether the receiver owned
/// the slot then and owns it now, whether the epoch is too old for writes, whether the receiver is
/// closed, and whether the digest is right.
#[test]
fn all_cases() {
    let mut cases = 0;
    for age in [0_u64, 1, 7, 8, 20] {
        for (owned, owns_now) in [(false, false), (false, true), (true, false), (true, true)] {
            for (below_min, closed, wrong_digest) in
                (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
            {
                if age == 0 && (owned != owns_now || below_min) {
                    continue;
                }
                let mut sender = cluster_of(6);
                let slot = (0..256)
                    .map(Slot)
                    .find(|&slot| owns(&sender, slot) == owned)
                    .expect("it owns some, not all");
                pass_epoch(&mut sender);
                let mut receiver = sender.clone();
                for step in 0..age {
                    if step == 0 && owned != owns_now {
                        swap(&mut receiver, slot);
                    } else {
                        pass_epoch(&mut receiver);
                    }
                }
                let mut batch = header(&sender, slot);
                if wrong_digest {
                    batch.digest.0 ^= 1;
                }
                let mut fence = Fence::new(&receiver, OWN, closed).expect("it is founded");
                fence.min_write_epoch = RingEpoch(batch.epoch.0 + u64::from(below_min));

                let digest_is_known = age < 8;
                let expected = if wrong_digest && digest_is_known {
                    Verdict::DigestMismatch
                } else if age == 0 {
                    if owned && !closed { Verdict::Accept } else { Verdict::NotOwner }
                } else if !below_min && !closed && (owns_now || (owned && digest_is_known)) {
                    Verdict::Accept
                } else {
                    Verdict::StaleRing { epoch: receiver.epoch() }
                };
                let case = (age, owned, owns_now, below_min, closed, wrong_digest);
                assert_eq!(fence.judge(&batch), expected, "{case:?}");

                // Without the slot: what a sender that chose rightly may write, and nothing of epochs
                // that are forgotten.
                let by_epoch = fence.judge_epoch(batch.epoch, batch.digest);
                assert_eq!(
                    by_epoch,
                    match expected {
                        Verdict::DigestMismatch => Verdict::DigestMismatch,
                        _ if !digest_is_known || below_min || closed =>
                            Verdict::StaleRing { epoch: receiver.epoch() },
                        _ => Verdict::Accept,
                    },
                    "{case:?}"
                );
                let ahead = receiver.epoch().next();
                assert_eq!(fence.judge_epoch(ahead, batch.digest), Verdict::RingBehind, "{case:?}");
                assert_eq!(fence.owns(slot), owns_now, "{case:?}");

                // Whatever else is so.
                let other = BatchHeader { cluster: ClusterId([9; 16]), ..batch };
                assert_eq!(fence.judge(&other), Verdict::WrongCluster, "{case:?}");
                let other = BatchHeader { target: Uid(2), ..batch };
                assert_eq!(fence.judge(&other), Verdict::WrongTarget, "{case:?}");
                let ahead = BatchHeader { epoch: receiver.epoch().next(), ..batch };
                assert_eq!(fence.judge(&ahead), Verdict::RingBehind, "{case:?}");
                let beyond = BatchHeader { slot: Slot(1 << 20), ..batch };
                assert_ne!(fence.judge(&beyond), Verdict::Accept, "{case:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 4 + 4 * 4 * 8);
}

#[test]
fn writes_of_epochs_before_a_node_went_are_refused() {
    let mut state = cluster_of(6);
    let slot = (0..256).map(Slot).find(|&slot| owns(&state, slot)).expect("it owns some");
    let before = header(&state, slot);
    let new = registration(7);
    state.apply(&Command::RegisterNode(new)).expect("the node is new");
    state
        .apply(&Command::ReplaceNode { dead: Uid(4), new: Uid(7), force: false, at: None })
        .expect("both are in zone a");
    let judge =
        |state: &RingState, batch| Fence::new(state, OWN, false).expect("it is founded").judge(&batch);
    assert_eq!(judge(&state, before), Verdict::StaleRing { epoch: RingEpoch(3) });
    assert_eq!(judge(&state, header(&state, slot)), Verdict::Accept);
}

/// A draining node takes what is on its way until it is closed.
#[test]
fn a_draining_node_takes_what_is_on_its_way() {
    use NodeState::{Active, Draining};
    let mut state = cluster_of(6);
    let slot = (0..256).map(Slot).find(|&slot| owns(&state, slot)).expect("it owns some");
    let before = header(&state, slot);
    state.apply(&set_state(1, Active, Draining)).expect("it is Active");
    settle(&mut state, 64);
    let judge = |closed| Fence::new(&state, OWN, closed).expect("it is founded").judge(&before);
    assert_eq!(judge(false), Verdict::Accept);
    assert_eq!(judge(true), Verdict::StaleRing { epoch: state.epoch() });
}

#[test]
fn who_is_not_of_the_cluster_owns_nothing() {
    assert!(Fence::new(&RingState::default(), OWN, false).is_none());
    let mut state = cluster_of(6);
    let batch = |state: &RingState, uid| BatchHeader { target: Uid(uid), ..header(state, Slot(0)) };
    let stranger = Fence::new(&state, Uid(99), false).expect("it is founded");
    assert_eq!(stranger.judge(&batch(&state, 99)), Verdict::NotOwner);
    // A lost node is named in tables, but is not to take anything.
    for uid in 1..=6 {
        let lost = set_state(uid, NodeState::Active, NodeState::Lost);
        state.apply(&lost).expect("it is Active");
        let fence = Fence::new(&state, Uid(uid), false).expect("it is founded");
        assert_eq!(fence.judge(&batch(&state, uid)), Verdict::NotOwner);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What a fence knows of earlier epochs is what the states of these epochs said.
    #[test]
    fn the_past_is_known(slots in proptest::collection::vec(0..256_u32, 1..12)) {
        let mut states = vec![cluster_of(6)];
        for slot in slots {
            let mut state = states[states.len() - 1].clone();
            swap(&mut state, Slot(slot));
            states.push(state);
        }
        let last = &states[states.len() - 1];
        let fence = Fence::new(last, OWN, false).expect("it is founded");
        for then in states.iter().rev().take(RingState::EPOCHS_KEPT) {
            for slot in (0..256).map(Slot) {
                let taken = fence.judge(&header(then, slot)) == Verdict::Accept;
                prop_assert_eq!(taken, owns(then, slot) || owns(last, slot), "{:?} in {}", slot, then.epoch());
            }
        }
    }
}
