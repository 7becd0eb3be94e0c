//! Whether an owner takes a batch.
//!
//! A batch says for which epoch of the ring it was split. The receiver may know a later or an earlier
//! one; it takes the batch if it owns the slot, or did in the sender's epoch, because then it is among
//! the owners that were counted on. It keeps what it takes until that is uploaded, whatever later
//! epochs say. What it never takes is anything for a ring in which a node could be named that is gone
//! since: below the least epoch for writes.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, Digest, NodeNumber, RingEpoch, Slot, SlotCount, Uid},
    ring::{MappingChange, NodeState, RingState},
};

/// What a batch says about the ring that it was split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// Whom it is meant for.
    pub target: Uid,
    /// The epoch of the sender's ring.
    pub epoch: RingEpoch,
    /// The digest of that ring.
    pub digest: Digest,
    /// The slot of its series.
    pub slot: Slot,
}

/// Whether a batch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is.
    Accept,
    /// The receiver does not own the slot in the very epoch of the sender: a bug somewhere.
    NotOwner,
    /// The sender has to get this epoch and split what failed anew.
    StaleRing {
        /// The receiver's epoch.
        epoch: RingEpoch,
    },
    /// The receiver does not know the sender's epoch: it has to catch up and ask again.
    RingBehind,
    /// The batch is for another cluster.
    WrongCluster,
    /// The batch is for another node, which had this address.
    WrongTarget,
    /// Sender and receiver know different rings of the same epoch: must never happen.
    DigestMismatch,
}

/// What a node needs to judge batches: made anew for each epoch.
#[derive(Clone, Debug)]
pub struct Fence {
    cluster: ClusterId,
    uid: Uid,
    min_write_epoch: RingEpoch,
    /// True when a draining node has cut its head and takes nothing for it any more.
    closed: bool,
    /// The node is not listed, or lost: it takes nothing, whatever the epoch.
    gone: bool,
    /// The current epoch first, then those before it.
    epochs: Vec<OwnSlots>,
}

/// What the node owned in an epoch.
#[derive(Clone, Debug)]
struct OwnSlots {
    epoch: RingEpoch,
    digest: Digest,
    slots: SlotSet,
}

/// A set of slots.
#[derive(Clone, Debug)]
struct SlotSet(Vec<u64>);

impl SlotSet {
    fn empty(slots: SlotCount) -> Self {
        Self(vec![0; slots.as_len().div_ceil(64)])
    }

    fn contains(&self, slot: Slot) -> bool {
        self.0.get(slot.index() / 64).is_some_and(|word| word >> (slot.index() % 64) & 1 == 1)
    }

    fn set(&mut self, slot: Slot, is_member: bool) {
        if let Some(word) = self.0.get_mut(slot.index() / 64) {
            let bit = 1 << (slot.index() % 64);
            *word = if is_member { *word | bit } else { *word & !bit };
        }
    }
}

impl Fence {
    /// The fence of a node, by its own knowledge of the ring; none if there is no cluster yet. `closed`
    /// is for a node that has cut its head after it lost its slots.
    ///
    /// One that is not listed, like one that is gone, owns nothing.
    pub fn new(state: &RingState, uid: Uid, closed: bool) -> Option<Self> {
        let cluster = state.cluster()?;
        let number = state.node(uid).filter(|node| node.state != NodeState::Lost).map(|node| node.number);
        let mut slots = SlotSet::empty(cluster.slots);
        let tables = state.mapping().pools.values().map(|pool| &pool.table);
        for (slot, owners) in tables.flat_map(|table| table.rows()) {
            if number.is_some_and(|number| owners.contains(&number)) {
                slots.set(slot, true);
            }
        }
        let mut epochs = Vec::with_capacity(RingState::EPOCHS_KEPT);
        for delta in state.deltas().rev() {
            epochs.push(OwnSlots { epoch: delta.epoch, digest: delta.digest, slots: slots.clone() });
            if let Some(number) = number {
                undo(&mut slots, number, &delta.change);
            }
        }
        let (min_write_epoch, gone) = (state.min_write_epoch(), number.is_none());
        Some(Self { cluster: cluster.id, uid, min_write_epoch, closed, gone, epochs })
    }

