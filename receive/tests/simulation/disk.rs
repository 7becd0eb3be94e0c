//! The disks of hosts: what is written, and what of it would survive a crash.
//!
//! The log of Raft and the samples are in memory, where "written" and "synced" are two things. The small
//! files of a node, each of which is replaced as a whole, are real files in a directory for the run:
//! nothing happens in the simulation between their writing and their syncing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::sleep};
use weir_hashring::raft::store::{Change, Database, Done, RaftStore, Storage, StoreError};

use crate::{chance::Chance, mutant::Mutant};

/// A series and a time.
pub type Sample = (u64, u64);

/// How many writes of the log a disk that lies keeps to itself.
const UNSYNCED_BY_LIE: usize = 6;

/// The disk of a host. Clones are the same.
#[derive(Clone)]
pub struct HostDisk(Arc<Mutex<State>>);

struct State {
    dir: PathBuf,
    mutant: Option<Mutant>,
    chance: Chance,
    sync_millis_max: u64,
    raft: BTreeMap<Vec<u8>, Vec<u8>>,
    raft_unsynced: VecDeque<Vec<Change>>,
    /// How many writes of the log were synced since the last crash.
    raft_synced: u64,
    samples: BTreeSet<Sample>,
    samples_unsynced: VecDeque<Vec<Sample>>,
    samples_synced: u64,
    /// Counts the starts of hosts on it: what waits for a sync of an earlier one is gone.
    life: u64,
    /// All of the head is cut and uploaded.
    closed: bool,
    /// What was on it each time that all was lost.
    lost: Vec<BTreeSet<Sample>>,
    /// An earlier `ring.bin`.
    old_ring: Option<Vec<u8>>,
}

impl fmt::Debug for HostDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk at {}", self.0.lock().dir.display())
    }
}

impl HostDisk {
    pub fn new(dir: PathBuf, chance: Chance, sync_millis_max: u64, mutant: Option<Mutant>) -> HostDisk {
        HostDisk(Arc::new(Mutex::new(State {
            dir,
            mutant,
            chance,
            sync_millis_max,
            raft: BTreeMap::new(),
            raft_unsynced: VecDeque::new(),
            raft_synced: 0,
            samples: BTreeSet::new(),
            samples_unsynced: VecDeque::new(),
            samples_synced: 0,
            life: 0,
            closed: false,
            lost: Vec::new(),
            old_ring: None,
        })))
    }

    pub fn dir(&self) -> PathBuf {
        self.0.lock().dir.clone()
    }

    /// How often all of it was lost.
    pub fn incarnation(&self) -> usize {
        self.0.lock().lost.len()
    }

    /// What is not synced is lost, but for the first part of it.
    pub fn crash(&self) {
        let state = &mut *self.0.lock();
        state.life += 1;
        let kept = state.chance.between(0, state.raft_unsynced.len() as u64 + 1) as usize;
        let kept = if state.mutant == Some(Mutant::RaftSyncLeftOut) { 0 } else { kept };
        let writes: Vec<Vec<Change>> = state.raft_unsynced.drain(..).take(kept).collect();
        writes.into_iter().for_each(|changes| state.apply(changes));
        let kept = state.chance.between(0, state.samples_unsynced.len() as u64 + 1) as usize;
        let kept = if state.mutant == Some(Mutant::DataSyncLeftOut) { 0 } else { kept };
        let written: Vec<Vec<Sample>> = state.samples_unsynced.drain(..).take(kept).collect();
        state.samples.extend(written.into_iter().flatten());
        (state.raft_synced, state.samples_synced) = (0, 0);
        if state.mutant == Some(Mutant::RingNotWritten)
            && let Some(old) = state.old_ring.take()
        {
            fs::write(state.dir.join("ring.bin"), old).expect("the directory is there");
        }
    }

    /// Everything is lost.
    pub fn wipe(&self) {
        let state = &mut *self.0.lock();
        state.life += 1;
        let samples = std::mem::take(&mut state.samples);
        state.lost.push(samples);
        state.raft.clear();
        state.raft_unsynced.clear();
        state.samples_unsynced.clear();
        state.old_ring = None;
        state.closed = false;
        fs::remove_dir_all(&state.dir).expect("the directory is there");
    }

