//! What the tasks and services of a node share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{JoinAsk, NewName, admit, name_of_newcomer},
    channels::Channels,
    config::ClusterConfig,
    data_lock::DataLock,
    identity::{IdentityError, Membership, NodeIdentity},
    leader_client::ProposeFailed,
    machine::{Outcome, RingMachine},
    node::ClusterFailure,
    node_steps::{Facts, NodeStep, node_step},
    objections::{HEARTBEATS_COUNTED, is_recent, objection},
    overview,
    publisher::Publisher,
    raft_part::RaftPart,
    soft::{Cloned, ProcessId, Report, SoftState, SoftTable},
    status::{ClusterStatus, NodeStatus, RaftStatus, ReportStatus},
    surroundings::Surroundings,
    transport::{Moved, address_of},
};
use crate::{
    aside::aside,
    ids::{NodeNumber, Uid},
    raft::{Peer, ProposeError, Status},
    ring::{Command, Node, NodeRegistration, NodeState, Rejected, RingState},
};

/// So many others may watch the ring at one node: far more than a cluster has nodes for each voter.
pub const WATCHERS_MAX: usize = 1024;

/// A node from within.
pub struct Shared {
    pub config: ClusterConfig,
    pub surroundings: Surroundings,
    pub uid: Uid,
    pub boot: u64,
    /// Made up at the start: two processes with the same data differ in it.
    pub process_nonce: u64,
    /// Changed by one at a time: by whoever enters a cluster, and then under the lock of [`RaftPart`].
    pub identity: Mutex<NodeIdentity>,
    /// The nodes without a cluster that were seen in the last round.
    pub fresh: Mutex<Vec<Uid>>,
    /// Where peers are, as the resolver said last.
    pub peers: Mutex<Vec<String>>,
    pub raft: RaftPart,
    pub publisher: Publisher,
    pub channels: Arc<Channels>,
    pub moved: Arc<Moved>,
    pub soft: Mutex<SoftTable>,
    pub report: Mutex<Report>,
    /// What this node knows of the others, as long as it leads.
    pub facts: Mutex<Option<Arc<Facts>>>,
    /// What waves wait for, in words, as long as this node leads.
    pub held_waves: Mutex<Vec<String>>,
    /// When a leader last heard of this node.
    pub heard_by_leader: Mutex<Option<Instant>>,
    /// How long the last heartbeat took to be answered.
    pub round_trip: Mutex<Duration>,
    /// How many milliseconds the clock of this node is ahead of the middle of all.
    pub clock_offset: watch::Sender<Option<i64>>,
    /// Where a later generation of the cluster was met.
    pub later: Arc<watch::Sender<Option<String>>>,
    /// Nobody else works on the directory; none once the node was stopped.
    pub lock: Mutex<Option<DataLock>>,
    /// Where the leader was last found.
    pub leader: Mutex<Option<String>>,
    /// Why the cluster last refused to register the node, as long as it does.
    pub refusal: watch::Sender<Option<ProposeFailed>>,
    /// One for each who may still watch the ring here.
    pub watchers: Arc<Semaphore>,
    pub failure: watch::Sender<Option<ClusterFailure>>,
    pub stop: CancellationToken,
}

/// Why a leader did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLed {
    /// Another process with the same data came later.
    Cloned(Cloned),
    /// It leads and will not do it, whoever asks.
    Refused(String),
    /// Somebody else leads, maybe at this address.
    Elsewhere(Option<String>),
    /// It leads and cannot do it.
    Failed(ProposeError),
}

impl Shared {
    /// The cluster that the node is in.
    pub fn membership(&self) -> Option<Membership> {
        self.identity.lock().membership().cloned()
    }

    /// Changes who the node is, on disk first.
    pub async fn change_identity(
        &self,
        change: impl FnOnce(&mut NodeIdentity) -> Result<(), IdentityError> + Send + 'static,
    ) -> Result<NodeIdentity, IdentityError> {
        let mut identity = self.identity.lock().clone();
        let work = move || change(&mut identity).map(|()| identity);
        let changed = aside(work).await.map_err(|error| IdentityError::Io {
            doing: "write",
            path: self.config.data_path.clone(),
            source: std::io::Error::other(error),
        })??;
        *self.identity.lock() = changed.clone();
        Ok(changed)
    }

