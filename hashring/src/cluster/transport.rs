//! Carries requests of Raft over gRPC.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Code;
use weir_proto::weir_cluster::raft_reply::Outcome;

use super::{channels::Channels, ring_file::RingRecord, wire};
use crate::{
    raft::{Peer, RaftId, RaftRequest, RaftResponse, Refusal, Transport, TransportError},
    ring::RingState,
};

/// Reaches other voters at the addresses that the ring knows. What the list of members says counts
/// only for those whom the ring does not know yet.
#[derive(Clone, Debug)]
pub struct GrpcTransport {
    channels: Arc<Channels>,
    record: watch::Receiver<Arc<RingRecord>>,
}

impl GrpcTransport {
    /// Over these connections, with the addresses of the ring as it is last known.
    pub fn new(channels: Arc<Channels>, record: watch::Receiver<Arc<RingRecord>>) -> GrpcTransport {
        GrpcTransport { channels, record }
    }
}

/// Where the ring says that a member is.
pub fn address_of(state: &RingState, id: RaftId) -> Option<&str> {
    let node = state.nodes().find(|node| node.uid.raft_id().0 == id.0)?;
    Some(node.addresses.cluster.as_str()).filter(|address| !address.is_empty())
}

impl Transport for GrpcTransport {
    async fn call(&self, target: &Peer, request: RaftRequest) -> Result<RaftResponse, TransportError> {
        let unreachable = |what: String| TransportError::Unreachable(what);
        let record = Arc::clone(&self.record.borrow());
        let address = address_of(&record.state, target.id).unwrap_or(&target.address);
        let mut client = self.channels.raft(address).map_err(|error| unreachable(error.to_string()))?;
        let reply = client.call(wire::raft_call(request)).await.map_err(|status| match status.code() {
            Code::InvalidArgument => Refusal::NotUnderstood(status.message().to_owned()).into(),
            _ => unreachable(status.to_string()),
        })?;
        let reply = reply.into_inner();
        wire::check_version(reply.version).map_err(|error| unreachable(error.to_string()))?;
        match reply.outcome {
            Some(Outcome::Body(body)) => Ok(RaftResponse { body }),
            Some(Outcome::Refusal(refusal)) => {
                let refusal: Refusal =
                    wire::decode(&refusal).map_err(|error| unreachable(error.to_string()))?;
                Err(refusal.into())
            }
            None => Err(unreachable("an empty answer".to_owned())),
        }
    }
}
