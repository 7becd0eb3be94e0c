//! Where a node gets the ring from: a voter from its own Raft, all others by watching a voter.

use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use weir_proto::weir_cluster::{RingUpdate, WatchRequest};

use super::{
    machine::RingMachine,
    ring_file::RingRecord,
    shared::Shared,
    wire::{self, VERSION},
};
use crate::{ids::ClusterId, raft::RaftNode, ring::RingState};

/// Publishes each state of this node's own Raft.
pub async fn follow_raft(shared: &Shared, raft: &RaftNode<RingMachine>) {
    let mut states = raft.watch();
    let generation = raft.identity().generation;
    loop {
        let published = states.borrow_and_update().clone();
        let state = published.machine.state.clone();
        publish(shared, RingRecord { generation, entries_applied: published.entries_applied, state }).await;
        if states.changed().await.is_err() {
            // Raft has stopped, and with it this node.
            return std::future::pending().await;
        }
    }
}

/// Watches one voter after the other.
pub async fn watch_voters(shared: &Shared, cluster: ClusterId) {
    loop {
        let mut addresses = shared.known_addresses();
        // Not all watchers shall hang on one voter.
        shared.surroundings.nature.rotate(&mut addresses);
        for address in &addresses {
            if let Err(what) = watch(shared, cluster, address).await {
                debug!(peer = address, what, "the ring is not watched there");
            }
        }
        sleep(shared.config.timers.retry).await;
    }
}

/// Watches one voter as long as it tells something.
async fn watch(shared: &Shared, cluster: ClusterId, address: &str) -> Result<(), String> {
    let timers = &shared.config.timers;
    let mut client = shared.channels.cluster(address).map_err(|error| error.to_string())?;
    let known = shared.publisher.record();
    let request = WatchRequest {
        version: VERSION,
        cluster_id: cluster.0.to_vec(),
        generation: known.generation,
        entries_applied: known.entries_applied,
    };
    let asked = timeout(timers.call, client.watch_ring(request)).await;
    let stream = asked.map_err(|_| "no answer in time")?.map_err(|status| status.to_string())?;
    let mut updates = stream.into_inner();
    loop {
        let next = timeout(timers.watch_idle, updates.message()).await.map_err(|_| "no sign of life")?;
        let Some(update) = next.map_err(|status| status.to_string())? else {
            return Err("the stream ended".to_owned());
        };
        take(shared, cluster, update).await?;
    }
}

async fn take(shared: &Shared, cluster: ClusterId, update: RingUpdate) -> Result<(), String> {
    wire::check_version(update.version).map_err(|error| error.to_string())?;
    let own = shared.membership().map_or(0, |membership| membership.generation);
    if update.generation < own {
        return Err(format!("it is of generation {}, and this node of {own}", update.generation));
    }
    if update.state.is_empty() {
        return Ok(());
    }
    let state: RingState = wire::decode(&update.state).map_err(|error| error.to_string())?;
    let RingUpdate { generation, entries_applied, .. } = update;
    let founded = state.cluster().ok_or("a ring without a cluster")?;
    if founded.id != cluster {
        return Err(format!("a ring of cluster {}", founded.id));
    }
    let (digest, found) = (state.digest(), state.mapping().digest(founded));
    if digest != found {
        return Err(format!("the digest of the ring is {found}, and it says {digest}"));
    }
    state.check().map_err(|error| error.to_string())?;
    if generation > own {
        shared.adopt_generation(generation).await.map_err(|error| error.to_string())?;
    }
    publish(shared, RingRecord { generation, entries_applied, state }).await;
    Ok(())
}

/// Goes over to a later generation of the cluster wherever one is met. Whoever watches the ring or
/// follows Raft in an earlier one would never hear of it by that.
pub async fn meet_later_generation(shared: &Shared, cluster: ClusterId) {
    let mut met = shared.later.subscribe();
    loop {
        let found = met.wait_for(Option::is_some).await.map(|address| address.clone());
        let Ok(Some(address)) = found else { return std::future::pending().await };
        shared.later.send_replace(None);
        let own = shared.membership().map_or(0, |membership| membership.generation);
        let watched = tokio::select! {
            biased;
            ended = watch(shared, cluster, &address) => ended,
            () = until_later(shared, own) => Ok(()),
            () = sleep(shared.config.timers.watch_idle) => Ok(()),
        };
        if let Err(what) = watched {
            debug!(peer = address, what, "a later generation of the cluster was met and not found there");
        }
        // Whoever is met next may know more.
        sleep(shared.config.timers.retry).await;
    }
}

/// Waits until the ring is of a later generation than this one.
async fn until_later(shared: &Shared, generation: u64) {
    let mut records = shared.publisher.watch_record();
    if records.wait_for(|record| record.generation > generation).await.is_err() {
        std::future::pending().await
    }
}

/// A ring that cannot be written is not used; the disk may have room again soon.
async fn publish(shared: &Shared, record: RingRecord) {
    while let Err(error) = shared.publisher.publish(record.clone()).await {
        warn!(%error, "the ring cannot be written; the last one stays in use");
        sleep(shared.config.timers.heartbeat).await;
    }
}
