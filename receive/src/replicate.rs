//! Copies of samples between the nodes of a cluster.
//!
//! Any node takes a write. It places each series on the ring ([`routing`]), stores what it owns
//! itself, and sends the rest of the copies to the other owners: one long-lived stream per peer and
//! direction, not a call per request. A series is introduced on a stream once, with its labels, and
//! from then on travels as a small number; the frames stand in `weir_proto::replication`.
//!
//! - [`peer`] keeps the stream to one peer up and notices when it is gone; [`connection`] is the
//!   sending end of a stream while it lasts.
//! - [`receiver`] is the receiving end, [`stream`] what it knows of one stream, and [`fence`] judges
//!   whether what comes was sent by a ring that still counts.
//! - [`quorum`] counts answers and says when a request is decided.
//!
//! What goes over the wire before a series is known is its labels, not a key of them as one might
//! expect: a key would need a second table in each owner, 40 bytes a series, and a second round
//! trip with samples held in between, to save one label set per series and reconnect.

pub mod connection;
pub mod fence;
pub mod peer;
pub mod quorum;
pub mod receiver;
pub mod routing;
pub mod stream;

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::peer::{Peer, PeerOptions};

/// All peers of a node.
pub struct Peers {
    options: PeerOptions,
    runtime: Handle,
    /// By what they call themselves.
    peers: Mutex<HashMap<String, Running>>,
    numbers: Mutex<SeriesNumbers>,
}

/// Who a peer is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster; all zero where a ring file places series.
    pub cluster: [u8; 16],
    /// What the peer calls itself: its endpoint in a ring file, its uid in a cluster. Whoever else is
    /// found at its address refuses.
    pub target: String,
    /// Its name for people.
    pub name: String,
    /// Where it is, `host:port` of its gRPC server.
    pub address: String,
}

impl PeerIdentity {
    /// A node that a ring file names by its address.
    pub fn endpoint(address: &str) -> Self {
        let address = address.to_owned();
        Self { cluster: [0; 16], target: address.clone(), name: address.clone(), address }
    }
}

/// A peer whose task ends when this is dropped.
struct Running {
    peer: Arc<Peer>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        // At once, not when its task gets to it: who is not in the map is not told of numbers that are
        // used again.
        self.peer.let_go();
    }
}

impl Peers {
    /// No peers yet. Their tasks run on the runtime that this is called on.
    pub fn new(options: PeerOptions) -> Arc<Self> {
        let runtime = Handle::current();
        Arc::new(Self { options, runtime, peers: Mutex::default(), numbers: Mutex::default() })
    }

    /// Makes these the peers: new ones are connected to, and those that moved; those that are not
    /// among them are let go.
    pub fn keep(&self, identities: Vec<PeerIdentity>) {
        let mut peers = self.peers.lock();
        peers.retain(|_, running| {
            let own = running.peer.identity();
            if !identities.iter().any(|identity| identity.name == own.name) {
                running.peer.let_go();
                running.peer.show_as_gone();
            }
            identities.contains(own)
        });
        for identity in identities {
            let target = identity.target.clone();
            if peers.contains_key(&target) {
                continue;
            }
            let peer = Peer::new(identity, self.options.clone());
            let stop = CancellationToken::new();
            self.runtime.spawn(peer.clone().run(stop.clone()));
            peers.insert(target, Running { peer, stop });
        }
    }

    /// The peer that calls itself `target`.
    pub fn get(&self, target: &str) -> Option<Arc<Peer>> {
        self.peers.lock().get(target).map(|running| running.peer.clone())
    }

    /// The node that calls itself `target` has given a sign of life.
    pub fn wake(&self, target: &str) {
        if let Some(peer) = self.get(target) {
            peer.wake();
        }
    }

    /// Tells all peers that this node takes batches from now on.
    pub fn announce(&self) {
        self.all().iter().for_each(|peer| peer.announce());
    }

    /// The peers to which there is a stream, by what they call themselves.
    pub fn connected(&self) -> Vec<String> {
        let connected = self.all().into_iter().filter(|peer| peer.connection().is_some());
        connected.map(|peer| peer.identity().target.clone()).collect()
    }

    /// Number of peers.
    pub fn count(&self) -> usize {
        self.peers.lock().len()
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.lock().values().map(|running| running.peer.clone()).collect()
    }

    /// Ends all streams.
    pub fn stop(&self) {
        self.peers.lock().clear();
    }

    /// Numbers for `count` series, unknown to all streams. The caller gives them back by
    /// [`Self::release_numbers`] when no request can use them for their series any more.
    pub fn take_numbers(&self, count: usize) -> Vec<u32> {
        let (taken, used_before) = self.numbers.lock().take(count);
        if !used_before.is_empty() {
            for connection in self.all().iter().filter_map(|peer| peer.connection()) {
                connection.forget(used_before.iter().copied());
            }
        }
        taken
    }

    /// Gives numbers back.
    pub fn release_numbers(&self, numbers: impl IntoIterator<Item = u32>) {
        self.numbers.lock().free.extend(numbers);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Peers").field("count", &self.peers.lock().len()).finish_non_exhaustive()
    }
}

/// Numbers of series, used again so that dictionaries stay as small as the number of live series.
#[derive(Debug, Default)]
struct SeriesNumbers {
    next: u32,
    free: Vec<u32>,
}

impl SeriesNumbers {
    /// `count` numbers, and those of them that another series had before.
    fn take(&mut self, count: usize) -> (Vec<u32>, Vec<u32>) {
        let used_before = self.free.split_off(self.free.len().saturating_sub(count));
        let mut taken = used_before.clone();
        while taken.len() < count {
            taken.push(self.next);
            // No machine holds so many series; the last number would be shared.
            self.next = self.next.saturating_add(1);
        }
        (taken, used_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_it_is_told() {
        let mut numbers = SeriesNumbers::default();
        assert_eq!(numbers.take(3), (vec![0, 1, 2], vec![]));
        numbers.free.extend([1, 0]);
        assert_eq!(numbers.take(1), (vec![0], vec![0]));
        assert_eq!(numbers.take(3), (vec![1, 3, 4], vec![1]));
    }
}
