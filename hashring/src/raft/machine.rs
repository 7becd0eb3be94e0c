//! The machine that commands are applied to, and what the Raft library asks of it.
//!
//! The machine itself lives in memory. What it is after a restart comes from the newest snapshot and
//! the committed entries behind it. With each snapshot goes what the machine does not know: the last
//! entry applied, the members, and the ids of all who ever were members, so that none is used twice.

use std::{collections::BTreeSet, io, sync::Arc};

use openraft::{
    AnyError, EntryPayload, LogIdOptionExt, RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::to_raw_value;
use tokio::sync::watch;

use super::{
    snapshots::{SnapshotFiles, StoredSnapshot},
    types::{
        EncodedAnswer, EncodedCommand, Entry, LogId, Membership, RaftId, SnapshotMeta, StorageError,
        StorageIoError, Types,
    },
};
use crate::aside::aside;

#[cfg(test)]
pub(super) mod counter;

/// A state that changes by commands alone, equally on every member: no clock, no chance, no order of
/// a hash map may come into it.
pub trait Machine: Clone + Default + Send + Sync + 'static {
    /// What changes the state. It travels as JSON.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What the one who proposed a command is told.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Changes the state by a committed command. Whether a command is allowed is judged here, and
    /// told by the answer.
    fn apply(&mut self, command: Self::Command) -> Self::Answer;

    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;

    /// The state that [`Machine::snapshot`] gave.
    fn restore(bytes: &[u8]) -> Result<Self, RestoreError>;
}

/// A snapshot that the machine does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot is not understood: {0}")]
pub struct RestoreError(pub String);

/// A state of the machine, shared by all who look at it.
#[derive(Debug)]
pub struct Published<M> {
    /// The machine.
    pub machine: Arc<M>,
    /// How many entries are applied: grows with every change, and is equal on members of equal
    /// state.
    pub entries_applied: u64,
}

impl<M> Clone for Published<M> {
    fn clone(&self) -> Published<M> {
        Published { machine: Arc::clone(&self.machine), entries_applied: self.entries_applied }
    }
}

/// The machine with its place in the log.
#[derive(Clone)]
struct Applied<M> {
    machine: Arc<M>,
    last: Option<LogId>,
    membership: Membership,
    /// All who are or were members.
    ids: BTreeSet<RaftId>,
}

/// Runs the machine for the Raft library.
pub struct MachineStore<M> {
    applied: Applied<M>,
    snapshots: SnapshotFiles,
    published: watch::Sender<Published<M>>,
    ids: watch::Sender<BTreeSet<RaftId>>,
}

impl<M: Machine> MachineStore<M> {
    /// Begins with the newest snapshot, or with the machine's default.
    pub fn open(snapshots: SnapshotFiles) -> Result<MachineStore<M>, RestoreError> {
        let applied = match snapshots.current() {
            Some(snapshot) => Applied::restore(&snapshot.meta, &snapshot.data)?,
            None => Applied {
                machine: Arc::new(M::default()),
                last: None,
                membership: Membership::default(),
                ids: BTreeSet::new(),
            },
        };
        let published = watch::Sender::new(applied.published());
        let ids = watch::Sender::new(applied.ids.clone());
        Ok(MachineStore { applied, snapshots, published, ids })
    }

    /// How many entries are in the state.
    pub fn entries_applied(&self) -> u64 {
        self.applied.last.next_index()
    }

    /// The state after each batch of entries.
    pub fn watch(&self) -> watch::Receiver<Published<M>> {
        self.published.subscribe()
    }

    /// All who are or were members.
    pub fn watch_ids(&self) -> watch::Receiver<BTreeSet<RaftId>> {
        self.ids.subscribe()
    }

    /// Applies entries of the log while nobody else does.
    pub fn apply_now(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StorageError> {
        let applied = entries.into_iter().try_for_each(|entry| self.applied.apply(entry).map(drop));
        self.publish();
        applied
    }

    /// The data of a snapshot of a machine whose only member ever is this one.
    pub fn snapshot_of(machine: &Arc<M>, member: RaftId) -> io::Result<Vec<u8>> {
        let (machine, ids) = (Arc::clone(machine), BTreeSet::from([member]));
        Applied { machine, last: None, membership: Membership::default(), ids }.snapshot()
    }

    fn publish(&self) {
        self.ids.send_if_modified(|ids| {
            let is_new = *ids != self.applied.ids;
            ids.clone_from(&self.applied.ids);
            is_new
        });
        self.published.send_replace(self.applied.published());
    }
}

impl<M> Drop for MachineStore<M> {
    /// The library dropped it, since something failed or the member stops: a snapshot that is still
    /// waited for is not coming.
    fn drop(&mut self) {
        self.snapshots.give_up();
    }
}

impl<M: Machine> Applied<M> {
    fn published(&self) -> Published<M> {
        Published { machine: Arc::clone(&self.machine), entries_applied: self.last.next_index() }
    }

