//! Between messages and the types of this crate.

use serde::{Serialize, de::DeserializeOwned};
use tonic::Status;
use weir_proto::weir_cluster::{self as proto, RaftKind};

use super::{
    admission::JoinAsk,
    bootstrap::PeerInfo,
    identity::{Founder, Membership},
    join_token::TokenText,
    soft::ProcessId,
};
use crate::{
    ids::{ClusterId, ReplicaCount, Uid},
    raft::{RaftId, RaftRequest, RequestKind},
};

/// The version of all messages.
pub const VERSION: u32 = 1;
/// The largest message: a snapshot of the largest ring is a few MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// More founders than any cluster has.
const FOUNDERS_MAX: usize = 64;

/// Tells a process that another one runs as the same node.
pub const CLONED: tonic::Code = tonic::Code::AlreadyExists;

/// What is wrong with a message from somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is not understood: {0}")]
pub struct NotUnderstood(pub String);

/// Messages that somebody was told are not understood.
pub const MESSAGES_REFUSED: &str = "weir_cluster_messages_refused_total";

impl From<NotUnderstood> for Status {
    fn from(error: NotUnderstood) -> Status {
        metrics::counter!(MESSAGES_REFUSED).increment(1);
        Status::invalid_argument(error.to_string())
    }
}

/// Refuses messages of other versions.
pub fn check_version(version: u32) -> Result<(), NotUnderstood> {
    if version == VERSION { Ok(()) } else { Err(NotUnderstood(format!("version {version} is not known"))) }
}

/// JSON of something of ours.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our types have only keys that are text or numbers")
}

/// Something of ours from JSON.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotUnderstood> {
    serde_json::from_slice(bytes).map_err(|error| NotUnderstood(error.to_string()))
}

/// The bytes of a uid.
pub fn uid_bytes(uid: Uid) -> Vec<u8> {
    uid.0.to_be_bytes().to_vec()
}

/// A uid from its bytes.
pub fn uid(bytes: &[u8]) -> Result<Uid, NotUnderstood> {
    let bytes = bytes.try_into().map_err(|_| NotUnderstood("a uid has 16 bytes".to_owned()))?;
    Ok(Uid(u128::from_be_bytes(bytes)))
}

/// The id of a cluster from its bytes; none if there are none.
pub fn cluster_id(bytes: &[u8]) -> Result<Option<ClusterId>, NotUnderstood> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes = bytes.try_into().map_err(|_| NotUnderstood("the id of a cluster has 16 bytes".to_owned()))?;
    Ok(Some(ClusterId(bytes)))
}

/// Where a refusal says of which generation the one who refuses is.
const GENERATION_KEY: &str = "weir-generation";

/// Refuses a request of another generation of the cluster.
pub fn other_generation(own: u64, theirs: u64) -> Status {
    let mut status = Status::failed_precondition(format!(
        "this node is in generation {own} of the cluster, the request is of generation {theirs}"
    ));
    status.metadata_mut().insert(GENERATION_KEY, own.into());
    status
}

/// The generation of whoever refused because of the generation.
pub fn generation_of(status: &Status) -> Option<u64> {
    status.metadata().get(GENERATION_KEY)?.to_str().ok()?.parse().ok()
}

/// Where a refusal says of which cluster the one who refuses is.
const CLUSTER_KEY: &str = "weir-cluster";

/// Refuses a request of another cluster.
pub fn other_cluster(own: ClusterId, theirs: ClusterId) -> Status {
    let mut status =
        Status::failed_precondition(format!("this node is in cluster {own}, the request is of {theirs}"));
    if let Ok(own) = own.to_string().parse() {
        status.metadata_mut().insert(CLUSTER_KEY, own);
    }
    status
}

/// True if somebody refused who is of another cluster: the address is not that of whom it was meant for any
/// more, and what is said there counts for nothing.
pub fn is_of_other_cluster(status: &Status) -> bool {
    status.metadata().contains_key(CLUSTER_KEY)
}

/// What a peer says about itself.
pub fn peer_info(response: &proto::InfoResponse) -> Result<PeerInfo, NotUnderstood> {
    check_version(response.version)?;
    if response.founders.len() > FOUNDERS_MAX || response.fresh_uids.len() > FOUNDERS_MAX {
        return Err(NotUnderstood("too many founders".to_owned()));
    }
    let founder =
        |founder: &proto::Founder| Ok(Founder { uid: uid(&founder.uid)?, address: founder.address.clone() });
    let founders: Vec<Founder> =
        response.founders.iter().map(founder).collect::<Result<_, NotUnderstood>>()?;
    let membership = cluster_id(&response.cluster_id)?.map(|cluster| Membership {
        cluster,
        generation: response.generation,
        founders,
    });
    Ok(PeerInfo {
        uid: uid(&response.uid)?,
        address: response.address.clone(),
        membership,
        bootstrap_expect: response.bootstrap_expect,
        fresh: response.fresh_uids.iter().map(|bytes| uid(bytes)).collect::<Result<_, _>>()?,
    })
}

