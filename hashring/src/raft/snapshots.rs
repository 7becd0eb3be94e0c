//! Snapshots: states of the machine as files.
//!
//! ```text
//! snapshot-<term>-<node>-<index>.bin
//!     := version u8 (1) | crc32c u32 little-endian of the rest | bytes of meta u32 little-endian | meta, JSON | data
//! ```
//!
//! Term, node and index name the last entry that is in the state. What must hold:
//!
//! - The log is purged only behind a snapshot that is on disk. The library orders the purge while a
//!   snapshot from the leader is still being written, so the log asks here first, see
//!   [`SnapshotFiles::wait_for`].
//! - A file is whole or not there: it is written aside, synced and renamed.
//! - Two are kept. If the newest turns out damaged, it is renamed to `….damaged` and the one before is
//!   taken, and the log, which reaches back so far, leads on from there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::LogIdOptionExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::{
    files::{self, UNFINISHED},
    types::SnapshotMeta,
};

const VERSION: u8 = 1;
const KEPT: usize = 2;
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".bin";

/// A state of the machine and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    pub meta: SnapshotMeta,
    pub data: Vec<u8>,
}

/// Place of a snapshot among others: index, term and node of its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    index: u64,
    term: u64,
    node: u64,
}

impl Place {
    fn of(meta: &SnapshotMeta) -> Place {
        meta.last_log_id.map_or(Place { index: 0, term: 0, node: 0 }, |last| Place {
            index: last.index,
            term: last.leader_id.term,
            node: last.leader_id.node_id.0,
        })
    }

    fn file_name(self) -> String {
        format!("{PREFIX}{}-{}-{}{SUFFIX}", self.term, self.node, self.index)
    }

    fn parse(file_name: &str) -> Option<Place> {
        let mut numbers = file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split('-').map(str::parse);
        let [term, node, index] = [numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?];
        numbers.next().is_none().then_some(Place { index, term, node })
    }
}

/// How many entries snapshots cover; nothing if no further one will come.
type Reach = Option<u64>;

/// The snapshots of a member. Clones are handles of the same.
#[derive(Clone)]
pub struct SnapshotFiles {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    /// The newest.
    current: Mutex<Option<Arc<StoredSnapshot>>>,
    reach: watch::Sender<Reach>,
}

impl SnapshotFiles {
    /// Reads the newest snapshot in the directory, which is created if it is not there.
    pub fn open(dir: &Path) -> io::Result<SnapshotFiles> {
        files::create_dir(dir)?;
        let mut places = list(dir)?;
        let mut current = None;
        while let Some(place) = places.pop() {
            let path = dir.join(place.file_name());
            match decode(&fs::read(&path)?) {
                Ok(snapshot) => {
                    current = Some(Arc::new(snapshot));
                    break;
                }
                Err(what) => {
                    warn!(file = %path.display(), what, "a snapshot of Raft is damaged; the one before is taken");
                    fs::rename(&path, path.with_extension("damaged"))?;
                }
            }
        }
        let reach = watch::Sender::new(Some(current.as_deref().map_or(0, covered)));
        Ok(SnapshotFiles {
            shared: Arc::new(Shared { dir: dir.to_owned(), current: Mutex::new(current), reach }),
        })
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<Arc<StoredSnapshot>> {
        self.shared.current.lock().clone()
    }

    /// Writes a snapshot; blocks until it is durable. One that is older than the newest is left out:
    /// it was built while a newer one came from the leader.
    pub fn save(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        let result = self.try_save(snapshot);
        if result.is_err() {
            self.give_up();
        }
        result
    }

    /// No snapshot will come any more; whoever waits for one is told.
    pub fn give_up(&self) {
        self.shared.reach.send_replace(None);
    }

    fn try_save(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        let mut current = self.shared.current.lock();
        let place = Place::of(&snapshot.meta);
        if current.as_ref().is_some_and(|current| Place::of(&current.meta) > place) {
            return Ok(());
        }
        let rest = encode_rest(&snapshot)?;
        let checksum = crc32c::crc32c(&rest).to_le_bytes();
        files::write_atomically(&self.shared.dir, &place.file_name(), &[&[VERSION], &checksum, &rest])?;
        self.shared.reach.send_replace(Some(covered(&snapshot)));
        *current = Some(Arc::new(snapshot));
        let places = list(&self.shared.dir)?;
        for place in places.iter().rev().skip(KEPT) {
            fs::remove_file(self.shared.dir.join(place.file_name()))?;
        }
        Ok(())
    }

    /// Waits until a snapshot on disk covers the entry `index`; false if that will never
    /// be.
    pub async fn wait_for(&self, index: u64) -> bool {
        let mut reach = self.shared.reach.subscribe();
        let enough = |reach: &Reach| reach.is_none_or(|entries| entries > index);
        reach.wait_for(enough).await.is_ok_and(|reach| reach.is_some())
    }
}

/// How many entries, from the first of all on, are in the state.
fn covered(snapshot: &StoredSnapshot) -> u64 {
    snapshot.meta.last_log_id.next_index()
}

/// Snapshots in `dir`, ascending. Unfinished ones are deleted.
fn list(dir: &Path) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
        places.extend(Place::parse(&name));
    }
    places.sort_unstable();
    Ok(places)
}

