//! Connections to other nodes, one for each address, made when they are first needed.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{ServiceExt, util::BoxCloneSyncService};
use weir_proto::weir_cluster::{cluster_client::ClusterClient, raft_client::RaftClient};

use super::wire::MESSAGE_BYTES_MAX;

/// More addresses than a cluster has nodes; old ones are forgotten then.
const CHANNELS_MAX: usize = 4096;
/// A peer that says nothing is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Takes requests to one address.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// Reaches other nodes.
pub trait Dialer: fmt::Debug + Send + Sync {
    /// For requests to `host:port`. Does nothing before the first of them; connecting may take so long.
    fn dial(&self, address: &str, connect: Duration) -> Result<Channel, BadAddress>;
}

/// gRPC over TCP: connects when it is used, and again after the connection was lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct OverTcp;

impl Dialer for OverTcp {
    fn dial(&self, address: &str, connect: Duration) -> Result<Channel, BadAddress> {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|_| BadAddress(address.to_owned()))?;
        let channel = endpoint
            .connect_timeout(connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(connect)
            .connect_lazy();
        let channel = channel.map_err(|error: tonic::transport::Error| Status::from_error(Box::new(error)));
        Ok(BoxCloneSyncService::new(channel))
    }
}

/// The connections of a node.
#[derive(Debug)]
pub struct Channels {
    connect: Duration,
    dialer: Arc<dyn Dialer>,
    by_address: Mutex<BTreeMap<String, Channel>>,
}

/// An address that nobody can be reached at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address")]
pub struct BadAddress(pub String);

impl Channels {
    /// No connections yet; each may take so long to be made.
    pub fn new(connect: Duration, dialer: Arc<dyn Dialer>) -> Channels {
        Channels { connect, dialer, by_address: Mutex::default() }
    }

    /// For requests of voters to the voter at `host:port`.
    pub fn raft(&self, address: &str) -> Result<RaftClient<Channel>, BadAddress> {
        let client = RaftClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// For all other requests to the node at `host:port`.
    pub fn cluster(&self, address: &str) -> Result<ClusterClient<Channel>, BadAddress> {
        let client = ClusterClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn channel(&self, address: &str) -> Result<Channel, BadAddress> {
        let mut by_address = self.by_address.lock();
        if let Some(channel) = by_address.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.dial(address, self.connect)?;
        if by_address.len() >= CHANNELS_MAX {
            by_address.clear();
        }
        by_address.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
