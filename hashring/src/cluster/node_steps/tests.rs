use super::*;
use crate::{
    ids::NodeNumber,
    ring::{
        NodeRegistration,
        tests::{cluster_of, registration},
    },
};

const NOW: UnixMillis = UnixMillis(50_000);

fn timers() -> ClusterTimers {
    ClusterTimers::default()
}

/// All nodes were heard of just now, and have been Joining for as long as they should.
fn facts(state: &RingState) -> Facts {
    let each = |duration: Duration| state.nodes().map(move |node| (node.uid, duration)).collect();
    Facts {
        now: NOW,
        leads_for: Duration::from_secs(3600),
        heard: each(Duration::ZERO),
        joining: each(timers().join_read_grace),
        ..Facts::default()
    }
}

fn step(state: &RingState, uid: u128, facts: &Facts, policies: &ClusterPolicies) -> NodeStep {
    let node = state.node(Uid(uid)).expect("the node is there");
    node_step(state, node, facts, &timers(), policies)
}

/// Node `new` joined under the name and in the zone of node `old`, which has been silent for this long.
fn with_newcomer(state: &mut RingState, new: u128, old: u128) {
    let known = state.node(Uid(old)).expect("the old node is there");
    let newcomer = NodeRegistration {
        name: known.name.clone(),
        zone: known.zone.clone(),
        replaces: Some(Uid(old)),
        ..registration(new)
    };
    state.apply(&Command::RegisterNode(newcomer)).expect("the node is new");
}

#[track_caller]
fn waits(step: NodeStep, expected: &str) {
    let NodeStep::Wait(what) = step else { panic!("{step:?}") };
    assert!(what.contains(expected), "{what}");
}

#[track_caller]
fn warns(step: NodeStep, expected: &str) {
    let NodeStep::Warn(what) = step else { panic!("{step:?}") };
    assert!(what.contains(expected), "{what}");
}

#[track_caller]
fn proposed(step: NodeStep) -> Command {
    let NodeStep::Propose(command) = step else { panic!("{step:?}") };
    *command
}

#[test]
fn readers_learn_of_a_node_first() {
    let mut state = cluster_of(3);
    state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
    let check = |seconds: Option<u64>, is_active: bool| {
        let mut facts = facts(&state);
        facts.joining = seconds.map(|seconds| (Uid(4), Duration::from_secs(seconds))).into_iter().collect();
        match step(&state, 4, &facts, &ClusterPolicies::default()) {
            NodeStep::Wait(what) => assert!(!is_active && what.contains("readers get"), "{what}"),
            other => {
                let (uid, from, to) = (Uid(4), NodeState::Joining, NodeState::Active);
                let joined = Command::SetNodeState { uid, from, to, reason: "joined".to_owned() };
                assert_eq!((is_active, proposed(other)), (true, joined));
            }
        }
    };
    check(None, false);
    check(Some(89), false);
    check(Some(90), true);
    // Slots are for nodes that are there.
    let mut silent = facts(&state);
    silent.heard.insert(Uid(4), Duration::from_secs(16));
    waits(step(&state, 4, &silent, &ClusterPolicies::default()), "it has to be heard of before");
    silent.heard.insert(Uid(4), Duration::from_secs(60));
    warns(step(&state, 4, &silent, &ClusterPolicies::default()), "nothing was heard of it for 60s");
    silent.heard.insert(Uid(4), Duration::from_secs(15));
    proposed(step(&state, 4, &silent, &ClusterPolicies::default()));
    assert_eq!(step(&state, 1, &facts(&state), &ClusterPolicies::default()), NodeStep::Stay);
}

