//! Finding the other nodes, and asking them who they are.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, info};
use weir_proto::weir_cluster::InfoRequest;

use super::{
    bootstrap::{BootstrapError, Decision, Own, PeerInfo, decide, fresh_founders},
    shared::Shared,
    wire::{self, VERSION},
};
use crate::ids::Uid;

/// The addresses that come of one name.
pub type Resolved = Pin<Box<dyn Future<Output = Vec<String>> + Send>>;

/// Turns what people wrote for peers into addresses.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// The addresses, `host:port`, that one peer stands for now; none if that cannot be said.
    fn resolve(&self, peer: &str) -> Resolved;
}

/// Peers are addresses already.
#[derive(Clone, Copy, Debug, Default)]
pub struct StaticPeers;

impl Resolver for StaticPeers {
    fn resolve(&self, peer: &str) -> Resolved {
        let address = peer.to_owned();
        Box::pin(async move { vec![address] })
    }
}

/// The addresses of all peers.
pub async fn resolve_all(resolver: &dyn Resolver, peers: &[String]) -> Vec<String> {
    let mut addresses = Vec::new();
    for peer in peers {
        addresses.extend(resolver.resolve(peer).await);
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Asks all peers who they are until there is something to do.
pub async fn until_decided(
    shared: &Arc<Shared>,
    resolver: &dyn Resolver,
) -> Result<Decision, BootstrapError> {
    let own = Own {
        uid: shared.uid,
        address: shared.config.addresses.cluster.clone(),
        bootstrap_expect: shared.config.bootstrap_expect,
        cluster: shared.config.cluster,
    };
    let mut before: Vec<Uid> = Vec::new();
    loop {
        let addresses = resolve_all(resolver, &shared.config.peers).await;
        shared.peers.lock().clone_from(&addresses);
        let answers = ask_all(shared, &addresses).await;
        let seen: Vec<Uid> = fresh_founders(&own, &answers).iter().map(|founder| founder.uid).collect();
        shared.fresh.lock().clone_from(&seen);
        match decide(&own, &before, &answers)? {
            Decision::Wait => {
                if seen != before {
                    let (asked, answered) = (addresses.len(), answers.len());
                    info!(asked, answered, without_cluster = seen.len(), "waiting for a cluster");
                }
            }
            decision => return Ok(decision),
        }
        before = seen;
        tokio::time::sleep(shared.config.timers.bootstrap_round).await;
    }
}

async fn ask_all(shared: &Arc<Shared>, addresses: &[String]) -> Vec<PeerInfo> {
    let mut asked = JoinSet::new();
    for address in addresses {
        let (shared, address) = (Arc::clone(shared), address.clone());
        asked.spawn(async move { ask(&shared, &address).await });
    }
    let mut answers: Vec<PeerInfo> = asked.join_all().await.into_iter().flatten().collect();
    answers.sort_by_key(|peer| peer.uid);
    answers
}

/// Who is at an address; none if nobody says so in time.
pub async fn ask(shared: &Shared, address: &str) -> Option<PeerInfo> {
    let trouble = |what: String| debug!(peer = address, what, "a peer does not say who it is");
    let mut client = shared.channels.cluster(address).map_err(|error| trouble(error.to_string())).ok()?;
    let asked = timeout(
        shared.config.timers.call,
        client.info(InfoRequest { version: VERSION, ..InfoRequest::default() }),
    )
    .await;
    let answer = asked.map_err(|_| trouble("no answer in time".to_owned())).ok()?;
    let answer = answer.map_err(|status| trouble(status.to_string())).ok()?;
    wire::peer_info(&answer.into_inner()).map_err(|error| trouble(error.to_string())).ok()
}
