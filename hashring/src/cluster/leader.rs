//! What the leader does beside ordering commands: looks for its next duty, and proposes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{
    config::{ClusterConfig, ClusterTimers},
    duties::{Duty, HeldWave, Situation, next_duty},
    machine::RingMachine,
    node_steps::{Facts, NodeStep, node_step},
    objections::HEARTBEATS_COUNTED,
    shared::{NotLed, Shared},
    soft::{SoftState, SoftTable},
};
use crate::{
    aside::aside,
    ids::{HashSeed, NodesVersion, PlanId, RingEpoch, Uid, UnixMillis},
    raft::{Published, RaftNode},
    ring::{Command, HashFunction, InitCluster, Node, NodeState, RingState},
};

/// What a leader remembers; the next leader begins anew, and all it waits for takes a little longer.
#[derive(Debug)]
struct Books {
    /// Since when nothing has kept this node from hearing of the others.
    leads_since: Instant,
    looked: Instant,
    joining: Since,
    emptied: Since,
    drained: Since,
    last_wave: Option<Instant>,
    /// The nodes that people were told to look at.
    warned: BTreeSet<Uid>,
    /// With so many entries applied there was nothing to move.
    settled: Option<u64>,
    /// What it refused; asked again it would refuse it again.
    rejected: OfRing<BTreeSet<String>>,
    /// Waves that wait for those who would get slots.
    held: OfRing<Vec<HeldWave>>,
}

/// What was found out about a ring, and holds until its nodes or tables change.
#[derive(Debug, Default)]
struct OfRing<T> {
    ring: (RingEpoch, NodesVersion),
    found: T,
}

impl<T: Default> OfRing<T> {
    /// What was found out about this ring; at first nothing.
    fn of(&mut self, state: &RingState) -> &mut T {
        let ring = (state.epoch(), state.nodes_version());
        if self.ring != ring {
            *self = OfRing { ring, found: T::default() };
        }
        &mut self.found
    }
}

/// Since when nodes are in a state, and since which version of the list of nodes.
#[derive(Debug, Default)]
struct Since(BTreeMap<Uid, (NodesVersion, Instant)>);

impl Since {
    /// For how long these nodes are in their state.
    fn look<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, at: Instant) -> BTreeMap<Uid, Duration> {
        let known = nodes.map(|node| {
            let known = self.0.get(&node.uid).filter(|(since, _)| *since == node.since);
            (node.uid, known.copied().unwrap_or((node.since, at)))
        });
        self.0 = known.collect();
        self.0.iter().map(|(&uid, (_, since))| (uid, at.saturating_duration_since(*since))).collect()
    }
}

impl Books {
    fn new(at: Instant) -> Books {
        let since = Since::default;
        Books {
            leads_since: at,
            looked: at,
            joining: since(),
            emptied: since(),
            drained: since(),
            last_wave: None,
            warned: BTreeSet::new(),
            settled: None,
            rejected: OfRing::default(),
            held: OfRing::default(),
        }
    }

    /// What is known of nodes now.
    fn facts(
        &mut self,
        state: &RingState,
        soft: &SoftTable,
        timers: &ClusterTimers,
        at: Instant,
        now: UnixMillis,
    ) -> Facts {
        // Who did not look for so long did not hear anything either: others are not silent for that.
        if at.saturating_duration_since(self.looked) > timers.leader_round + timers.replace_grace / 2 {
            self.leads_since = at;
        }
        self.looked = at;
        let is_joining = |node: &&Node| node.state == NodeState::Joining;
        let is_empty = |node: &&Node| node.state == NodeState::Draining && !state.holds_slots(node.number);
        self.emptied.look(state.nodes().filter(is_empty), at);
        // What it said before it was empty is about an earlier drain.
        let is_drained = |node: &&Node| {
            let since = self.emptied.0.get(&node.uid).map(|(_, since)| *since);
            let report = soft.get(node.uid).filter(|state| state.report.drained);
            since.zip(report).is_some_and(|(since, report)| report.at >= since)
        };
        let is_recent = |(_, state): &(Uid, &SoftState)| state.at >= self.leads_since;
        let ago = |(uid, state): (Uid, &SoftState)| (uid, at.saturating_duration_since(state.at));
        let uploaded = |(uid, state): (Uid, &SoftState)| Some((uid, state.report.uploaded_through?));
        Facts {
            now,
            leads_for: at.saturating_duration_since(self.leads_since),
            heard: soft.iter().filter(is_recent).map(ago).collect(),
            joining: self.joining.look(state.nodes().filter(is_joining), at),
            drained: self.drained.look(state.nodes().filter(is_drained), at),
            uploaded: soft.iter().filter_map(uploaded).collect(),
            not_ready: soft.not_ready(at, timers.heartbeat * HEARTBEATS_COUNTED),
        }
    }
}