    fn apply(&mut self, entry: Entry) -> Result<EncodedAnswer, StorageError> {
        let failed = |error| StorageIoError::apply(entry.log_id, AnyError::new(&error));
        let answer = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(EncodedCommand(command)) => {
                let command = serde_json::from_str(command.get()).map_err(failed)?;
                let answer = Arc::make_mut(&mut self.machine).apply(command);
                Some(to_raw_value(&answer).map_err(failed)?)
            }
            EntryPayload::Membership(membership) => {
                self.ids.extend(membership.nodes().map(|(id, _)| *id));
                self.membership = Membership::new(Some(entry.log_id), membership.clone());
                None
            }
        };
        self.last = Some(entry.log_id);
        Ok(EncodedAnswer(answer))
    }

    /// The data of a snapshot: bytes of ids u32 little-endian | ids, JSON | the machine's own.
    fn snapshot(&self) -> io::Result<Vec<u8>> {
        let ids = serde_json::to_vec(&self.ids)?;
        let ids_bytes = u32::try_from(ids.len()).map_err(io::Error::other)?;
        Ok([&ids_bytes.to_le_bytes(), ids.as_slice(), &self.machine.snapshot()].concat())
    }

    fn restore(meta: &SnapshotMeta, data: &[u8]) -> Result<Applied<M>, RestoreError> {
        let broken = || RestoreError("it is cut short".to_owned());
        let (ids_bytes, rest) = data.split_first_chunk::<4>().ok_or_else(broken)?;
        let ids_bytes = usize::try_from(u32::from_le_bytes(*ids_bytes)).map_err(|_| broken())?;
        let (ids, machine) = rest.split_at_checked(ids_bytes).ok_or_else(broken)?;
        Ok(Applied {
            machine: Arc::new(M::restore(machine)?),
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            ids: serde_json::from_slice(ids).map_err(|error| RestoreError(error.to_string()))?,
        })
    }

    fn meta(&self) -> SnapshotMeta {
        let snapshot_id = self.last.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone(), snapshot_id }
    }
}

impl<M: Machine> RaftStateMachine<Types> for MachineStore<M> {
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<EncodedAnswer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let answers = entries.into_iter().map(|entry| self.applied.apply(entry)).collect();
        self.publish();
        answers
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        Builder { applied: self.applied.clone(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let failed = |error: RestoreError| {
            StorageIoError::read_snapshot(Some(meta.signature()), AnyError::new(&error))
        };
        let applied = Applied::restore(meta, &data).map_err(failed)?;
        save(&self.snapshots, StoredSnapshot { meta: meta.clone(), data: *data }).await?;
        self.applied = applied;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let current = self.snapshots.current();
        Ok(current
            .map(|current| Snapshot { meta: current.meta.clone(), snapshot: Box::new(current.data.clone()) }))
    }
}

/// Writes one snapshot of the state as it was when the builder was made.
pub struct Builder<M> {
    applied: Applied<M>,
    snapshots: SnapshotFiles,
}

impl<M: Machine> RaftSnapshotBuilder<Types> for Builder<M> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let applied = self.applied.clone();
        let meta = applied.meta();
        let failed =
            |error: io::Error| StorageIoError::write_snapshot(Some(meta.signature()), AnyError::new(&error));
        let data = blocking(move || applied.snapshot()).await.map_err(failed)?;
        save(&self.snapshots, StoredSnapshot { meta: meta.clone(), data: data.clone() }).await?;
        Ok(Snapshot { meta, snapshot: Box::new(data) })
    }
}

async fn save(snapshots: &SnapshotFiles, snapshot: StoredSnapshot) -> Result<(), StorageError> {
    let signature = snapshot.meta.signature();
    let failed =
        |error: io::Error| StorageIoError::write_snapshot(Some(signature), AnyError::new(&error)).into();
    let snapshots = snapshots.clone();
    blocking(move || snapshots.save(snapshot)).await.map_err(failed)
}

/// Runs what encodes much or waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    aside(work).await.map_err(io::Error::other)?
}
