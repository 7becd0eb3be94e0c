//! What can go wrong with the store.

use std::{io, path::PathBuf, sync::Arc};

/// Why the store could not be opened or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file system refused. While opening, another try may help; nothing was
    /// promised yet.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// What was acknowledged once is not there, or not as it was written. The member may have voted
    /// and does not know for whom, so it must not go on under its id.
    #[error(
        "{path} is damaged: {what}. Under its old Raft id the node must not come back: move node.json and \
         all directories of Raft out of the node's --data.path together, never one of them alone, and it joins \
         as a new one"
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// There was a store, and it is not there any more: as bad as damage.
    #[error(
        "{path} is missing, though the node took part in Raft with it and may have voted: under its old Raft id \
         the node must not come back without. Bring the directory back, or move node.json and all directories \
         of Raft out of the node's --data.path together, and it joins as a new one"
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a later build.
    #[error("{path} holds a value of version {version}, which this build does not know")]
    Version {
        /// The directory.
        path: PathBuf,
        /// The version found.
        version: u8,
    },
    /// The value is not stored; the store goes on.
    #[error("a value of {bytes} bytes is too large for the store, which takes {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that is stored.
        bytes_max: usize,
    },
    /// A write failed before, so nothing is known about what the disk holds; the process must end.
    #[error("the store ended with a failed write: {cause}")]
    Dead {
        /// The first failure.
        cause: String,
    },
    /// The store was closed by its owner.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// For `map_err`: an error of the file system with what was being done.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { doing, path, source: Arc::new(source) }
    }
}
