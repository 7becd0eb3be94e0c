//! What the Raft library asks of a log, on top of the store.
//!
//! Entries, votes and ids are kept as JSON. Two things are done here that the library leaves open:
//! the log never gets a hole, and it is purged only once a snapshot that covers what goes is on
//! disk. The library orders the purge while that snapshot may still be being written, and a member
//! that ended in between would have neither.

use std::{fmt::Debug, ops::RangeBounds, sync::Arc};

use openraft::{
    AnyError, LogState, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::{
    snapshots::SnapshotFiles,
    store::{Done, Payload, Purged, RaftStore, StoreError},
    types::{Entry, LogId, RaftId, StorageError, StorageIoError, Types, Vote},
};

/// Bytes of entries in one message to another member, unless a single one is larger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The log of a member. Clones are handles of the same.
#[derive(Clone)]
pub struct LogStore {
    /// Whose it is; none in the library's own tests.
    own: Option<RaftId>,
    store: RaftStore,
    /// None in the library's own tests, which leave holes and purge without snapshots.
    snapshots: Option<SnapshotFiles>,
}

impl LogStore {
    pub fn new(own: RaftId, store: RaftStore, snapshots: SnapshotFiles) -> LogStore {
        LogStore { own: Some(own), store, snapshots: Some(snapshots) }
    }

    #[cfg(test)]
    pub fn unguarded(store: RaftStore) -> LogStore {
        LogStore { own: None, store, snapshots: None }
    }

    fn last_log_id(&self) -> Result<Option<LogId>, StorageError> {
        match (self.store.last(), self.store.purged()) {
            (Some((_, entry)), _) => Ok(Some(decode::<Entry>(&entry)?.log_id)),
            (None, Some(purged)) => Ok(Some(decode(&purged.payload)?)),
            (None, None) => Ok(None),
        }
    }

    /// The entries do not join on to the log: it would have a hole, or two of one index.
    fn check_next(&self, index: u64) -> Result<(), StorageError> {
        let last =
            self.store.last().map(|(index, _)| index).or(self.store.purged().map(|purged| purged.index));
        let expected = last.map_or(0, |last| last + 1);
        if self.snapshots.is_some() && index != expected {
            let what = format!("entry {index} is to be appended where {expected} belongs");
            return Err(StorageIoError::write_logs(AnyError::error(what)).into());
        }
        Ok(())
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.store.entries(range).iter().map(|(_, entry)| decode(entry)).collect()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let mut bytes = 0;
        let entries = self.store.entries(start..end);
        let fitting = entries.iter().enumerate().take_while(|(number, (_, entry))| {
            bytes += entry.len();
            *number == 0 || bytes <= MESSAGE_BYTES_MAX
        });
        fitting.map(|(_, (_, entry))| decode(entry)).collect()
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let last_purged_log_id = self.store.purged().map(|purged| decode(&purged.payload)).transpose()?;
        Ok(LogState { last_purged_log_id, last_log_id: self.last_log_id()? })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let failed = |error: StoreError| StorageIoError::write_vote(AnyError::new(&error)).into();
        let vote = encode(vote)?;
        wait(|done| self.store.set_vote(vote, done)).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let mut vote: Option<Vote> = self.store.vote().map(|vote| decode(&vote)).transpose()?;
        // Read at the start only. The library lets a member that led when it ended go on at once, in the
        // same term: so would a copy of it, and both would write other entries under the same names. Who
        // starts is elected anew, in a term of its own, as long as nobody else is heard of who leads.
        if let Some(vote) = &mut vote
            && self.own.is_some_and(|own| vote.leader_id.node_id == own)
        {
            vote.committed = false;
        }
        Ok(vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let committed = encode(&committed)?;
        self.store.set_committed(committed).map_err(write_failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed: Option<Option<LogId>> =
            self.store.committed().map(|committed| decode(&committed)).transpose()?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            encoded.push((entry.log_id.index, encode(&entry)?));
        }
        if let Some(&(first, _)) = encoded.first() {
            self.check_next(first)?;
        }
        let done: Done =
            Box::new(move |result| callback.log_io_completed(result.map_err(std::io::Error::other)));
        self.store.append(encoded, done).map_err(write_failed)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        wait(|done| self.store.truncate(log_id.index, done)).await.map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        if let Some(snapshots) = &self.snapshots
            && !snapshots.wait_for(log_id.index).await
        {
            let what = "the log cannot be purged, for no snapshot that covers it will come";
            return Err(StorageIoError::write_logs(AnyError::error(what)).into());
        }
        let purged = Purged { index: log_id.index, payload: encode(&log_id)? };
        wait(|done| self.store.purge(purged, done)).await.map_err(write_failed)
    }
}

fn write_failed(error: StoreError) -> StorageError {
    StorageIoError::write_logs(AnyError::new(&error)).into()
}

/// Does a write and waits until it is durable.
async fn wait(write: impl FnOnce(Done) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let (sender, result) = oneshot::channel();
    write(Box::new(move |result| drop(sender.send(result))))?;
    let untold = |_| StoreError::Dead { cause: "its thread ended in a panic".to_owned() };
    result.await.map_err(untold)?
}

pub fn encode(value: &impl Serialize) -> Result<Payload, StorageError> {
    let json =
        serde_json::to_vec(value).map_err(|error| StorageIoError::write_logs(AnyError::new(&error)))?;
    Ok(Arc::from(json))
}

pub fn decode<T: DeserializeOwned>(json: &Payload) -> Result<T, StorageError> {
    serde_json::from_slice(json).map_err(|error| StorageIoError::read_logs(AnyError::new(&error)).into())
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use openraft::{
        CommittedLeaderId, EntryPayload,
        storage::RaftLogStorageExt,
        testing::{StoreBuilder, Suite},
    };

    use super::*;
    use crate::raft::{
        machine::{MachineStore, counter::Counter},
        snapshots::StoredSnapshot,
        types::{EncodedCommand, SnapshotMeta},
    };

    struct Builder;

    impl StoreBuilder<Types, LogStore, MachineStore<Counter>, tempfile::TempDir> for Builder {
        async fn build(&self) -> Result<(tempfile::TempDir, LogStore, MachineStore<Counter>), StorageError> {
            let dir = tempfile::tempdir().unwrap();
            let store = RaftStore::open(&dir.path().join("log")).unwrap();
            let snapshots = SnapshotFiles::open(&dir.path().join("snapshots")).unwrap();
            Ok((dir, LogStore::unguarded(store), MachineStore::open(snapshots).unwrap()))
        }
    }

    #[test]
    fn the_suite_of_the_library() {
        Suite::test_all(Builder).unwrap();
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, RaftId(1)), index)
    }

    fn entry(index: u64, command: &str) -> Entry {
        let command = serde_json::value::to_raw_value(command).unwrap();
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(EncodedCommand(command)) }
    }

    fn open(dir: &tempfile::TempDir) -> (LogStore, SnapshotFiles) {
        let store = RaftStore::open(&dir.path().join("log")).unwrap();
        let snapshots = SnapshotFiles::open(&dir.path().join("snapshots")).unwrap();
        (LogStore::new(RaftId(1), store, snapshots.clone()), snapshots)
    }

    #[tokio::test]
    async fn a_log_gets_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, snapshots) = open(&dir);
        let mut check = async |index, expected: &str| {
            let error = log.blocking_append([entry(index, "x")]).await.err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{index}: {error}");
        };
        check(1, "entry 1 is to be appended where 0 belongs").await;
        check(0, "").await;
        check(1, "").await;
        check(1, "entry 1 is to be appended where 2 belongs").await;
        check(3, "entry 3 is to be appended where 2 belongs").await;
        let meta = SnapshotMeta { last_log_id: Some(log_id(9)), ..SnapshotMeta::default() };
        snapshots.save(StoredSnapshot { meta, data: Vec::new() }).unwrap();
        log.purge(log_id(9)).await.unwrap();
        log.blocking_append([entry(9, "x")]).await.unwrap_err();
        log.blocking_append([entry(10, "x"), entry(11, "y")]).await.unwrap();
        let found = log.try_get_log_entries(..).await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [10, 11]);
    }

    #[tokio::test]
    async fn a_purge_waits_for_its_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, snapshots) = open(&dir);
        log.blocking_append((0..5).map(|index| entry(index, "x"))).await.unwrap();
        let mut other = log.clone();
        let mut purge = std::pin::pin!(other.purge(log_id(3)));
        assert!(std::future::poll_fn(|context| Poll::Ready(purge.as_mut().poll(context).is_pending())).await);
        assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, None);
        let meta = SnapshotMeta { last_log_id: Some(log_id(3)), ..SnapshotMeta::default() };
        snapshots.save(StoredSnapshot { meta, data: Vec::new() }).unwrap();
        purge.await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(3)));
    }

    #[tokio::test]
    async fn messages_are_bounded_and_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(&dir);
        let command = "x".repeat(60_000);
        log.blocking_append((0..40).map(|index| entry(index, &command))).await.unwrap();
        let first = log.limited_get_log_entries(0, 40).await.unwrap();
        assert_eq!(first.len(), MESSAGE_BYTES_MAX / 60_100);
        assert_eq!(log.limited_get_log_entries(38, 40).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_dead_store_is_an_error_to_the_library() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(&dir);
        log.store.close();
        let vote = Vote::new(1, RaftId(1));
        assert!(log.save_vote(&vote).await.unwrap_err().to_string().contains("closed"));
        assert!(log.blocking_append([entry(0, "x")]).await.unwrap_err().to_string().contains("closed"));
        assert!(log.save_committed(None).await.unwrap_err().to_string().contains("closed"));
    }
}