fn encode_rest(snapshot: &StoredSnapshot) -> io::Result<Vec<u8>> {
    let meta = serde_json::to_vec(&snapshot.meta)?;
    let meta_bytes = u32::try_from(meta.len()).map_err(io::Error::other)?;
    Ok([&meta_bytes.to_le_bytes(), meta.as_slice(), &snapshot.data].concat())
}

fn decode(file: &[u8]) -> Result<StoredSnapshot, &'static str> {
    let (&[version, a, b, c, d], rest) = file.split_first_chunk::<5>().ok_or("it is cut short")?;
    if version != VERSION {
        return Err("its version is not known");
    }
    if crc32c::crc32c(rest) != u32::from_le_bytes([a, b, c, d]) {
        return Err("its checksum is wrong");
    }
    let (meta_bytes, rest) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    let meta_bytes = usize::try_from(u32::from_le_bytes(*meta_bytes)).map_err(|_| "it is cut short")?;
    let (meta, data) = rest.split_at_checked(meta_bytes).ok_or("it is cut short")?;
    let meta = serde_json::from_slice(meta).map_err(|_| "its header is not understood")?;
    Ok(StoredSnapshot { meta, data: data.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{LogId, RaftId};

    fn snapshot(index: u64, data: &[u8]) -> StoredSnapshot {
        let leader_id = openraft::CommittedLeaderId::new(3, RaftId(7));
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new(leader_id, index)),
            snapshot_id: index.to_string(),
            ..SnapshotMeta::default()
        };
        StoredSnapshot { meta, data: data.to_vec() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn two_are_kept_and_the_newest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(dir.path()).unwrap();
        assert_eq!(files.current(), None);
        for index in [5, 90, 100] {
            files.save(snapshot(index, &[index as u8])).unwrap();
        }
        let expected = ["snapshot-3-7-100.bin", "snapshot-3-7-90.bin"];
        assert_eq!(names(dir.path()), expected);
        // Built before the one at 100 came, and written after.
        files.save(snapshot(95, b"late")).unwrap();
        assert_eq!(names(dir.path()), expected);
        assert_eq!(*files.current().unwrap(), snapshot(100, &[100]));

        fs::write(dir.path().join("snapshot-3-7-200.bin.tmp"), b"half").unwrap();
        let files = SnapshotFiles::open(dir.path()).unwrap();
        assert_eq!(*files.current().unwrap(), snapshot(100, &[100]));
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn a_damaged_one_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(dir.path()).unwrap();
        files.save(snapshot(1, b"old")).unwrap();
        files.save(snapshot(2, b"new")).unwrap();
        let newest = dir.path().join("snapshot-3-7-2.bin");
        let good = fs::read(&newest).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&newest, bad).unwrap();
            assert_eq!(SnapshotFiles::open(dir.path()).unwrap().current().unwrap().data, b"old", "byte {at}");
            assert_eq!(names(dir.path()), ["snapshot-3-7-1.bin", "snapshot-3-7-2.damaged"]);
            fs::write(&newest, &good[..at]).unwrap();
            assert_eq!(
                SnapshotFiles::open(dir.path()).unwrap().current().unwrap().data,
                b"old",
                "cut at {at}"
            );
        }
        fs::write(&newest, &good).unwrap();
        assert_eq!(SnapshotFiles::open(dir.path()).unwrap().current().unwrap().data, b"new");
    }

    #[tokio::test]
    async fn waiting_ends_when_a_snapshot_is_on_disk_or_never_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(&dir.path().join("snapshots")).unwrap();
        let wait = |index| {
            let files = files.clone();
            tokio::spawn(async move { files.wait_for(index).await })
        };
        let (covered, not_covered) = (wait(5), wait(6));
        files.save(snapshot(5, b"")).unwrap();
        assert!(covered.await.unwrap());
        assert!(!not_covered.is_finished());
        fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
        files.save(snapshot(6, b"")).unwrap_err();
        assert!(!not_covered.await.unwrap());
    }
}
