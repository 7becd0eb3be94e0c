//! Each command, and each reason to refuse it.

use super::*;

fn epoch(state: &RingState) -> u64 {
    state.epoch().0
}

/// Applies a command that must not change the epoch, and checks the outcome. A refused one must change
/// nothing.
#[track_caller]
fn check(state: &mut RingState, command: &Command, expected: Result<Applied, Rejected>) {
    let before = state.clone();
    let found = state.apply(command);
    assert_eq!(found, expected);
    check_invariants(state);
    let raised = matches!(found, Ok(Applied::Ring { .. }));
    assert_eq!(epoch(state) - epoch(&before), u64::from(raised));
    if matches!(found, Err(_) | Ok(Applied::Unchanged | Applied::Barrier { .. })) {
        assert_eq!(*state, before);
    }
}

/// Applies a command that must raise the epoch.
#[track_caller]
fn check_raises(state: &mut RingState, command: &Command) {
    let before = epoch(state);
    let applied = state.apply(command);
    assert_eq!(applied, Ok(Applied::Ring { epoch: RingEpoch(before + 1), digest: state.digest() }));
    check_invariants(state);
}

#[test]
fn a_cluster_is_founded_once() {
    let mut state = RingState::default();
    check(&mut state, &Command::Barrier { nonce: 4 }, Ok(Applied::Barrier { nonce: 4 }));
    check(&mut state, &Command::RegisterNode(registration(1)), Err(Rejected::NoCluster));
    check_raises(&mut state, &init());
    assert_eq!(state.mapping().pools.keys().map(PoolName::as_str).collect::<Vec<_>>(), ["default"]);
    check(&mut state, &init(), Ok(Applied::Unchanged));
    let Command::InitCluster(other) = init() else { unreachable!("it is what init makes") };
    let other = InitCluster { hash_seed: HashSeed(1), ..other };
    check(&mut state, &Command::InitCluster(other), Err(Rejected::ClusterExists));
}

#[test]
fn nodes_are_registered_once() {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    let mut register = |change: &dyn Fn(&mut NodeRegistration), uid, expected| {
        let mut registration = registration(uid);
        change(&mut registration);
        check(&mut state, &Command::RegisterNode(registration), expected);
    };
    let node =
        |number, uid: u128| Ok(Applied::Node { number: NodeNumber(number), raft_id: Uid(uid).raft_id() });
    register(&|_| {}, 1, node(1, 1));
    register(&|_| {}, 2, node(2, 2));
    register(&|again| again.name = "other".to_owned(), 1, node(1, 1));
    register(&|new| new.name = "node-2".to_owned(), 3, Err(Rejected::NameTaken(Uid(2))));
    register(&|new| new.name.clear(), 3, Err(Rejected::BadText(Field::Node)));
    register(&|new| new.name = "x".repeat(254), 3, Err(Rejected::BadText(Field::Node)));
    register(&|new| new.zone = "x".repeat(254), 3, Err(Rejected::BadText(Field::Zone)));
    register(&|new| new.addresses.http = "x".repeat(254), 3, Err(Rejected::BadText(Field::Address)));
    register(&|new| new.pool = PoolName::from("none"), 3, Err(Rejected::UnknownPool(PoolName::from("none"))));
    register(&|_| {}, 2 + (1 << 64), Err(Rejected::RaftIdTaken(Uid(2))));
    let unknown_token = TokenFault::Unknown(TokenId::from("t"));
    register(&|new| new.token = Some(TokenId::from("t")), 3, Err(unknown_token.into()));
    // Refused ones have taken no number.
    register(&|new| new.name = "x".repeat(253), 3, node(3, 3));
}

#[test]
fn tokens_are_used_up_and_end() {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    let id = TokenId::from("t");
    let token =
        |uses| Command::AddToken { id: TokenId::from("t"), sha256: [1; 32], expires: UnixMillis(100), uses };
    check(&mut state, &token(2), Ok(Applied::Done));
    check(&mut state, &token(2), Ok(Applied::Unchanged));
    check(&mut state, &token(3), Err(Rejected::TokenExists(id.clone())));
    let register = |state: &mut RingState, uid, at, expected: Result<u32, TokenFault>| {
        let with = NodeRegistration { token: Some(id.clone()), at: UnixMillis(at), ..registration(uid) };
        let found = state.apply(&Command::RegisterNode(with));
        let found = found.map(|_| state.tokens()[&id].used);
        assert_eq!(found, expected.map_err(Rejected::Token), "node {uid} at {at}");
    };
    register(&mut state, 1, 100, Err(TokenFault::Expired(id.clone())));
    register(&mut state, 1, 99, Ok(1));
    // Once more is not another use.
    register(&mut state, 1, 99, Ok(1));
    register(&mut state, 2, 99, Ok(2));
    register(&mut state, 3, 99, Err(TokenFault::UsedUp(id.clone())));
    register(&mut state, 3, 100, Err(TokenFault::Expired(id.clone())));
    check(&mut state, &token(2), Ok(Applied::Unchanged));
    let revoke = Command::RevokeToken { id: id.clone() };
    check(&mut state, &revoke, Ok(Applied::Done));
    check(&mut state, &revoke, Ok(Applied::Unchanged));
}

