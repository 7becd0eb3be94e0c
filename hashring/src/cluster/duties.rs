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
mod tests;
