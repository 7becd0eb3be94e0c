//! What must hold, by somebody who sees all hosts and all of the past.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use parking_lot::Mutex;
use weir::replicate::quorum::copies_needed;
use weir_hashring::{
    cluster::{ClusterStatus, RingRecord},
    ids::{Digest, NodeNumber, PoolName, RaftId, RingEpoch, Slot, Uid},
    ring::{Mapping, RingState},
};

use crate::{
    disk::{HostDisk, Sample},
    writes::BatchHeader,
};

/// Judges a run. The first thing that is wrong ends it.
#[derive(Default)]
pub struct Oracle(Mutex<State>);

#[derive(Default)]
struct State {
    wrong: Option<String>,
    /// By host: a hash of all that happened there.
    traces: BTreeMap<usize, u64>,
    epochs: BTreeMap<RingEpoch, (Digest, Mapping)>,
    numbers: BTreeMap<NodeNumber, Uid>,
    raft_ids: BTreeMap<RaftId, Uid>,
    /// The disk that an identity belongs to: the host, and how often it lost everything before.
    homes: BTreeMap<Uid, (usize, usize)>,
    disks: BTreeMap<usize, HostDisk>,
    last_epochs: BTreeMap<Uid, RingEpoch>,
    last_terms: BTreeMap<Uid, u64>,
    /// By term and node: a later leader of the same term takes the place of an earlier one.
    leaders: BTreeSet<(u64, RaftId)>,
    /// The rings after so many entries of the log.
    rings: BTreeMap<u64, RingState>,
    acked: BTreeMap<Sample, RingEpoch>,
    uploaded: BTreeSet<Sample>,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub trace: u64,
    pub epochs: usize,
    pub leaders: usize,
    pub acked: usize,
}

impl Oracle {
    /// What is wrong, if anything is.
    pub fn wrong(&self) -> Option<String> {
        self.0.lock().wrong.clone()
    }

    /// Something is wrong.
    pub fn fail(&self, what: String) {
        self.0.lock().fail(what);
    }

    /// Something happened on a host.
    pub fn note(&self, host: usize, what: impl Hash) {
        self.0.lock().note(host, what);
    }

    pub fn add_disk(&self, host: usize, disk: &HostDisk) {
        self.0.lock().disks.insert(host, disk.clone());
    }

    /// A host has started under this identity.
    pub fn started(&self, host: usize, uid: Uid, incarnation: usize) {
        let mut state = self.0.lock();
        state.note(host, ("started", uid));
        let home = *state.homes.entry(uid).or_insert((host, incarnation));
        if home != (host, incarnation) {
            state.fail(format!(
                "{uid} belongs to the {home:?}th disk, and starts on {:?}",
                (host, incarnation)
            ));
        }
        let raft_id = uid.raft_id();
        state.see_raft_id(raft_id, uid);
    }

    /// A host uses this ring.
    pub fn sees(&self, host: usize, uid: Uid, record: &RingRecord) {
        let mut state = self.0.lock();
        state.learn(&record.state);
        let epoch = record.state.epoch();
        let known = state.rings.entry(record.entries_applied).or_insert_with(|| record.state.clone());
        if *known != record.state {
            let entries = record.entries_applied;
            state.fail(format!("host {host} has another ring after {entries} entries than others had"));
        }
        let last = state.last_epochs.entry(uid).or_insert(RingEpoch(0));
        let before = *last;
        *last = epoch.max(before);
        if epoch < before {
            state.fail(format!("host {host} goes back from epoch {before} to {epoch}"));
        }
        state.note(host, (epoch, record.state.digest(), record.state.nodes_version()));
    }

    /// What a host says about itself.
    pub fn hears(&self, host: usize, status: &ClusterStatus) {
        let Some(raft) = &status.raft else { return };
        let mut state = self.0.lock();
        let last = state.last_terms.entry(status.uid).or_default();
        let before = *last;
        *last = raft.term.max(before);
        if raft.term < before {
            state.fail(format!("host {host} goes back from term {before} to {}", raft.term));
        }
        if raft.is_leader {
            state.leaders.insert((raft.term, status.uid.raft_id()));
        }
        if raft.term > before {
            state.note(host, ("term", raft.term));
        }
        if raft.is_leader {
            state.note(host, ("leads", raft.term));
        }
    }

    /// A host stores a batch, by this ring of its own.
    pub fn stores(&self, host: usize, own: Uid, batch: &BatchHeader, ring: &RingState, is_closed: bool) {
        let mut state = self.0.lock();
        state.learn(ring);
        let mut wrong = |what: &str| state.fail(format!("host {host} stores {batch:?}, and {what}"));
        if batch.target != own {
            return wrong("it is for another node");
        }
        if is_closed {
            return wrong("its head is closed");
        }
        if ring.tombstone(own).is_some() {
            return wrong("it knows that it is gone");
        }
        let owners_then = state.owners(batch.epoch, batch.slot);
        let owners_now = state.owners(ring.epoch(), batch.slot);
        if !owners_then.contains(&own) && !owners_now.contains(&own) {
            state.fail(format!("host {host} stores {batch:?}, and owns the slot neither then nor now"));
        }
        let is_gone = |uid: &&Uid| ring.tombstone(**uid).is_some() && ring.node(**uid).is_none();
        if let Some(gone) = owners_then.iter().find(is_gone) {
            state.fail(format!("host {host} stores {batch:?}, and knows that the owner {gone} is gone"));
        }
    }

