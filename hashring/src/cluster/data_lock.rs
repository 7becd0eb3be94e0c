//! One process at a time works on what a node has on disk.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use crate::raft::files;

const FILE: &str = "node.lock";

/// Held as long as it lives, and let go of by the system if the process ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Locks the directory, which is created if it is not there; none if another process has it.
    pub fn take(dir: &Path) -> io::Result<Option<DataLock>> {
        files::create_dir(dir)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(DataLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_had_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataLock::take(&path).unwrap();
        assert!(held.is_some());
        assert!(DataLock::take(&path).unwrap().is_none());
        drop(held);
        assert!(DataLock::take(&path).unwrap().is_some());
    }
}
