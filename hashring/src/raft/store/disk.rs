//! The only place that knows sled.
//!
//! Version 0.34.7 is the last stable one and has traps, found by cutting the power and by killing
//! writers. Each rule below answers one of them; the tests of the crate turn red without.
//!
//! - Its `flush` writes and does not sync, so a power cut took all or half of what was
//!   acknowledged. A file of our own on the database is synced after each flush.
//! - A kill while it opens leaves `snap.….generating`, and the next open reports corruption, though
//!   nothing is lost. Such files are deleted first.
//! - Its background thread would sync now and then and only log a failure. It is off.
//! - A page of more than 128 KiB goes to `blobs/`, which is not synced. Values are kept so small
//!   that none does.
//! - Damage makes it panic here and there. It runs on a thread of its own, which may end.
//! - It takes a damaged end of its file, or a damaged beginning, for one that was never written, and
//!   opens with less or nothing. Each batch therefore counts itself, and a `Witness` beside the
//!   database has seen the count.
//! - Its lock on the file is let go a little after it is dropped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    contents::Contents,
    database::{Change, Disk},
    error::StoreError,
    value::{Damage, WRITES, seal, unseal},
    witness::Witness,
};
use crate::raft::files;

/// What sled calls its file in the directory of a database.
const DB_FILE: &str = "db";
const CACHE_BYTES: u64 = 8 << 20;
/// How long closing waits for sled to let go of its lock. It takes milliseconds.
const UNLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A database of sled.
pub(super) struct SledDisk {
    path: PathBuf,
    /// None while it is being dropped.
    db: Option<sled::Db>,
    /// The database's file, opened again: sled syncs nothing.
    file: File,
    /// Batches written so far, in the database as `m/writes`.
    writes: u64,
    /// Knows of no more batches than are durable.
    witness: Witness,
}

impl SledDisk {
    /// True if there is a database in the directory `path`.
    pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
        let db_path = path.join(DB_FILE);
        db_path.try_exists().map_err(StoreError::io("look for", &db_path))
    }

    /// Opens the database in the directory `path`, creating it if it is not there.
    pub(super) fn open(path: &Path) -> Result<SledDisk, StoreError> {
        files::create_dir(path).map_err(StoreError::io("create", path))?;
        remove_unfinished_snapshots(path)?;
        let db = sled::Config::new()
            .path(path)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .open()
            .map_err(|error| open_error(path, error))?;
        let db_path = path.join(DB_FILE);
        let file = File::open(&db_path).map_err(StoreError::io("open", &db_path))?;
        file.sync_all().map_err(StoreError::io("sync", &db_path))?;
        files::sync_dir(path).map_err(StoreError::io("sync", path))?;
        let witness = Witness::open(path)?;
        let mut disk = SledDisk { path: path.to_owned(), db: Some(db), file, writes: 0, witness };
        disk.writes = disk.count_writes()?;
        Ok(disk)
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the database is there until the drop")
    }

    /// How many batches the database holds; an error if there were more.
    fn count_writes(&self) -> Result<u64, StoreError> {
        let writes = match self.value(WRITES)?.map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(count)) => u64::from_be_bytes(count),
            Some(Err(_)) => {
                let what = "the count of writes is cut short".to_owned();
                return Err(Damage::Broken(what).of(&self.path));
            }
        };
        let seen = self.witness.seen();
        if writes < seen {
            let what = format!("of {seen} writes that were acknowledged only {writes} are there");
            return Err(Damage::Broken(what).of(&self.path));
        }
        Ok(writes)
    }

    /// Reads and checks all that is stored.
    pub(super) fn load(&self) -> Result<Contents, StoreError> {
        let mut values = BTreeMap::new();
        for item in self.db().iter() {
            let (key, value) = item.map_err(|error| open_error(&self.path, error))?;
            values.insert(key.to_vec(), value.to_vec());
        }
        Contents::read(&values).map_err(|damage| damage.of(&self.path))
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.db().get(key).map_err(|error| open_error(&self.path, error))?;
        let unsealed = value.map(|value| unseal(key, &value).map(<[u8]>::to_vec)).transpose();
        unsealed.map_err(|damage| damage.of(&self.path))
    }
}

impl Disk for SledDisk {
    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(key, value) => batch.insert(key, value),
                Change::Delete(key) => batch.remove(key),
            }
        }
        let writes = self.writes + 1;
        batch.insert(WRITES, seal(WRITES, &writes.to_be_bytes()));
        let failed = |error: sled::Error| StoreError::io("write", &self.path)(io::Error::other(error));
        self.db().apply_batch(batch).map_err(failed)?;
        self.db().flush().map_err(failed)?;
        self.file.sync_all().map_err(StoreError::io("sync", self.path.join(DB_FILE)))?;
        self.writes = writes;
        self.witness.see(writes)
    }
}

impl Drop for SledDisk {
    /// Leaves the files free to be opened again.
    fn drop(&mut self) {
        self.db = None;
        let started = Instant::now();
        while self.file.try_lock().is_err() {
            if started.elapsed() > UNLOCK_TIMEOUT {
                warn!(path = %self.path.display(), "the store of Raft is closed but still locked");
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Deletes what a kill during an earlier open left behind and what would stop this one.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(StoreError::io("list", path))? {
        let entry = entry.map_err(StoreError::io("list", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            warn!(file = %entry.path().display(), "deleting an unfinished file: the process ended while it opened the store");
            fs::remove_file(entry.path()).map_err(StoreError::io("delete", entry.path()))?;
        }
    }
    Ok(())
}

/// Failures of the file system may pass; everything else is damage.
fn open_error(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => StoreError::io("open", path)(source),
        other => StoreError::Corrupt { path: path.to_owned(), what: other.to_string() },
    }
}
