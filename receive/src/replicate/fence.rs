//! Whether a batch of another node is stored: what a receiver knows of the ring.
//!
//! With a ring file nobody can say whose ring is right, so a sender with another file is counted, not
//! refused. In a cluster a batch counts towards a quorum only if its sender's ring still counts: see
//! [`weir_hashring::fencing`]. What was judged is stored under the same ring: [`WriteFence::enter`]
//! hands out a pass that holds changes off until it is dropped, so whoever closes a node for good
//! knows that nothing comes after it.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, counter};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::{sync::watch, time::timeout};
use tonic::Status;
use weir_hashring::{
    fencing::{Fence, Verdict},
    ids::{Digest, RingEpoch, Slot, Uid},
    ring::RingState,
    view::{RingView, TenantPlacement},
};
use weir_proto::{
    replication::FRAME_VERSION,
    weir_replication::{Hello, Outcome},
};

/// How long a batch of a newer ring waits for this node to hear of it.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// What a node knows of the ring, to judge by.
#[derive(Debug)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// A ring file, and what it calls this node.
    File { endpoint: Option<String>, digest: Option<u64> },
    /// The ring of a cluster.
    Cluster { own: Uid, fence: Box<Fence>, view: Arc<RingView> },
}

/// The ring as a receiver judges by it.
#[derive(Debug)]
pub struct WriteFence {
    known: RwLock<Known>,
    /// The epoch in force.
    epoch: watch::Sender<u64>,
    metrics: FenceMetrics,
}

#[derive(Debug)]
struct FenceMetrics {
    digest_mismatches: Counter,
    stale: Counter,
    behind: Counter,
    not_owner: Counter,
}

impl FenceMetrics {
    fn new() -> Self {
        let refused = |reason: &'static str| {
            let counter = counter!("weir_replication_batches_refused_total", "reason" => reason);
            counter.increment(0);
            counter
        };
        let digest_mismatches = counter!("weir_replication_digest_mismatches_total");
        digest_mismatches.increment(0);
        Self {
            digest_mismatches,
            stale: refused("stale_ring"),
            behind: refused("ring_behind"),
            not_owner: refused("not_owner"),
        }
    }
}

/// Why a batch is not stored: the word for its sender, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStored {
    /// The word.
    pub outcome: Outcome,
    /// The text.
    pub cause: String,
}

/// Leave to store one batch. The ring does not change while it is held, so hold it briefly.
#[derive(Debug)]
pub struct Pass<'a> {
    known: RwLockReadGuard<'a, Known>,
    /// The sender's ring is the very one in force.
    is_current: bool,
}

impl WriteFence {
    /// For a node whose series a ring file places, and which it calls `endpoint`, or for one without
    /// a ring.
    pub fn of_file(endpoint: Option<String>) -> Arc<Self> {
        Self::new(Known::File { endpoint, digest: None })
    }

    /// For a node of a cluster, which knows no ring yet.
    pub fn of_cluster() -> Arc<Self> {
        Self::new(Known::Nothing)
    }

    fn new(known: Known) -> Arc<Self> {
        Arc::new(Self {
            known: RwLock::new(known),
            epoch: watch::Sender::new(0),
            metrics: FenceMetrics::new(),
        })
    }

    /// Another ring file is in force.
    pub fn set_file(&self, own: u64) {
        if let Known::File { digest, .. } = &mut *self.known.write() {
            *digest = Some(own);
        }
    }

    /// Another ring of the cluster is in force for this node. When this returns, nothing is being stored
    /// that was judged by the ring before. A node that has a ring stays open or closed as it is; with its
    /// first one it is closed if it `leaves`: before it was started again it may have given away all that it
    /// holds, and said so. Blocks for as long as storing a batch takes.
    pub fn set_cluster(&self, state: &RingState, view: Arc<RingView>, own: Uid, leaves: bool) {
        let Some(mut fence) = Fence::new(state, own, leaves) else { return };
        let epoch = fence.epoch().0;
        let mut known = self.known.write();
        if let Known::Cluster { fence: before, .. } = &*known {
            fence.set_closed(before.is_closed());
        }
        *known = Known::Cluster { own, fence: Box::new(fence), view };
        drop(known);
        self.epoch.send_replace(epoch);
    }

    /// Closes the node, which then stores nothing any more, whatever the ring says, or opens it again.
    /// When this returns, nothing is being stored that was judged before. Blocks for as long as storing
    /// a batch takes.
    pub fn set_closed(&self, closed: bool) {
        if let Known::Cluster { fence, .. } = &mut *self.known.write() {
            fence.set_closed(closed);
        }
    }

