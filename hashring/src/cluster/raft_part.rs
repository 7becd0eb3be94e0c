//! The part that a node takes in Raft: none, or that of a member, which begins and ends while it runs.
//!
//! A founder takes part from the beginning. Any other node is told to by the leader, who then makes
//! it a member; and when it hears from a leader that it is none any more, it ends that and watches
//! the ring like all others. What it had promised stays on disk, see `identity`, so all of this may be
//! repeated, or broken off by a crash, at any point.
//!
//! Whether it is still a member it cannot know by itself, for nobody sends it the change that
//! removed it. The leader says so in its answers to heartbeats, with the place in the log from which
//! it knows. What a former leader says, who does not know yet that the node was made a member, is
//! seen by that place, see [`is_removed`].

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::{
    heartbeat::HeartbeatAnswer, identity::IdentityError, machine::RingMachine, node::ClusterFailure,
    shared::Shared, transport::GrpcTransport, wire,
};
use crate::raft::{Begun, Identity, Peer, RaftId, RaftNode, StartError as RaftStartError, Status};

/// Raft of a node, if it takes part.
#[derive(Default)]
pub struct RaftPart {
    running: watch::Sender<Option<RaftNode<RingMachine>>>,
    /// Held while it begins or ends.
    changing: Mutex<()>,
}

/// Why a node does not begin to take part.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// It was a member, and what it promised is gone.
    #[error("this node was a member of Raft and its store is missing: it may vote under a new identity only")]
    StoreMissing,
    /// Who it is cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Raft does not start.
    #[error(transparent)]
    Raft(#[from] RaftStartError),
    /// The node stops.
    #[error("this node is being stopped")]
    Stopping,
}

impl RaftPart {
    /// Raft, if it runs.
    pub fn get(&self) -> Option<RaftNode<RingMachine>> {
        self.running.borrow().clone()
    }

    /// Raft, and whenever it begins or ends.
    pub fn watch(&self) -> watch::Receiver<Option<RaftNode<RingMachine>>> {
        self.running.subscribe()
    }

    /// Stops Raft, for the process ends.
    pub async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        if let Some(raft) = self.get() {
            raft.shutdown().await;
        }
    }
}

impl Shared {
    /// Starts Raft, if the node takes part and Raft does not run yet; the founder founds the cluster.
    /// May be called again after a crash at any point.
    pub async fn start_raft(&self) -> Result<(), RaftStartError> {
        let _changing = self.raft.changing.lock().await;
        self.start_raft_alone().await
    }

    /// As [`Shared::start_raft`], for whoever holds the lock.
    async fn start_raft_alone(&self) -> Result<(), RaftStartError> {
        let identity = self.identity.lock().clone();
        let Some(membership) = identity.membership() else { return Ok(()) };
        if !identity.is_raft_member() || self.raft.get().is_some() {
            return Ok(());
        }
        let raft_identity = Identity {
            id: identity.raft_id(),
            cluster: membership.cluster.to_string(),
            generation: membership.generation,
        };
        let (channels, record) = (Arc::clone(&self.channels), self.publisher.watch_record());
        let (moved, later) = (Arc::clone(&self.moved), Arc::clone(&self.later));
        let transport = GrpcTransport::new(channels, record, moved, later);
        let (config, storage) = (self.config.raft.clone(), Arc::clone(&self.surroundings.storage));
        let dir = identity.raft_dir();
        let begun = if identity.is_raft_begun() { Begun::Yes } else { Begun::Maybe };
        let raft = RaftNode::start_on(config, raft_identity, &dir, transport, storage, begun).await?;
        if begun == Begun::Maybe
            && let Err(error) = self.change_identity(|identity| identity.raft_has_begun()).await
        {
            raft.shutdown().await;
            return Err(RaftStartError::Raft(error.to_string()));
        }
        let is_founder = membership.founders.iter().map(|founder| founder.uid).min() == Some(self.uid);
        if is_founder && raft.status().members.voters.is_empty() {
            let voters: Vec<Peer> = membership
                .founders
                .iter()
                .map(|founder| Peer { id: RaftId(founder.uid.raft_id().0), address: founder.address.clone() })
                .collect();
            if let Err(error) = raft.initialize(&voters).await {
                raft.shutdown().await;
                return Err(RaftStartError::Raft(error.to_string()));
            }
        }
        self.raft.running.send_replace(Some(raft));
        Ok(())
    }

