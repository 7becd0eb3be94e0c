//! That the cluster knows this node, where it is, and how it is doing.

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{heartbeat::HeartbeatAnswer, leader_client::ProposeFailed, node::ClusterFailure, shared::Shared};
use crate::{
    ids::ClusterId,
    ring::{Command, Node, NodeRegistration, NodeUpdate, Rejected, RingState},
};

/// What a leader said of the clock counts for so many heartbeats, a minute in a program.
const CLOCK_KEPT_HEARTBEATS: u32 = 12;

/// What a node has to do about what the ring says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is no ring yet, or it does not list the node.
    Register,
    /// The node has changed.
    Update(NodeUpdate),
    /// It is known as it is.
    Known,
    /// It is gone for good.
    Gone,
}

/// Compares what the ring says of a node with what it is.
pub fn presence(state: &RingState, own: &NodeRegistration) -> Presence {
    if state.tombstone(own.uid).is_some() {
        return Presence::Gone;
    }
    let Some(known) = state.node(own.uid) else { return Presence::Register };
    match changes(known, own) {
        Some(update) => Presence::Update(update),
        None => Presence::Known,
    }
}

/// Only what a restart may change. Pool, zone and name are for people to change, and so is the weight:
/// a node comes with one, and keeps to what the ring says later.
fn changes(known: &Node, own: &NodeRegistration) -> Option<NodeUpdate> {
    let addresses = (known.addresses != own.addresses).then(|| own.addresses.clone());
    let version = (known.version != own.version).then(|| own.version.clone());
    let features = (known.features != own.features).then_some(own.features);
    let is_changed = addresses.is_some() || version.is_some() || features.is_some();
    is_changed.then_some(NodeUpdate {
        uid: own.uid,
        addresses,
        version,
        features,
        weight: None,
        pool: None,
        zone: None,
    })
}

/// Registers the node, until it is known. Whoever refuses it may be mended without a restart.
pub async fn register(shared: &Shared, cluster: ClusterId) {
    loop {
        let refused = match shared.join(cluster, shared.join_ask()).await {
            Ok(_) => return,
            Err(ProposeFailed::Rejected(Rejected::Gone(_))) => {
                shared.fail(ClusterFailure::Gone);
                return std::future::pending().await;
            }
            Err(ProposeFailed::Cloned(why)) => {
                shared.fail(ClusterFailure::Cloned(why));
                return std::future::pending().await;
            }
            Err(error) => error,
        };
        match &refused {
            // The leader is about to found the ring.
            ProposeFailed::Rejected(Rejected::NoCluster) => {}
            ProposeFailed::NoLeader { .. } => warn!(error = %refused, "the node is not registered yet"),
            _ => {
                shared.refusal.send_replace(Some(refused.clone()));
                warn!(error = %refused, "the cluster refuses the node");
            }
        }
        sleep(shared.config.timers.retry).await;
    }
}

/// Keeps what the cluster knows of this node current, for ever.
pub async fn be_present(shared: &Shared, cluster: ClusterId) {
    let mut records = shared.publisher.watch_record();
    loop {
        let record = std::sync::Arc::clone(&records.borrow_and_update());
        match presence(&record.state, &shared.registration()) {
            Presence::Register => {
                shared.while_announced(cluster, register(shared, cluster)).await;
                shared.refusal.send_replace(None);
                // Until the ring says so. If it does not, this node may be known all the same, at another
                // address: the leader is told this one, or would never bring the ring here.
                let _ = timeout(shared.config.timers.heartbeat, records.changed()).await;
            }
            Presence::Update(update) => {
                let proposed = shared.propose(Command::UpdateNode(update), false);
                match shared.while_announced(cluster, proposed).await {
                    Ok(_) => info!("the cluster knows the node as it is now"),
                    Err(error) => warn!(%error, "the cluster does not know yet what changed about the node"),
                }
            }
            Presence::Known => {}
            Presence::Gone => {
                shared.fail(ClusterFailure::Gone);
                return std::future::pending().await;
            }
        }
        match shared.tell_leader(cluster).await {
            Ok(answer) if answer.is_gone => {
                shared.fail(ClusterFailure::Gone);
                return std::future::pending().await;
            }
            Ok(answer) => {
                take_the_time(shared, &answer);
                shared.end_raft_if_removed(&answer).await;
            }
            Err(ProposeFailed::Cloned(why)) => {
                shared.fail(ClusterFailure::Cloned(why));
                return std::future::pending().await;
            }
            Err(error @ ProposeFailed::Refused(_)) => warn!(%error, "the leader refuses to hear of the node"),
            Err(error) => debug!(%error, "no leader hears how the node is doing"),
        }
        forget_the_time(shared);
        sleep(shared.config.timers.heartbeat).await;
    }
}

/// Asks the leader again and again what time it is, for a node that is in no list, for ever.
pub async fn keep_the_time(shared: &Shared, cluster: ClusterId) {
    loop {
        match shared.ask_time(cluster).await {
            Ok(answer) => take_the_time(shared, &answer),
            Err(error) => debug!(%error, "no leader says what time it is"),
        }
        forget_the_time(shared);
        sleep(shared.config.timers.heartbeat).await;
    }
}

fn take_the_time(shared: &Shared, answer: &HeartbeatAnswer) {
    *shared.heard_by_leader.lock() = Some(Instant::now());
    set_clock_offset(shared, answer.clock_offset_ms);
}

/// What a leader said of the clock long ago says nothing of it now: it may have been mended since.
fn forget_the_time(shared: &Shared) {
    let kept = shared.config.timers.heartbeat * CLOCK_KEPT_HEARTBEATS;
    if shared.heard_by_leader.lock().is_none_or(|at| at.elapsed() > kept) {
        set_clock_offset(shared, None);
    }
}

fn set_clock_offset(shared: &Shared, offset: Option<i64>) {
    shared.clock_offset.send_if_modified(|known| std::mem::replace(known, offset) != offset);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{FeatureLevel, Weight},
        ring::{
            NodeState,
            tests::{cluster_of, registration, set_state},
        },
    };

    #[test]
    fn what_the_ring_says_of_a_node() {
        let check = |change: fn(&mut NodeRegistration), expected: &str| {
            let mut own = registration(1);
            change(&mut own);
            let found = match presence(&cluster_of(3), &own) {
                Presence::Update(update) => {
                    let mut state = cluster_of(3);
                    let epoch = state.epoch();
                    state.apply(&Command::UpdateNode(update)).expect("the update fits");
                    assert_eq!(state.epoch(), epoch);
                    assert_eq!(presence(&state, &own), Presence::Known);
                    "Update".to_owned()
                }
                other => format!("{other:?}"),
            };
            assert_eq!(found, expected);
        };
        check(|_| (), "Known");
        check(|own| own.uid = crate::ids::Uid(9), "Register");
        check(|own| own.addresses.grpc = "elsewhere:1".to_owned(), "Update");
        check(|own| own.version = "2.0.0".to_owned(), "Update");
        check(|own| own.features = FeatureLevel(2), "Update");
        check(|own| own.weight = Weight::new(2).expect("2 is a weight"), "Known");
        check(|own| own.zone = "other".to_owned(), "Known");

        let mut state = cluster_of(4);
        state.apply(&set_state(1, NodeState::Active, NodeState::Lost)).expect("it is Active");
        assert_eq!(presence(&state, &registration(1)), Presence::Gone);
        assert_eq!(presence(&RingState::default(), &registration(1)), Presence::Register);
    }
}