    /// Registers a node that may join, if this node leads.
    pub async fn register_here(&self, ask: &JoinAsk) -> Result<Outcome, NotLed> {
        let machine = self.led_machine()?;
        let uid = ask.registration.uid;
        self.soft.lock().check(uid, ask.process).map_err(NotLed::Cloned)?;
        let registration =
            match admit(&machine.state, &self.config.policies, ask, self.surroundings.nature.now()) {
                Ok(registration) => registration,
                Err(rejected) => return Ok(Err(rejected)),
            };
        let facts = self.known_facts();
        match name_of_newcomer(&machine.state, uid, &registration.name, &facts, &self.config.timers) {
            NewName::Free => self.propose_here(&Command::RegisterNode(registration)).await,
            NewName::Replaces(old) => {
                let registration = NodeRegistration { replaces: Some(old), ..registration };
                self.propose_here(&Command::RegisterNode(registration)).await
            }
            NewName::Taken(other) => Ok(Err(Rejected::NameTaken(other))),
            NewName::AfterLeaving(other) => {
                let (from, to) = (NodeState::Joining, NodeState::Left);
                let reason = "another node of its name joins, and it is silent".to_owned();
                let leave = Command::SetNodeState { uid: other, from, to, reason };
                // The newcomer asks again, and then there is one less of its name.
                Ok(self.propose_here(&leave).await?.and(Err(Rejected::NameTaken(other))))
            }
        }
    }

    /// Has a command applied that somebody asks for, if this node leads.
    pub async fn propose_for(&self, command: &Command, force: bool) -> Result<Outcome, NotLed> {
        let machine = self.led_machine()?;
        let facts = self.known_facts();
        let config = &self.config;
        let objection = (!force).then(|| objection(&machine.state, command, &facts, config)).flatten();
        match (objection, command) {
            (Some(why), _) => Err(NotLed::Refused(why)),
            (None, Command::ReplaceNode { dead, new, force, at: None }) => {
                let (dead, new, force) = (*dead, *new, *force);
                self.propose_here(&Command::ReplaceNode {
                    dead,
                    new,
                    force,
                    at: Some(self.surroundings.nature.now()),
                })
                .await
            }
            (None, command) => self.propose_here(command).await,
        }
    }

    /// What this node knows of the others; nothing, as long as it does not lead.
    pub fn known_facts(&self) -> Arc<Facts> {
        self.facts.lock().clone().unwrap_or_default()
    }

    /// The ring as this node has applied it, if it leads.
    fn led_machine(&self) -> Result<Arc<RingMachine>, NotLed> {
        let raft = self.raft.get().filter(|raft| raft.status().is_leader);
        let machine = raft.map(|raft| Arc::clone(&raft.watch().borrow().machine));
        machine.ok_or_else(|| NotLed::Elsewhere(self.leader_hint()))
    }

    /// Has a command applied, if this node leads.
    pub async fn propose_here(&self, command: &Command) -> Result<Outcome, NotLed> {
        let raft = self.raft.get().ok_or_else(|| NotLed::Elsewhere(self.leader_hint()))?;
        raft.propose(command).await.map_err(|error| match error {
            ProposeError::NotLeader { leader } => {
                NotLed::Elsewhere(leader.map(|leader| self.address_of_voter(leader)))
            }
            other => NotLed::Failed(other),
        })
    }

    /// Where this node believes the leader to be.
    fn leader_address(&self) -> Option<String> {
        let raft = self.raft.get()?;
        let status = raft.status();
        let leader = status.leader?;
        let peer = status.members.voters.into_iter().find(|peer| peer.id == leader);
        peer.map(|peer| self.address_of_voter(peer))
    }

    /// Where somebody who asks this node should look for the leader.
    pub fn leader_hint(&self) -> Option<String> {
        match self.raft.get() {
            Some(_) => self.leader_address(),
            None => self.leader.lock().clone(),
        }
    }

    fn address_of_voter(&self, peer: Peer) -> String {
        let record = self.publisher.record();
        address_of(&record.state, peer.id).map_or(peer.address, str::to_owned)
    }

