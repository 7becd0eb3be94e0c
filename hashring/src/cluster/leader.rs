//! What the leader does beside ordering commands: looks for its next duty, and proposes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    duties::{Duty, Situation, next_duty},
    machine::RingMachine,
    shared::{NotLed, Shared, now},
};
use crate::{
    ids::{HashSeed, NodesVersion, PlanId, Uid},
    raft::{Published, RaftNode},
    ring::{Command, HashFunction, InitCluster, NodeState, RingState},
};

/// A node is heard of again within so many heartbeats, or what it said last counts no more.
const HEARTBEATS_COUNTED: u32 = 3;

/// What a leader remembers; the next leader begins anew, and all it waits for takes a little longer.
#[derive(Debug, Default)]
struct Books {
    /// Since when nodes are Joining, and since which version of the list of nodes.
    joining: BTreeMap<Uid, (NodesVersion, Instant)>,
    last_wave: Option<Instant>,
    /// With so many entries applied there was nothing to do.
    rested: Option<u64>,
}

impl Books {
    /// The nodes that are Joining for long enough.
    fn joined(&mut self, state: &RingState, grace: std::time::Duration, at: Instant) -> BTreeSet<Uid> {
        let is_joining = |node: &&crate::ring::Node| node.state == NodeState::Joining;
        let joining = state.nodes().filter(is_joining).map(|node| {
            let known = self.joining.get(&node.uid).filter(|(since, _)| *since == node.since);
            (node.uid, known.copied().unwrap_or((node.since, at)))
        });
        self.joining = joining.collect();
        let long_enough = |(_, (_, since)): &(&Uid, &(NodesVersion, Instant))| {
            at.saturating_duration_since(*since) >= grace
        };
        self.joining.iter().filter(long_enough).map(|(&uid, _)| uid).collect()
    }
}

/// Does what a leader has to do, whenever this node leads.
pub async fn lead(shared: &Arc<Shared>, raft: &RaftNode<RingMachine>) {
    let mut states = raft.watch();
    loop {
        let mut books = Books::default();
        if raft.wait_for_status(|status| status.is_leader).await.is_none() {
            // Raft has stopped, and with it this node.
            return std::future::pending().await;
        }
        // A new leader first applies what its predecessors left.
        if raft.read_barrier().await.is_err() {
            sleep(shared.config.timers.retry).await;
            continue;
        }
        info!("this node leads the cluster");
        while raft.status().is_leader {
            let published = states.borrow_and_update().clone();
            if !step(shared, &mut books, &published).await {
                let _ = timeout(shared.config.timers.leader_round, states.changed()).await;
            }
        }
        info!("this node does not lead the cluster any more");
    }
}

/// Does one duty; true if there may be another at once.
async fn step(shared: &Arc<Shared>, books: &mut Books, published: &Published<RingMachine>) -> bool {
    let timers = &shared.config.timers;
    let state = &published.machine.state;
    let at = Instant::now();
    shared.soft.lock().retain(|uid| state.node(uid).is_some());
    let joined = books.joined(state, timers.join_read_grace, at);
    if books.rested == Some(published.entries_applied) && joined.is_empty() {
        return false;
    }
    let since_last_wave = books.last_wave.map(|wave| at.saturating_duration_since(wave));
    let is_held_back = shared.soft.lock().is_held_back(at, timers.heartbeat * HEARTBEATS_COUNTED);
    let Some(init) = init(shared) else { return false };
    let (machine, step_interval) = (Arc::clone(&published.machine), timers.step_interval);
    let max_moves_per_step = timers.max_moves_per_step;
    let work = move || {
        next_duty(&Situation {
            state: &machine.state,
            init: &init,
            joined: &joined,
            is_held_back,
            since_last_wave,
            step_interval,
            max_moves_per_step,
            plan_id: PlanId(rand::random()),
        })
    };
    let duty = match tokio::task::spawn_blocking(work).await {
        Ok(duty) => duty,
        Err(error) => {
            warn!(%error, "planning failed");
            books.rested = Some(published.entries_applied);
            return false;
        }
    };
    let command = match duty {
        Duty::Rest => {
            books.rested = Some(published.entries_applied);
            return false;
        }
        Duty::Wait => return false,
        Duty::Propose(command) => command,
    };
    match shared.propose_here(&command).await {
        Ok(Ok(applied)) => {
            info!(command = summary(&command), ?applied, "the leader changed the ring");
            if matches!(*command, Command::ApplyPlan(_)) {
                books.last_wave = Some(Instant::now());
            }
            true
        }
        // Something else came first; the next look sees it.
        Ok(Err(rejected)) => {
            warn!(command = summary(&command), %rejected, "what the leader proposed did not fit");
            false
        }
        Err(NotLed::Elsewhere(_) | NotLed::Refused(_) | NotLed::Cloned(_)) => false,
        Err(NotLed::Failed(error)) => {
            warn!(command = summary(&command), %error, "the leader cannot change the ring");
            false
        }
    }
}

/// What the ring is founded with, if it is.
fn init(shared: &Shared) -> Option<InitCluster> {
    let membership = shared.membership()?;
    Some(InitCluster {
        cluster_id: membership.cluster,
        hash_seed: HashSeed(rand::random()),
        hash_function: HashFunction::Xxh3V1,
        slots: shared.config.slots,
        replicas: shared.config.replicas,
        founders: membership.founders.iter().map(|founder| founder.uid).collect(),
        created: now(),
    })
}

/// A command for the log.
fn summary(command: &Command) -> String {
    match command {
        Command::InitCluster(_) => "found the ring".to_owned(),
        Command::ApplyPlan(plan) => {
            format!("{}: move {} cells of pool {}", plan.reason, plan.moves.len(), plan.pool)
        }
        Command::SetNodeState { uid, to, .. } => format!("node {uid} becomes {to:?}"),
        other => format!("{other:?}"),
    }
}