#[test]
fn a_silent_node_is_replaced_by_its_namesake() {
    let mut state = cluster_of(6);
    with_newcomer(&mut state, 7, 4);
    let auto = ClusterPolicies::default();
    let silent = |seconds: u64| {
        let mut facts = facts(&state);
        facts.heard.insert(Uid(4), Duration::from_secs(seconds));
        facts
    };
    // Whoever is there again needs nobody in its place.
    for seconds in [0, 15] {
        let leaves = proposed(step(&state, 7, &silent(seconds), &auto));
        let (joining, left) = (NodeState::Joining, NodeState::Left);
        assert!(
            matches!(leaves, Command::SetNodeState { uid: Uid(7), from, to, .. } if (from, to) == (joining, left))
        );
    }
    waits(step(&state, 7, &silent(16), &auto), "was silent for 16");
    waits(step(&state, 7, &silent(59), &auto), "was silent for 59");
    let replace = Command::ReplaceNode { dead: Uid(4), new: Uid(7), force: false, at: Some(NOW) };
    assert_eq!(proposed(step(&state, 7, &silent(60), &auto)), replace);
    // A new leader counts from when it began to lead.
    let mut unknown = silent(0);
    unknown.heard.remove(&Uid(4));
    unknown.leads_for = Duration::from_secs(59);
    waits(step(&state, 7, &unknown, &auto), "was silent for 59");
    unknown.leads_for = Duration::from_secs(60);
    assert_eq!(proposed(step(&state, 7, &unknown, &auto)), replace);
    // Reads first.
    let mut early = silent(60);
    early.joining.insert(Uid(7), Duration::from_secs(89));
    waits(step(&state, 7, &early, &auto), "readers get 1");
    let mut both_silent = silent(60);
    both_silent.heard.remove(&Uid(7));
    waits(step(&state, 7, &both_silent, &auto), "it has to be heard of before it replaces");
    let manual = ClusterPolicies { replace: ReplacePolicy::Manual, ..ClusterPolicies::default() };
    warns(step(&state, 7, &silent(3600), &manual), "an operator has to");

    let mut elsewhere = cluster_of(6);
    let other_zone = NodeRegistration {
        name: "node-4".to_owned(),
        zone: "elsewhere".to_owned(),
        replaces: Some(Uid(4)),
        ..registration(7)
    };
    elsewhere.apply(&Command::RegisterNode(other_zone)).expect("the node is new");
    warns(step(&elsewhere, 7, &silent(60), &auto), "cannot replace");
}

/// Nodes 1, 2 and 3 share all slots, and so do 4, 5 and 6.
#[test]
fn no_second_one_of_a_group_is_replaced_before_the_first_is_uploaded() {
    let mut state = cluster_of(6);
    let auto = ClusterPolicies::default();
    with_newcomer(&mut state, 7, 4);
    let all_silent = |state: &RingState| {
        let mut facts = facts(state);
        let old = facts.heard.iter_mut().filter(|(uid, _)| uid.0 <= 6);
        old.for_each(|(_, heard)| *heard = Duration::from_secs(60));
        facts
    };
    let of_loss = |state: &RingState, uid: u128, facts: &Facts| {
        loss_step(state, Uid(uid), &state.open_losses()[&Uid(uid)], facts)
    };
    let replace = proposed(step(&state, 7, &all_silent(&state), &auto));
    state.apply(&replace).expect("what a leader proposes fits");
    assert_eq!(state.node(Uid(7)).map(|node| node.state), Some(NodeState::Active));

    with_newcomer(&mut state, 8, 5);
    with_newcomer(&mut state, 9, 2);
    let of_another_group = proposed(step(&state, 9, &all_silent(&state), &auto));
    assert!(matches!(of_another_group, Command::ReplaceNode { dead: Uid(2), .. }));
    warns(step(&state, 8, &all_silent(&state), &auto), "with node-4, which was lost lately");
    let by_hand = |force| Command::ReplaceNode { dead: Uid(5), new: Uid(8), force, at: Some(NOW) };
    let refused = state.clone().apply(&by_hand(false));
    assert_eq!(refused, Err(crate::ring::Rejected::ReplacedLately(Uid(4))));
    state.clone().apply(&by_hand(true)).expect("it is forced");

    // Both of the others must have uploaded what they held at that time, and what was ahead of it.
    const THEN: i64 = NOW.0 + 12 * 60 * 1000;
    let close = Some(Command::CloseLoss { uid: Uid(4), at: NOW });
    let check = |uploaded: &[(u128, i64)], expected: Option<&str>| {
        let mut facts = all_silent(&state);
        facts.uploaded = uploaded.iter().map(|&(uid, through)| (Uid(uid), UnixMillis(through))).collect();
        match expected {
            Some(names) => {
                waits(step(&state, 7, &facts, &auto), &format!("held then: {names}"));
                assert_eq!(of_loss(&state, 4, &facts), None);
            }
            None => assert_eq!(of_loss(&state, 4, &facts), close),
        }
    };
    check(&[], Some("node-5, node-6"));
    check(&[(5, THEN), (6, THEN - 1)], Some("node-6"));
    check(&[(5, THEN), (1, THEN)], Some("node-6"));
    check(&[(5, THEN), (6, THEN)], None);
    let mut closed = state.clone();
    closed.apply(&close.clone().expect("it is a command")).expect("it is open");
    assert!(matches!(
        proposed(step(&closed, 8, &all_silent(&closed), &auto)),
        Command::ReplaceNode { dead: Uid(5), .. }
    ));
    // Whoever is gone has nothing to upload any more.
    state.apply(&by_hand(true)).expect("it is forced");
    let mut facts = all_silent(&state);
    facts.uploaded.insert(Uid(6), UnixMillis(THEN));
    assert_eq!(of_loss(&state, 4, &facts), close);
    assert!(state.holds_slots(NodeNumber(8)));
}