#[test]
fn addresses_and_versions_do_not_raise_the_epoch() {
    let mut state = cluster_of(3);
    let version = state.nodes_version();
    let change = NodeUpdate { version: Some("2.0.0".to_owned()), weight: Weight::new(5), ..update(1) };
    check(&mut state, &Command::UpdateNode(change.clone()), Ok(Applied::Done));
    assert_eq!(state.nodes_version(), NodesVersion(version.0 + 1));
    check(&mut state, &Command::UpdateNode(change), Ok(Applied::Unchanged));
    let zone = NodeUpdate { zone: Some("z".to_owned()), ..update(1) };
    check(&mut state, &Command::UpdateNode(zone.clone()), Err(Rejected::HoldsSlots(NodeNumber(1))));
    let pool = NodeUpdate { pool: Some(PoolName::from("big")), ..update(1) };
    check(&mut state, &Command::UpdateNode(pool.clone()), Err(Rejected::UnknownPool(PoolName::from("big"))));
    check_raises(&mut state, &Command::SetPool { name: PoolName::from("big"), matchers: Vec::new() });
    check(&mut state, &Command::UpdateNode(pool), Err(Rejected::HoldsSlots(NodeNumber(1))));
    check(&mut state, &Command::UpdateNode(update(9)), Err(Rejected::UnknownNode(Uid(9))));
    // Without slots both may change.
    state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
    let both = NodeUpdate { pool: Some(PoolName::from("big")), ..NodeUpdate { uid: Uid(4), ..zone } };
    check(&mut state, &Command::UpdateNode(both), Ok(Applied::Done));
}

/// All pairs of states, each from a fresh cluster where node 4 is in the first one without any slot.
#[test]
fn transitions() {
    use NodeState::{Active, Drained, Draining, Joining, Left, Lost};
    let way_to = |state| match state {
        Joining => vec![],
        Active => vec![Active],
        Draining => vec![Active, Draining],
        Drained => vec![Active, Draining, Drained],
        Left => vec![Left],
        Lost => vec![Lost],
    };
    let legal = [
        (Joining, Active),
        (Joining, Left),
        (Joining, Lost),
        (Active, Draining),
        (Active, Lost),
        (Draining, Active),
        (Draining, Drained),
        (Draining, Lost),
        (Drained, Left),
        (Drained, Lost),
    ];
    let mut fresh = cluster_of(3);
    fresh.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
    for from in NodeState::ALL {
        let mut before = fresh.clone();
        let mut at = Joining;
        for next in way_to(from) {
            before.apply(&set_state(4, at, next)).expect("the way is legal");
            at = next;
        }
        for to in NodeState::ALL {
            let expected = if to == from {
                Ok(Applied::Unchanged)
            } else if from.is_final() {
                Err(Rejected::Gone(Uid(4)))
            } else if legal.contains(&(from, to)) {
                Ok(Applied::Done)
            } else {
                Err(Rejected::IllegalTransition { from, to })
            };
            let mut state = before.clone();
            check(&mut state, &set_state(4, from, to), expected);
            // Who thinks the node to be in another state comes too late, or was heard already.
            if !from.is_final() && to != from {
                let other = if from == Joining { Active } else { Joining };
                check(
                    &mut before.clone(),
                    &set_state(4, other, to),
                    Err(Rejected::WrongState { state: from }),
                );
            }
            if state.tombstone(Uid(4)).is_some() {
                let again = Command::RegisterNode(registration(4));
                check(&mut state, &again, Err(Rejected::Gone(Uid(4))));
                let same_raft_id = Command::RegisterNode(registration(4 + (1 << 64)));
                check(&mut state, &same_raft_id, Err(Rejected::RaftIdTaken(Uid(4))));
                // Its name is free, its number is not.
                let named_alike = NodeRegistration { name: "node-4".to_owned(), ..registration(5) };
                let node = Applied::Node { number: NodeNumber(5), raft_id: Uid(5).raft_id() };
                check(&mut state, &Command::RegisterNode(named_alike), Ok(node));
            }
        }
    }
}

