//! Why a node does not start, or stops unasked.

use std::{io, path::PathBuf};

use weir_hashring::cluster::ClusterFailure;

/// Why a node does not start, or stops unasked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be made or opened.
    #[error("--{flag}: cannot {action} {}: {source}", path.display())]
    DataDir {
        /// The flag that names the directory.
        flag: &'static str,
        /// What was being done, as in "create".
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("--{flag}: {} is in use by another process", path.display())]
    DataDirInUse {
        /// The flag that names the directory.
        flag: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// A port cannot be bound.
    #[error("--{flag}: cannot listen on {address}: {source}")]
    Bind {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The recorder of metrics cannot be installed.
    #[error("cannot install the recorder of metrics: {0}")]
    Telemetry(String),
    /// A part of the node cannot be built or opened.
    #[error("{part}: {cause}")]
    Part {
        /// The part, as in "tenants".
        part: &'static str,
        /// The cause.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node cannot be part of its cluster any more.
    #[error("cluster: {0}")]
    Cluster(#[from] ClusterFailure),
    /// A task that should run for ever has ended.
    #[error("task {task:?} {how}")]
    TaskEnded {
        /// Its name.
        task: &'static str,
        /// How, as in "panicked: …".
        how: String,
    },
}

impl NodeError {
    /// Wraps what went wrong in `part`; for `map_err`.
    pub fn part<E>(part: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |cause| Self::Part { part, cause: cause.into() }
    }
}
