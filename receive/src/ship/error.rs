//! What can go wrong with a block on its way.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::objstore::BucketError;

/// Why a block, or a whole round, failed.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The block is damaged on disk. It is not uploaded; sending it again and again would not help.
    #[error("corrupted: {path}: {what}")]
    Corrupted {
        /// The file, or the block's directory.
        path: PathBuf,
        /// What is wrong with it, with the offset if there is one.
        what: String,
    },
    /// A local file could not be read or written. May pass.
    #[error("cannot {doing} {path}: {source}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bucket refused or did not answer. May pass.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is no external label, and readers refuse blocks without.
    #[error("tenant {tenant}: blocks need at least one external label")]
    NoLabels {
        /// The tenant.
        tenant: String,
    },
}

impl ShipError {
    /// True if the block is damaged on disk.
    pub fn is_corrupted(&self) -> bool {
        matches!(self, Self::Corrupted { .. })
    }

    pub(super) fn corrupted(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupted { path: path.to_owned(), what: what.into() }
    }

    /// For `map_err` of I/O on `path`.
    pub(super) fn local<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + use<'a> {
        move |source| Self::Local { doing, path: path.to_owned(), source }
    }
}
