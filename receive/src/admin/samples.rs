//! Nodes and rings for tests.

use weir_hashring::{
    cluster::{ClusterStatus, NodeStatus, RaftStatus, ReportStatus},
    ids::{
        ClusterId, Digest, FeatureLevel, HashSeed, NodeNumber, NodesVersion, PlanId, PoolName, ReplicaCount,
        RingEpoch, SlotCount, Uid, UnixMillis, Weight,
    },
    planner::Goal,
    ring::{
        Addresses, Command, HashFunction, InitCluster, NodeRegistration, NodeState, PlanCommand, RingState,
    },
    table::Move,
};

/// A node that is well.
pub fn node(uid: u128, name: &str) -> NodeStatus {
    NodeStatus {
        uid: Uid(uid),
        number: NodeNumber(uid as u32),
        name: name.to_owned(),
        zone: format!("zone-{name}"),
        pool: PoolName::DEFAULT.to_owned(),
        weight: 1,
        state: NodeState::Active,
        forgotten: false,
        since: NodesVersion(1),
        waiting: None,
        needs_person: false,
        addresses: addresses(name),
        version: "1.0.0".to_owned(),
        slots: 4096,
        report: Some(ReportStatus {
            boot: 1,
            ready: true,
            head_series: 1000,
            head_series_max: 0,
            uploaded_through: None,
            drained: false,
            ms_ago: 1200,
            lives: true,
            holds_moves_back: false,
            clock_offset_ms: None,
        }),
    }
}

fn addresses(name: &str) -> Addresses {
    Addresses {
        grpc: format!("{name}:10901"),
        http: format!("{name}:10902"),
        cluster: format!("{name}:10903"),
    }
}

/// What the leader of three nodes shows, which is the first of them.
pub fn leader_of_three() -> ClusterStatus {
    ClusterStatus {
        uid: Uid(1),
        name: "a".to_owned(),
        boot: 1,
        cluster: Some(ClusterId([7; 16])),
        generation: 0,
        epoch: RingEpoch(5),
        digest: Digest(0xfeed),
        min_write_epoch: RingEpoch(0),
        nodes_version: NodesVersion(6),
        has_quorum: true,
        epochs: Vec::new(),
        pools: Vec::new(),
        tokens: Vec::new(),
        problems: Vec::new(),
        raft: Some(RaftStatus {
            term: 2,
            is_leader: true,
            leader: Some(1),
            voters: vec![1, 2, 3],
            is_changing: false,
            entries: 12,
            entries_applied: 12,
            quorum_acked_ms_ago: Some(40),
        }),
        nodes: vec![node(1, "a"), node(2, "b"), node(3, "c")],
    }
}

/// A ring of `count` nodes in three zones, named by their numbers from 1, with a settled table.
pub fn ring(count: u32) -> RingState {
    let mut state = RingState::default();
    let init = Command::InitCluster(InitCluster {
        cluster_id: ClusterId([7; 16]),
        hash_seed: HashSeed(3),
        hash_function: HashFunction::Xxh3V1,
        slots: SlotCount::new(1024).expect("it is allowed"),
        replicas: ReplicaCount::new(3).expect("it is allowed"),
        founders: vec![Uid(1)],
        created: UnixMillis(0),
    });
    state.apply(&init).expect("the state is empty");
    for number in 1..=count {
        add(&mut state, number);
    }
    if count > 0 {
        settle(&mut state);
    }
    state
}

/// A ring of two nodes with two copies, though it was founded for three.
pub fn degraded_ring() -> RingState {
    let mut state = ring(0);
    add(&mut state, 1);
    add(&mut state, 2);
    let pool = PoolName::from(PoolName::DEFAULT);
    let plan = state.plan(&pool, &state.members(&pool), Goal::Settle, true);
    let plan = plan.expect("there is the pool").expect("two will do");
    apply_plan(&mut state, plan.replicas, plan.moves);
    state
}

/// A node joins and may own slots.
pub fn add(state: &mut RingState, number: u32) {
    let registration = NodeRegistration {
        uid: Uid(number.into()),
        name: format!("n{number}"),
        zone: ["a", "b", "c"][number as usize % 3].to_owned(),
        pool: PoolName::from(PoolName::DEFAULT),
        weight: Weight::DEFAULT,
        addresses: addresses(&format!("n{number}")),
        version: "1.0.0".to_owned(),
        features: FeatureLevel(1),
        token: None,
        at: UnixMillis(0),
        replaces: None,
    };
    state.apply(&Command::RegisterNode(registration)).expect("the node is new");
    set_state(state, number, NodeState::Joining, NodeState::Active);
}

/// A node goes from one state to another.
pub fn set_state(state: &mut RingState, number: u32, from: NodeState, to: NodeState) {
    let reason = "test".to_owned();
    let command = Command::SetNodeState { uid: Uid(number.into()), from, to, reason };
    state.apply(&command).expect("the node is in that state");
}

/// All moves that are wanted are made.
pub fn settle(state: &mut RingState) {
    let pool = PoolName::from(PoolName::DEFAULT);
    let plan = state.plan(&pool, &state.members(&pool), Goal::Settle, false);
    let plan = plan.expect("there is the pool").expect("there are nodes enough");
    if !plan.is_empty() {
        apply_moves(state, plan.moves.clone());
    }
}

/// Moves are made.
pub fn apply_moves(state: &mut RingState, moves: Vec<Move>) {
    apply_plan(state, ReplicaCount::new(3).expect("it is allowed"), moves);
}

fn apply_plan(state: &mut RingState, replicas: ReplicaCount, moves: Vec<Move>) {
    let command = Command::ApplyPlan(PlanCommand {
        pool: PoolName::from(PoolName::DEFAULT),
        base_epoch: state.epoch(),
        replicas,
        degraded: replicas.get() < 3,
        moves,
        reason: "test".to_owned(),
        plan_id: PlanId(state.epoch().0.into()),
    });
    state.apply(&command).expect("the moves fit");
}
