//! Vote and log on disk.
//!
//! What must hold, before anything else:
//!
//! - When a write is reported done, it survives a power cut.
//! - Writes become durable in the order they were asked for, and each as a whole.
//! - After a failed write there is no further one. The store is dead, says so, and the process has
//!   to end: what the disk did with the data is not known, and asking it again tells nothing.
//! - Damage under what was acknowledged is an error on opening, never repaired in silence: a member
//!   that forgot a vote can elect two leaders.
//!
//! One thread does all writing and puts all writes that wait into one batch with one sync. Reading
//! never touches the disk: the log is short, and all of it is kept in memory, with the writes under
//! way in it. `value` describes the format, `disk` the database below and its traps.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use tracing::warn;

mod contents;
mod database;
mod disk;
mod error;
#[cfg(test)]
mod tests;
mod value;
mod witness;
mod writer;

use contents::Contents;
pub use contents::Purged;
use database::Disk;
pub use database::{Change, Database};
use disk::SledDisk;
pub use error::StoreError;
use writer::Write;

/// Bytes of a value, shared with whoever reads it.
pub type Payload = Arc<[u8]>;

/// Told once how a write ended, on the thread that writes: it must be quick. A store that ends in a
/// panic drops it untold.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The largest value beside the log: what is larger belongs into a file of its own.
pub const VALUE_BYTES_MAX: usize = (64 << 10) - 1;

/// The largest entry of the log, which is cut into pieces: as much as their numbers reach. The first
/// table of a ring is one entry.
pub const ENTRY_BYTES_MAX: usize = value::PIECES_MAX * value::PIECE_BYTES_MAX;

/// Vote and log of one member. Clones are handles of the same store.
#[derive(Clone)]
pub struct RaftStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    failure: Arc<OnceLock<StoreError>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Under one lock, so that memory and disk see the writes in the same order.
struct State {
    contents: Contents,
    /// None when closed.
    target: Option<Target>,
}

/// Where writes go.
enum Target {
    /// To the thread that writes. Not bounded: who writes the log waits for each write.
    Thread(Sender<Write>),
    Database(Box<dyn Database>),
}

/// Where stores are kept.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens the store of a directory. Blocks while the disk works.
    fn open(&self, path: &Path) -> Result<RaftStore, StoreError>;

    /// Opens the store of a directory where there has been one before; it is an error if there is none.
    /// Storage that cannot lose a store need not look.
    fn open_again(&self, path: &Path) -> Result<RaftStore, StoreError> {
        self.open(path)
    }
}

/// Stores are kept on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDisk;

impl Storage for OnDisk {
    fn open(&self, path: &Path) -> Result<RaftStore, StoreError> {
        RaftStore::open(path)
    }

    fn open_again(&self, path: &Path) -> Result<RaftStore, StoreError> {
        if !SledDisk::is_there(path)? {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        RaftStore::open(path)
    }
}

impl RaftStore {
    /// Opens the store in the directory `path`, creating it if it is not there, and checks all that
    /// it holds. Blocks while the disk works.
    pub fn open(path: &Path) -> Result<RaftStore, StoreError> {
        RaftStore::open_with(path, |path| {
            let disk = SledDisk::open(path)?;
            let contents = disk.load()?;
            Ok((disk, contents))
        })
    }

