//! Requests between members, as bytes.
//!
//! A [`Transport`] carries a [`RaftRequest`] to another member, whose node answers it by
//! [`RaftNode::handle`](super::RaftNode::handle). What the bytes mean is known here alone. Each
//! request says from which cluster it comes and for which member it is, and is refused by any other:
//! an address may have been given to somebody else meanwhile.
//!
//! ```text
//! body of append and vote := the library's request, JSON
//! body of snapshot        := bytes of head u32 little-endian | head, JSON | data
//! body of a response      := the library's response, JSON
//! ```

use std::{fmt, future::Future, time::Duration};

use openraft::{
    AnyError, RaftNetwork, RaftNetworkFactory, Snapshot,
    error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    config::Identity,
    types::{Member, Peer, RaftId, SnapshotMeta, Types, Vote},
};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Entries for the log, or only a sign of life of the leader.
    AppendEntries,
    /// A vote.
    Vote,
    /// To take a snapshot over.
    Snapshot,
}

/// A request of one member to another.
#[derive(Clone, PartialEq, Eq)]
pub struct RaftRequest {
    /// Cluster of the sender.
    pub cluster: String,
    /// Generation of the sender's cluster.
    pub generation: u64,
    /// The sender.
    pub from: RaftId,
    /// The receiver.
    pub to: RaftId,
    /// What is asked for.
    pub kind: RequestKind,
    /// The rest; only this module understands it.
    pub body: Vec<u8>,
}

impl fmt::Debug for RaftRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RaftRequest { cluster, generation, from, to, kind, body } = self;
        write!(f, "{kind:?} {from} to {to} of {cluster}/{generation}, {} bytes", body.len())
    }
}

/// The answer to a request; only this module understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftResponse {
    /// The answer.
    pub body: Vec<u8>,
}

/// Why a member did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// It is in another cluster.
    #[error("this member is of cluster {own}, the request of {theirs}")]
    OtherCluster {
        /// The receiver's.
        own: String,
        /// The sender's.
        theirs: String,
    },
    /// It is in another generation of the cluster.
    #[error("this member is of generation {own}, the request of {theirs}")]
    OtherGeneration {
        /// The receiver's.
        own: u64,
        /// The sender's.
        theirs: u64,
    },
    /// It is another member.
    #[error("this member is {own}, the request is for {theirs}")]
    OtherMember {
        /// The receiver.
        own: RaftId,
        /// Who was asked.
        theirs: RaftId,
    },
    /// The bytes make no request.
    #[error("the request is not understood: {0}")]
    NotUnderstood(String),
    /// It has stopped.
    #[error("this member has stopped: {0}")]
    Stopped(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nobody answered, or the answer was lost.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// Somebody answered and refused.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

/// Carries requests to other members.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sends a request and gives the answer. Whoever waits gives up after a time and drops this; it
    /// must be ready for it. Connecting anew is the transport's business, trying again is not.
    fn call(
        &self,
        target: &Peer,
        request: RaftRequest,
    ) -> impl Future<Output = Result<RaftResponse, TransportError>> + Send;
}

/// Makes connections for the library.
pub struct Network<T> {
    pub identity: Identity,
    pub transport: T,
    /// Pause before somebody who did not answer is asked again.
    pub pause: Duration,
}

impl<T: Transport> RaftNetworkFactory<Types> for Network<T> {
    type Network = Connection<T>;

    async fn new_client(&mut self, target: RaftId, node: &Member) -> Connection<T> {
        Connection {
            identity: self.identity.clone(),
            transport: self.transport.clone(),
            peer: Peer { id: target, address: node.address.clone() },
            pause: self.pause,
        }
    }
}

/// Speaks to one other member for the library.
pub struct Connection<T> {
    identity: Identity,
    transport: T,
    peer: Peer,
    pause: Duration,
}

/// Without exception the library pauses before it asks again.
fn unreachable(error: &TransportError) -> Unreachable {
    Unreachable::new(error)
}

