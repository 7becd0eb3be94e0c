//! Whole logs: one that is frozen, and random ones.

use proptest::{prelude::*, strategy::ValueTree};

use super::*;

/// A log with each command that changes the mapping.
pub(crate) fn golden_log() -> Vec<Command> {
    let mut state = RingState::default();
    let mut log = Vec::new();
    let mut push = |state: &mut RingState, command: Command| {
        state.apply(&command).expect("the log has good commands only");
        log.push(command);
    };
    push(&mut state, init());
    for uid in 1..=6 {
        push(&mut state, Command::RegisterNode(registration(uid)));
        push(&mut state, set_state(uid, NodeState::Joining, NodeState::Active));
    }
    // By hand, so that nothing of the planner is frozen here.
    let moves = (0..256).flat_map(|slot| {
        (0..3).map(move |position: u8| {
            let node = u32::from(position) + 1 + 3 * (slot % 2);
            Move { slot: Slot(slot), position, from: None, to: NodeNumber(node) }
        })
    });
    let plan = |state: &RingState, moves, plan_id| {
        Command::ApplyPlan(PlanCommand {
            pool: PoolName::from("default"),
            base_epoch: state.epoch(),
            replicas: ReplicaCount::new(3).expect("3 is allowed"),
            degraded: false,
            moves,
            reason: "golden".to_owned(),
            plan_id: PlanId(plan_id),
        })
    };
    let first = plan(&state, moves.collect(), 1);
    push(&mut state, first);
    let swap = Move { slot: Slot(4), position: 1, from: Some(NodeNumber(2)), to: NodeNumber(5) };
    let second = plan(&state, vec![swap], 2);
    push(&mut state, second);
    push(&mut state, Command::RegisterNode(NodeRegistration { replaces: Some(Uid(6)), ..registration(9) }));
    push(&mut state, Command::ReplaceNode { dead: Uid(6), new: Uid(9), force: false, at: None });
    let matchers = vec![TenantMatcher::Exact("a".to_owned()), TenantMatcher::Glob("b*".to_owned())];
    push(&mut state, Command::SetPool { name: PoolName::from("big"), matchers });
    push(&mut state, Command::SetPool { name: PoolName::from("small"), matchers: Vec::new() });
    push(
        &mut state,
        Command::SetTenant {
            tenant: TenantName::from("ä"),
            pool: Setting::Set(PoolName::from("big")),
            slots: Setting::Set(TenantSlots::new(7).expect("7 is not zero")),
            limits: Setting::Keep,
        },
    );
    push(&mut state, Command::DeletePool { name: PoolName::from("small") });
    log
}

pub(crate) fn replay(log: &[Command]) -> RingState {
    let mut state = RingState::default();
    for command in log {
        let _ = state.apply(command);
    }
    state
}