/// Nobody is in the place of the first, and yet the second waits.
#[test]
fn no_second_one_of_a_group_is_replaced_when_the_first_was_given_up() {
    let mut state = cluster_of(6);
    state.apply(&Command::ForgetNode { uid: Uid(4), reason: String::new() }).expect("it is there");
    with_newcomer(&mut state, 8, 5);
    let mut facts = facts(&state);
    facts.heard.insert(Uid(5), Duration::from_secs(60));
    warns(step(&state, 8, &facts, &ClusterPolicies::default()), "with node-4, which was lost lately");
    let loss = |state: &RingState| state.open_losses()[&Uid(4)].clone();
    let date = loss_step(&state, Uid(4), &loss(&state), &facts).expect("nobody said when that was");
    assert_eq!(date, Command::DateLoss { uid: Uid(4), at: NOW });
    state.apply(&date).expect("what a leader proposes fits");
    assert_eq!(loss_step(&state, Uid(4), &loss(&state), &facts), None);
}

#[test]
fn a_node_drains_to_the_end() {
    let auto = ClusterPolicies::default();
    let mut state = cluster_of(6);
    let drain = Command::SetNodeState {
        uid: Uid(4),
        from: NodeState::Active,
        to: NodeState::Draining,
        reason: String::new(),
    };
    state.apply(&drain).expect("it is Active");
    let drained = |state: &RingState, seconds: Option<u64>| {
        let drained = seconds.map(|seconds| (Uid(4), Duration::from_secs(seconds)));
        Facts { drained: drained.into_iter().collect(), ..facts(state) }
    };
    // It may not say that it is drained before it has given its slots away.
    waits(step(&state, 4, &drained(&state, Some(9999)), &auto), "128 slots are still to be moved away");
    crate::ring::tests::settle(&mut state, 100_000);
    waits(step(&state, 4, &drained(&state, None), &auto), "has not uploaded yet");
    let mut quiet = drained(&state, None);
    quiet.heard.insert(Uid(4), Duration::from_secs(60));
    warns(step(&state, 4, &quiet, &auto), "has to be started, or given up");
    waits(step(&state, 4, &drained(&state, Some(1799)), &auto), "readers get 1s more");
    let is_drained = proposed(step(&state, 4, &drained(&state, Some(1800)), &auto));
    state.apply(&is_drained).expect("what a leader proposes fits");
    assert_eq!(state.node(Uid(4)).map(|node| node.state), Some(NodeState::Drained));

    let silent = |seconds| {
        let mut facts = facts(&state);
        facts.heard.insert(Uid(4), Duration::from_secs(seconds));
        facts
    };
    waits(step(&state, 4, &silent(59), &auto), "safe to delete");
    let left = proposed(step(&state, 4, &silent(60), &auto));
    state.apply(&left).expect("what a leader proposes fits");
    assert_eq!(state.tombstone(Uid(4)).map(|tombstone| tombstone.state), Some(NodeState::Left));
}

#[test]
fn people_are_told_of_the_silent_and_the_lost() {
    let auto = ClusterPolicies::default();
    let mut state = cluster_of(6);
    let mut silent = facts(&state);
    silent.heard.insert(Uid(4), Duration::from_secs(59));
    assert_eq!(step(&state, 4, &silent, &auto), NodeStep::Stay);
    silent.heard.insert(Uid(4), Duration::from_secs(61));
    warns(step(&state, 4, &silent, &auto), "nothing was heard of it for 61s");
    let (uid, from, to) = (Uid(4), NodeState::Active, NodeState::Lost);
    state.apply(&Command::SetNodeState { uid, from, to, reason: String::new() }).expect("it is Active");
    warns(step(&state, 4, &silent, &auto), "it is lost and holds 128 slots");
    state.apply(&Command::ForgetNode { uid, reason: String::new() }).expect("it is lost");
    waits(step(&state, 4, &silent, &auto), "it was given up; 128 slots");
}
