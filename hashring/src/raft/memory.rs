//! A network in memory, for tests: members of one process, with partitions and delays.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    machine::Machine,
    network::{RaftRequest, RaftResponse, Refusal, RequestKind, Transport, TransportError},
    node::RaftNode,
    types::{Peer, RaftId},
};

type Answer = Pin<Box<dyn Future<Output = Result<RaftResponse, Refusal>> + Send>>;
type Handler = Arc<dyn Fn(RaftRequest) -> Answer + Send + Sync>;

/// The network. Clones are handles of the same.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<RaftId, Handler>,
    /// Links that are cut, each in one direction.
    cut: BTreeSet<(RaftId, RaftId)>,
    delay: Duration,
    snapshots_delivered: u64,
}

impl MemoryNetwork {
    /// A node can be reached from now on. It takes the place of a former one of the same id.
    pub fn connect<M: Machine>(&self, node: &RaftNode<M>) {
        let id = node.identity().id;
        let node = node.clone();
        let handler: Handler = Arc::new(move |request| {
            let node = node.clone();
            Box::pin(async move { node.handle(request).await })
        });
        self.state.lock().nodes.insert(id, handler);
    }

    /// A node cannot be reached any more.
    pub fn disconnect(&self, id: RaftId) {
        self.state.lock().nodes.remove(&id);
    }

    /// Cuts all links between these nodes and the others, in both directions.
    pub fn partition(&self, part: &[RaftId], others: &[RaftId]) {
        let mut state = self.state.lock();
        for (&left, &right) in part.iter().flat_map(|left| others.iter().map(move |right| (left, right))) {
            state.cut.extend([(left, right), (right, left)]);
        }
    }

    /// Makes all links whole.
    pub fn heal(&self) {
        self.state.lock().cut.clear();
    }

    /// Each message takes so long, in each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// How many snapshots were sent and taken over.
    pub fn snapshots_delivered(&self) -> u64 {
        self.state.lock().snapshots_delivered
    }

    /// The way of one message.
    async fn travel(&self, from: RaftId, to: RaftId) -> Result<(), TransportError> {
        let delay = self.state.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.state.lock().cut.contains(&(from, to)) {
            return Err(TransportError::Unreachable("the link is cut".to_owned()));
        }
        Ok(())
    }
}

impl Transport for MemoryNetwork {
    async fn call(&self, target: &Peer, request: RaftRequest) -> Result<RaftResponse, TransportError> {
        let (from, kind) = (request.from, request.kind);
        self.travel(from, target.id).await?;
        let handler = self.state.lock().nodes.get(&target.id).map(Arc::clone);
        let handler = handler.ok_or_else(|| TransportError::Unreachable("nobody is there".to_owned()))?;
        let answer = handler(request).await?;
        self.travel(target.id, from).await?;
        self.state.lock().snapshots_delivered += u64::from(kind == RequestKind::Snapshot);
        Ok(answer)
    }
}
