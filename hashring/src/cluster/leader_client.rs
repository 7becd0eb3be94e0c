//! Asking whoever leads.
//!
//! The leader is this node, or where it was found last, or whom one of the other nodes names. Of these
//! only a few are asked in one round, so that a cluster without a leader is not busy looking for one. What is
//! asked may be asked twice: an answer can be lost on its way. All that is asked here may be
//! repeated without harm, because commands are idempotent or compare before they set.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::time::{error::Elapsed, sleep, timeout, timeout_at};
use tonic::{Code, Status};
use weir_proto::weir_cluster::{
    self as proto, AdministerRequest, HeartbeatRequest, JoinRequest, ProposeRequest,
    answer::Outcome as AnswerOutcome,
};

use super::{
    admin::{AdminAnswer, AdminQuestion, AdminRefused},
    admission::JoinAsk,
    heartbeat::HeartbeatAnswer,
    machine::Outcome,
    shared::{NotLed, Shared},
    soft::SoftState,
    wire::{self, VERSION},
};
use crate::{
    ids::ClusterId,
    raft::ProposeError,
    ring::{Command, Rejected},
};

/// In one round no more nodes are asked than this, beside those that others name.
const ASKED_MAX: usize = 8;

/// No more nodes are told at once where this one is.
const ANNOUNCED_MAX: usize = 32;

/// What a leader is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// To apply a command.
    Propose {
        /// The command.
        command: Command,
        /// Whether also though the leader has objections.
        force: bool,
    },
    /// To register a node.
    Join(Box<JoinAsk>),
    /// To know how the asking node is doing.
    Heartbeat(SoftState),
    /// What time it is, of a node that is in no list.
    Time,
    /// What people want to know about the members of Raft, or to change about them.
    Administer(AdminQuestion),
}

/// Why a command has no effect that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailed {
    /// The ring refused it; nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The node is in no cluster yet.
    #[error("this node is in no cluster yet")]
    NoCluster,
    /// Whoever was asked refuses to hear it, and asking again does not help.
    #[error("refused: {0}")]
    Refused(String),
    /// Another process runs as this node.
    #[error("{0}")]
    Cloned(String),
    /// No leader answered in time. The command may be applied, now or later, or never.
    #[error("no leader answered within {waited:?}; the last trouble was: {last}")]
    NoLeader {
        /// How long it was tried.
        waited: Duration,
        /// What the last one who was asked said.
        last: String,
    },
}

/// What one who was asked said.
enum Reply {
    Answer(Vec<u8>),
    Elsewhere(Option<String>),
    Refused(String),
    Cloned(String),
    Silent(String),
}

impl Shared {
    /// Has a command applied by whoever leads.
    pub async fn propose(
        &self,
        command: Command,
        force: bool,
    ) -> Result<crate::ring::Applied, ProposeFailed> {
        let cluster = self.membership().ok_or(ProposeFailed::NoCluster)?.cluster;
        self.outcome_of(cluster, &Question::Propose { command, force }).await
    }

    /// Registers a node with whoever leads the cluster.
    pub async fn join(
        &self,
        cluster: ClusterId,
        ask: JoinAsk,
    ) -> Result<crate::ring::Applied, ProposeFailed> {
        self.outcome_of(cluster, &Question::Join(Box::new(ask))).await
    }

    async fn outcome_of(
        &self,
        cluster: ClusterId,
        question: &Question,
    ) -> Result<crate::ring::Applied, ProposeFailed> {
        let answer = self.ask_leader(cluster, question, self.config.timers.propose).await?;
        let outcome: Outcome =
            wire::decode(&answer).map_err(|error| ProposeFailed::Refused(error.to_string()))?;
        Ok(outcome?)
    }

    /// Asks the leader about the members of Raft, or has it change them.
    pub async fn ask_admin(&self, question: AdminQuestion) -> Result<AdminAnswer, ProposeFailed> {
        let refused = |what: String| ProposeFailed::Refused(what);
        let answer = self.ask_admin_raw(question).await?;
        let outcome: Result<AdminAnswer, AdminRefused> =
            wire::decode(&answer).map_err(|error| refused(error.to_string()))?;
        outcome.map_err(|error| refused(error.0))
    }

    /// As [`Shared::ask_admin`], for questions whose answer is bytes.
    pub async fn ask_admin_raw(&self, question: AdminQuestion) -> Result<Vec<u8>, ProposeFailed> {
        let cluster = self.membership().ok_or(ProposeFailed::NoCluster)?.cluster;
        self.ask_leader(cluster, &Question::Administer(question), self.admin_patience()).await
    }

    /// A change of the members takes longer than a command.
    pub fn admin_patience(&self) -> Duration {
        self.config.timers.propose + self.config.raft.change_timeout
    }