/// What a node that wants to join brings, as a message that is not addressed yet.
pub fn join_request(ask: &JoinAsk) -> proto::JoinRequest {
    proto::JoinRequest {
        version: VERSION,
        registration: encode(&ask.registration),
        token: ask.token.as_ref().map(TokenText::reveal).unwrap_or_default(),
        boot: ask.process.boot,
        process: ask.process.nonce,
        replicas: ask.replicas.map_or(0, |replicas| replicas.get().into()),
        ..proto::JoinRequest::default()
    }
}

/// What a node that wants to join brings.
pub fn join_ask(request: &proto::JoinRequest) -> Result<JoinAsk, NotUnderstood> {
    let token = (!request.token.is_empty()).then(|| TokenText::parse(&request.token)).transpose();
    Ok(JoinAsk {
        registration: decode(&request.registration)?,
        token: token.map_err(|error| NotUnderstood(error.to_string()))?,
        replicas: replicas(request.replicas)?,
        process: ProcessId { boot: request.boot, nonce: request.process },
    })
}

/// A number of copies; none if it is not said.
fn replicas(count: u32) -> Result<Option<ReplicaCount>, NotUnderstood> {
    if count == 0 {
        return Ok(None);
    }
    let known = u8::try_from(count).ok().and_then(ReplicaCount::new);
    known.map(Some).ok_or_else(|| NotUnderstood(format!("{count} copies are not possible")))
}

/// A request between voters as a message.
pub fn raft_call(request: RaftRequest) -> proto::RaftCall {
    let kind = match request.kind {
        RequestKind::AppendEntries => RaftKind::AppendEntries,
        RequestKind::Vote => RaftKind::Vote,
        RequestKind::Snapshot => RaftKind::Snapshot,
    };
    proto::RaftCall {
        version: VERSION,
        cluster: request.cluster,
        generation: request.generation,
        from: request.from.0,
        to: request.to.0,
        kind: kind.into(),
        body: request.body,
    }
}

/// A request between voters from a message.
pub fn raft_request(call: proto::RaftCall) -> Result<RaftRequest, NotUnderstood> {
    check_version(call.version)?;
    let kind = match call.kind() {
        RaftKind::AppendEntries => RequestKind::AppendEntries,
        RaftKind::Vote => RequestKind::Vote,
        RaftKind::Snapshot => RequestKind::Snapshot,
        RaftKind::Unspecified => {
            return Err(NotUnderstood(format!("a request of kind {} is not known", call.kind)));
        }
    };
    Ok(RaftRequest {
        cluster: call.cluster,
        generation: call.generation,
        from: RaftId(call.from),
        to: RaftId(call.to),
        kind,
        body: call.body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_size() {
        assert_eq!(uid(&uid_bytes(Uid(77))), Ok(Uid(77)));
        assert!(uid(&[0; 15]).is_err() && uid(&[]).is_err());
        assert_eq!(cluster_id(&[]), Ok(None));
        assert_eq!(cluster_id(&[7; 16]), Ok(Some(ClusterId([7; 16]))));
        assert!(cluster_id(&[7; 17]).is_err());
    }

    #[test]
    fn what_a_node_brings_comes_back() {
        let count = |count| ReplicaCount::new(count).expect("a test's number is allowed");
        let token = TokenText::parse("a.b").expect("it is a token");
        for (token, replicas) in [(None, None), (Some(token), Some(count(7)))] {
            let ask = JoinAsk {
                registration: crate::ring::tests::registration(3),
                token,
                replicas,
                process: ProcessId { boot: 4, nonce: 5 },
            };
            let message = join_request(&ask);
            assert_eq!(join_ask(&message).map(|ask| format!("{ask:?}")), Ok(format!("{ask:?}")));
            assert!(join_ask(&proto::JoinRequest { replicas: 8, ..message.clone() }).is_err());
            assert!(join_ask(&proto::JoinRequest { replicas: 259, ..message.clone() }).is_err());
            let error = join_ask(&proto::JoinRequest { token: "hunter2".to_owned(), ..message }).unwrap_err();
            let told = error.to_string();
            assert!(!told.contains("hunter2") && told.contains("join token"), "{told}");
        }
    }

    #[test]
    fn requests_come_back_and_others_are_refused() {
        for kind in [RequestKind::AppendEntries, RequestKind::Vote, RequestKind::Snapshot] {
            let request = RaftRequest {
                cluster: "c".to_owned(),
                generation: 3,
                from: RaftId(1),
                to: RaftId(2),
                kind,
                body: vec![9],
            };
            let call = raft_call(request.clone());
            assert_eq!(raft_request(call.clone()), Ok(request));
            assert!(raft_request(proto::RaftCall { version: 2, ..call.clone() }).is_err());
            assert!(raft_request(proto::RaftCall { kind: 0, ..call.clone() }).is_err());
            assert!(raft_request(proto::RaftCall { kind: 9, ..call }).is_err());
        }
    }
}