    /// True if this node leads.
    pub fn is_leader(&self) -> bool {
        self.raft.get().is_some_and(|raft| raft.status().is_leader)
    }

    /// True if this node leads and a majority follows it. One that is cut off from the others believes that
    /// it leads, and they may follow another one already.
    pub fn leads(&self) -> bool {
        let status = self.raft.get().map(|raft| raft.status());
        status.is_some_and(|status| self.has_majority(&status))
    }

    fn has_majority(&self, status: &Status) -> bool {
        let patience = self.config.raft.election_timeout_max * 2;
        status.is_leader && status.quorum_acked_ago.is_some_and(|ago| ago <= patience)
    }

    /// Where other nodes may be, those of the ring first.
    pub fn known_addresses(&self) -> Vec<String> {
        let record = self.publisher.record();
        let of_ring = record.state.nodes().filter(|node| node.uid != self.uid);
        let mut addresses: Vec<String> = of_ring.map(|node| node.addresses.cluster.clone()).collect();
        let founders = self.membership().map(|membership| membership.founders).unwrap_or_default();
        addresses.extend(founders.into_iter().map(|founder| founder.address));
        addresses.extend(self.peers.lock().iter().cloned());
        let mut seen = std::collections::BTreeSet::from([self.config.addresses.cluster.clone()]);
        addresses.retain(|address| !address.is_empty() && seen.insert(address.clone()));
        addresses
    }

    /// Where a founder of the cluster was when it was founded; none for all others, and on nodes that did
    /// not found it.
    pub fn founder_address(&self, uid: Uid) -> Option<String> {
        let founders = self.membership()?.founders;
        founders.into_iter().find(|founder| founder.uid == uid).map(|founder| founder.address)
    }

    /// How this node wants to be known.
    pub fn registration(&self) -> NodeRegistration {
        let config = &self.config;
        NodeRegistration {
            uid: self.uid,
            name: config.name.clone(),
            zone: config.zone.clone(),
            pool: config.pool.clone(),
            weight: config.weight,
            addresses: config.addresses.clone(),
            version: config.version.clone(),
            features: config.features,
            token: None,
            at: self.surroundings.nature.now(),
            replaces: None,
        }
    }

    /// This very run of the node.
    pub fn process(&self) -> ProcessId {
        ProcessId { boot: self.boot, nonce: self.process_nonce }
    }

    /// What this node brings when it asks to be registered.
    pub fn join_ask(&self) -> JoinAsk {
        JoinAsk {
            registration: self.registration(),
            token: self.config.token.clone(),
            replicas: self.config.policies.expected_replicas,
            process: self.process(),
        }
    }

    /// How this node is doing, as it tells the leader.
    pub fn own_soft_state(&self) -> SoftState {
        SoftState {
            process: self.process(),
            report: *self.report.lock(),
            address: self.config.addresses.cluster.clone(),
            version: self.config.version.clone(),
            at: Instant::now(),
            // By which all others are measured, should this node lead.
            clock_offset: Some(0),
        }
    }