#[test]
fn a_node_drains_in_waves_and_leaves() {
    use NodeState::{Active, Drained, Draining, Left};
    let mut state = cluster_of(6);
    assert_eq!(epoch(&state), 2);
    check(&mut state, &set_state(4, Active, Draining), Ok(Applied::Done));
    check(&mut state, &set_state(4, Draining, Drained), Err(Rejected::HoldsSlots(NodeNumber(4))));
    settle(&mut state, 16);
    // 128 slots in waves of 16.
    assert_eq!(epoch(&state), 10);
    assert!(!state.holds_slots(NodeNumber(4)));
    // What comes later has nothing to do with it.
    check_raises(&mut state, &Command::SetPool { name: PoolName::from("big"), matchers: Vec::new() });
    check(&mut state, &set_state(4, Draining, Drained), Ok(Applied::Done));
    assert_eq!(state.min_write_epoch(), RingEpoch(0));
    check(&mut state, &set_state(4, Drained, Left), Ok(Applied::Done));
    assert_eq!(state.min_write_epoch(), RingEpoch(10), "the first epoch in which it owned nothing");
    assert_eq!(state.node(Uid(4)), None);
    assert_eq!(state.tombstone(Uid(4)).map(|tombstone| tombstone.state), Some(Left));
}

#[test]
fn a_lost_node_keeps_its_slots_until_they_are_moved() {
    use NodeState::{Active, Lost};
    let mut state = cluster_of(6);
    let table = state.mapping().pools[&PoolName::from("default")].table.clone();
    check(&mut state, &set_state(4, Active, Lost), Ok(Applied::Done));
    assert_eq!(state.mapping().pools[&PoolName::from("default")].table, table);
    assert_eq!(state.min_write_epoch(), RingEpoch(2));
    check(&mut state, &Command::UpdateNode(update(4)), Err(Rejected::Gone(Uid(4))));
    settle(&mut state, 64);
    assert_eq!(epoch(&state), 4);
    assert_eq!(state.node(Uid(4)), None);
    assert_eq!(state.min_write_epoch(), RingEpoch(4));
}

#[test]
fn a_dead_node_is_replaced() {
    let replace = |dead, new, force| Command::ReplaceNode { dead: Uid(dead), new: Uid(new), force, at: None };
    let mut state = cluster_of(6);
    let slots_of = |state: &RingState, number| {
        let table = &state.mapping().pools[&PoolName::from("default")].table;
        table
            .rows()
            .filter(|(_, owners)| owners.contains(&NodeNumber(number)))
            .map(|(slot, _)| slot)
            .collect::<Vec<_>>()
    };
    let inherited = slots_of(&state, 4);

    let same_name = NodeRegistration { name: "node-4".to_owned(), ..registration(7) };
    check(&mut state, &Command::RegisterNode(same_name.clone()), Err(Rejected::NameTaken(Uid(4))));
    let wrong = NodeRegistration { replaces: Some(Uid(1)), ..same_name.clone() };
    check(&mut state, &Command::RegisterNode(wrong), Err(Rejected::NameTaken(Uid(4))));
    let node = Applied::Node { number: NodeNumber(7), raft_id: Uid(7).raft_id() };
    let right = NodeRegistration { replaces: Some(Uid(4)), ..same_name };
    check(&mut state, &Command::RegisterNode(right), Ok(node));
    // As long as both are there the new one may not own slots.
    let activate = set_state(7, NodeState::Joining, NodeState::Active);
    check(&mut state, &activate, Err(Rejected::NameTaken(Uid(4))));

    check(&mut state, &replace(9, 7, false), Err(Rejected::UnknownNode(Uid(9))));
    check(&mut state, &replace(4, 9, false), Err(Rejected::UnknownNode(Uid(9))));
    check(&mut state, &replace(4, 1, false), Err(Rejected::HoldsSlots(NodeNumber(1))));
    check(&mut state, &replace(4, 4, false), Err(Rejected::WrongState { state: NodeState::Active }));
    check(&mut state, &replace(1, 7, false), Err(Rejected::NameTaken(Uid(4))));
    check(&mut state, &replace(5, 7, false), Err(Rejected::ZoneDiffers));
    check_raises(&mut state, &replace(4, 7, false));
    assert_eq!(slots_of(&state, 7), inherited);
    assert_eq!(state.node(Uid(7)).map(|node| node.state), Some(NodeState::Active));
    assert_eq!(state.min_write_epoch(), RingEpoch(3));
    let gone = Tombstone { number: NodeNumber(4), state: NodeState::Lost, successor: Some(Uid(7)) };
    assert_eq!(state.tombstone(Uid(4)), Some(&gone));
    check(&mut state, &replace(4, 7, false), Ok(Applied::Unchanged));

    let in_pool = |uid, pool: &str| NodeRegistration { pool: PoolName::from(pool), ..registration(uid) };
    check_raises(&mut state, &Command::SetPool { name: PoolName::from("big"), matchers: Vec::new() });
    state.apply(&Command::RegisterNode(in_pool(8, "big"))).expect("the node is new");
    state.apply(&Command::RegisterNode(in_pool(9, "default"))).expect("the node is new");
    check(&mut state, &replace(2, 8, true), Err(Rejected::PoolDiffers));
    check(&mut state, &replace(2, 9, false), Err(Rejected::ZoneDiffers));
    check_raises(&mut state, &replace(2, 9, true));
    // One that is lost already, with and without slots.
    check(&mut state, &set_state(3, NodeState::Active, NodeState::Lost), Ok(Applied::Done));
    state.apply(&Command::RegisterNode(in_pool(12, "default"))).expect("the node is new");
    check_raises(&mut state, &replace(3, 12, false));
    check(&mut state, &replace(8, 8, true), Err(Rejected::WrongState { state: NodeState::Joining }));
}

