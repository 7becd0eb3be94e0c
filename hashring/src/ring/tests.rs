use super::*;
use crate::{
    ids::{
        ClusterId, FeatureLevel, HashSeed, NodeNumber, NodesVersion, PlanId, PoolName, ReplicaCount,
        RingEpoch, Slot, SlotCount, TenantName, TenantSlots, TokenId, Uid, UnixMillis, Weight,
    },
    planner::Goal,
    spread::RowFault,
    table::{Move, MoveFault},
};

mod commands;
mod logs;

pub(crate) use logs::{golden_log, replay};

const ZONES: [&str; 3] = ["a", "b", "c"];

pub(crate) fn init() -> Command {
    Command::InitCluster(InitCluster {
        cluster_id: ClusterId([7; 16]),
        hash_seed: HashSeed(0x5EED),
        hash_function: HashFunction::Xxh3V1,
        slots: SlotCount::MIN,
        replicas: ReplicaCount::new(3).expect("3 is allowed"),
        founders: vec![Uid(1), Uid(2), Uid(3)],
        created: UnixMillis(1_700_000_000_000),
    })
}

/// The registration of node `uid`, by turns in one of three zones.
pub(crate) fn registration(uid: u128) -> NodeRegistration {
    let at = |port: u16| format!("node-{uid}:{port}");
    NodeRegistration {
        uid: Uid(uid),
        name: format!("node-{uid}"),
        zone: ZONES[(uid as usize + 2) % 3].to_owned(),
        pool: PoolName::from(PoolName::DEFAULT),
        weight: Weight::DEFAULT,
        addresses: Addresses { grpc: at(10_901), http: at(10_902), cluster: at(10_903) },
        version: "1.0.0".to_owned(),
        features: FeatureLevel(1),
        token: None,
        at: UnixMillis(0),
        replaces: None,
    }
}

pub(crate) fn update(uid: u128) -> NodeUpdate {
    let (addresses, version, features) = (None, None, None);
    NodeUpdate { uid: Uid(uid), addresses, version, features, weight: None, pool: None, zone: None }
}

pub(crate) fn set_state(uid: u128, from: NodeState, to: NodeState) -> Command {
    Command::SetNodeState { uid: Uid(uid), from, to, reason: "test".to_owned() }
}

/// The next wave of what the leader would plan for a pool; none if there is nothing to do or too few
/// nodes.
pub(crate) fn wave(
    state: &RingState,
    pool: &str,
    goal: Goal,
    moves_max: usize,
    plan_id: u128,
) -> Option<Command> {
    let pool = PoolName::from(pool);
    let plan = state.plan(&pool, &state.members(&pool), goal, false)?.ok()?;
    let moves = plan.waves(moves_max).first()?.to_vec();
    Some(Command::ApplyPlan(PlanCommand {
        pool,
        base_epoch: state.epoch(),
        replicas: plan.replicas,
        degraded: false,
        moves,
        reason: "test".to_owned(),
        plan_id: PlanId(plan_id),
    }))
}

/// Applies all waves of a plan.
pub(crate) fn settle(state: &mut RingState, moves_max: usize) {
    while let Some(command) =
        wave(state, PoolName::DEFAULT, Goal::Settle, moves_max, u128::from(state.epoch().0) << 64)
    {
        state.apply(&command).expect("a plan is valid");
    }
}

/// A cluster of active nodes 1 to `count` with a settled table.
pub(crate) fn cluster_of(count: u128) -> RingState {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    for uid in 1..=count {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("the node is Joining");
    }
    settle(&mut state, 100_000);
    state
}

/// What must hold whatever was applied.
pub(crate) fn check_invariants(state: &RingState) {
    let Some(cluster) = state.cluster() else {
        assert_eq!(state, &RingState::default());
        return;
    };
    let slots = cluster.slots.as_len();
    for (name, pool) in &state.mapping().pools {
        let rows: Vec<(Slot, &[NodeNumber])> = pool.table.rows().collect();
        assert!(pool.table.is_empty() || rows.len() == slots, "{name} has {} rows", rows.len());
        for (slot, owners) in rows {
            for (index, owner) in owners.iter().enumerate() {
                assert!(!owners[..index].contains(owner), "{slot:?} has {owner} twice");
                let node = state.nodes().find(|node| node.number == *owner).expect("owners are known");
                assert_eq!(&node.pool, name, "{owner} owns slots of another pool");
                let may_hold =
                    matches!(node.state, NodeState::Active | NodeState::Draining | NodeState::Lost);
                assert!(may_hold, "{owner} is {:?} and holds slots", node.state);
            }
        }
    }
    let mut numbers = std::collections::BTreeSet::new();
    let mut active_names = std::collections::BTreeSet::new();
    let mut raft_ids = std::collections::BTreeSet::new();
    for node in state.nodes() {
        assert!(numbers.insert(node.number), "{} is there twice", node.number);
        assert!(raft_ids.insert(node.uid.raft_id()));
        assert!(
            node.state != NodeState::Active || active_names.insert(&node.name),
            "{} is there twice",
            node.name
        );
        let is_lost = node.state == NodeState::Lost;
        assert_eq!(state.tombstone(node.uid).is_some(), is_lost);
        assert!(!is_lost || state.holds_slots(node.number), "a lost node without slots is not listed");
        assert_ne!(node.state, NodeState::Left);
        assert!(!node.forgotten || is_lost, "{} is given up and there", node.number);
        assert!(node.features >= state.feature_level() || is_lost);
    }
    for (gone, loss) in state.open_losses() {
        assert!(state.tombstone(*gone).is_some_and(|it| it.state == NodeState::Lost), "{gone} is not lost");
        assert!(!loss.waits_for.is_empty() && !loss.waits_for.contains(gone));
    }
    for pool in state.mapping().tenants.values().filter_map(|tenant| tenant.pool.as_ref()) {
        assert!(state.mapping().pools.contains_key(pool), "a tenant is in no pool");
    }
    assert!(state.min_write_epoch() <= state.epoch());
    assert_eq!(state.digest(), state.mapping().digest(cluster));
    let epochs: Vec<u64> = state.deltas().map(|delta| delta.epoch.0).collect();
    let last = state.epoch().0;
    assert_eq!(epochs, (1.max(last.saturating_sub(7))..=last).collect::<Vec<_>>());
}
