use super::*;
use crate::{
    cluster::policy::{JoinPolicy, ReplacePolicy},
    ids::Uid,
    ring::tests::{cluster_of, init, registration, set_state},
};

fn init_cluster() -> InitCluster {
    let Command::InitCluster(init) = init() else { panic!("it founds") };
    init
}

/// Waves of at most 20 moves.
fn timers() -> ClusterTimers {
    ClusterTimers { max_moves_per_step: Some(20), ..ClusterTimers::default() }
}

fn duty(state: &RingState, joined: &[u128], change: impl FnOnce(&mut Situation<'_>)) -> Duty {
    duty_of(state, &facts(state, joined), change)
}

/// These have been Joining for as long as they should, and they and all Active nodes were heard of just
/// now.
fn facts(state: &RingState, joined: &[u128]) -> Facts {
    let joining = joined.iter().map(|uid| (Uid(*uid), timers().join_read_grace)).collect();
    let active = state.nodes().filter(|node| node.state == NodeState::Active).map(|node| node.uid);
    let heard = joined.iter().map(|uid| Uid(*uid)).chain(active);
    let heard = heard.map(|uid| (uid, Duration::ZERO)).collect();
    Facts { joining, heard, ..Facts::default() }
}

fn duty_of(state: &RingState, facts: &Facts, change: impl FnOnce(&mut Situation<'_>)) -> Duty {
    duty_after(state, facts, &BTreeSet::new(), &[], change)
}

/// The next duty, after the ring has refused these and these waves waited.
fn duty_after(
    state: &RingState,
    facts: &Facts,
    rejected: &BTreeSet<String>,
    held: &[HeldWave],
    change: impl FnOnce(&mut Situation<'_>),
) -> Duty {
    let (init, timers, policies) = (init_cluster(), timers(), ClusterPolicies::default());
    let mut situation = Situation {
        state,
        init: &init,
        facts,
        timers: &timers,
        policies: &policies,
        are_tables_settled: false,
        held,
        since_last_wave: None,
        plan_id: PlanId(u128::from(state.epoch().0)),
        rejected,
    };
    change(&mut situation);
    next_duty(&situation)
}

fn apply(state: &mut RingState, duty: Duty) -> Command {
    let Duty::Propose(command) = duty else { panic!("{duty:?}") };
    state.apply(&command).expect("what a leader proposes fits");
    *command
}

#[test]
fn from_nothing_to_the_first_table() {
    let mut state = RingState::default();
    let first = duty(&state, &[], |_| ());
    apply(&mut state, first);
    assert_eq!(state.cluster().map(|cluster| cluster.id), Some(init_cluster().cluster_id));
    for uid in 1..=3 {
        let expected = if uid == 1 { Duty::Rest } else { Duty::Wait };
        assert_eq!(duty(&state, &[], |_| ()), expected, "{uid}: not all founders are there");
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
    }
    // Founders need not be Joining for long: there is nothing yet that anybody could read.
    for _ in 1..=3 {
        let next = duty(&state, &[], |_| ());
        assert!(matches!(apply(&mut state, next), Command::SetNodeState { to: NodeState::Active, .. }));
    }
    // The first table moves nothing, so nothing holds it back.
    let next = duty(&state, &[], |situation| {
        situation.since_last_wave = Some(Duration::ZERO);
    });
    assert!(matches!(apply(&mut state, next), Command::ApplyPlan(_)));
    assert_eq!(duty(&state, &[], |_| ()), Duty::Rest);
}

#[test]
fn the_first_table_waits_for_those_who_join() {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    for uid in 1..=4 {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
    }
    for uid in 1..=3 {
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    }
    assert_eq!(duty(&state, &[], |_| ()), Duty::Wait);
    // Not for one that has died meanwhile.
    let silent = |seconds| {
        let heard = [(Uid(4), Duration::from_secs(seconds))].into();
        duty_of(&state, &Facts { heard, leads_for: Duration::from_secs(3600), ..Facts::default() }, |_| ())
    };
    assert_eq!(silent(59), Duty::Wait);
    assert!(matches!(silent(60), Duty::Propose(table) if matches!(*table, Command::ApplyPlan(_))));
    state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    let first = duty(&state, &[], |_| ());
    apply(&mut state, first);
    assert_eq!(state.mapping().pools[&PoolName::from("default")].table.slots_of_nodes().len(), 4);
}

#[test]
fn waves_wait_for_their_time() {
    let mut state = cluster_of(3);
    state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
    state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    let wave = |state: &RingState, seconds: Option<u64>| {
        duty(state, &[], |situation| situation.since_last_wave = seconds.map(Duration::from_secs))
    };
    assert_eq!(wave(&state, Some(29)), Duty::Wait);
    let mut moves = 0;
    let mut waves = 0;
    while let Duty::Propose(command) = wave(&state, Some(30)) {
        state.apply(&command).expect("what a leader proposes fits");
        let Command::ApplyPlan(plan) = *command else { panic!("{command:?}") };
        assert!(plan.moves.len() <= 20);
        moves += plan.moves.len();
        waves += 1;
    }
    let table = &state.mapping().pools[&PoolName::from("default")].table;
    let held: Vec<u32> = table.slots_of_nodes().into_values().collect();
    assert_eq!((held.len(), held.iter().sum::<u32>()), (4, 256 * 3));
    assert!(waves > 1 && moves >= held[3] as usize, "{waves} waves of {moves} moves");
    assert_eq!(wave(&state, None), Duty::Rest);
}

/// Only who gets slots has to be there: node 1 gives some away, node 4 joins.
#[test]
fn waves_wait_for_those_who_get_slots() {
    let mut state = cluster_of(3);
    state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
    state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    let held = HeldWave { pool: PoolName::from("default"), receivers: [NodeNumber(4)].into() };
    let check = |change: &dyn Fn(&mut Facts), expected: Option<&str>| {
        let mut facts = facts(&state, &[]);
        change(&mut facts);
        let known = [held.clone()];
        for known in [&[], known.as_slice()] {
            let found = duty_after(&state, &facts, &BTreeSet::new(), known, |_| ());
            let is_wave = |duty: &Duty| matches!(duty, Duty::Propose(command) if matches!(**command, Command::ApplyPlan(_)));
            match expected {
                None => assert!(is_wave(&found), "{found:?}"),
                Some(_) => assert_eq!(found, Duty::Held(vec![held.clone()])),
            }
        }
        let why = held.waits_for(&state, &facts, &timers());
        assert_eq!(why.is_some(), expected.is_some(), "{why:?}");
        assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()));
    };
    check(&|_| (), None);
    check(&|facts| _ = facts.heard.remove(&Uid(1)), None);
    check(&|facts| _ = facts.not_ready.insert(Uid(1)), None);
    check(&|facts| _ = facts.heard.remove(&Uid(4)), Some("node-4 is not heard of"));
    check(&|facts| _ = facts.heard.insert(Uid(4), Duration::from_secs(16)), Some("not heard of"));
    check(&|facts| _ = facts.heard.insert(Uid(4), Duration::from_secs(15)), None);
    check(&|facts| _ = facts.not_ready.insert(Uid(4)), Some("node-4 says that it is not ready"));
}

#[test]
fn draining_moves_slots_away_and_a_lost_node_moves_nothing() {
    let mut state = cluster_of(6);
    state.apply(&set_state(2, NodeState::Active, NodeState::Draining)).expect("it is Active");
    let mut lost = state.clone();
    while let Duty::Propose(command) = duty(&state, &[], |_| ()) {
        state.apply(&command).expect("what a leader proposes fits");
    }
    assert!(!state.holds_slots(NodeNumber(2)));
    lost.apply(&set_state(2, NodeState::Draining, NodeState::Lost)).expect("it is Draining");
    let date = duty(&lost, &[], |_| ());
    assert!(matches!(apply(&mut lost, date), Command::DateLoss { uid: Uid(2), .. }));
    assert_eq!(duty(&lost, &[], |_| ()), Duty::Rest);
    assert!(lost.holds_slots(NodeNumber(2)));
    // Until somebody gives it up.
    let forget = Command::ForgetNode { uid: Uid(2), reason: "it burnt".to_owned() };
    lost.apply(&forget).expect("it is lost");
    while let Duty::Propose(command) = duty(&lost, &[], |_| ()) {
        lost.apply(&command).expect("what a leader proposes fits");
    }
    assert!(!lost.holds_slots(NodeNumber(2)) && lost.node(Uid(2)).is_none());
}

/// Node 4 took over from node 2 and was lost then; the others have uploaded all they held.
#[test]
fn a_lost_node_that_took_over_stops_nothing() {
    let mut state = cluster_of(3);
    let newcomer = crate::ring::NodeRegistration { zone: "b".to_owned(), ..registration(4) };
    state.apply(&Command::RegisterNode(newcomer)).expect("the node is new");
    let at = Some(UnixMillis(5));
    let replace = Command::ReplaceNode { dead: Uid(2), new: Uid(4), force: false, at };
    state.apply(&replace).expect("they are alike");
    state.apply(&set_state(4, NodeState::Active, NodeState::Lost)).expect("it is Active");
    state.apply(&Command::RegisterNode(registration(5))).expect("the node is new");
    let uploaded = [1, 3].map(|uid| (Uid(uid), UnixMillis(1 << 40)));
    let facts = Facts { uploaded: uploaded.into(), ..facts(&state, &[5]) };
    for expected in ["CloseLoss { uid: Uid(2)", "DateLoss { uid: Uid(4)", "CloseLoss { uid: Uid(4)"] {
        let next = duty_of(&state, &facts, |_| ());
        let found = format!("{:?}", apply(&mut state, next));
        assert!(found.starts_with(expected), "{found}");
    }
    let next = duty_of(&state, &facts, |_| ());
    assert!(matches!(apply(&mut state, next), Command::SetNodeState { uid: Uid(5), .. }));
}

/// What the ring refuses is passed over, and the rest goes on.
#[test]
fn what_was_refused_is_not_proposed_again() {
    let mut state = cluster_of(3);
    for uid in [4, 5] {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
    }
    let mut rejected = BTreeSet::new();
    let mut proposed = |state: &RingState| {
        let facts = facts(state, &[4, 5]);
        let found = duty_after(state, &facts, &rejected, &[], |_| ());
        if let Duty::Propose(command) = &found {
            rejected.insert(summary(command));
        }
        found
    };
    let active = |duty: Duty| match duty {
        Duty::Propose(command) => match *command {
            Command::SetNodeState { uid, to: NodeState::Active, .. } => uid.0,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!([active(proposed(&state)), active(proposed(&state))], [4, 5]);
    assert_eq!(proposed(&state), Duty::Rest);
    state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    assert!(matches!(proposed(&state), Duty::Propose(wave) if matches!(*wave, Command::ApplyPlan(_))));
    assert_eq!(proposed(&state), Duty::Rest);
}

#[test]
fn tokens_that_are_of_no_use_are_removed() {
    let add = |state: &mut RingState, name: String, expires, uses| {
        let token = Command::AddToken {
            id: TokenId::from(name.as_str()),
            sha256: [1; 32],
            expires: UnixMillis(expires),
            uses,
        };
        state.apply(&token).expect("there is room");
    };
    let mut state = cluster_of(3);
    let day = 24 * 3600 * 1000;
    add(&mut state, "early".to_owned(), 1000, 1);
    add(&mut state, "late".to_owned(), day * 9, 1);
    let joins = |uid| {
        let token = Some(TokenId::from("late"));
        Command::RegisterNode(crate::ring::NodeRegistration { token, ..registration(uid) })
    };
    state.apply(&joins(4)).expect("the token is good");
    let at = |state: &RingState, now| {
        let facts = Facts { now: UnixMillis(now), ..facts(state, &[]) };
        match duty_of(state, &facts, |_| ()) {
            Duty::Propose(command) => match *command {
                Command::RevokeToken { id } => id.to_string(),
                other => panic!("{other:?}"),
            },
            other => format!("{other:?}"),
        }
    };
    assert_eq!(at(&state, day + 999), "Rest");
    assert_eq!(at(&state, day + 1000), "early");
    // One that is used up is known as such as long as there is room enough.
    for number in 2..TOKENS_MAX / 2 {
        add(&mut state, format!("t{number}"), day * 9, 1);
    }
    assert_eq!((state.tokens().len(), at(&state, 0)), (TOKENS_MAX / 2, "Rest".to_owned()));
    add(&mut state, "more".to_owned(), day * 9, 1);
    assert_eq!(at(&state, 0), "late");
}

#[test]
fn a_node_with_a_namesake_stays_joining() {
    let mut state = cluster_of(3);
    let mut namesake = registration(4);
    namesake.name = "node-2".to_owned();
    namesake.replaces = Some(Uid(2));
    state.apply(&Command::RegisterNode(namesake)).expect("it replaces the other");
    let mut silent = facts(&state, &[4]);
    silent.heard.remove(&Uid(2));
    assert_eq!(duty_of(&state, &silent, |_| ()), Duty::Rest);
}

#[test]
fn fewer_copies_are_kept_only_if_that_is_allowed() {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    let add = |state: &mut RingState, uid| {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    };
    add(&mut state, 1);
    add(&mut state, 2);
    static DEGRADED: ClusterPolicies = ClusterPolicies {
        join: JoinPolicy::Open,
        replace: ReplacePolicy::Auto,
        rf_allow_degraded: true,
        expected_replicas: None,
    };
    let copies = |state: &RingState| {
        let replicas = state.mapping().pools[&PoolName::from("default")].table.replicas();
        replicas.map(|replicas| replicas.get())
    };
    assert_eq!(duty(&state, &[], |_| ()), Duty::Rest);
    let next = duty(&state, &[], |situation| situation.policies = &DEGRADED);
    apply(&mut state, next);
    assert_eq!(copies(&state), Some(2));
    // There are more as soon as there can be.
    add(&mut state, 3);
    let next = duty(&state, &[], |_| ());
    apply(&mut state, next);
    assert_eq!(copies(&state), Some(3));
}

#[test]
fn too_few_nodes_keep_what_they_have() {
    let mut state = cluster_of(3);
    state.apply(&set_state(2, NodeState::Active, NodeState::Draining)).expect("it is Active");
    assert_eq!(duty(&state, &[], |_| ()), Duty::Rest);
    assert!(state.holds_slots(NodeNumber(2)));
}