impl Books {
    /// Tells people, once, of nodes that wait for something they should look at.
    fn warn(&mut self, state: &RingState, facts: &Facts, config: &ClusterConfig) {
        let mut warned = BTreeSet::new();
        for node in state.nodes() {
            let step = node_step(state, node, facts, &config.timers, &config.policies);
            let NodeStep::Warn(what) = step else { continue };
            if !self.warned.contains(&node.uid) {
                warn!(node = node.name, uid = %node.uid, what, "a node waits for something");
            }
            warned.insert(node.uid);
        }
        self.warned = warned;
    }
}

/// Does what a leader has to do, whenever this node leads.
pub async fn lead(shared: &Arc<Shared>, raft: &RaftNode<RingMachine>) {
    let mut states = raft.watch();
    loop {
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
        let mut books = Books::new(Instant::now());
        while raft.status().is_leader {
            let published = states.borrow_and_update().clone();
            if !step(shared, &mut books, &published).await {
                let _ = timeout(shared.config.timers.leader_round, states.changed()).await;
            }
        }
        *shared.facts.lock() = None;
        shared.held_waves.lock().clear();
        info!("this node does not lead the cluster any more");
    }
}

/// Does one duty; true if there may be another at once.
async fn step(shared: &Arc<Shared>, books: &mut Books, published: &Published<RingMachine>) -> bool {
    let timers = &shared.config.timers;
    let state = &published.machine.state;
    let at = Instant::now();
    let facts = {
        let mut soft = shared.soft.lock();
        soft.retain(|uid| state.node(uid).is_some());
        Arc::new(books.facts(state, &soft, timers, at, shared.surroundings.nature.now()))
    };
    *shared.facts.lock() = Some(Arc::clone(&facts));
    books.warn(state, &facts, &shared.config);
    let since_last_wave = books.last_wave.map(|wave| at.saturating_duration_since(wave));
    let Some(init) = init(shared) else { return false };
    let (machine, own) = (Arc::clone(&published.machine), Arc::clone(shared));
    let are_tables_settled = books.settled == Some(published.entries_applied);
    let plan_id = PlanId(shared.surroundings.nature.random());
    let (rejected, held) = (books.rejected.of(state).clone(), books.held.of(state).clone());
    let known = Arc::clone(&facts);
    let work = move || {
        next_duty(&Situation {
            state: &machine.state,
            init: &init,
            facts: &facts,
            timers: &own.config.timers,
            policies: &own.config.policies,
            are_tables_settled,
            held: &held,
            since_last_wave,
            plan_id,
            rejected: &rejected,
        })
    };
    let duty = match aside(work).await {
        Ok(duty) => duty,
        Err(error) => {
            warn!(%error, "planning failed");
            books.settled = Some(published.entries_applied);
            return false;
        }
    };
    let held = if let Duty::Held(held) = &duty { held.clone() } else { Vec::new() };
    let waits_for = held.iter().filter_map(|wave| wave.waits_for(state, &known, timers));
    *shared.held_waves.lock() = waits_for.collect();
    *books.held.of(state) = held;
    let command = match duty {
        Duty::Rest => {
            books.settled = Some(published.entries_applied);
            return false;
        }
        Duty::Wait | Duty::Held(_) => return false,
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
        // Something else came first, which the next look sees, or the rest of what there is to do goes on
        // without it.
        Ok(Err(rejected)) => {
            warn!(command = summary(&command), %rejected, "what the leader proposed did not fit");
            books.rejected.of(state).insert(summary(&command));
            true
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
        hash_seed: HashSeed(shared.surroundings.nature.random() as u64),
        hash_function: HashFunction::Xxh3V1,
        slots: shared.config.slots,
        replicas: shared.config.replicas,
        founders: membership.founders.iter().map(|founder| founder.uid).collect(),
        created: shared.surroundings.nature.now(),
    })
}

