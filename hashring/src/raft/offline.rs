//! The state of a member that does not run: reading it, and making a new one of it.
//!
//! Both are for the day when a majority of the members is gone for good. What one member has is read as
//! if all of its log were committed, for what the others have acknowledged and it alone still has must
//! not be lost; and a new member begins with that as its first snapshot, alone.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use openraft::CommittedLeaderId;

use super::{
    log,
    machine::{Machine, MachineStore},
    node::{Begun, StartError, open},
    snapshots::{SnapshotFiles, StoredSnapshot},
    store::{Done, OnDisk, Purged, RaftStore, StoreError},
    types::{Entry, LogId, Member, Membership, Peer, SnapshotMeta, Vote},
};

/// What a member had.
#[derive(Clone, Debug)]
pub struct Salvaged<M> {
    /// The machine with all entries of the log, whether they are known to be committed or not.
    pub machine: Arc<M>,
    /// How many entries that are.
    pub entries_applied: u64,
    /// The latest term that the member knows.
    pub term: u64,
}

/// Reads the state of the member in the directory `path`. Blocks while the disk works.
pub fn salvage<M: Machine>(path: &Path) -> Result<Salvaged<M>, StartError> {
    let (store, _snapshots, machine) = open::<M>(path, &OnDisk, Begun::Maybe)?;
    let salvaged = read(&store, machine);
    store.close();
    salvaged
}

fn read<M: Machine>(store: &RaftStore, mut machine: MachineStore<M>) -> Result<Salvaged<M>, StartError> {
    let broken = |what: String| StartError::Raft(what);
    let mut term = match store.vote() {
        Some(vote) => log::decode::<Vote>(&vote).map_err(|error| broken(error.to_string()))?.leader_id().term,
        None => 0,
    };
    let mut entries = Vec::new();
    for (_, entry) in store.entries(machine.entries_applied()..) {
        let entry: Entry = log::decode(&entry).map_err(|error| broken(error.to_string()))?;
        term = term.max(entry.log_id.leader_id.term);
        entries.push(entry);
    }
    machine.apply_now(entries).map_err(|error| broken(error.to_string()))?;
    let published = machine.watch().borrow().clone();
    Ok(Salvaged { machine: published.machine, entries_applied: published.entries_applied, term })
}

/// Makes the state of a member that is alone in its cluster, in the directory `path`, which is empty
/// or not there. It begins with this machine and so many entries, one at least. Blocks while the disk
/// works.
pub fn begin_alone<M: Machine>(path: &Path, member: &Peer, salvaged: &Salvaged<M>) -> Result<(), StartError> {
    let failed = |source: io::Error| StartError::Snapshots { path: path.to_owned(), source };
    let last = salvaged.entries_applied.checked_sub(1);
    let last = last.ok_or_else(|| StartError::Raft("there is nothing to begin with".to_owned()))?;
    // Of a term that no entry before is of, and so no other member has an entry of this place.
    let term = salvaged.term.saturating_add(1);
    let log_id = LogId::new(CommittedLeaderId::new(term, member.id), last);
    let nodes = BTreeMap::from([(member.id, Member { address: member.address.clone() })]);
    let voters = vec![nodes.keys().copied().collect()];
    let membership = Membership::new(Some(log_id), openraft::Membership::new(voters, nodes));
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: membership,
        snapshot_id: log_id.to_string(),
    };
    let data = MachineStore::snapshot_of(&salvaged.machine, member.id).map_err(failed)?;
    SnapshotFiles::open(&path.join("snapshots"))
        .and_then(|snapshots| snapshots.save(StoredSnapshot { meta, data }))
        .map_err(failed)?;

    let store = RaftStore::open(&path.join("log"))?;
    let encoding = |error: super::types::StorageError| StartError::Raft(error.to_string());
    let vote = log::encode(&Vote::new(term, member.id)).map_err(encoding)?;
    let purged = Purged { index: last, payload: log::encode(&log_id).map_err(encoding)? };
    let written =
        written(|done| store.set_vote(vote, done)).and_then(|()| written(|done| store.purge(purged, done)));
    store.close();
    Ok(written?)
}

/// Does a write and blocks until it is durable.
fn written(write: impl FnOnce(Done) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let (sender, result) = std::sync::mpsc::channel();
    write(Box::new(move |result| drop(sender.send(result))))?;
    let untold = |_| StoreError::Dead { cause: "its thread ended in a panic".to_owned() };
    result.recv().map_err(untold)?
}