    /// Asks one after the other until the leader answers.
    pub async fn ask_leader(
        &self,
        cluster: ClusterId,
        question: &Question,
        patience: Duration,
    ) -> Result<Vec<u8>, ProposeFailed> {
        let mut last = "nobody was asked".to_owned();
        let search = async {
            loop {
                if let Some(found) = self.ask_round(cluster, question, &mut last).await {
                    return found;
                }
                sleep(self.config.timers.retry).await;
            }
        };
        let deadline = tokio::time::Instant::now() + patience;
        match timeout_at(deadline, search).await {
            Ok(found) => found,
            Err(_) => Err(ProposeFailed::NoLeader { waited: patience, last }),
        }
    }

    /// Tells the leader how this node is doing, if it is found in one round; the next time is soon.
    pub async fn tell_leader(&self, cluster: ClusterId) -> Result<HeartbeatAnswer, ProposeFailed> {
        self.ask_once(cluster, &Question::Heartbeat(self.own_soft_state())).await
    }

    /// Tells all nodes that can be asked where this one is, again and again while `work` goes on: it may be
    /// a voter that has moved, and without it there may be no leader who could be told.
    pub async fn while_announced<T>(&self, cluster: ClusterId, work: impl Future<Output = T>) -> T {
        let announce = async {
            loop {
                let mut addresses = self.known_addresses();
                self.surroundings.nature.rotate(&mut addresses);
                addresses.truncate(ANNOUNCED_MAX);
                let question = Question::Heartbeat(self.own_soft_state());
                // What they answer is of no use here: the leader is asked by itself.
                join_all(addresses.iter().map(|address| self.ask(address, cluster, &question))).await;
                sleep(self.config.timers.retry).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = announce => unreachable!("it never ends"),
        }
    }

    /// Asks the leader what time it is, if it is found in one round; the next time is soon.
    pub async fn ask_time(&self, cluster: ClusterId) -> Result<HeartbeatAnswer, ProposeFailed> {
        self.ask_once(cluster, &Question::Time).await
    }

    async fn ask_once(
        &self,
        cluster: ClusterId,
        question: &Question,
    ) -> Result<HeartbeatAnswer, ProposeFailed> {
        let mut last = "nobody was asked".to_owned();
        match self.ask_round(cluster, question, &mut last).await {
            Some(answer) => wire::decode(&answer?).map_err(|error| ProposeFailed::Refused(error.to_string())),
            None => Err(ProposeFailed::NoLeader { waited: Duration::ZERO, last }),
        }
    }

    /// Asks some nodes once; none if the leader is not found.
    async fn ask_round(
        &self,
        cluster: ClusterId,
        question: &Question,
        last: &mut String,
    ) -> Option<Result<Vec<u8>, ProposeFailed>> {
        let mut addresses = self.known_addresses();
        self.surroundings.nature.rotate(&mut addresses);
        addresses.truncate(ASKED_MAX);
        let mut to_ask = VecDeque::from(addresses);
        // Kept only if it answers: whoever waits here may give up before it is found out that it is silent.
        if let Some(leader) = self.leader.lock().take() {
            to_ask.push_front(leader);
        }
        let mut asked = std::collections::BTreeSet::new();
        if self.raft.get().is_some() {
            match self.answer_here(question).await {
                Ok(answer) => return Some(Ok(answer)),
                Err(NotLed::Elsewhere(leader)) => leader.into_iter().for_each(|at| to_ask.push_front(at)),
                Err(NotLed::Failed(error @ ProposeError::TooLarge { .. })) => {
                    return Some(Err(ProposeFailed::Refused(error.to_string())));
                }
                Err(NotLed::Cloned(cloned)) => return Some(Err(ProposeFailed::Cloned(cloned.to_string()))),
                Err(NotLed::Refused(why)) => return Some(Err(ProposeFailed::Refused(why))),
                Err(NotLed::Failed(error)) => *last = error.to_string(),
            }
        }
        while let Some(address) = to_ask.pop_front() {
            if !asked.insert(address.clone()) {
                continue;
            }
            match self.ask(&address, cluster, question).await {
                Reply::Answer(answer) => {
                    *self.leader.lock() = Some(address);
                    return Some(Ok(answer));
                }
                Reply::Elsewhere(leader) => {
                    *last = format!("{address} does not lead");
                    leader.into_iter().for_each(|at| to_ask.push_front(at));
                }
                Reply::Cloned(what) => return Some(Err(ProposeFailed::Cloned(what))),
                Reply::Refused(what) => return Some(Err(ProposeFailed::Refused(what))),
                Reply::Silent(what) => *last = format!("{address}: {what}"),
            }
        }
        None
    }

    async fn ask(&self, address: &str, cluster: ClusterId, question: &Question) -> Reply {
        let mut client = match self.channels.cluster(address) {
            Ok(client) => client,
            Err(error) => return Reply::Silent(error.to_string()),
        };
        let (cluster_id, forward, version) = (cluster.0.to_vec(), false, VERSION);
        let generation = self.membership().map(|membership| membership.generation);
        let timers = &self.config.timers;
        let answer = match question {
            Question::Propose { command, force } => {
                let force = *force;
                let command = wire::encode(command);
                let request = ProposeRequest { version, cluster_id, command, forward, force, generation };
                timeout(timers.propose, client.propose(request)).await
            }
            Question::Join(ask) => {
                let request =
                    JoinRequest { version, cluster_id, forward, generation, ..wire::join_request(ask) };
                timeout(timers.propose, client.join(request)).await
            }
            Question::Administer(question) => {
                let question = wire::encode(question);
                let request = AdministerRequest { version, cluster_id, question, forward, generation };
                timeout(self.admin_patience(), client.administer(request)).await
            }
            Question::Heartbeat(state) => {
                let request = HeartbeatRequest {
                    uid: wire::uid_bytes(self.uid),
                    boot: state.process.boot,
                    process: state.process.nonce,
                    ready: state.report.ready,
                    head_series: state.report.head_series,
                    head_series_max: state.report.head_series_max,
                    address: state.address.clone(),
                    program_version: state.version.clone(),
                    uploaded_through_ms: state.report.uploaded_through.map(|through| through.0),
                    drained: state.report.drained,
                    ..self.time_request(cluster)
                };
                self.timed(client.heartbeat(request)).await
            }
            Question::Time => self.timed(client.heartbeat(self.time_request(cluster))).await,
        };
        match answer {
            Err(_) => Reply::Silent("no answer in time".to_owned()),
            Ok(Ok(answer)) => reply(answer.into_inner()),
            Ok(Err(status)) if self.meet(address, &status) => Reply::Silent(status.message().to_owned()),
            Ok(Err(status)) if wire::is_of_other_cluster(&status) => {
                Reply::Silent(status.message().to_owned())
            }
            Ok(Err(status)) => match status.code() {
                wire::CLONED => Reply::Cloned(status.message().to_owned()),
                Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied => {
                    Reply::Refused(status.message().to_owned())
                }
                _ => Reply::Silent(status.to_string()),
            },
        }
    }

    /// A heartbeat of nobody, with the time.
    fn time_request(&self, cluster: ClusterId) -> HeartbeatRequest {
        HeartbeatRequest {
            version: VERSION,
            cluster_id: cluster.0.to_vec(),
            generation: self.membership().map(|membership| membership.generation),
            clock_ms: self.surroundings.nature.now().0,
            round_trip_ms: super::shared::millis(*self.round_trip.lock()),
            ..HeartbeatRequest::default()
        }
    }

    /// Waits for the answer to a heartbeat, and remembers how long it took.
    async fn timed<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, Elapsed> {
        let asked = Instant::now();
        let answer = timeout(self.config.timers.call, answer).await;
        if matches!(answer, Ok(Ok(_))) {
            *self.round_trip.lock() = asked.elapsed();
        }
        answer
    }

    /// Answers a question, if this node leads.
    pub async fn answer_here(&self, question: &Question) -> Result<Vec<u8>, NotLed> {
        match question {
            // Only the leader says with which token a node has joined.
            Question::Propose { command: Command::RegisterNode(_), .. } => {
                Err(NotLed::Refused("a node is registered when it joins, not by a command".to_owned()))
            }
            Question::Propose { command, force } => {
                Ok(wire::encode(&self.propose_for(command, *force).await?))
            }
            Question::Join(ask) => Ok(wire::encode(&self.register_here(ask).await?)),
            Question::Heartbeat(state) => {
                if !self.leads() {
                    let elsewhere = self.leader_hint().filter(|_| !self.is_leader());
                    return Err(NotLed::Elsewhere(elsewhere));
                }
                self.soft.lock().take(self.uid, state.clone()).map_err(NotLed::Cloned)?;
                let answer = self.heartbeat_answer(self.uid);
                answer.map(|answer| wire::encode(&answer)).ok_or(NotLed::Elsewhere(None))
            }
            Question::Time => {
                let answer = self.time_answer(Some(0)).map(|answer| wire::encode(&answer));
                answer.ok_or_else(|| NotLed::Elsewhere(self.leader_hint().filter(|_| !self.is_leader())))
            }
            Question::Administer(question) => self.administer(question).await,
        }
    }
}

fn reply(answer: proto::Answer) -> Reply {
    if let Err(error) = wire::check_version(answer.version) {
        return Reply::Refused(error.to_string());
    }
    match answer.outcome {
        Some(AnswerOutcome::Answer(answer)) => Reply::Answer(answer),
        Some(AnswerOutcome::NotLeader(leader)) => {
            Reply::Elsewhere(Some(leader.address).filter(|address| !address.is_empty()))
        }
        None => Reply::Silent("an empty answer".to_owned()),
    }
}