/// A command for the log.
pub fn summary(command: &Command) -> String {
    match command {
        Command::InitCluster(_) => "found the ring".to_owned(),
        Command::ApplyPlan(plan) => {
            format!("{}: move {} cells of pool {}", plan.reason, plan.moves.len(), plan.pool)
        }
        Command::SetNodeState { uid, to, .. } => format!("node {uid} becomes {to:?}"),
        Command::ReplaceNode { dead, new, force, at: _ } => {
            format!("node {new} replaces {dead}{}", if *force { ", forced" } else { "" })
        }
        Command::DateLoss { uid, at: _ } => format!("node {uid} is gone, with data that others have too"),
        Command::CloseLoss { uid, at: _ } => format!("what others had of node {uid} is uploaded"),
        // What is known of its secret stays out of logs.
        Command::AddToken { id, expires, uses, .. } => {
            format!("add token {id}, {uses} uses until {} ms", expires.0)
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::soft::{ProcessId, Report},
        ids::UnixMillis,
        ring::tests::{cluster_of, registration, set_state},
    };

    #[test]
    fn what_is_known_of_nodes() {
        let timers = ClusterTimers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut state = cluster_of(3);
        state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
        let mut soft = SoftTable::default();
        let mut report = |uid, seconds| {
            let state = SoftState {
                process: ProcessId { boot: 1, nonce: 1 },
                report: Report { uploaded_through: Some(UnixMillis(uid as i64)), ..Report::default() },
                address: String::new(),
                version: String::new(),
                at: at(seconds),
                clock_offset: None,
            };
            soft.take(Uid(uid), state).expect("it is no clone");
        };
        report(1, 0);
        report(2, 12);
        // What was heard when this node led before counts for nothing.
        let mut books = Books::new(at(10));
        let facts = books.facts(&state, &soft, &timers, at(11), UnixMillis(0));
        assert_eq!(facts.leads_for, Duration::from_secs(1));
        let facts = books.facts(&state, &soft, &timers, at(20), UnixMillis(0));
        let seconds = |known: &BTreeMap<Uid, Duration>| -> Vec<(u128, u64)> {
            known.iter().map(|(uid, duration)| (uid.0, duration.as_secs())).collect()
        };
        assert_eq!(seconds(&facts.heard), [(2, 8)]);
        assert_eq!(facts.silent_for(Uid(1)), Duration::from_secs(10));
        assert_eq!(seconds(&facts.joining), [(4, 9)]);
        assert_eq!(facts.uploaded, BTreeMap::from([(Uid(1), UnixMillis(1)), (Uid(2), UnixMillis(2))]));
        assert!(facts.drained.is_empty());
        // A leader that did not run for a while heard nobody, which says nothing of them.
        let facts = books.facts(&state, &soft, &timers, at(200), UnixMillis(0));
        assert_eq!((facts.leads_for, facts.heard.len()), (Duration::ZERO, 0));
    }

    #[test]
    fn a_refusal_counts_until_nodes_or_tables_change() {
        let mut state = cluster_of(3);
        let mut rejections: OfRing<BTreeSet<String>> = OfRing::default();
        rejections.of(&state).insert("refused".to_owned());
        assert_eq!(rejections.of(&state).len(), 1);
        state.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
        assert!(rejections.of(&state).is_empty());
        rejections.of(&state).insert("refused".to_owned());
        let pool = Command::SetPool { name: crate::ids::PoolName::from("big"), matchers: Vec::new() };
        state.apply(&pool).expect("the pool is new");
        assert!(rejections.of(&state).is_empty());
    }

    #[test]
    fn a_node_is_drained_when_it_says_so_after_it_was_emptied() {
        let timers = ClusterTimers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut state = cluster_of(6);
        state.apply(&set_state(4, NodeState::Active, NodeState::Draining)).expect("it is Active");
        let mut soft = SoftTable::default();
        let mut books = Books::new(start);
        let mut check = |state: &RingState, said: Option<(u64, bool)>, now, expected: Option<u64>| {
            if let Some((said_at, drained)) = said {
                let report = Report { drained, ..Report::default() };
                let (address, version) = (String::new(), String::new());
                let process = ProcessId { boot: 1, nonce: 1 };
                let soft_state =
                    SoftState { process, report, address, version, at: at(said_at), clock_offset: None };
                soft.take(Uid(4), soft_state).expect("it is no clone");
            }
            let facts = books.facts(state, &soft, &timers, at(now), UnixMillis(0));
            assert_eq!(facts.drained.get(&Uid(4)).map(Duration::as_secs), expected, "at {now}");
        };
        check(&state, Some((1, true)), 2, None);
        crate::ring::tests::settle(&mut state, 100_000);
        check(&state, None, 3, None);
        check(&state, None, 4, None);
        check(&state, Some((5, true)), 6, Some(0));
        check(&state, None, 9, Some(3));
        check(&state, Some((10, false)), 11, None);
        check(&state, Some((12, true)), 13, Some(0));
        // Undone, and begun again.
        state.apply(&set_state(4, NodeState::Draining, NodeState::Active)).expect("it is Draining");
        state.apply(&set_state(4, NodeState::Active, NodeState::Draining)).expect("it is Active");
        check(&state, None, 20, None);
        check(&state, Some((21, true)), 22, Some(0));
    }
}