impl<T: Transport> Connection<T> {
    async fn call<R: DeserializeOwned>(
        &self,
        kind: RequestKind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<R, TransportError> {
        let request = RaftRequest {
            cluster: self.identity.cluster.clone(),
            generation: self.identity.generation,
            from: self.identity.id,
            to: self.peer.id,
            kind,
            body,
        };
        let no_answer = |what: String| TransportError::Unreachable(what);
        let answer = tokio::time::timeout(timeout, self.transport.call(&self.peer, request)).await;
        let response = answer.map_err(|_| no_answer(format!("within {timeout:?}")))??;
        serde_json::from_slice(&response.body)
            .map_err(|error| no_answer(format!("it is not understood: {error}")))
    }
}

impl<T: Transport> RaftNetwork<Types> for Connection<T> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        let body = serde_json::to_vec(&request).map_err(|error| NetworkError::new(&error))?;
        let answer = self.call(RequestKind::AppendEntries, body, option.hard_ttl()).await;
        answer.map_err(|error| unreachable(&error).into())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<RaftId>,
        option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        let body = serde_json::to_vec(&request).map_err(|error| NetworkError::new(&error))?;
        let answer = self.call(RequestKind::Vote, body, option.hard_ttl()).await;
        answer.map_err(|error| unreachable(&error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<RaftId>, StreamingError<Types, Fatal<RaftId>>> {
        let body = encode_snapshot(&SnapshotHead { vote, meta: snapshot.meta }, &snapshot.snapshot);
        let body = body.map_err(|error| NetworkError::new(&error))?;
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            answer = self.call(RequestKind::Snapshot, body, option.hard_ttl()) => {
                answer.map_err(|error| unreachable(&error).into())
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}

/// What comes before the data of a snapshot.
#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    vote: Vote,
    meta: SnapshotMeta,
}

fn encode_snapshot(head: &SnapshotHead, data: &[u8]) -> Result<Vec<u8>, AnyError> {
    let head = serde_json::to_vec(head).map_err(|error| AnyError::new(&error))?;
    let head_bytes = u32::try_from(head.len()).map_err(|error| AnyError::new(&error))?;
    Ok([&head_bytes.to_le_bytes(), head.as_slice(), data].concat())
}

fn decode_snapshot(body: &[u8]) -> Result<(SnapshotHead, Vec<u8>), Refusal> {
    let broken = || Refusal::NotUnderstood("the snapshot is cut short".to_owned());
    let (head_bytes, rest) = body.split_first_chunk::<4>().ok_or_else(broken)?;
    let head_bytes = usize::try_from(u32::from_le_bytes(*head_bytes)).map_err(|_| broken())?;
    let (head, data) = rest.split_at_checked(head_bytes).ok_or_else(broken)?;
    Ok((decode(head)?, data.to_vec()))
}

fn decode<R: DeserializeOwned>(body: &[u8]) -> Result<R, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::NotUnderstood(error.to_string()))
}

/// Refuses requests that are not for this member.
pub fn check_addressee(own: &Identity, request: &RaftRequest) -> Result<(), Refusal> {
    if request.cluster != own.cluster {
        return Err(Refusal::OtherCluster { own: own.cluster.clone(), theirs: request.cluster.clone() });
    }
    if request.generation != own.generation {
        return Err(Refusal::OtherGeneration { own: own.generation, theirs: request.generation });
    }
    if request.to != own.id {
        return Err(Refusal::OtherMember { own: own.id, theirs: request.to });
    }
    Ok(())
}

/// Hands a request to the library.
pub async fn answer(raft: &openraft::Raft<Types>, request: RaftRequest) -> Result<RaftResponse, Refusal> {
    match request.kind {
        RequestKind::AppendEntries => respond(raft.append_entries(decode(&request.body)?).await),
        RequestKind::Vote => respond(raft.vote(decode(&request.body)?).await),
        RequestKind::Snapshot => {
            let (head, data) = decode_snapshot(&request.body)?;
            let snapshot = Snapshot { meta: head.meta, snapshot: Box::new(data) };
            respond(raft.install_full_snapshot(head.vote, snapshot).await)
        }
    }
}

fn respond<R: Serialize, E: fmt::Display>(result: Result<R, E>) -> Result<RaftResponse, Refusal> {
    let response = result.map_err(|error| Refusal::Stopped(error.to_string()))?;
    let body = serde_json::to_vec(&response).map_err(|error| Refusal::Stopped(error.to_string()))?;
    Ok(RaftResponse { body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_others_are_refused() {
        let own = Identity { id: RaftId(1), cluster: "a".to_owned(), generation: 2 };
        let check = |cluster: &str, generation, to, expected: &str| {
            let request = RaftRequest {
                cluster: cluster.to_owned(),
                generation,
                from: RaftId(9),
                to: RaftId(to),
                kind: RequestKind::Vote,
                body: Vec::new(),
            };
            let found = check_addressee(&own, &request).err().map(|refusal| refusal.to_string());
            assert_eq!(found.unwrap_or_default(), expected);
        };
        check("a", 2, 1, "");
        check("b", 2, 1, "this member is of cluster a, the request of b");
        check("a", 1, 1, "this member is of generation 2, the request of 1");
        check("a", 3, 1, "this member is of generation 2, the request of 3");
        check("a", 2, 4, "this member is 1, the request is for 4");
    }

    #[test]
    fn snapshots_come_back_and_cut_ones_are_refused() {
        let head = SnapshotHead { vote: Vote::new(3, RaftId(7)), meta: SnapshotMeta::default() };
        let body = encode_snapshot(&head, b"data").unwrap();
        let (found, data) = decode_snapshot(&body).unwrap();
        assert_eq!((found.vote, found.meta, data.as_slice()), (head.vote, head.meta, b"data".as_slice()));
        for at in 0..body.len() - b"data".len() {
            assert!(matches!(decode_snapshot(&body[..at]), Err(Refusal::NotUnderstood(_))), "cut at {at}");
        }
    }
}
