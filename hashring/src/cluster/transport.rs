//! Carries requests of Raft over gRPC.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Code;
use weir_proto::weir_cluster::raft_reply::Outcome;

use super::{channels::Channels, ring_file::RingRecord, wire};
use crate::{
    ids::Uid,
    raft::{Peer, RaftId, RaftRequest, RaftResponse, Refusal, Transport, TransportError},
    ring::RingState,
};

/// Reaches other voters at the addresses that the ring knows. What the list of members says counts
/// only for those whom the ring does not know yet, and what a voter says about itself before both.
#[derive(Clone, Debug)]
pub struct GrpcTransport {
    channels: Arc<Channels>,
    record: watch::Receiver<Arc<RingRecord>>,
    moved: Arc<Moved>,
    /// Told where a later generation of the cluster is met.
    later: Arc<watch::Sender<Option<String>>>,
}

/// Where nodes say they are, if the ring says otherwise. A voter that came back elsewhere may be needed
/// for the very majority that changes the ring.
#[derive(Debug, Default)]
pub struct Moved(Mutex<BTreeMap<RaftId, String>>);

impl Moved {
    /// The node `uid`, who is at `known` as far as anybody knew, says that it is at `address`.
    pub fn hear(&self, uid: Uid, known: &str, address: &str) {
        let id = RaftId(uid.raft_id().0);
        if known == address {
            self.0.lock().remove(&id);
        } else {
            self.0.lock().insert(id, address.to_owned());
        }
    }

    /// Forgotten unless it is put back when it has answered.
    fn take(&self, id: RaftId) -> Option<String> {
        self.0.lock().remove(&id)
    }

    fn put_back(&self, id: RaftId, address: String) {
        self.0.lock().entry(id).or_insert(address);
    }
}

impl GrpcTransport {
    /// Over these connections, with the addresses of the ring as it is last known.
    pub fn new(
        channels: Arc<Channels>,
        record: watch::Receiver<Arc<RingRecord>>,
        moved: Arc<Moved>,
        later: Arc<watch::Sender<Option<String>>>,
    ) -> GrpcTransport {
        GrpcTransport { channels, record, moved, later }
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
        let moved = self.moved.take(target.id);
        let known = address_of(&record.state, target.id).unwrap_or(&target.address);
        let address = moved.clone().unwrap_or_else(|| known.to_owned());
        let mut client = self.channels.raft(&address).map_err(|error| unreachable(error.to_string()))?;
        let reply = client.call(wire::raft_call(request)).await.map_err(|status| match status.code() {
            Code::InvalidArgument => Refusal::NotUnderstood(status.message().to_owned()).into(),
            _ => unreachable(status.to_string()),
        })?;
        let reply = reply.into_inner();
        if let Some(moved) = moved {
            self.moved.put_back(target.id, moved);
        }
        wire::check_version(reply.version).map_err(|error| unreachable(error.to_string()))?;
        match reply.outcome {
            Some(Outcome::Body(body)) => Ok(RaftResponse { body }),
            Some(Outcome::Refusal(refusal)) => {
                let refusal: Refusal =
                    wire::decode(&refusal).map_err(|error| unreachable(error.to_string()))?;
                if matches!(refusal, Refusal::OtherGeneration { own, theirs } if own > theirs) {
                    self.later.send_replace(Some(address.clone()));
                }
                Err(refusal.into())
            }
            None => Err(unreachable("an empty answer".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::cluster_of;

    #[test]
    fn a_node_that_moved_is_where_it_says_until_it_does_not_answer() {
        let state = cluster_of(3);
        let node = state.nodes().next().expect("there are three");
        let id = RaftId(node.uid.raft_id().0);
        let moved = Moved::default();
        let hear = |address: &str| moved.hear(node.uid, &node.addresses.cluster, address);
        hear(&node.addresses.cluster);
        assert_eq!(moved.take(id), None, "the ring knows it");
        hear("elsewhere:1");
        assert_eq!(moved.take(id).as_deref(), Some("elsewhere:1"));
        assert_eq!(moved.take(id), None, "it is being tried");
        moved.put_back(id, "elsewhere:1".to_owned());
        hear("elsewhere:2");
        moved.put_back(id, "elsewhere:1".to_owned());
        assert_eq!(moved.take(id).as_deref(), Some("elsewhere:2"), "what was heard last counts");
        hear("elsewhere:2");
        hear(&node.addresses.cluster);
        assert_eq!(moved.take(id), None);
    }
}