    /// A host tells a client that samples of a slot are stored, by the owners of this ring.
    pub fn acked(
        &self,
        host: usize,
        own: Uid,
        ring: &RingState,
        epoch: RingEpoch,
        slot: Slot,
        sample: Sample,
    ) {
        let mut state = self.0.lock();
        state.learn(ring);
        state.note(host, ("acked", epoch, sample));
        state.acked.insert(sample, epoch);
        if ring.tombstone(own).is_some() {
            state.fail(format!("host {host} knows that it is gone and says that {sample:?} is stored"));
        }
        let owners = state.owners(epoch, slot);
        let copies = owners.iter().filter(|uid| state.has(**uid, sample)).count();
        if copies < copies_needed(owners.len()) {
            state.fail(format!(
                "host {host} says that {sample:?} is stored, and {copies} of its {} owners in epoch {epoch} have it",
                owners.len()
            ));
        }
    }

    /// What a host held is uploaded.
    pub fn uploaded(&self, host: usize, samples: BTreeSet<Sample>) {
        let mut state = self.0.lock();
        state.note(host, ("uploaded", samples.len()));
        state.uploaded.extend(samples);
    }

    /// All that was acknowledged must be on one of these hosts or uploaded.
    pub fn check_samples(&self, alive: &[usize]) {
        let mut state = self.0.lock();
        let mut readable = state.uploaded.clone();
        for host in alive {
            readable.extend(state.disks.get(host).map(HostDisk::samples).unwrap_or_default());
        }
        let lost = state.acked.iter().find(|(sample, _)| !readable.contains(sample));
        if let Some((sample, epoch)) = lost.map(|(sample, epoch)| (*sample, *epoch)) {
            state.fail(format!("{sample:?} was acknowledged in epoch {epoch}, and nobody has it"));
        }
    }

    pub fn summary(&self) -> Summary {
        let state = self.0.lock();
        let mut hasher = DefaultHasher::new();
        state.traces.hash(&mut hasher);
        Summary {
            trace: hasher.finish(),
            epochs: state.epochs.len(),
            leaders: state.leaders.len(),
            acked: state.acked.len(),
        }
    }
}

impl State {
    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn note(&mut self, host: usize, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        self.traces.get(&host).hash(&mut hasher);
        turmoil::sim_elapsed().hash(&mut hasher);
        what.hash(&mut hasher);
        self.traces.insert(host, hasher.finish());
    }

    fn see_raft_id(&mut self, raft_id: RaftId, uid: Uid) {
        let known = *self.raft_ids.entry(raft_id).or_insert(uid);
        if known != uid {
            self.fail(format!("{known} and {uid} have the same Raft id"));
        }
    }

    /// Compares a ring with all that was known of rings.
    fn learn(&mut self, ring: &RingState) {
        let (epoch, digest) = (ring.epoch(), ring.digest());
        let mapping = ring.mapping();
        let known = self.epochs.entry(epoch).or_insert_with(|| (digest, mapping.clone())).0;
        if known != digest {
            self.fail(format!("epoch {epoch} has the digests {known} and {digest}"));
        }
        for node in ring.nodes() {
            let known = *self.numbers.entry(node.number).or_insert(node.uid);
            if known != node.uid {
                self.fail(format!("{} is {known} and {}", node.number, node.uid));
            }
            self.see_raft_id(node.uid.raft_id(), node.uid);
        }
        for delta in ring.deltas() {
            if let Some((known, _)) = self.epochs.get(&delta.epoch)
                && *known != delta.digest
            {
                let what = format!("epoch {} has the digests {known} and {}", delta.epoch, delta.digest);
                self.fail(what);
            }
        }
    }

    fn owners(&self, epoch: RingEpoch, slot: Slot) -> Vec<Uid> {
        let pool = PoolName::from(PoolName::DEFAULT);
        let table = self.epochs.get(&epoch).and_then(|(_, mapping)| mapping.pools.get(&pool));
        let owners = table.map(|pool| pool.table.owners(slot)).unwrap_or_default();
        owners.iter().filter_map(|number| self.numbers.get(number).copied()).collect()
    }

    /// True if the sample is durable on the disk of a node, or was until the disk was lost.
    fn has(&self, uid: Uid, sample: Sample) -> bool {
        let Some((host, incarnation)) = self.homes.get(&uid) else { return false };
        self.disks.get(host).is_some_and(|disk| disk.holds(sample, *incarnation))
    }
}
