//! What a node answers on its address for the cluster.

use std::{
    fmt::{Debug, Display},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
};

use serde::de::DeserializeOwned;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::info;
use weir_proto::weir_cluster::{
    AdministerRequest, Answer, HeartbeatRequest, InfoRequest, InfoResponse, JoinRequest, LastRingRequest,
    LastRingResponse, NotLeader, ProposeRequest, RaftCall, RaftReply, RingUpdate, StartRaftRequest,
    StartRaftResponse, StatusRequest, StatusResponse, WatchRequest, answer::Outcome as AnswerOutcome,
    cluster_server::Cluster, raft_reply::Outcome as RaftOutcome, raft_server::Raft,
};

use super::{
    admin::{AdminAnswer, AdminQuestion, AdminRefused},
    leader::summary,
    leader_client::{ProposeFailed, Question},
    machine::Outcome,
    publisher::EncodedRing,
    raft_part::BeginError,
    shared::{NotLed, Shared},
    soft::{Cloned, ProcessId, Report, SoftState},
    wire::{self, VERSION},
};
use crate::{
    ids::{ClusterId, UnixMillis},
    raft::{Identity, ProposeError, RaftId, RaftRequest, Refusal, RequestKind},
    ring::{Applied, Command, Rejected},
};

/// Nodes that were told that they may not join, at each attempt.
pub const JOINS_REFUSED: &str = "weir_cluster_joins_refused_total";

/// The longest texts of a heartbeat that are kept, in bytes.
const TEXT_BYTES_MAX: usize = 253;

/// Answers for one node.
#[derive(Clone)]
pub struct Services(pub Arc<Shared>);