#[test]
fn plans_are_checked() {
    let mut state = cluster_of(6);
    let table = state.mapping().pools[&PoolName::from("default")].table.clone();
    let plan = |moves: Vec<Move>| PlanCommand {
        pool: PoolName::from("default"),
        base_epoch: RingEpoch(2),
        replicas: ReplicaCount::new(3).expect("3 is allowed"),
        degraded: false,
        moves,
        reason: String::new(),
        plan_id: PlanId(77),
    };
    let slot = Slot(0);
    let at = |position: u8, to| Move {
        slot,
        position,
        from: table.owners(slot).get(usize::from(position)).copied(),
        to: NodeNumber(to),
    };
    // Nodes 1 and 4 are in zone a, and so on: who is not in the row and shares the zone of position 0?
    let first = table.owners(slot)[0].0;
    let (twin, stranger) = ((first + 2) % 6 + 1, first % 6 + 1);
    let mut refuse = |plan: PlanCommand, reason| check(&mut state, &Command::ApplyPlan(plan), Err(reason));
    refuse(
        PlanCommand { base_epoch: RingEpoch(1), ..plan(vec![at(0, twin)]) },
        Rejected::StalePlan { epoch: RingEpoch(2) },
    );
    refuse(
        PlanCommand { base_epoch: RingEpoch(3), ..plan(vec![at(0, twin)]) },
        Rejected::StalePlan { epoch: RingEpoch(2) },
    );
    let other = PoolName::from("x");
    refuse(PlanCommand { pool: other.clone(), ..plan(vec![at(0, twin)]) }, Rejected::UnknownPool(other));
    let replicas = |count| ReplicaCount::new(count).expect("a test's number is allowed");
    refuse(PlanCommand { replicas: replicas(2), ..plan(vec![at(0, twin)]) }, Rejected::WrongReplicas);
    refuse(PlanCommand { replicas: replicas(4), ..plan(vec![at(0, twin)]) }, Rejected::WrongReplicas);
    refuse(
        PlanCommand { replicas: replicas(2), degraded: true, ..plan(vec![at(0, twin)]) },
        Rejected::Move(MoveFault::FewerReplicas),
    );
    refuse(plan(vec![]), Rejected::EmptyPlan);
    refuse(plan(vec![at(3, twin)]), Rejected::Move(MoveFault::OutOfTable { slot, position: 3 }));
    refuse(plan(vec![at(0, 9)]), Rejected::Row { slot, fault: RowFault::NotEligible(NodeNumber(9)) });
    let in_row = table.owners(slot)[1];
    refuse(plan(vec![at(0, in_row.0)]), Rejected::Row { slot, fault: RowFault::Repeated(in_row) });
    if !table.owns(NodeNumber(stranger), slot) {
        let found = state.apply(&Command::ApplyPlan(plan(vec![at(0, stranger)])));
        assert!(matches!(found, Err(Rejected::Row { fault: RowFault::ZoneCrowded(_), .. })), "{found:?}");
    }

    let good = Command::ApplyPlan(plan(vec![at(0, twin)]));
    check_raises(&mut state, &good);
    // Again, though it is for an earlier epoch: the answer of the first time.
    let answer = state.apply(&good);
    assert_eq!(answer, Ok(Applied::Ring { epoch: RingEpoch(3), digest: state.digest() }));
    assert_eq!(state.epoch(), RingEpoch(3));

    // A row that a plan touches must be mended as a whole.
    for uid in [2, 3, 5, 6] {
        check(&mut state, &set_state(uid, NodeState::Active, NodeState::Draining), Ok(Applied::Done));
    }
    let back = Move { from: Some(NodeNumber(twin)), ..at(0, first) };
    let half = PlanCommand { base_epoch: RingEpoch(3), plan_id: PlanId(78), ..plan(vec![back]) };
    check(&mut state, &Command::ApplyPlan(half), Err(Rejected::TooFewNodes));
}