    /// Remembers the ring as it is on the disk, for a disk that forgets.
    pub fn remember_ring(&self) {
        let mut state = self.0.lock();
        if state.mutant == Some(Mutant::RingNotWritten) {
            state.old_ring = fs::read(state.dir.join("ring.bin")).ok();
        }
    }

    /// True if the sample would survive a crash, or would have before the disk of this incarnation was lost.
    pub fn holds(&self, sample: Sample, incarnation: usize) -> bool {
        let state = self.0.lock();
        state.lost.get(incarnation).unwrap_or(&state.samples).contains(&sample)
    }

    /// All samples that would survive a crash.
    pub fn samples(&self) -> BTreeSet<Sample> {
        self.0.lock().samples.clone()
    }

    /// True if nothing waits for a sync.
    pub fn is_synced(&self) -> bool {
        self.0.lock().samples_unsynced.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Nothing is to be written any more, for ever.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Writes samples; the receiver is told when they are synced.
    pub fn append(&self, samples: Vec<Sample>) -> oneshot::Receiver<()> {
        let (done, synced) = oneshot::channel();
        let (delay, life, number, lies) = {
            let state = &mut *self.0.lock();
            state.samples_unsynced.push_back(samples);
            let number = state.samples_synced + state.samples_unsynced.len() as u64;
            (state.sync_delay(), state.life, number, state.mutant == Some(Mutant::DataSyncLeftOut))
        };
        let disk = self.clone();
        if lies {
            let _ = done.send(());
            tokio::spawn(async move {
                sleep(delay).await;
                disk.sync_samples(life, number);
            });
        } else {
            tokio::spawn(async move {
                sleep(delay).await;
                disk.sync_samples(life, number);
                let _ = done.send(());
            });
        }
        synced
    }

    fn sync_samples(&self, life: u64, number: u64) {
        let state = &mut *self.0.lock();
        while state.life == life && state.samples_synced < number {
            let written = state.samples_unsynced.pop_front().unwrap_or_default();
            state.samples.extend(written);
            state.samples_synced += 1;
        }
    }

    fn sync_raft(&self, life: u64, number: u64) {
        let state = &mut *self.0.lock();
        while state.life == life && state.raft_synced < number {
            let changes = state.raft_unsynced.pop_front().unwrap_or_default();
            state.apply(changes);
            state.raft_synced += 1;
        }
    }
}

impl State {
    fn sync_delay(&mut self) -> Duration {
        Duration::from_millis(self.chance.between(1, self.sync_millis_max + 1))
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(key, value) => drop(self.raft.insert(key, value)),
                Change::Delete(key) => drop(self.raft.remove(&key)),
            }
        }
    }
}

impl Storage for HostDisk {
    fn open(&self, path: &Path) -> Result<RaftStore, StoreError> {
        RaftStore::open_on(path, RaftLog(self.clone()))
    }
}

/// The log of Raft on a disk.
struct RaftLog(HostDisk);

impl Database for RaftLog {
    fn load(&mut self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        Ok(self.0.0.lock().raft.clone())
    }

    fn write(&mut self, mut changes: Vec<Change>, done: Done) {
        let (delay, life, mut number, mutant) = {
            let state = &mut *self.0.0.lock();
            if state.mutant == Some(Mutant::VoteNotWritten) {
                changes.retain(|change| !matches!(change, Change::Put(key, _) if key == b"m/vote"));
            }
            state.raft_unsynced.push_back(changes);
            let number = state.raft_synced + state.raft_unsynced.len() as u64;
            (state.sync_delay(), state.life, number, state.mutant)
        };
        if mutant == Some(Mutant::RaftSyncLeftOut) {
            number = number.saturating_sub(UNSYNCED_BY_LIE as u64);
        }
        let disk = self.0.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            disk.sync_raft(life, number);
            done(Ok(()));
        });
    }
}