#[tonic::async_trait]
impl Raft for Services {
    async fn call(&self, request: Request<RaftCall>) -> Result<Response<RaftReply>, Status> {
        let request = wire::raft_request(request.into_inner())?;
        let handled = match self.0.raft.get() {
            Some(raft) => raft.handle(request).await,
            None => Err(self.refuse_raft(&request)),
        };
        let outcome = match handled {
            Ok(response) => RaftOutcome::Body(response.body),
            Err(refusal) => RaftOutcome::Refusal(wire::encode(&refusal)),
        };
        Ok(Response::new(RaftReply { version: VERSION, outcome: Some(outcome) }))
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<RingUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for Services {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        let shared = &self.0;
        let membership = shared.membership();
        if let Some(own) = &membership
            && wire::cluster_id(&request.cluster_id)? == Some(own.cluster)
            && request.generation > own.generation
        {
            shared.later.send_replace(Some(request.address));
        }
        let founders = membership.iter().flat_map(|membership| &membership.founders);
        let founders = founders.map(|founder| weir_proto::weir_cluster::Founder {
            uid: wire::uid_bytes(founder.uid),
            address: founder.address.clone(),
        });
        Ok(Response::new(InfoResponse {
            version: VERSION,
            uid: wire::uid_bytes(shared.uid),
            name: shared.config.name.clone(),
            boot: shared.boot,
            address: shared.config.addresses.cluster.clone(),
            founders: founders.collect(),
            cluster_id: membership.as_ref().map(|own| own.cluster.0.to_vec()).unwrap_or_default(),
            generation: membership.as_ref().map_or(0, |own| own.generation),
            bootstrap_expect: shared.config.bootstrap_expect,
            fresh_uids: shared.fresh.lock().iter().copied().map(wire::uid_bytes).collect(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Answer>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        let own = self.check_cluster(&request.cluster_id, request.generation)?;
        let ask = wire::join_ask(&request)?;
        let answer = self.answer(own, Question::Join(Box::new(ask)), request.forward).await;
        if is_refusal(&answer) {
            metrics::counter!(JOINS_REFUSED).increment(1);
        }
        answer
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<Answer>, Status> {
        let from = request.remote_addr();
        let request = request.into_inner();
        wire::check_version(request.version)?;
        let own = self.check_cluster(&request.cluster_id, request.generation)?;
        let command: Command = wire::decode(&request.command)?;
        // Nodes look for the leader themselves: who wants a command passed on is no node.
        let audited = request.forward.then(|| summary(&command));
        let question = Question::Propose { command, force: request.force };
        let answer = self.answer(own, question, request.forward).await;
        if let Some(command) = audited {
            audit::<Applied, Rejected>(from, &command, &answer);
        }
        answer
    }

    async fn administer(&self, request: Request<AdministerRequest>) -> Result<Response<Answer>, Status> {
        let from = request.remote_addr();
        let request = request.into_inner();
        wire::check_version(request.version)?;
        let own = self.check_cluster(&request.cluster_id, request.generation)?;
        let question: AdminQuestion = wire::decode(&request.question)?;
        let audited = question.change().filter(|_| request.forward);
        let answer = self.answer(own, Question::Administer(question), request.forward).await;
        if let Some(change) = audited {
            audit::<AdminAnswer, AdminRefused>(from, &change, &answer);
        }
        answer
    }

    type WatchRingStream = Updates;

    async fn watch_ring(&self, request: Request<WatchRequest>) -> Result<Response<Updates>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        self.check_cluster(&request.cluster_id, None)?;
        let own = self.0.membership().map_or(0, |membership| membership.generation);
        if request.generation > own {
            return Err(wire::other_generation(own, request.generation));
        }
        if !self.follows_leader() {
            return Err(Status::unavailable("this node hears of no leader"));
        }
        let permit = Arc::clone(&self.0.watchers).try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many watch the ring here"))?;
        let (updates, stream) = mpsc::channel(1);
        let known = (request.generation, request.entries_applied);
        tokio::spawn(self.clone().send_updates(permit, known, updates));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn last_ring(
        &self,
        request: Request<LastRingRequest>,
    ) -> Result<Response<LastRingResponse>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        let cluster = self.check_cluster(&request.cluster_id, None)?;
        let record = self.0.publisher.record();
        if record.state.cluster().is_none() {
            return Err(Status::unavailable("this node knows no ring yet"));
        }
        Ok(Response::new(LastRingResponse {
            version: VERSION,
            cluster_id: cluster.0.to_vec(),
            generation: record.generation,
            entries_applied: record.entries_applied,
            state: wire::encode(&record.state),
            has_quorum: self.0.has_quorum(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        wire::check_version(request.into_inner().version)?;
        let status = wire::encode(&self.0.status());
        Ok(Response::new(StatusResponse { version: VERSION, status }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<Answer>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        self.check_cluster(&request.cluster_id, request.generation)?;
        let shared = &self.0;
        let clock_offset = shared.clock_ahead(request.clock_ms, request.round_trip_ms);
        let nobody_leads = || not_leader(shared.leader_hint().filter(|_| !shared.is_leader()));
        // Whoever is in no list of nodes does not say who it is, and nothing is kept of it.
        if request.uid.is_empty() {
            let answer = shared.time_answer(clock_offset);
            return Ok(answer.map_or_else(nobody_leads, |answer| answered(wire::encode(&answer))));
        }
        let uid = wire::uid(&request.uid)?;
        if request.address.len() > TEXT_BYTES_MAX || request.program_version.len() > TEXT_BYTES_MAX {
            return Err(Status::invalid_argument("a text is too long"));
        }
        let record = shared.publisher.record();
        let known = record.state.node(uid);
        // Before there is a ring it is the founders who have to find each other.
        let of_founder = || shared.founder_address(uid);
        if let Some(address) = known.map(|node| node.addresses.cluster.clone()).or_else(of_founder) {
            shared.moved.hear(uid, &address, &request.address);
        }
        if !shared.leads() {
            return Ok(nobody_leads());
        }
        let is_gone = record.state.tombstone(uid).is_some();
        if known.is_none() && !is_gone {
            return Err(Status::not_found(format!("node {uid} is not known")));
        }
        let state = SoftState {
            process: ProcessId { boot: request.boot, nonce: request.process },
            report: Report {
                ready: request.ready,
                head_series: request.head_series,
                head_series_max: request.head_series_max,
                uploaded_through: request.uploaded_through_ms.map(UnixMillis),
                drained: request.drained,
            },
            address: request.address,
            version: request.program_version,
            at: Instant::now(),
            clock_offset,
        };
        if !is_gone {
            shared.soft.lock().take(uid, state).map_err(|error| cloned(&error))?;
        }
        let answer = shared.heartbeat_answer(uid);
        Ok(answer.map_or_else(nobody_leads, |answer| answered(wire::encode(&answer))))
    }

    async fn start_raft(
        &self,
        request: Request<StartRaftRequest>,
    ) -> Result<Response<StartRaftResponse>, Status> {
        let request = request.into_inner();
        wire::check_version(request.version)?;
        self.check_cluster(&request.cluster_id, Some(request.generation))?;
        let uid = wire::uid(&request.uid)?;
        if uid != self.0.uid {
            return Err(Status::failed_precondition(format!("this is node {}, not {uid}", self.0.uid)));
        }
        // Whoever asked may go away; what was begun is brought to its end.
        let shared = Arc::clone(&self.0);
        let begun = tokio::spawn(async move { shared.begin_raft(request.is_used).await }).await;
        match begun {
            Ok(Ok(())) => Ok(Response::new(StartRaftResponse { version: VERSION })),
            Ok(Err(error @ BeginError::StoreMissing)) => Err(Status::failed_precondition(error.to_string())),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(error) => Err(Status::unavailable(format!("the start of Raft was broken off: {error}"))),
        }
    }
}

impl Services {
    /// This node takes no part in Raft; if a leader of its cluster thinks it does, it will.
    fn refuse_raft(&self, request: &RaftRequest) -> Refusal {
        let Some(membership) = self.0.membership() else {
            return Refusal::Stopped("this node is in no cluster yet".to_owned());
        };
        let own = Identity {
            id: RaftId(self.0.uid.raft_id().0),
            cluster: membership.cluster.to_string(),
            generation: membership.generation,
        };
        if let Err(refusal) = own.check(request) {
            return refusal;
        }
        if request.kind != RequestKind::Vote {
            self.0.resume_raft();
        }
        Refusal::Stopped("this node takes no part in Raft".to_owned())
    }

    /// The own cluster, if the request is of it and of its generation, or of whoever does not say.
    fn check_cluster(&self, theirs: &[u8], generation: Option<u64>) -> Result<ClusterId, Status> {
        let theirs = wire::cluster_id(theirs)?;
        let own = self.0.membership();
        let own = own.ok_or_else(|| Status::unavailable("this node is in no cluster yet"))?;
        match (theirs, generation) {
            (Some(theirs), _) if theirs != own.cluster => Err(wire::other_cluster(own.cluster, theirs)),
            (_, Some(theirs)) if theirs != own.generation => {
                Err(wire::other_generation(own.generation, theirs))
            }
            _ => Ok(own.cluster),
        }
    }

    async fn answer(
        &self,
        cluster: ClusterId,
        question: Question,
        forward: bool,
    ) -> Result<Response<Answer>, Status> {
        if forward {
            let patience = match &question {
                Question::Administer(_) => self.0.admin_patience(),
                _ => self.0.config.timers.propose,
            };
            return match self.0.ask_leader(cluster, &question, patience).await {
                Ok(answer) => Ok(answered(answer)),
                Err(ProposeFailed::Rejected(rejected)) => {
                    let outcome: Outcome = Err::<Applied, _>(rejected);
                    Ok(answered(wire::encode(&outcome)))
                }
                Err(ProposeFailed::Cloned(why)) => Err(Status::new(wire::CLONED, why)),
                Err(ProposeFailed::Refused(why)) => Err(Status::failed_precondition(why)),
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
        }
        match self.0.answer_here(&question).await {
            Ok(answer) => Ok(answered(answer)),
            Err(NotLed::Elsewhere(leader)) => Ok(not_leader(leader)),
            Err(NotLed::Cloned(error)) => Err(cloned(&error)),
            Err(NotLed::Refused(why)) => Err(Status::failed_precondition(why)),
            Err(NotLed::Failed(error @ ProposeError::TooLarge { .. })) => {
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(NotLed::Failed(error)) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// Only a voter that hears of a leader is worth watching, or one that others follow: all others know the
    /// ring from somebody else.
    fn follows_leader(&self) -> bool {
        let status = self.0.raft.get().map(|raft| raft.status());
        status.is_some_and(|status| status.leader.is_some() && (!status.is_leader || self.0.leads()))
    }

    /// Sends the ring whenever there is a newer one, and a sign of life when there is none for a while.
    async fn send_updates(
        self,
        _permit: OwnedSemaphorePermit,
        known: (u64, u64),
        updates: mpsc::Sender<Result<RingUpdate, Status>>,
    ) {
        let mut records = self.0.publisher.watch_record();
        let (mut generation, mut entries_applied) = known;
        let sign_of_life = self.0.config.timers.watch_idle / 4;
        loop {
            let record = Arc::clone(&records.borrow_and_update());
            if record.is_newer_than(generation, entries_applied) {
                let ring = self.0.publisher.encoded();
                (generation, entries_applied) = (ring.generation, ring.entries_applied);
                if updates.send(Ok(full_update(&ring))).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                biased;
                changed = records.changed() => if changed.is_err() { return },
                () = updates.closed() => return,
                () = self.0.stop.cancelled() => return,
                () = tokio::time::sleep(sign_of_life) => {
                    if !self.follows_leader() {
                        return;
                    }
                    let nothing_new = RingUpdate { version: VERSION, generation, entries_applied, state: Vec::new() };
                    if updates.send(Ok(nothing_new)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// True if a node that wants to join was told that it may not; not if nobody could say so.
fn is_refusal(answer: &Result<Response<Answer>, Status>) -> bool {
    match answer.as_ref().map(|answer| &answer.get_ref().outcome) {
        Ok(Some(AnswerOutcome::Answer(outcome))) => {
            wire::decode::<Outcome>(outcome).is_ok_and(|outcome| outcome.is_err())
        }
        Ok(_) => false,
        Err(status) => status.code() != tonic::Code::Unavailable,
    }
}

fn full_update(ring: &EncodedRing) -> RingUpdate {
    let EncodedRing { generation, entries_applied, ref state } = *ring;
    RingUpdate { version: VERSION, generation, entries_applied, state: state.to_vec() }
}

fn cloned(error: &Cloned) -> Status {
    Status::new(wire::CLONED, error.to_string())
}

/// Each change by an administrator leaves one line on the node that took it, whatever came of it: the answer
/// of the leader is a result of these.
fn audit<T: DeserializeOwned + Debug, E: DeserializeOwned + Display>(
    from: Option<SocketAddr>,
    command: &str,
    answer: &Result<Response<Answer>, Status>,
) {
    let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
    let outcome = match answer.as_ref().map(|answer| &answer.get_ref().outcome) {
        Ok(Some(AnswerOutcome::Answer(answer))) => match wire::decode::<Result<T, E>>(answer) {
            Ok(Ok(done)) => format!("{done:?}"),
            Ok(Err(refused)) => format!("refused: {refused}"),
            Err(error) => error.to_string(),
        },
        Ok(_) => "not answered".to_owned(),
        Err(status) => status.message().to_owned(),
    };
    info!(from, command, outcome, "a command of an administrator");
}

fn answered(answer: Vec<u8>) -> Response<Answer> {
    Response::new(Answer { version: VERSION, outcome: Some(AnswerOutcome::Answer(answer)) })
}

fn not_leader(address: Option<String>) -> Response<Answer> {
    let leader = NotLeader { address: address.unwrap_or_default() };
    Response::new(Answer { version: VERSION, outcome: Some(AnswerOutcome::NotLeader(leader)) })
}