    /// `open_disk` runs on the thread that will write.
    fn open_with<D: Disk>(
        path: &Path,
        open_disk: impl FnOnce(&Path) -> Result<(D, Contents), StoreError> + Send + 'static,
    ) -> Result<RaftStore, StoreError> {
        let (queue, requests) = mpsc::channel();
        let (opened, when_opened) = mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let thread = thread::Builder::new()
            .name("raft-store".to_owned())
            .spawn({
                let path = path.to_owned();
                let failure = Arc::clone(&failure);
                move || match open_disk(&path) {
                    Ok((disk, contents)) => {
                        let _ = opened.send(Ok(contents));
                        writer::run(disk, &requests, &failure);
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            })
            .map_err(StoreError::io("start a thread for", path))?;
        let contents = match when_opened.recv() {
            Ok(result) => result?,
            // sled panics over some kinds of damage.
            Err(mpsc::RecvError) => {
                let what = "reading it ended in a panic".to_owned();
                return Err(StoreError::Corrupt { path: path.to_owned(), what });
            }
        };
        let shared = Shared {
            path: path.to_owned(),
            state: Mutex::new(State { contents, target: Some(Target::Thread(queue)) }),
            failure,
            thread: Mutex::new(Some(thread)),
        };
        Ok(RaftStore { shared: Arc::new(shared) })
    }

    /// Opens the store on a database of its own, which stands for the directory `path`.
    pub fn open_on(path: &Path, mut database: impl Database) -> Result<RaftStore, StoreError> {
        let contents = Contents::read(&database.load()?).map_err(|damage| damage.of(path))?;
        let shared = Shared {
            path: path.to_owned(),
            state: Mutex::new(State { contents, target: Some(Target::Database(Box::new(database))) }),
            failure: Arc::default(),
            thread: Mutex::new(None),
        };
        Ok(RaftStore { shared: Arc::new(shared) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Why the store is dead, if it is.
    pub fn failure(&self) -> Option<&StoreError> {
        self.shared.failure.get()
    }

    /// The last vote.
    pub fn vote(&self) -> Option<Payload> {
        self.shared.state.lock().contents.vote.clone()
    }

    /// The last mark of what is committed.
    pub fn committed(&self) -> Option<Payload> {
        self.shared.state.lock().contents.committed.clone()
    }

    /// Up to where the log was purged.
    pub fn purged(&self) -> Option<Purged> {
        self.shared.state.lock().contents.purged.clone()
    }

    /// The last entry, if the log has any.
    pub fn last(&self) -> Option<(u64, Payload)> {
        let state = self.shared.state.lock();
        state.contents.log.last_key_value().map(|(&index, entry)| (index, Arc::clone(entry)))
    }

    /// The entries of a range, those that are there.
    pub fn entries(&self, range: impl RangeBounds<u64>) -> Vec<(u64, Payload)> {
        if is_empty(&range) {
            return Vec::new();
        }
        let state = self.shared.state.lock();
        state.contents.log.range(range).map(|(&index, entry)| (index, Arc::clone(entry))).collect()
    }

    /// Keeps a vote.
    pub fn set_vote(&self, vote: Payload, done: Done) -> Result<(), StoreError> {
        let change = put(value::VOTE, &vote)?;
        self.write(Some(done), |contents| {
            contents.vote = Some(vote);
            vec![change]
        })
    }

    /// Keeps a mark of what is committed. Nobody waits for it: a lost mark is found again from the
    /// other members.
    pub fn set_committed(&self, committed: Payload) -> Result<(), StoreError> {
        let change = put(value::COMMITTED, &committed)?;
        self.write(None, |contents| {
            contents.committed = Some(committed);
            vec![change]
        })
    }

    /// Adds entries at the end of the log. They can be read at once.
    pub fn append(&self, entries: Vec<(u64, Payload)>, done: Done) -> Result<(), StoreError> {
        entries.iter().try_for_each(|(_, entry)| check_size(entry, ENTRY_BYTES_MAX))?;
        self.write(Some(done), |contents| {
            let mut changes = Vec::new();
            for (index, entry) in entries {
                let values = value::seal_entry(index, &entry);
                changes.extend(values.into_iter().map(|(key, value)| Change::Put(key, value)));
                contents.log.insert(index, entry);
            }
            changes
        })
    }

    /// Takes away the entries from `first` on.
    pub fn truncate(&self, first: u64, done: Done) -> Result<(), StoreError> {
        self.write(Some(done), |contents| deletions(&contents.log.split_off(&first)))
    }

    /// Takes away the entries up to the mark, and keeps the mark.
    pub fn purge(&self, purged: Purged, done: Done) -> Result<(), StoreError> {
        let change = put(value::PURGED, &purged.encode())?;
        self.write(Some(done), |contents| {
            let kept = purged.index.checked_add(1).map(|first| contents.log.split_off(&first));
            let gone = std::mem::replace(&mut contents.log, kept.unwrap_or_default());
            contents.purged = Some(purged);
            let mut changes = deletions(&gone);
            changes.push(change);
            changes
        })
    }

    /// Waits until the writes under way are done and the files are closed. Blocks; of all handles,
    /// the first to call it does it, and the others cannot write any more.
    pub fn close(&self) {
        self.shared.state.lock().target = None;
        if let Some(thread) = self.shared.thread.lock().take()
            && thread.join().is_err()
        {
            warn!(path = %self.shared.path.display(), "the store of Raft ended in a panic");
        }
    }

    fn write(
        &self,
        done: Option<Done>,
        change: impl FnOnce(&mut Contents) -> Vec<Change>,
    ) -> Result<(), StoreError> {
        let dead = |cause: String| StoreError::Dead { cause };
        if let Some(cause) = self.shared.failure.get() {
            return Err(dead(cause.to_string()));
        }
        let State { contents, target } = &mut *self.shared.state.lock();
        let target = target.as_mut().ok_or(StoreError::Closed)?;
        let changes = change(contents);
        match target {
            Target::Thread(queue) => queue
                .send(Write { changes, done })
                .map_err(|_| dead("its thread ended in a panic".to_owned())),
            Target::Database(database) => {
                database.write(changes, done.unwrap_or_else(|| Box::new(drop)));
                Ok(())
            }
        }
    }
}

fn check_size(payload: &[u8], bytes_max: usize) -> Result<(), StoreError> {
    if payload.len() > bytes_max {
        return Err(StoreError::TooLarge { bytes: payload.len(), bytes_max });
    }
    Ok(())
}

fn put(key: &[u8], payload: &[u8]) -> Result<Change, StoreError> {
    check_size(payload, VALUE_BYTES_MAX)?;
    Ok(Change::Put(key.to_vec(), value::seal(key, payload)))
}

fn deletions(gone: &std::collections::BTreeMap<u64, Payload>) -> Vec<Change> {
    gone.iter()
        .flat_map(|(&index, entry)| value::entry_keys(index, entry.len()))
        .map(Change::Delete)
        .collect()
}

/// A map panics over ranges that end before they begin.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let first = match range.start_bound() {
        Bound::Included(&first) => Some(first),
        Bound::Excluded(&before) => before.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let last = match range.end_bound() {
        Bound::Included(&last) => Some(last),
        Bound::Excluded(&end) => end.checked_sub(1),
        Bound::Unbounded => Some(u64::MAX),
    };
    !matches!((first, last), (Some(first), Some(last)) if first <= last)
}
