//! What a leader has to propose next: a pure step from what it knows.
//!
//! In this order: found the ring, let nodes that have joined long enough own slots, give a pool its
//! first table, and bring tables to what their members ask for, wave by wave. A node that is silent
//! or lost moves nothing; what a lost node holds waits for a replacement or for people.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    ids::{NodeNumber, PlanId, PoolName, Uid},
    planner::{Goal, moves_per_step_default},
    ring::{Command, InitCluster, Node, NodeState, PlanCommand, RingState},
};

/// What the leader knows beside the ring.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The ring.
    pub state: &'a RingState,
    /// What to found the ring with, if there is none.
    pub init: &'a InitCluster,
    /// The nodes that have been Joining for as long as they should.
    pub joined: &'a BTreeSet<Uid>,
    /// A node says that it is not ready, or near its limit of series: nothing is moved now.
    pub is_held_back: bool,
    /// How long ago the last wave was; none if there was none.
    pub since_last_wave: Option<Duration>,
    /// Pause between waves.
    pub step_interval: Duration,
    /// Moves in one wave; none for the default.
    pub max_moves_per_step: Option<usize>,
    /// Identity of the next plan.
    pub plan_id: PlanId,
}

/// What to propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing, until something changes.
    Rest,
    /// Nothing, until the time of the next wave or until nothing is held back any more.
    Wait,
    /// A command.
    Propose(Box<Command>),
}

/// The next duty.
pub fn next_duty(situation: &Situation<'_>) -> Duty {
    let state = situation.state;
    let Some(cluster) = state.cluster() else {
        return Duty::Propose(Box::new(Command::InitCluster(situation.init.clone())));
    };
    // Two of a name are for people, or for a replacement, to sort out.
    let has_namesake = |node: &Node| {
        state.nodes().any(|other| other.uid != node.uid && other.name == node.name && !other.state.is_final())
    };
    // Whoever founds a cluster has nothing that could be read: they need not wait, once all are there.
    let has_founders = cluster.founders.iter().all(|uid| state.node(*uid).is_some());
    let is_founding = |node: &Node| {
        let pool = state.mapping().pools.get(&node.pool);
        has_founders && cluster.founders.contains(&node.uid) && pool.is_some_and(|pool| pool.table.is_empty())
    };
    let joined = |node: &&Node| {
        let may_own = situation.joined.contains(&node.uid) || is_founding(node);
        node.state == NodeState::Joining && may_own && !has_namesake(node)
    };
    if let Some(node) = state.nodes().find(joined) {
        let (from, to, reason) = (NodeState::Joining, NodeState::Active, "joined".to_owned());
        return Duty::Propose(Box::new(Command::SetNodeState { uid: node.uid, from, to, reason }));
    }
    let interval_passed = situation.since_last_wave.is_none_or(|since| since >= situation.step_interval);
    let moves_max = situation.max_moves_per_step.unwrap_or(moves_per_step_default(cluster.slots)).max(1);
    let mut duty = Duty::Rest;
    for name in state.mapping().pools.keys() {
        let Some((command, is_first)) = wave(state, name, moves_max, situation.plan_id) else { continue };
        if is_first || (interval_passed && !situation.is_held_back) {
            return Duty::Propose(Box::new(command));
        }
        duty = Duty::Wait;
    }
    duty
}