/// Frozen: nodes of different versions must come to the same digest from the same log.
#[test]
fn golden_digests() {
    let mut state = RingState::default();
    let mut digests: Vec<(u64, String)> = vec![(0, state.digest().to_string())];
    for command in golden_log() {
        state.apply(&command).expect("the log has good commands only");
        if state.epoch().0 != digests[digests.len() - 1].0 {
            digests.push((state.epoch().0, state.digest().to_string()));
        }
    }
    let expected = [
        "0000000000000000",
        "cb11d901b461f504",
        "af53f1dd71c361dc",
        "eaf6b896880b2ebe",
        "ad292b2b27aac196",
        "2b94a0c7e6849439",
        "70788e24115a21f1",
        "c6609f4e69499e78",
        "cdc025a2ec3f52cd",
    ];
    assert_eq!(digests.iter().map(|(_, digest)| digest.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(state.min_write_epoch(), RingEpoch(4));
}

#[test]
fn logs_and_states_survive_serialization() {
    let log = golden_log();
    let state = replay(&log);
    let text = serde_json::to_string(&(&log, &state)).expect("all keys are text or numbers");
    let (log_again, state_again): (Vec<Command>, RingState) =
        serde_json::from_str(&text).expect("it was just written");
    assert_eq!((&log_again, &state_again), (&log, &state));
    // Numbers out of their range are not taken.
    assert!(serde_json::from_str::<SlotCount>("255").is_err());
    assert!(serde_json::from_str::<ReplicaCount>("0").is_err());
    assert!(serde_json::from_str::<TenantSlots>("0").is_err());
}

/// Records of versions that remembered losses elsewhere, or not at all.
#[test]
fn earlier_records_are_read() {
    let state = replay(&golden_log());
    let mut record = serde_json::to_value(&state).expect("all keys are text or numbers");
    record.as_object_mut().expect("it has names").remove("open_losses").expect("it was written");
    let nodes = record["nodes"].as_object_mut().expect("they have names");
    for node in nodes.values_mut() {
        node["took_over"] = serde_json::json!({ "at": 5, "waits_for": [] });
    }
    let mut read: RingState = serde_json::from_value(record).expect("it is an earlier record");
    assert!(read.open_losses().is_empty());
    read.open_losses.clone_from(&state.open_losses);
    assert_eq!(read, state);
    let uid = serde_json::to_value(Uid(4)).expect("it is a text");
    let close = serde_json::json!({ "CloseTakeOver": { "uid": uid, "at": 5 } });
    let close: Command = serde_json::from_value(close).expect("it is an earlier command");
    assert_eq!(close, Command::CloseLoss { uid: Uid(4), at: UnixMillis(5) });
}

/// The steps that are kept lead from one mapping to the next.
#[test]
fn deltas_lead_to_the_mapping() {
    let state = replay(&golden_log());
    let cluster = state.cluster().expect("the cluster is founded");
    let mut mapping = Mapping::default();
    for delta in state.deltas() {
        mapping.change(&delta.change, cluster.slots).expect("deltas fit");
        assert_eq!((mapping.epoch, mapping.digest(cluster)), (delta.epoch, delta.digest));
    }
    assert_eq!(&mapping, state.mapping());
}

/// A command, or what the leader would make of the state at that point.
#[derive(Clone, Debug)]
enum Step {
    Command(Box<Command>),
    /// A wave of a plan, and how many commands old it is.
    Wave {
        pool: usize,
        goal: Goal,
        moves_max: usize,
        late: bool,
    },
    /// Moves that make no sense, or may.
    Moves {
        pool: usize,
        moves: Vec<Move>,
        plan_id: u128,
    },
}

const POOLS: [&str; 3] = ["default", "big", "none"];

fn state_of_node() -> impl Strategy<Value = NodeState> {
    proptest::sample::select(NodeState::ALL.to_vec())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let uid = || 1..10_u128;
    let pool = || (0..10_usize).prop_map(|index| PoolName::from(POOLS[index.saturating_sub(7)]));
    let other_pool = || (0..3_usize).prop_map(|index| PoolName::from(POOLS[index]));
    let tenant = || (0..4).prop_map(|number| TenantName(format!("tenant-{number}")));
    let register = (uid(), pool(), 0..16_u128, proptest::option::weighted(0.2, uid())).prop_map(
        |(uid, pool, name, replaces)| {
            let mut registration =
                NodeRegistration { pool, replaces: replaces.map(Uid), ..registration(uid) };
            if name < uid {
                registration.name = format!("node-{name}");
            }
            Command::RegisterNode(registration)
        },
    );
    // Transitions that are likely to be legal, and any.
    let usual = proptest::sample::select(vec![
        (NodeState::Joining, NodeState::Active),
        (NodeState::Joining, NodeState::Active),
        (NodeState::Active, NodeState::Draining),
        (NodeState::Draining, NodeState::Drained),
        (NodeState::Draining, NodeState::Drained),
        (NodeState::Drained, NodeState::Left),
        (NodeState::Active, NodeState::Lost),
    ]);
    let transition = prop_oneof![4 => usual, 1 => (state_of_node(), state_of_node())];
    let set_state = (uid(), transition).prop_map(|(uid, (from, to))| set_state(uid, from, to));
    let update = (uid(), proptest::option::of(pool()), proptest::option::of(1..4_u32), 0..3_u32).prop_map(
        |(uid, pool, weight, features)| {
            let features = Some(FeatureLevel(features));
            Command::UpdateNode(NodeUpdate {
                pool,
                weight: weight.and_then(Weight::new),
                features,
                ..update(uid)
            })
        },
    );
    let replace = (uid(), uid(), any::<bool>()).prop_map(|(dead, new, force)| Command::ReplaceNode {
        dead: Uid(dead),
        new: Uid(new),
        force,
        at: Some(UnixMillis(5)),
    });
    let forget = uid().prop_map(|uid| Command::ForgetNode { uid: Uid(uid), reason: String::new() });
    let date = uid().prop_map(|uid| Command::DateLoss { uid: Uid(uid), at: UnixMillis(5) });
    let close = uid().prop_map(|uid| Command::CloseLoss { uid: Uid(uid), at: UnixMillis(5) });
    let set_tenant =
        (tenant(), proptest::option::of(pool()), 0..300_u32).prop_map(|(tenant, pool, slots)| {
            let slots = TenantSlots::new(slots).map_or(Setting::Clear, Setting::Set);
            let pool = pool.map_or(Setting::Keep, Setting::Set);
            Command::SetTenant { tenant, pool, slots, limits: Setting::Clear }
        });
    let matchers = proptest::collection::vec("[ab*]{1,2}".prop_map(TenantMatcher::Glob), 0..2);
    let moves = proptest::collection::vec(
        (0..300_u32, 0..4_u8, proptest::option::of(1..9_u32), 1..9_u32).prop_map(
            |(slot, position, from, to)| Move {
                slot: Slot(slot),
                position,
                from: from.map(NodeNumber),
                to: NodeNumber(to),
            },
        ),
        0..3,
    );
    let command = prop_oneof![
        1 => Just(init()),
        8 => register,
        12 => set_state,
        4 => update,
        3 => replace,
        1 => forget,
        3 => date,
        4 => close,
        2 => set_tenant,
        1 => tenant().prop_map(|tenant| Command::DeleteTenant { tenant }),
        2 => (other_pool(), matchers).prop_map(|(name, matchers)| Command::SetPool { name, matchers }),
        2 => other_pool().prop_map(|name| Command::DeletePool { name }),
        1 => (0..4_u32).prop_map(|level| Command::SetFeatureLevel(FeatureLevel(level))),
        1 => any::<u64>().prop_map(|nonce| Command::Barrier { nonce }),
    ];
    let goal = prop_oneof![4 => Just(Goal::Settle), 1 => Just(Goal::Regroup)];
    let step = prop_oneof![
        6 => command.prop_map(|command| Step::Command(Box::new(command))),
        3 => (0..2_usize, goal, 1..400_usize, proptest::bool::weighted(0.1))
            .prop_map(|(pool, goal, moves_max, late)| Step::Wave { pool, goal, moves_max, late }),
        1 => (0..3_usize, moves, 0..50_u128).prop_map(|(pool, moves, plan_id)| Step::Moves { pool, moves, plan_id }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Plays steps; returns all commands, and checks what must hold after each of them.
fn play(steps: &[Step]) -> (Vec<Command>, RingState) {
    let mut state = RingState::default();
    let mut commands: Vec<Command> = Vec::new();
    let first = std::iter::once(init()).chain((1..5).map(|uid| Command::RegisterNode(registration(uid))));
    let first = first.chain((1..5).map(|uid| set_state(uid, NodeState::Joining, NodeState::Active)));
    let mut pending: Option<Command> = None;
    let steps = first.map(|command| Step::Command(Box::new(command))).chain(steps.iter().cloned());
    for (index, step) in steps.enumerate() {
        let command = match step {
            Step::Command(command) => Some(*command),
            Step::Wave { pool, goal, moves_max, late } => {
                let new = wave(&state, POOLS[pool], goal, moves_max, 1000 + index as u128);
                if late { std::mem::replace(&mut pending, new) } else { new }
            }
            Step::Moves { pool, moves, plan_id } => Some(Command::ApplyPlan(PlanCommand {
                pool: PoolName::from(POOLS[pool]),
                base_epoch: state.epoch(),
                replicas: ReplicaCount::new(3).expect("3 is allowed"),
                degraded: plan_id % 2 == 0,
                moves,
                reason: String::new(),
                plan_id: PlanId(plan_id),
            })),
        };
        let Some(command) = command else { continue };
        apply_and_check(&mut state, &command);
        commands.push(command);
    }
    (commands, state)
}

fn apply_and_check(state: &mut RingState, command: &Command) {
    let before = state.clone();
    let outcome = state.apply(command);
    check_invariants(state);
    if outcome.is_err() {
        assert_eq!(*state, before, "a refused command changed something");
        return;
    }
    // The epoch rises exactly when the mapping changes, by one, and the digest with it.
    let same_mapping = state.mapping().pools == before.mapping().pools
        && state.mapping().tenants == before.mapping().tenants;
    let rise = u64::from(!same_mapping);
    assert_eq!(state.epoch().0 - before.epoch().0, rise, "{command:?}");
    assert_eq!(state.digest() == before.digest(), same_mapping);
    assert!(state.min_write_epoch() >= before.min_write_epoch());
    assert!(state.nodes_version() >= before.nodes_version());
    for node in before.nodes() {
        assert!(state.node(node.uid).is_some() || state.tombstone(node.uid).is_some(), "a node is forgotten");
    }
    // The delta says what was before, and leads to what is.
    if rise == 1 && before.cluster().is_some() {
        let delta = state.deltas().next_back().expect("there is one for the epoch");
        if let MappingChange::Moved { pool, replicas_before, moves, .. } = &delta.change {
            let was = &before.mapping().pools[pool].table;
            assert_eq!(*replicas_before, was.replicas());
            for to in moves {
                assert_eq!(was.owners(to.slot).get(usize::from(to.position)).copied(), to.from);
            }
        }
        let mut mapping = before.mapping().clone();
        let slots = before.cluster().expect("it is founded").slots;
        mapping.change(&delta.change, slots).expect("a delta fits");
        assert_eq!(&mapping, state.mapping());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_logs_keep_what_must_hold(steps in steps()) {
        let (commands, state) = play(&steps);
        prop_assert_eq!(replay(&commands), state);
    }
}

/// The generator is of no use if all it makes is refused.
#[test]
fn random_logs_reach_most_outcomes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..400 {
        let steps = steps().new_tree(&mut runner).expect("the strategy makes values").current();
        let (commands, _) = play(&steps);
        let mut state = RingState::default();
        for command in commands {
            let outcome = state.apply(&command);
            let name = |text: String| text.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
            let key = format!(
                "{} {}",
                name(format!("{command:?}")),
                outcome.map_or_else(|e| name(format!("{e:?}")), |o| name(format!("{o:?}")))
            );
            *seen.entry(key).or_default() += 1;
        }
    }
    let wanted = [
        "ApplyPlan Ring",
        "ApplyPlan StalePlan",
        "ApplyPlan Row",
        "ApplyPlan Move",
        "CloseLoss Done",
        "DateLoss Done",
        "DeletePool Ring",
        "DeletePool PoolInUse",
        "ForgetNode Done",
        "RegisterNode Gone",
        "RegisterNode NameTaken",
        "RegisterNode Node",
        "ReplaceNode Ring",
        "ReplaceNode HoldsSlots",
        "SetFeatureLevel Done",
        "SetNodeState Done",
        "SetNodeState HoldsSlots",
        "SetPool Ring",
        "SetTenant Ring",
        "UpdateNode Done",
        "UpdateNode HoldsSlots",
    ];
    for outcome in wanted {
        assert!(seen.contains_key(outcome), "{outcome} is not among {seen:#?}");
    }
}