    /// The epoch that the node knows.
    pub fn epoch(&self) -> RingEpoch {
        self.epochs.first().map_or(RingEpoch(0), |own| own.epoch)
    }

    /// The least epoch that others may write with.
    pub fn min_write_epoch(&self) -> RingEpoch {
        self.min_write_epoch
    }

    /// True if the node takes nothing any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closes the node, or opens it again.
    pub fn set_closed(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// Whether the node takes batches that were split by the ring of this epoch and digest, whatever
    /// their slots are: equal digests mean equal tables, so that a sender of an epoch that is known here
    /// chose the node rightly, and only a fault in the sender could let a series of another slot in.
    ///
    /// More is refused than by [`Self::judge`]: of epochs that are no longer known it is not known
    /// what the node owned in them.
    pub fn judge_epoch(&self, epoch: RingEpoch, digest: Digest) -> Verdict {
        let own = self.epoch();
        if epoch > own {
            return Verdict::RingBehind;
        }
        let Some(then) = self.epochs.iter().find(|then| then.epoch == epoch) else {
            return Verdict::StaleRing { epoch: own };
        };
        if then.digest != digest {
            Verdict::DigestMismatch
        } else if self.closed || self.gone || epoch < self.min_write_epoch {
            Verdict::StaleRing { epoch: own }
        } else {
            Verdict::Accept
        }
    }

    /// True if the node owns the slot in the epoch that it knows.
    pub fn owns(&self, slot: Slot) -> bool {
        self.epochs.first().is_some_and(|own| own.slots.contains(slot))
    }

    /// Whether the node takes a batch.
    pub fn judge(&self, batch: &BatchHeader) -> Verdict {
        if batch.cluster != self.cluster {
            return Verdict::WrongCluster;
        }
        if batch.target != self.uid {
            return Verdict::WrongTarget;
        }
        let epoch = self.epoch();
        if batch.epoch > epoch {
            return Verdict::RingBehind;
        }
        let then = self.epochs.iter().find(|own| own.epoch == batch.epoch);
        if then.is_some_and(|own| own.digest != batch.digest) {
            return Verdict::DigestMismatch;
        }
        let owned_then = then.is_some_and(|own| own.slots.contains(batch.slot));
        if batch.epoch == epoch {
            // Even if the ring says it owns the slot: what a closed node would take is uploaded by nobody.
            return if owned_then && !self.closed { Verdict::Accept } else { Verdict::NotOwner };
        }
        let owns_now = self.epochs.first().is_some_and(|own| own.slots.contains(batch.slot));
        let may_write = batch.epoch >= self.min_write_epoch && !self.closed;
        if may_write && (owns_now || owned_then) { Verdict::Accept } else { Verdict::StaleRing { epoch } }
    }
}

/// Turns what the node owns after a change into what it owned before.
fn undo(slots: &mut SlotSet, number: NodeNumber, change: &MappingChange) {
    match change {
        MappingChange::Moved { moves, .. } => {
            // It may have changed its position in a row: first all that it got, then what it gave.
            moves.iter().filter(|to| to.to == number).for_each(|to| slots.set(to.slot, false));
            moves.iter().filter(|to| to.from == Some(number)).for_each(|to| slots.set(to.slot, true));
        }
        MappingChange::PoolDeleted { pool, .. } => {
            let owned = pool.table.rows().filter(|(_, owners)| owners.contains(&number));
            owned.for_each(|(slot, _)| slots.set(slot, true));
        }
        MappingChange::Founded | MappingChange::PoolSet { .. } | MappingChange::TenantSet { .. } => {}
    }
}

#[cfg(test)]
mod tests;
