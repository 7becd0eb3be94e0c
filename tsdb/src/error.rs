//! The error type of the crate: what went wrong, in which file, at which offset.

use std::{io, path::PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a tenant database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "open" or "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what its format demands.
    #[error("{} is damaged at offset {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Offset in bytes of the damage, or of the structure that contains it.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// Another process (or another handle in this one) has the directory open.
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log failed once and accepts nothing more until the database is opened again.
    #[error("write-ahead log is closed after a failed write: {cause}")]
    LogDead {
        /// The first failure, as text.
        cause: String,
    },
    /// A query asked for more than its limits allow.
    #[error("query exceeds its limit of {limit} {what}")]
    QueryLimit {
        /// What was counted, as in "series".
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A matcher's regular expression is not valid.
    #[error("invalid regular expression {pattern:?}: {what}")]
    InvalidRegex {
        /// The expression as given.
        pattern: String,
        /// Why it was refused.
        what: String,
    },
}

impl Error {
    /// Returns a closure for `map_err` that adds what was done and where to an I/O error.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// An error for damage found in `path` at byte `offset`.
    pub fn corrupt(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), offset, what: what.into() }
    }

    /// True if a file's content was at fault, and not the machine or the caller.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