    /// Begins to take part in Raft, for the leader is about to make the node a member. `is_used` says
    /// that it was one before.
    pub async fn begin_raft(&self, is_used: bool) -> Result<(), BeginError> {
        let _changing = self.raft.changing.lock().await;
        if self.stop.is_cancelled() {
            return Err(BeginError::Stopping);
        }
        let (is_member, has_store) = {
            let identity = self.identity.lock();
            (identity.is_raft_member(), identity.has_raft_store())
        };
        if is_used && !has_store {
            return Err(BeginError::StoreMissing);
        }
        if !is_member {
            self.change_identity(|identity| identity.begin_raft()).await?;
            info!("this node takes part in Raft");
        }
        self.start_raft_alone().await?;
        Ok(())
    }

    /// Ends the node's part in Raft if the leader says that it is no member any more.
    pub async fn end_raft_if_removed(&self, answer: &HeartbeatAnswer) {
        let _changing = self.raft.changing.lock().await;
        let Some(raft) = self.raft.get() else { return };
        if self.stop.is_cancelled() || !is_removed(&raft.status(), answer) {
            return;
        }
        info!("this node is no member of Raft any more; it watches the ring from now on");
        if let Err(error) = self.change_identity(|identity| identity.end_raft()).await {
            // It is one on disk, and would be one again after a restart, until it is told so again.
            warn!(%error, "the end of the node's part in Raft cannot be written");
        }
        raft.shutdown().await;
        self.raft.running.send_replace(None);
    }

    /// Goes over to a later generation of the cluster, in which this node takes no part in Raft yet.
    pub async fn adopt_generation(&self, generation: u64) -> Result<(), IdentityError> {
        let _changing = self.raft.changing.lock().await;
        let own = self.membership().map_or(0, |membership| membership.generation);
        if generation <= own || self.stop.is_cancelled() {
            return Ok(());
        }
        warn!(own, generation, "the cluster was forced to begin anew; this node follows it");
        // Its files are closed before they are removed.
        if let Some(raft) = self.raft.get() {
            raft.shutdown().await;
        }
        if let Err(error) = self.change_identity(move |identity| identity.adopt(generation)).await {
            self.fail(ClusterFailure::Identity(error.to_string()));
            return Err(error);
        }
        self.raft.running.send_replace(None);
        Ok(())
    }

    /// Takes note if a refusal shows a later generation of the cluster. True if generations differ.
    pub fn meet(&self, address: &str, status: &tonic::Status) -> bool {
        let Some(theirs) = wire::generation_of(status) else { return false };
        if self.membership().is_some_and(|own| theirs > own.generation) {
            self.later.send_replace(Some(address.to_owned()));
        }
        true
    }

    /// A leader sends entries to this node, which takes no part: it was made a member, and ended its
    /// part at the same time.
    pub fn resume_raft(self: &Arc<Self>) {
        let has_store = self.identity.lock().has_raft_store();
        if !has_store || self.raft.changing.try_lock().is_err() {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            match shared.begin_raft(true).await {
                Ok(()) | Err(BeginError::Stopping) => {}
                Err(error) => shared.fail(ClusterFailure::Raft(error.to_string())),
            }
        });
    }
}

/// True if a leader who answers so has removed the member that has this status. A leader of a later
/// term than that of the entry that made the node a member knows of it, or has undone it; so does
/// one whose list of members is at least as new.
pub fn is_removed(status: &Status, answer: &HeartbeatAnswer) -> bool {
    let (Some(own), Some(theirs)) = (status.members_at, answer.members_at) else { return false };
    !answer.is_member && (answer.term > own.term || theirs >= own)
}
