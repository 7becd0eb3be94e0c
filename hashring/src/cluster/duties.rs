//! What a leader has to propose next: a pure step from what it knows.
//!
//! In this order: found the ring, look after the data of nodes that are gone, do what is next in the lives of
//! the others (see [`super::node_steps`]), give a pool its first table, and bring tables to what their members ask for, wave by wave. A node that is
//! silent or lost moves nothing; what a lost node holds waits until that is replaced or given up. A wave waits
//! until all who get slots in it are there and ready; who gives them away need not be.

use std::{collections::BTreeSet, time::Duration};

use super::{
    config::ClusterTimers,
    leader::summary,
    node_steps::{Facts, NodeStep, loss_step, node_step},
    objections::lives,
    policy::ClusterPolicies,
};
use crate::{
    ids::{NodeNumber, PlanId, PoolName, TokenId, UnixMillis},
    planner::{Goal, moves_per_step_default},
    ring::{Cluster, Command, InitCluster, JoinToken, Node, NodeState, PlanCommand, RingState, TOKENS_MAX},
};

/// For so long after its end people are told of a token that it has ended, and not that there is none.
const TOKEN_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What the leader knows beside the ring.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The ring.
    pub state: &'a RingState,
    /// What to found the ring with, if there is none.
    pub init: &'a InitCluster,
    /// What it knows of nodes.
    pub facts: &'a Facts,
    /// When things happen.
    pub timers: &'a ClusterTimers,
    /// What it decides by.
    pub policies: &'a ClusterPolicies,
    /// The tables of this very ring are known to be as they should be.
    pub are_tables_settled: bool,
    /// Waves of this very ring that waited for those who would get slots.
    pub held: &'a [HeldWave],
    /// How long ago the last wave was; none if there was none.
    pub since_last_wave: Option<Duration>,
    /// Identity of the next plan.
    pub plan_id: PlanId,
    /// What this very ring refused, as the log puts it: it is not proposed again, and nothing else waits
    /// for it.
    pub rejected: &'a BTreeSet<String>,
}

/// What to propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing, until something changes.
    Rest,
    /// Nothing, until the time of the next wave, or until those who join are there.
    Wait,
    /// Nothing, until those who would get slots are there, and ready.
    Held(Vec<HeldWave>),
    /// A command.
    Propose(Box<Command>),
}

/// A wave that waits for those who would get slots in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldWave {
    /// In which pool.
    pub pool: PoolName,
    /// Who would get slots.
    pub receivers: BTreeSet<NodeNumber>,
}

impl HeldWave {
    /// What it waits for, in words; none if it need not wait.
    pub fn waits_for(&self, state: &RingState, facts: &Facts, timers: &ClusterTimers) -> Option<String> {
        let receivers = state.nodes().filter(|node| self.receivers.contains(&node.number));
        let why = |node: &Node| {
            if lives(facts, node.uid, timers).is_none() {
                return Some(format!("{} is not heard of", node.name));
            }
            let is_ready = !facts.not_ready.contains(&node.uid);
            (!is_ready)
                .then(|| format!("{} says that it is not ready, or near its limit of series", node.name))
        };
        let why: Vec<String> = receivers.filter_map(why).collect();
        let pool = &self.pool;
        (!why.is_empty())
            .then(|| format!("slots of pool {pool} are to be moved, and who gets them: {}", why.join("; ")))
    }
}

/// The next duty.
pub fn next_duty(situation: &Situation<'_>) -> Duty {
    let state = situation.state;
    let Some(cluster) = state.cluster() else {
        return Duty::Propose(Box::new(Command::InitCluster(situation.init.clone())));
    };
    for (gone, loss) in state.open_losses() {
        if let Some(command) = loss_step(state, *gone, loss, situation.facts)
            && !situation.rejected.contains(&summary(&command))
        {
            return Duty::Propose(Box::new(command));
        }
    }
    for node in state.nodes() {
        let step = node_step(state, node, situation.facts, situation.timers, situation.policies);
        if let NodeStep::Propose(command) = step
            && !situation.rejected.contains(&summary(&command))
        {
            return Duty::Propose(command);
        }
    }
    if let Some(id) = token_to_remove(state, situation.facts.now) {
        return Duty::Propose(Box::new(Command::RevokeToken { id: id.clone() }));
    }
    if situation.are_tables_settled {
        return Duty::Rest;
    }
    let (mut later, mut held) = (false, Vec::new());
    for name in state.mapping().pools.keys() {
        match wave(situation, cluster, name) {
            Wave::None => {}
            Wave::Later => later = true,
            Wave::Held(wave) => held.push(wave),
            Wave::Now(command) if situation.rejected.contains(&summary(&command)) => {}
            Wave::Now(command) => return Duty::Propose(command),
        }
    }
    match (held.is_empty(), later) {
        (false, _) => Duty::Held(held),
        (true, true) => Duty::Wait,
        (true, false) => Duty::Rest,
    }
}

