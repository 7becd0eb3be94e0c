//! The data directory: made if it is not there, and used by one process at a time.
//!
//! The lock is one on the directory itself, not a file in it: readers of the directory, among them
//! other programs, take what lies there for tenants. It goes with the process, however that ends.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::NodeError;

/// A claim on the data directory; it is given up on drop.
#[derive(Debug)]
pub struct DataDir {
    _locked: File,
}

impl DataDir {
    /// Creates `path`, which `flag` names, if needed and, if `lock` says so, locks it. A file system that knows no locks
    /// is worth a line in the log, no more: each tenant has a lock of its own.
    ///
    /// # Errors
    /// If the directory cannot be created or opened, or another process has locked it.
    pub fn claim(flag: &'static str, path: &Path, lock: bool) -> Result<Self, NodeError> {
        let failed =
            |action| move |source| NodeError::DataDir { flag, action, path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed("create"))?;
        let directory = File::open(path).map_err(failed("open"))?;
        if lock {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(NodeError::DataDirInUse { flag, path: path.to_owned() });
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the data directory cannot be locked");
                }
            }
        }
        Ok(Self { _locked: directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_has_the_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        let first = DataDir::claim("tsdb.path", &path, true).expect("is free");
        assert!(
            matches!(DataDir::claim("tsdb.path", &path, true), Err(NodeError::DataDirInUse { path: own, .. }) if own == path)
        );
        DataDir::claim("tsdb.path", &path, false).expect("does not care");
        assert_eq!(fs::read_dir(&path).expect("is there").count(), 0, "nothing may lie among the tenants");
        drop(first);
        DataDir::claim("tsdb.path", &path, true).expect("is free again");
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = DataDir::claim("tsdb.path", file.path(), true).expect_err("is a file").to_string();
        assert!(error.starts_with("--tsdb.path: cannot create "), "{error}");
    }
}