    /// Judges the greeting of a stream.
    ///
    /// # Errors
    /// If it is not for this node, or not of its version or cluster.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), Status> {
        if hello.version != FRAME_VERSION {
            let text = format!("frames of version {} are not read, only {FRAME_VERSION}", hello.version);
            return Err(Status::unimplemented(text));
        }
        let (cluster, own) = match &*self.known.read() {
            Known::Nothing => return Err(Status::unavailable("this node knows no ring yet")),
            Known::File { endpoint, .. } => ([0; 16], endpoint.clone()),
            Known::Cluster { own, view, .. } => (view.cluster().0, Some(own.to_string())),
        };
        if hello.cluster_id != cluster {
            return Err(Status::failed_precondition("this node belongs to another cluster"));
        }
        if let Some(own) = own
            && own != hello.target
        {
            let text = format!("this node is {own} of its ring, not {}", hello.target);
            return Err(Status::failed_precondition(text));
        }
        if hello.sender == hello.target {
            return Err(Status::failed_precondition("a node sends to itself"));
        }
        Ok(())
    }

    /// Waits a little, if need be, until the ring of `epoch` is known here. True if it is.
    pub async fn catch_up(&self, epoch: u64) -> bool {
        let mut epochs = self.epoch.subscribe();
        timeout(CATCH_UP_MAX, epochs.wait_for(|own| *own >= epoch)).await.is_ok_and(|known| known.is_ok())
    }

    /// True if a batch of `epoch` is of a ring that is not known here yet.
    pub fn is_behind(&self, epoch: u64) -> bool {
        matches!(&*self.known.read(), Known::Cluster { fence, .. } if fence.epoch().0 < epoch)
    }

    /// Leave to store a batch that was split by the ring of this epoch and digest.
    ///
    /// # Errors
    /// What its sender is told instead.
    pub fn enter(&self, epoch: u64, digest: u64) -> Result<Pass<'_>, NotStored> {
        let known = self.known.read();
        let (fence, verdict) = match &*known {
            Known::Nothing => {
                let cause = "this node knows no ring yet".to_owned();
                return Err(NotStored { outcome: Outcome::Unavailable, cause });
            }
            Known::File { digest: own, .. } => {
                if own.is_some_and(|own| own != digest) {
                    self.metrics.digest_mismatches.increment(1);
                }
                return Ok(Pass { known, is_current: false });
            }
            Known::Cluster { fence, .. } => (fence, fence.judge(RingEpoch(epoch), Digest(digest))),
        };
        let own = fence.epoch();
        let (outcome, cause) = match verdict {
            Verdict::Accept => {
                let is_current = own.0 == epoch;
                return Ok(Pass { known, is_current });
            }
            Verdict::RingBehind => {
                self.metrics.behind.increment(1);
                (Outcome::RingBehind, format!("the ring of epoch {epoch} is not known here, only {own}"))
            }
            Verdict::StaleRing { .. } => {
                self.metrics.stale.increment(1);
                (Outcome::StaleRing, format!("the ring of epoch {epoch} counts no more, this node has {own}"))
            }
            Verdict::DigestMismatch => {
                self.metrics.digest_mismatches.increment(1);
                tracing::error!(epoch, "two nodes have different rings of one epoch");
                (Outcome::NotOwner, format!("the ring of epoch {epoch} is another one here"))
            }
        };
        Err(NotStored { outcome, cause })
    }

    /// A series came here whose slot this node does not own.
    pub fn count_not_owner(&self) {
        self.metrics.not_owner.increment(1);
    }
}

impl Pass<'_> {
    /// What is needed to look whether a series belongs here; `None` where that cannot be said: the
    /// sender's ring is older, or is none of a cluster.
    pub fn owner_check(&self, tenant: &str) -> Option<OwnerCheck> {
        match &*self.known {
            Known::Cluster { view, .. } if self.is_current => {
                Some(OwnerCheck { seed: view.hash_seed().0, placement: view.tenant(tenant)? })
            }
            _ => None,
        }
    }

    /// True if this node owns the slot of a series.
    pub fn owns<'l>(
        &self,
        check: &OwnerCheck,
        tenant: &str,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
    ) -> bool {
        let slot = check.placement.slot(weir_hashring::series_hash(check.seed, tenant, labels));
        matches!(&*self.known, Known::Cluster { fence, .. } if fence.owns(Slot(slot.0)))
    }
}

/// How the series of one tenant are placed.
#[derive(Debug)]
pub struct OwnerCheck {
    seed: u64,
    placement: TenantPlacement,
}