    /// The node cannot go on; only the first reason counts.
    pub fn fail(&self, failure: ClusterFailure) {
        self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(failure);
            is_first
        });
    }

    /// All that people are shown.
    pub fn status(&self) -> ClusterStatus {
        let record = self.publisher.record();
        let state = &record.state;
        let membership = self.membership();
        let mut slots: BTreeMap<NodeNumber, u32> = BTreeMap::new();
        for pool in state.mapping().pools.values() {
            for (number, count) in pool.table.slots_of_nodes() {
                *slots.entry(number).or_default() += count;
            }
        }
        let reports = self.reports();
        let facts = self.facts.lock().clone().filter(|_| self.is_leader());
        let waiting = |node: &Node| {
            let Some(facts) = facts.as_ref() else { return (None, false) };
            match node_step(state, node, facts, &self.config.timers, &self.config.policies) {
                NodeStep::Wait(what) => (Some(what), false),
                NodeStep::Warn(what) => (Some(what), true),
                NodeStep::Stay | NodeStep::Propose(_) => (None, false),
            }
        };
        let shown = |node: &Node| {
            let (waiting, needs_person) = waiting(node);
            NodeStatus {
                uid: node.uid,
                number: node.number,
                name: node.name.clone(),
                zone: node.zone.clone(),
                pool: node.pool.to_string(),
                weight: node.weight.get(),
                state: node.state,
                forgotten: node.forgotten,
                addresses: node.addresses.clone(),
                version: node.version.clone(),
                slots: slots.get(&node.number).copied().unwrap_or_default(),
                since: node.since,
                waiting,
                needs_person,
                report: reports(node.uid),
            }
        };
        let mut nodes: Vec<NodeStatus> = state.nodes().map(shown).collect();
        nodes.sort_by_key(|node| node.number);
        ClusterStatus {
            uid: self.uid,
            name: self.config.name.clone(),
            boot: self.boot,
            cluster: membership.as_ref().map(|membership| membership.cluster),
            generation: membership.map_or(0, |membership| membership.generation),
            epoch: state.epoch(),
            digest: state.digest(),
            min_write_epoch: state.min_write_epoch(),
            nodes_version: state.nodes_version(),
            has_quorum: self.has_quorum(),
            epochs: overview::epochs(state),
            pools: overview::pools(state),
            tokens: overview::tokens(state),
            problems: self.problems(state),
            raft: self.raft_status(),
            nodes,
        }
    }

    /// Whether commands are taken, as far as this node can tell.
    pub fn has_quorum(&self) -> bool {
        if let Some(status) = self.raft.get().map(|raft| raft.status()).filter(|status| status.is_leader) {
            return self.has_majority(&status);
        }
        let patience = self.config.timers.heartbeat * HEARTBEATS_COUNTED;
        self.heard_by_leader.lock().is_some_and(|at| at.elapsed() <= patience)
    }

    /// What people should know about this node's part in the cluster.
    fn problems(&self, state: &RingState) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(failure) = self.failure.borrow().as_ref() {
            problems.push(failure.to_string());
        }
        if let Some(refusal) = self.refusal.borrow().as_ref() {
            problems.push(format!("the cluster refuses this node: {refusal}"));
        }
        let replicas = state.cluster().map(|cluster| cluster.replicas);
        if let (Some(own), Some(known)) = (self.config.policies.expected_replicas, replicas)
            && own != known
        {
            let (node, cluster) = (own.get(), known.get());
            problems.push(Rejected::ReplicasDiffer { node, cluster }.to_string());
        }
        problems.extend(self.held_waves.lock().iter().cloned());
        if self.membership().is_some() && !self.has_quorum() {
            problems.push(
                "no leader with a quorum is known: the last ring stays in use, and nothing can be changed"
                    .to_owned(),
            );
        }
        problems
    }

    fn raft_status(&self) -> Option<RaftStatus> {
        let status = self.raft.get()?.status();
        Some(RaftStatus {
            term: status.term,
            is_leader: status.is_leader,
            leader: status.leader.map(|leader| leader.0),
            voters: status.members.voters.iter().map(|peer| peer.id.0).collect(),
            is_changing: status.members.is_changing,
            entries: status.entries,
            entries_applied: status.entries_applied,
            quorum_acked_ms_ago: status.quorum_acked_ago.map(millis),
        })
    }

    fn reports(&self) -> impl Fn(Uid) -> Option<ReportStatus> {
        let is_leader = self.is_leader();
        let timers = self.config.timers.clone();
        let median = self.clock_median();
        move |uid| {
            let soft = self.soft.lock();
            let state = soft.get(uid).filter(|_| is_leader)?;
            let ago = state.at.elapsed();
            Some(ReportStatus {
                boot: state.process.boot,
                ready: state.report.ready,
                head_series: state.report.head_series,
                head_series_max: state.report.head_series_max,
                uploaded_through: state.report.uploaded_through,
                drained: state.report.drained,
                ms_ago: millis(ago),
                lives: is_recent(ago, &timers),
                holds_moves_back: state.report.holds_moves_back(),
                clock_offset_ms: state.clock_offset.and_then(|offset| Some(median?.off(offset))),
            })
        }
    }
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