/// A token that nobody joins with any more, when it need not be told apart from one that never was.
fn token_to_remove(state: &RingState, now: UnixMillis) -> Option<&TokenId> {
    let kept = i64::try_from(TOKEN_KEPT.as_millis()).unwrap_or(i64::MAX);
    let is_crowded = state.tokens().len() > TOKENS_MAX / 2;
    let is_of_no_use = |token: &JoinToken| {
        token.expires.0.saturating_add(kept) <= now.0 || (is_crowded && token.used >= token.uses)
    };
    state.tokens().iter().find(|(_, token)| is_of_no_use(token)).map(|(id, _)| id)
}

/// What is to be moved in a pool.
enum Wave {
    /// Nothing, as long as the ring is as it is.
    None,
    /// Maybe something, but not yet.
    Later,
    /// Something, when those who get slots are there.
    Held(HeldWave),
    /// This.
    Now(Box<Command>),
}

/// The next wave of a pool.
fn wave(situation: &Situation<'_>, cluster: &Cluster, name: &PoolName) -> Wave {
    let (state, timers) = (situation.state, situation.timers);
    let Some(table) = state.mapping().pools.get(name).map(|pool| &pool.table) else { return Wave::None };
    let is_first = table.is_empty();
    // Founders come one after the other, and a table for some of them would be moved at once.
    let may_come = |node: &Node| {
        let is_joining = node.pool == *name && node.state == NodeState::Joining;
        is_joining && situation.facts.silent_for(node.uid) < timers.replace_grace
    };
    if is_first && state.nodes().any(may_come) {
        return Wave::Later;
    }
    let is_kept = |node: &&Node| node.state == NodeState::Lost && !node.forgotten;
    let lost: BTreeSet<NodeNumber> = state.nodes().filter(is_kept).map(|node| node.number).collect();
    if !lost.is_empty() && table.cells().iter().any(|owner| lost.contains(owner)) {
        return Wave::None;
    }
    // All that is known without a plan comes first: this is asked every second.
    let interval_passed = situation.since_last_wave.is_none_or(|since| since >= timers.step_interval);
    if !is_first && !interval_passed {
        return Wave::Later;
    }
    let waits = |held: &HeldWave| held.waits_for(state, situation.facts, timers).is_some();
    if let Some(held) = situation.held.iter().find(|held| held.pool == *name && waits(held)) {
        return Wave::Held(held.clone());
    }
    let allow_degraded = situation.policies.rf_allow_degraded;
    let plan = state.plan(name, &state.members(name), Goal::Settle, allow_degraded);
    let Some(Ok(plan)) = plan else { return Wave::None };
    let moves_max = timers.max_moves_per_step.unwrap_or(moves_per_step_default(cluster.slots)).max(1);
    let Some(moves) = plan.waves(moves_max).first().map(|moves| moves.to_vec()) else { return Wave::None };
    let held = HeldWave { pool: name.clone(), receivers: moves.iter().map(|to| to.to).collect() };
    if !is_first && waits(&held) {
        return Wave::Held(held);
    }
    Wave::Now(Box::new(Command::ApplyPlan(PlanCommand {
        pool: name.clone(),
        base_epoch: state.epoch(),
        replicas: plan.replicas,
        degraded: plan.replicas < cluster.replicas,
        moves,
        reason: if is_first { "first table" } else { "members changed" }.to_owned(),
        plan_id: situation.plan_id,
    })))
}

#[cfg(test)]
mod tests {
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
            duty_of(
                &state,
                &Facts { heard, leads_for: Duration::from_secs(3600), ..Facts::default() },
                |_| (),
            )
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
        check(&|facts| drop(facts.heard.remove(&Uid(1))), None);
        check(&|facts| drop(facts.not_ready.insert(Uid(1))), None);
        check(&|facts| drop(facts.heard.remove(&Uid(4))), Some("node-4 is not heard of"));
        check(&|facts| drop(facts.heard.insert(Uid(4), Duration::from_secs(16))), Some("not heard of"));
        check(&|facts| drop(facts.heard.insert(Uid(4), Duration::from_secs(15))), None);
        check(&|facts| drop(facts.not_ready.insert(Uid(4))), Some("node-4 says that it is not ready"));
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
}
