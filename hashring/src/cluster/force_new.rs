//! A new generation of a cluster whose voters are gone for good.
//!
//! Without a majority of its voters a cluster takes no command any more. If they will never come back,
//! people choose the node that knows most, and this makes it the only voter of the next generation,
//! with the ring as it knows it: from its part in Raft, with all of its log, or from the last ring that it
//! watched, whichever has more. What only others knew is lost.
//!
//! The node must not run meanwhile. A crash at any point leaves it as it was, or forced: the new store
//! of Raft lies beside the old one until `node.json` names its generation. All other nodes go over to
//! the new generation when they meet it, old voters too, and the leader makes voters of them again.

use std::path::{Path, PathBuf};

use super::{
    data_lock::DataLock,
    identity::{IdentityError, NodeIdentity},
    machine::RingMachine,
    ring_file::{self, RingFileError},
};
use crate::{
    ids::{ClusterId, Digest, RingEpoch, Uid},
    raft::{
        Peer, StartError,
        offline::{Salvaged, begin_alone, salvage},
    },
};

/// What was forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedCluster {
    /// The node that begins anew.
    pub uid: Uid,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The generation that begins.
    pub generation: u64,
    /// The epoch of its ring.
    pub epoch: RingEpoch,
    /// The digest of its ring.
    pub digest: Digest,
    /// How many entries of the log led to it.
    pub entries_applied: u64,
    /// The ring is that of the file of the last ring, for the node's part in Raft knew less.
    pub is_from_ring_file: bool,
    /// The other nodes that the ring knows, by name.
    pub others: Vec<String>,
}

/// Why nothing was forced; all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ForceNewError {
    /// Another process works on the directory.
    #[error("{0} is in use: stop the node first")]
    Running(PathBuf),
    /// No node ever ran there, or it was in no cluster.
    #[error("there is no node in {0} that was in a cluster")]
    NoCluster(PathBuf),
    /// The node knows no ring.
    #[error("the node in {0} knows no ring")]
    NoRing(PathBuf),
    /// The ring says that the node is gone for good.
    #[error("the node in {0} has left its cluster, or was replaced, and can never come back")]
    Gone(PathBuf),
    /// The lock of the directory.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Who the node is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The last ring.
    #[error("the last ring cannot be read: {0}")]
    Ring(#[from] RingFileError),
    /// Its part in Raft.
    #[error(transparent)]
    Raft(#[from] StartError),
}

/// Makes the stopped node in this directory the only voter of the next generation of its cluster.
/// Blocks while the disk works.
pub fn force_new(data_path: &Path) -> Result<ForcedCluster, ForceNewError> {
    let path = || data_path.to_owned();
    if !data_path.is_dir() {
        return Err(ForceNewError::NoCluster(path()));
    }
    let lock = DataLock::take(data_path).map_err(|source| ForceNewError::Lock { path: path(), source })?;
    let _lock = lock.ok_or_else(|| ForceNewError::Running(path()))?;
    let identity = NodeIdentity::of_stopped(data_path)?;
    let mut identity = identity.ok_or_else(|| ForceNewError::NoCluster(path()))?;
    let membership = identity.membership().cloned().ok_or_else(|| ForceNewError::NoCluster(path()))?;
    let (salvaged, is_from_ring_file) = salvage_ring(data_path, &identity)?;
    let state = &salvaged.machine.state;
    if state.cluster().is_none_or(|founded| founded.id != membership.cluster) {
        return Err(ForceNewError::NoRing(path()));
    }
    let uid = identity.uid();
    if state.tombstone(uid).is_some() {
        return Err(ForceNewError::Gone(path()));
    }
    let address = state.node(uid).map(|node| node.addresses.cluster.clone()).unwrap_or_default();
    let member = Peer { id: identity.raft_id(), address };
    identity.force_generation(|dir| begin_alone(dir, &member, &salvaged).map_err(ForceNewError::from))?;
    Ok(ForcedCluster {
        uid,
        cluster: membership.cluster,
        generation: membership.generation + 1,
        epoch: state.epoch(),
        digest: state.digest(),
        entries_applied: salvaged.entries_applied,
        is_from_ring_file,
        others: state.nodes().filter(|node| node.uid != uid).map(|node| node.name.clone()).collect(),
    })
}

/// The latest ring that the node knows, and whether it is that of the file.
fn salvage_ring(
    data_path: &Path,
    identity: &NodeIdentity,
) -> Result<(Salvaged<RingMachine>, bool), ForceNewError> {
    let generation = identity.membership().map_or(0, |membership| membership.generation);
    let of_raft = match identity.has_raft_store() {
        true => Some(salvage::<RingMachine>(&identity.raft_dir())?),
        false => None,
    };
    let of_file = match (ring_file::read(data_path), &of_raft) {
        (Ok(record), _) => record,
        // It is a copy.
        (Err(RingFileError::Damaged(_)), Some(_)) => None,
        (Err(error), _) => return Err(error.into()),
    };
    let term = of_raft.as_ref().map_or(0, |raft| raft.term);
    let of_file = of_file.filter(|record| {
        of_raft.as_ref().is_none_or(|raft| record.is_newer_than(generation, raft.entries_applied))
    });
    match (of_file, of_raft) {
        (Some(record), _) => {
            let machine = std::sync::Arc::new(RingMachine { state: record.state });
            Ok((Salvaged { machine, entries_applied: record.entries_applied, term }, true))
        }
        (None, Some(raft)) => Ok((raft, false)),
        (None, None) => Err(ForceNewError::NoRing(data_path.to_owned())),
    }
}
