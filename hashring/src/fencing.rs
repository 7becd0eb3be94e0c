//! Whether an owner takes a batch.
//!
//! A batch says for which epoch of the ring it was split. The receiver may know a later or an earlier
//! one; it takes the batch of an epoch that it knows, because equal digests mean equal tables: it was
//! among the owners that were counted on. It keeps what it takes until that is uploaded, whatever later
//! epochs say. What it never takes is anything for a ring in which a node could be named that is gone
//! since: below the least epoch for writes.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, RingEpoch, Slot, SlotCount, Uid},
    ring::{Node, NodeState, RingState},
};

/// Whether a batch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is.
    Accept,
    /// The sender has to get this epoch and split what failed anew.
    StaleRing {
        /// The receiver's epoch.
        epoch: RingEpoch,
    },
    /// The receiver does not know the sender's epoch: it has to catch up and ask again.
    RingBehind,
    /// Sender and receiver know different rings of the same epoch: must never happen.
    DigestMismatch,
}

/// What a node needs to judge batches: made anew for each epoch.
#[derive(Clone, Debug)]
pub struct Fence {
    min_write_epoch: RingEpoch,
    /// True when a draining node has cut its head and takes nothing for it any more.
    closed: bool,
    /// The node is not listed, lost, or has given away all it held: it takes nothing, whatever the epoch.
    gone: bool,
    /// The current epoch first, then those before it.
    epochs: Vec<(RingEpoch, Digest)>,
    /// What the node owns in the current epoch.
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

    fn add(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(slot.index() / 64) {
            *word |= 1 << (slot.index() % 64);
        }
    }
}

impl Fence {
    /// The fence of a node, by its own knowledge of the ring; none if there is no cluster yet. `closed`
    /// is for a node that has cut its head after it lost its slots.
    pub fn new(state: &RingState, uid: Uid, closed: bool) -> Option<Self> {
        let stays = |node: &&Node| !matches!(node.state, NodeState::Drained | NodeState::Lost);
        let number = state.node(uid).filter(stays).map(|node| node.number);
        let mut slots = SlotSet::empty(state.cluster()?.slots);
        let tables = state.mapping().pools.values().map(|pool| &pool.table);
        for (slot, owners) in tables.flat_map(|table| table.rows()) {
            if number.is_some_and(|number| owners.contains(&number)) {
                slots.add(slot);
            }
        }
        let epochs = state.deltas().rev().map(|delta| (delta.epoch, delta.digest)).collect();
        let (min_write_epoch, gone) = (state.min_write_epoch(), number.is_none());
        Some(Self { min_write_epoch, closed, gone, epochs, slots })
    }

    /// The epoch that the node knows.
    pub fn epoch(&self) -> RingEpoch {
        self.epochs.first().map_or(RingEpoch(0), |(epoch, _)| *epoch)
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
    /// their slots are: a sender of an epoch that is known here chose the node rightly, and only a fault
    /// in the sender could let a series of another slot in; see [`Self::owns`].
    pub fn judge(&self, epoch: RingEpoch, digest: Digest) -> Verdict {
        let own = self.epoch();
        if epoch > own {
            return Verdict::RingBehind;
        }
        let Some((_, then)) = self.epochs.iter().find(|(then, _)| *then == epoch) else {
            return Verdict::StaleRing { epoch: own };
        };
        if *then != digest {
            Verdict::DigestMismatch
        } else if self.closed || self.gone || epoch < self.min_write_epoch {
            Verdict::StaleRing { epoch: own }
        } else {
            Verdict::Accept
        }
    }

    /// True if the node owns the slot in the epoch that it knows.
    pub fn owns(&self, slot: Slot) -> bool {
        self.slots.contains(slot)
    }
}

#[cfg(test)]
mod tests;
