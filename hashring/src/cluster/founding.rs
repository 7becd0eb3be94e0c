//! That a cluster is founded once.
//!
//! Nodes whose disks were all emptied look like those of a new cluster. Before a founder begins it
//! therefore claims the name of the cluster somewhere that outlives them. The id of the cluster is on
//! its disk before, so that a founder that ended between the claim and the founding claims the same again.

use std::fmt;

use crate::ids::ClusterId;

/// Keeps, outside of the cluster, which cluster has a name.
#[tonic::async_trait]
pub trait FoundingGuard: fmt::Debug + Send + Sync {
    /// Claims the name for a cluster. Whoever claims it first has it for ever; the same cluster may
    /// claim it again.
    async fn claim(&self, cluster: ClusterId, name: &str) -> Result<(), GuardError>;
}

/// Why a name was not claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Another cluster has it, or had it.
    #[error("{0}")]
    Taken(String),
    /// Nobody knows whether it was: to be tried again.
    #[error("{0}")]
    Unavailable(String),
}