/// The next wave of a pool, and whether it is its first table; none if there is nothing to do.
fn wave(state: &RingState, name: &PoolName, moves_max: usize, plan_id: PlanId) -> Option<(Command, bool)> {
    let table = &state.mapping().pools.get(name)?.table;
    let is_first = table.is_empty();
    // Founders come one after the other, and a table for some of them would be moved at once.
    let is_joining = state.nodes().any(|node| node.pool == *name && node.state == NodeState::Joining);
    if is_first && is_joining {
        return None;
    }
    let lost: BTreeSet<NodeNumber> =
        state.nodes().filter(|node| node.state == NodeState::Lost).map(|node| node.number).collect();
    if !lost.is_empty() && table.cells().iter().any(|owner| lost.contains(owner)) {
        return None;
    }
    let plan = state.plan(name, &state.members(name), Goal::Settle, false)?.ok()?;
    let moves = plan.waves(moves_max).first()?.to_vec();
    let command = Command::ApplyPlan(PlanCommand {
        pool: name.clone(),
        base_epoch: state.epoch(),
        replicas: plan.replicas,
        degraded: false,
        moves,
        reason: if is_first { "first table" } else { "members changed" }.to_owned(),
        plan_id,
    });
    Some((command, is_first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::{cluster_of, init, registration, set_state};

    fn init_cluster() -> InitCluster {
        let Command::InitCluster(init) = init() else { panic!("it founds") };
        init
    }

    fn duty(state: &RingState, joined: &[u128], change: impl FnOnce(&mut Situation<'_>)) -> Duty {
        let (init, joined) = (init_cluster(), joined.iter().copied().map(Uid).collect());
        let mut situation = Situation {
            state,
            init: &init,
            joined: &joined,
            is_held_back: false,
            since_last_wave: None,
            step_interval: Duration::from_secs(30),
            max_moves_per_step: None,
            plan_id: PlanId(u128::from(state.epoch().0)),
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
            assert_eq!(duty(&state, &[], |_| ()), Duty::Rest, "{uid}");
            state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        }
        assert_eq!(duty(&state, &[], |_| ()), Duty::Rest, "nobody has joined long enough");
        for _ in 1..=3 {
            let next = duty(&state, &[1, 2, 3], |_| ());
            assert!(matches!(apply(&mut state, next), Command::SetNodeState { to: NodeState::Active, .. }));
        }
        // The first table moves nothing, so nothing holds it back.
        let next = duty(&state, &[], |situation| {
            situation.is_held_back = true;
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
        assert_eq!(duty(&state, &[], |_| ()), Duty::Rest);
        state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
        let first = duty(&state, &[], |_| ());
        apply(&mut state, first);
        assert_eq!(state.mapping().pools[&PoolName::from("default")].table.slots_of_nodes().len(), 4);
    }

    #[test]
    fn waves_wait_for_their_time_and_are_held_back() {
        let mut state = cluster_of(3);
        state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
        state.apply(&set_state(4, NodeState::Joining, NodeState::Active)).expect("it is Joining");
        let wave = |state: &RingState, seconds: Option<u64>, is_held_back| {
            duty(state, &[], |situation| {
                situation.since_last_wave = seconds.map(Duration::from_secs);
                situation.is_held_back = is_held_back;
                situation.max_moves_per_step = Some(20);
            })
        };
        assert_eq!(wave(&state, Some(29), false), Duty::Wait);
        assert_eq!(wave(&state, Some(30), true), Duty::Wait);
        let mut moves = 0;
        let mut waves = 0;
        while let Duty::Propose(command) = wave(&state, Some(30), false) {
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
        assert_eq!(wave(&state, None, false), Duty::Rest);
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
        assert_eq!(duty(&lost, &[], |_| ()), Duty::Rest);
        assert!(lost.holds_slots(NodeNumber(2)));
    }

    #[test]
    fn a_node_with_a_namesake_stays_joining() {
        let mut state = cluster_of(3);
        let mut namesake = registration(4);
        namesake.name = "node-2".to_owned();
        namesake.replaces = Some(Uid(2));
        state.apply(&Command::RegisterNode(namesake)).expect("it replaces the other");
        assert_eq!(duty(&state, &[4], |_| ()), Duty::Rest);
    }

    #[test]
    fn too_few_nodes_keep_what_they_have() {
        let mut state = cluster_of(3);
        state.apply(&set_state(2, NodeState::Active, NodeState::Draining)).expect("it is Active");
        assert_eq!(duty(&state, &[], |_| ()), Duty::Rest);
        assert!(state.holds_slots(NodeNumber(2)));
    }
}