#[test]
fn fewer_replicas_must_be_allowed() {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    state.apply(&Command::RegisterNode(registration(1))).expect("the node is new");
    state.apply(&set_state(1, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    let pool = PoolName::from("default");
    let plan = state.plan(&pool, &state.members(&pool), Goal::Settle, true).expect("the pool is there");
    let plan = plan.expect("degraded is allowed");
    let command = |degraded| {
        Command::ApplyPlan(PlanCommand {
            pool: pool.clone(),
            base_epoch: RingEpoch(1),
            replicas: plan.replicas,
            degraded,
            moves: plan.moves.clone(),
            reason: String::new(),
            plan_id: PlanId(1),
        })
    };
    check(&mut state, &command(false), Err(Rejected::WrongReplicas));
    check_raises(&mut state, &command(true));
    for uid in [2, 3] {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    }
    settle(&mut state, 1);
    assert_eq!(state.mapping().pools[&pool].table.replicas(), ReplicaCount::new(3));
    check_invariants(&state);
}

#[test]
fn tenants_and_pools() {
    let mut state = cluster_of(3);
    let tenant =
        |pool, slots, limits| Command::SetTenant { tenant: TenantName::from("t"), pool, slots, limits };
    let (big, set) = (PoolName::from("big"), |limits: &str| Setting::Set(limits.to_owned()));
    let slots = |count| Setting::Set(TenantSlots::new(count).expect("a test's number is not zero"));
    let unknown = Err(Rejected::UnknownPool(big.clone()));
    check(&mut state, &tenant(Setting::Set(big.clone()), Setting::Keep, Setting::Keep), unknown);
    let too_many = Err(Rejected::TooManySlots { slots: 256 });
    check(&mut state, &tenant(Setting::Keep, slots(257), Setting::Keep), too_many);
    check(&mut state, &tenant(Setting::Keep, Setting::Keep, set("x: 1")), Ok(Applied::Done));
    check(&mut state, &tenant(Setting::Keep, Setting::Keep, set("x: 1")), Ok(Applied::Unchanged));
    check_raises(&mut state, &tenant(Setting::Keep, slots(256), Setting::Keep));
    check(&mut state, &tenant(Setting::Keep, slots(256), Setting::Keep), Ok(Applied::Unchanged));
    assert_eq!(state.tenant_limits()[&TenantName::from("t")], "x: 1");

    let matchers =
        |pattern: &str| vec![TenantMatcher::Exact("v".to_owned()), TenantMatcher::Glob(pattern.to_owned())];
    let pool = |name: &str, matchers| Command::SetPool { name: PoolName::from(name), matchers };
    check_raises(&mut state, &pool("big", matchers("t*")));
    check(&mut state, &pool("big", matchers("t*")), Ok(Applied::Unchanged));
    check(&mut state, &pool("c", matchers("u*")), Err(Rejected::MatcherTaken(big.clone())));
    check(&mut state, &pool("c", matchers("[a]")), Err(Rejected::BadPattern));
    check(&mut state, &pool("", vec![]), Err(Rejected::BadText(Field::Pool)));
    check_raises(&mut state, &tenant(Setting::Set(big.clone()), Setting::Clear, Setting::Clear));
    assert_eq!(state.mapping().tenants[&TenantName::from("t")].slots, None);
    assert!(state.tenant_limits().is_empty());

    let delete = |name: &str| Command::DeletePool { name: PoolName::from(name) };
    let in_use = || Err(Rejected::PoolInUse(PoolName::from("big")));
    check(&mut state, &delete("default"), Err(Rejected::PoolInUse(PoolName::from("default"))));
    check(&mut state, &delete("big"), in_use());
    check_raises(&mut state, &pool("big", vec![]));
    check(&mut state, &delete("big"), in_use());
    check_raises(&mut state, &Command::DeleteTenant { tenant: TenantName::from("t") });
    check(&mut state, &Command::DeleteTenant { tenant: TenantName::from("t") }, Ok(Applied::Unchanged));
    let in_big =
        |uid| Command::RegisterNode(NodeRegistration { pool: PoolName::from("big"), ..registration(uid) });
    for uid in 4..=6 {
        state.apply(&in_big(uid)).expect("the node is new");
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
    }
    check(&mut state, &delete("big"), in_use());
    let first = wave(&state, "big", Goal::Settle, 1, 1).expect("there are nodes enough");
    check_raises(&mut state, &first);
    for uid in 4..=6 {
        state.apply(&set_state(uid, NodeState::Active, NodeState::Draining)).expect("it is Active");
    }
    check_raises(&mut state, &delete("big"));
    check(&mut state, &delete("big"), Ok(Applied::Unchanged));
    let gone = Err(Rejected::UnknownPool(big));
    check(&mut state, &set_state(4, NodeState::Draining, NodeState::Active), gone);
    check(&mut state, &set_state(4, NodeState::Draining, NodeState::Drained), Ok(Applied::Done));
}

/// All limits together have to fit into a message.
#[test]
fn limits_of_all_tenants_are_bounded() {
    let mut state = cluster_of(3);
    // With its name of six bytes each takes 16 KiB.
    let set = |number: u32, bytes: usize| Command::SetTenant {
        tenant: TenantName(format!("t{number:05}")),
        pool: Setting::Keep,
        slots: Setting::Keep,
        limits: Setting::Set("x".repeat(bytes)),
    };
    const EACH: usize = 16 * 1024 - 6;
    for number in 0..512 {
        state.apply(&set(number, EACH)).expect("there is room");
    }
    check(&mut state, &set(512, 1), Err(Rejected::TooMany(Field::Limits)));
    check(&mut state, &set(0, EACH + 1), Err(Rejected::TooMany(Field::Limits)));
    check(&mut state, &set(0, EACH - 8), Ok(Applied::Done));
    check(&mut state, &set(512, 2), Ok(Applied::Done));
    check(&mut state, &set(512, 3), Err(Rejected::TooMany(Field::Limits)));
}

#[test]
fn settings_have_versions() {
    let mut state = cluster_of(3);
    let config = |value: Option<&str>, if_version| Command::SetConfig {
        key: "k".to_owned(),
        value: value.map(str::to_owned),
        if_version,
    };
    check(&mut state, &config(Some("1"), Some(1)), Err(Rejected::WrongVersion { version: 0 }));
    check(&mut state, &config(Some("1"), Some(0)), Ok(Applied::Done));
    check(&mut state, &config(Some("2"), Some(0)), Err(Rejected::WrongVersion { version: 1 }));
    check(&mut state, &config(Some("1"), Some(1)), Ok(Applied::Unchanged));
    check(&mut state, &config(Some("2"), None), Ok(Applied::Done));
    check(&mut state, &config(None, Some(2)), Ok(Applied::Done));
    check(&mut state, &config(None, None), Ok(Applied::Unchanged));
    // A version is not given again.
    check(&mut state, &config(Some("1"), Some(0)), Ok(Applied::Done));
    assert_eq!(state.config()["k"], ConfigValue { value: "1".to_owned(), version: 3 });
    let long = Some("x".repeat(16 * 1024 + 1));
    check(&mut state, &config(long.as_deref(), None), Err(Rejected::BadText(Field::Config)));
}

#[test]
fn the_feature_level_follows_the_least_of_all_nodes() {
    let mut state = cluster_of(3);
    let level = |level| Command::SetFeatureLevel(FeatureLevel(level));
    check(&mut state, &level(1), Ok(Applied::Done));
    check(&mut state, &level(1), Ok(Applied::Unchanged));
    check(&mut state, &level(0), Err(Rejected::FeatureLevel));
    check(&mut state, &level(2), Err(Rejected::FeatureLevel));
    for uid in 1..=3 {
        let able = NodeUpdate { features: Some(FeatureLevel(2)), ..update(uid) };
        check(&mut state, &Command::UpdateNode(able), Ok(Applied::Done));
    }
    check(&mut state, &level(2), Ok(Applied::Done));
    check(&mut state, &Command::RegisterNode(registration(4)), Err(Rejected::FeatureLevel));
    let back = NodeUpdate { features: Some(FeatureLevel(1)), ..update(1) };
    check(&mut state, &Command::UpdateNode(back), Err(Rejected::FeatureLevel));
}

/// Nodes 1, 2 and 3 share all slots, and so do 4, 5 and 6.
#[test]
fn a_loss_is_remembered_until_the_others_have_uploaded() {
    let mut state = cluster_of(6);
    let newcomer = |state: &mut RingState, uid: u128, old: u128| {
        let zone = state.node(Uid(old)).expect("it is there").zone.clone();
        let new = NodeRegistration { zone, ..registration(uid) };
        state.apply(&Command::RegisterNode(new)).expect("the node is new");
    };
    let replace = |dead, new, force, at| Command::ReplaceNode {
        dead: Uid(dead),
        new: Uid(new),
        force,
        at: Some(UnixMillis(at)),
    };
    let losses = |state: &RingState| -> Vec<(u128, Option<i64>, Vec<u128>)> {
        let losses = state.open_losses().iter();
        let uids = |loss: &OpenLoss| loss.waits_for.iter().map(|uid| uid.0).collect();
        losses.map(|(gone, loss)| (gone.0, loss.at.map(|at| at.0), uids(loss))).collect()
    };
    newcomer(&mut state, 7, 4);
    check_raises(&mut state, &replace(4, 7, false, 10));
    assert_eq!(losses(&state), [(4, Some(10), vec![5, 6])]);
    assert_eq!(state.take_over_near(Uid(5)).map(|loss| loss.name.as_str()), Some("node-4"));
    // One of its group may have the last copy, one of another group has none.
    newcomer(&mut state, 8, 7);
    newcomer(&mut state, 9, 5);
    newcomer(&mut state, 10, 1);
    check(&mut state, &replace(5, 9, false, 20), Err(Rejected::ReplacedLately(Uid(4))));
    check_raises(&mut state, &replace(1, 10, false, 20));
    // One without slots leaves nothing to be uploaded.
    newcomer(&mut state, 11, 6);
    newcomer(&mut state, 12, 11);
    check(&mut state, &replace(11, 12, false, 30), Ok(Applied::Done));
    assert_eq!(losses(&state), [(1, Some(20), vec![2, 3]), (4, Some(10), vec![5, 6])]);
    // Who took over has nothing of the first, and its own loss is one more.
    check_raises(&mut state, &replace(7, 8, false, 40));
    let of_both = [(1, Some(20), vec![2, 3]), (4, Some(10), vec![5, 6]), (7, Some(40), vec![5, 6])];
    assert_eq!(losses(&state), of_both);

    let close = |uid, at| Command::CloseLoss { uid: Uid(uid), at: UnixMillis(at) };
    check(&mut state, &close(7, 10), Ok(Applied::Unchanged));
    check(&mut state, &close(99, 10), Ok(Applied::Unchanged));
    check(&mut state, &close(4, 10), Ok(Applied::Done));
    check(&mut state, &close(4, 10), Ok(Applied::Unchanged));
    check(&mut state, &replace(5, 9, false, 50), Err(Rejected::ReplacedLately(Uid(7))));
    check(&mut state, &close(7, 40), Ok(Applied::Done));
    check_raises(&mut state, &replace(5, 9, false, 50));
    assert_eq!(losses(&state), [(1, Some(20), vec![2, 3]), (5, Some(50), vec![6, 8])]);
}

/// Nobody takes the slots of these at once, and nobody who could be asked says when they were lost.
#[test]
fn a_loss_without_a_successor_is_remembered_too() {
    use NodeState::{Active, Lost};
    let forget = |uid| Command::ForgetNode { uid: Uid(uid), reason: "test".to_owned() };
    let open = |state: &RingState| -> Vec<(u128, Option<i64>)> {
        state.open_losses().iter().map(|(gone, loss)| (gone.0, loss.at.map(|at| at.0))).collect()
    };
    let replace = |dead, new| Command::ReplaceNode {
        dead: Uid(dead),
        new: Uid(new),
        force: false,
        at: Some(UnixMillis(90)),
    };
    for lose in [forget(4), set_state(4, Active, Lost)] {
        let mut state = cluster_of(6);
        check(&mut state, &lose, Ok(Applied::Done));
        assert_eq!(open(&state), [(4, None)]);
        let date = |at| Command::DateLoss { uid: Uid(4), at: UnixMillis(at) };
        check(&mut state, &Command::CloseLoss { uid: Uid(4), at: UnixMillis(7) }, Ok(Applied::Unchanged));
        check(&mut state, &date(7), Ok(Applied::Done));
        check(&mut state, &date(8), Ok(Applied::Unchanged));
        assert_eq!(open(&state), [(4, Some(7))]);
        check(&mut state, &Command::DateLoss { uid: Uid(5), at: UnixMillis(7) }, Ok(Applied::Unchanged));
        // Its slots go elsewhere, and what is known of it stays.
        check(&mut state, &forget(4), Ok(if lose == forget(4) { Applied::Unchanged } else { Applied::Done }));
        settle(&mut state, 10_000);
        assert_eq!(state.node(Uid(4)), None);
        let zone = state.node(Uid(5)).expect("it is there").zone.clone();
        state.apply(&Command::RegisterNode(NodeRegistration { zone, ..registration(7) })).expect("it is new");
        check(&mut state, &replace(5, 7), Err(Rejected::ReplacedLately(Uid(4))));
        check(&mut state, &Command::CloseLoss { uid: Uid(4), at: UnixMillis(7) }, Ok(Applied::Done));
        check_raises(&mut state, &replace(5, 7));
    }
    // One that is lost already is replaced without being lost again, however near the other was.
    let mut state = cluster_of(6);
    for uid in [4, 5] {
        check(&mut state, &set_state(uid, Active, Lost), Ok(Applied::Done));
    }
    let zone = state.node(Uid(5)).expect("it is there").zone.clone();
    state.apply(&Command::RegisterNode(NodeRegistration { zone, ..registration(7) })).expect("it is new");
    check_raises(&mut state, &replace(5, 7));
    assert_eq!(open(&state), [(4, None), (5, None)]);
}

#[test]
fn a_node_is_given_up() {
    use NodeState::{Active, Drained, Draining, Joining, Left, Lost};
    let forget = |uid| Command::ForgetNode { uid: Uid(uid), reason: "test".to_owned() };
    let mut state = cluster_of(6);
    check(&mut state, &forget(9), Err(Rejected::UnknownNode(Uid(9))));
    let endless = Command::ForgetNode { uid: Uid(1), reason: "x".repeat(1025) };
    check(&mut state, &endless, Err(Rejected::BadText(Field::Reason)));
    // Without slots it is gone at once.
    let idle = [(7, vec![], Left), (8, vec![Active, Draining, Drained], Left), (9, vec![Active], Lost)];
    for (uid, way, expected) in idle {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        let mut at = Joining;
        for to in way {
            state.apply(&set_state(uid, at, to)).expect("the way is legal");
            at = to;
        }
        check(&mut state, &forget(uid), Ok(Applied::Done));
        assert_eq!(state.node(Uid(uid)), None);
        assert_eq!(state.tombstone(Uid(uid)).map(|tombstone| tombstone.state), Some(expected));
        check(&mut state, &forget(uid), Ok(Applied::Unchanged));
    }
    // With slots it is lost until they are moved.
    let is_forgotten = |state: &RingState, uid| state.node(Uid(uid)).map(|node| (node.state, node.forgotten));
    check(&mut state, &set_state(4, Active, Lost), Ok(Applied::Done));
    assert_eq!(is_forgotten(&state, 4), Some((Lost, false)));
    let version = state.nodes_version();
    check(&mut state, &forget(4), Ok(Applied::Done));
    assert_eq!(state.nodes_version(), NodesVersion(version.0 + 1));
    check(&mut state, &forget(4), Ok(Applied::Unchanged));
    check(&mut state, &forget(5), Ok(Applied::Done));
    assert_eq!((is_forgotten(&state, 4), is_forgotten(&state, 5)), (Some((Lost, true)), Some((Lost, true))));
    settle(&mut state, 10_000);
    assert_eq!((state.node(Uid(4)), state.node(Uid(5))), (None, None));
    assert_eq!(state.min_write_epoch(), state.epoch());
}
