//! The Raft node.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use openraft::{
    Raft, ServerState,
    error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, InitializeError, RaftError},
};
use serde_json::value::to_raw_value;
use tokio::sync::{Mutex, watch};

use super::{
    config::{Identity, RaftConfig},
    log::LogStore,
    machine::{Machine, MachineStore, Published, RestoreError},
    membership::Members,
    network::{self, Network, RaftRequest, RaftResponse, Refusal, Transport},
    snapshots::SnapshotFiles,
    store::{ENTRY_BYTES_MAX, OnDisk, RaftStore, Storage, StoreError},
    types::{EncodedCommand, LogPlace, Member, Peer, RaftId, Types},
};
use crate::aside::aside;

/// What an entry has besides its command.
const ENTRY_BYTES_BESIDES: usize = 256;

/// The largest command, encoded.
pub const COMMAND_BYTES_MAX: usize = ENTRY_BYTES_MAX - ENTRY_BYTES_BESIDES;

/// One member. Clones are handles of the same. It runs until [`RaftNode::shutdown`], also when nobody
/// holds a handle.
pub struct RaftNode<M> {
    pub(super) inner: Arc<Inner<M>>,
}

pub(super) struct Inner<M> {
    pub(super) raft: Raft<Types>,
    pub(super) config: RaftConfig,
    /// All who are or were members.
    pub(super) ids: watch::Receiver<BTreeSet<RaftId>>,
    /// One change of the members at a time.
    pub(super) changes: Mutex<()>,
    identity: Identity,
    store: RaftStore,
    published: watch::Receiver<Published<M>>,
}

impl<M> Clone for RaftNode<M> {
    fn clone(&self) -> RaftNode<M> {
        RaftNode { inner: Arc::clone(&self.inner) }
    }
}

/// Whether a member was started before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nobody knows: what is not there is begun.
    Maybe,
    /// It was: what is not there is lost.
    Yes,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Timers or limits that do not go together.
    #[error("the configuration of Raft is wrong: {0}")]
    Config(String),
    /// Vote and log; see there what to do about damage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory of snapshots.
    #[error("cannot read the snapshots in {path}: {source}")]
    Snapshots {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The newest snapshot.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The library refused what it found.
    #[error("Raft does not start: {0}")]
    Raft(String),
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none at the moment. The command is not in the log.
    #[error("this member does not lead; the leader is {}", leader.as_ref().map_or("not known".to_owned(), |peer| peer.id.to_string()))]
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<Peer>,
    },
    /// The command is not in the log and never will be.
    #[error("a command of {bytes} bytes is too large: {bytes_max} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that is taken.
        bytes_max: usize,
    },
    /// There was no answer in time: the command may be applied, now or later, or never.
    #[error("no answer within {0:?}; whether the command is applied is not known")]
    Unknown(Duration),
    /// The command or the answer cannot be encoded.
    #[error("a command or its answer cannot be encoded: {0}")]
    Encoding(String),
    /// The node has stopped; whether the command is applied is not known.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// How a member is doing, as it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The member.
    pub id: RaftId,
    /// The term it is in.
    pub term: u64,
    /// It leads.
    pub is_leader: bool,
    /// Who leads, if it knows.
    pub leader: Option<RaftId>,
    /// Of a leader: since when a majority last answered it. None if it does not lead, or has heard
    /// of no majority yet.
    pub quorum_acked_ago: Option<Duration>,
    /// How many entries its log and snapshot reach.
    pub entries: u64,
    /// How many of them are in its machine.
    pub entries_applied: u64,
    /// How many of them are in its newest snapshot.
    pub entries_in_snapshot: u64,
    /// Of a leader: how many entries each other member is known to have.
    pub entries_of: BTreeMap<RaftId, u64>,
    /// The members.
    pub members: Members,
    /// Where the log says so; none before the member is one of any cluster. It may still be undone.
    pub members_at: Option<LogPlace>,
}

impl<M: Machine> RaftNode<M> {
    /// Starts a member with its state in the directory `path`, which is created if it is not there.
    /// A new member does nothing until it is made one of a cluster, by [`RaftNode::initialize`] or
    /// by the leader.
    pub async fn start<T: Transport>(
        config: RaftConfig,
        identity: Identity,
        path: &Path,
        transport: T,
    ) -> Result<RaftNode<M>, StartError> {
        RaftNode::start_on(config, identity, path, transport, Arc::new(OnDisk), Begun::Maybe).await
    }

    /// [`RaftNode::start`] with vote and log elsewhere than on the disk.
    pub async fn start_on<T: Transport>(
        config: RaftConfig,
        identity: Identity,
        path: &Path,
        transport: T,
        storage: Arc<dyn Storage>,
        begun: Begun,
    ) -> Result<RaftNode<M>, StartError> {
        let library_config = Arc::new(config.validate().map_err(StartError::Config)?);
        let path = path.to_owned();
        let opened = aside(move || open::<M>(&path, storage.as_ref(), begun)).await;
        let (store, snapshots, machine) = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        let (published, ids) = (machine.watch(), machine.watch_ids());
        let network = Network { identity: identity.clone(), transport, pause: config.heartbeat };
        let log = LogStore::new(identity.id, store.clone(), snapshots);
        match Raft::new(identity.id, library_config, network, log, machine).await {
            Ok(raft) => {
                // The status is as it was found on disk from the first look on. The library reports
                // once when it runs, and once if it ends.
                let _ = raft.metrics().changed().await;
                let changes = Mutex::new(());
                let inner = Inner { raft, config, ids, changes, identity, store, published };
                Ok(RaftNode { inner: Arc::new(inner) })
            }
            Err(error) => {
                close(store).await;
                Err(StartError::Raft(error.to_string()))
            }
        }
    }

    /// Founds a cluster of these voters, of which this node is one. Only one founder calls it, and
    /// only once in the life of a cluster; a node that has been in one refuses.
    pub async fn initialize(&self, voters: &[Peer]) -> Result<(), InitializeFailed> {
        let members: BTreeMap<RaftId, Member> =
            voters.iter().map(|peer| (peer.id, Member { address: peer.address.clone() })).collect();
        let failed = |error: RaftError<RaftId, InitializeError<RaftId, Member>>| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => InitializeFailed::AlreadyMember,
            RaftError::APIError(InitializeError::NotInMembers(_)) => InitializeFailed::NotAmongVoters,
            RaftError::Fatal(fatal) => InitializeFailed::Stopped(fatal.to_string()),
        };
        self.inner.raft.initialize(members).await.map_err(failed)
    }

    /// Has a command applied by all members, and gives the machine's answer.
    pub async fn propose(&self, command: &M::Command) -> Result<M::Answer, ProposeError> {
        let encoding = |error: serde_json::Error| ProposeError::Encoding(error.to_string());
        let encoded = to_raw_value(command).map_err(encoding)?;
        let (bytes, bytes_max) = (encoded.get().len(), COMMAND_BYTES_MAX);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        let timeout = self.inner.config.propose_timeout;
        let write = self.inner.raft.client_write(EncodedCommand(encoded));
        let written =
            tokio::time::timeout(timeout, write).await.map_err(|_| ProposeError::Unknown(timeout))?;
        let response = written.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(leader)) => {
                ProposeError::NotLeader { leader: leader_of(leader) }
            }
            other => ProposeError::Stopped(other.to_string()),
        })?;
        let answer = response.data.0.as_ref().map_or("null", |answer| answer.get());
        serde_json::from_str(answer).map_err(encoding)
    }

    /// Waits until this member's machine has all that was committed when this was called; a majority
    /// has to say that this member leads. What is read from the machine then is not stale.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let timeout = self.inner.config.propose_timeout;
        let barrier = tokio::time::timeout(timeout, self.inner.raft.ensure_linearizable()).await;
        match barrier.map_err(|_| ProposeError::Unknown(timeout))? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(leader))) => {
                Err(ProposeError::NotLeader { leader: leader_of(leader) })
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// Answers a request that a [`Transport`] brought.
    pub async fn handle(&self, request: RaftRequest) -> Result<RaftResponse, Refusal> {
        self.inner.identity.check(&request)?;
        network::answer(&self.inner.raft, request).await
    }

    /// The state of this member's machine, and each state after.
    pub fn watch(&self) -> watch::Receiver<Published<M>> {
        self.inner.published.clone()
    }

    /// Who this member is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// How this member is doing. A little behind what it answers: to see an effect, wait for it.
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        Status::of(&metrics.borrow())
    }

    /// Waits until the status is as wanted, and gives it; none if the node stops before.
    pub async fn wait_for_status(&self, mut is_wanted: impl FnMut(&Status) -> bool) -> Option<Status> {
        let mut metrics = self.inner.raft.metrics();
        let found =
            metrics.wait_for(|metrics| metrics.running_state.is_err() || is_wanted(&Status::of(metrics)));
        let found = found.await.ok()?;
        found.running_state.is_ok().then(|| Status::of(&found))
    }

    /// Waits until the node has failed, and tells why. It can do nothing more and nothing can be
    /// retried: the process must end. Never returns if the node is shut down.
    pub async fn failed(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        let cause = metrics
            .wait_for(|metrics| matches!(&metrics.running_state, Err(fatal) if !is_stop(fatal)))
            .await
            .map(|metrics| metrics.running_state.as_ref().err().map(ToString::to_string).unwrap_or_default());
        match cause {
            Ok(cause) => self.inner.store.failure().map_or(cause, ToString::to_string),
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes a snapshot now.
    pub async fn take_snapshot(&self) -> Result<(), ProposeError> {
        let trigger = self.inner.raft.trigger();
        trigger.snapshot().await.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// Stops the member and closes its files.
    pub async fn shutdown(&self) {
        // It fails only if the library panicked, and then it has stopped too.
        let _ = self.inner.raft.shutdown().await;
        close(self.inner.store.clone()).await;
    }
}

/// Why no cluster was founded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitializeFailed {
    /// The node has been in a cluster.
    #[error("this node is or was a member of a cluster")]
    AlreadyMember,
    /// The founder has to be a voter.
    #[error("this node is not among the voters")]
    NotAmongVoters,
    /// The node has stopped.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

impl Status {
    fn of(metrics: &openraft::RaftMetrics<RaftId, Member>) -> Status {
        let entries = |last: Option<u64>| last.map_or(0, |index| index + 1);
        let entries_of = metrics.replication.iter().flatten();
        Status {
            id: metrics.id,
            term: metrics.current_term,
            is_leader: metrics.state == ServerState::Leader,
            leader: metrics.current_leader,
            quorum_acked_ago: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            entries: entries(metrics.last_log_index),
            entries_applied: entries(metrics.last_applied.map(|last| last.index)),
            entries_in_snapshot: entries(metrics.snapshot.map(|last| last.index)),
            entries_of: entries_of.map(|(id, last)| (*id, entries(last.map(|last| last.index)))).collect(),
            members: Members::of(metrics.membership_config.membership()),
            members_at: metrics.membership_config.log_id().map(LogPlace::from),
        }
    }
}

pub(super) fn leader_of(forward: ForwardToLeader<RaftId, Member>) -> Option<Peer> {
    let (id, member) = (forward.leader_id?, forward.leader_node?);
    Some(Peer { id, address: member.address })
}

fn is_stop(fatal: &openraft::error::Fatal<RaftId>) -> bool {
    matches!(fatal, openraft::error::Fatal::Stopped)
}

pub(super) type Opened<M> = (RaftStore, SnapshotFiles, MachineStore<M>);

pub(super) fn open<M: Machine>(
    path: &Path,
    storage: &dyn Storage,
    begun: Begun,
) -> Result<Opened<M>, StartError> {
    let snapshots_path = path.join("snapshots");
    let failed = |source| StartError::Snapshots { path: snapshots_path.clone(), source };
    let snapshots = SnapshotFiles::open(&snapshots_path).map_err(failed)?;
    let machine = MachineStore::open(snapshots.clone())?;
    let log = path.join("log");
    let store = match begun {
        Begun::Maybe => storage.open(&log)?,
        Begun::Yes => storage.open_again(&log)?,
    };
    let covered = machine.entries_applied();
    if let Some(purged) = store.purged()
        && covered <= purged.index
    {
        store.close();
        let what = format!(
            "the log begins behind entry {}, and the newest readable snapshot has {covered} entries",
            purged.index
        );
        return Err(StoreError::Corrupt { path: path.to_owned(), what }.into());
    }
    Ok((store, snapshots, machine))
}

async fn close(store: RaftStore) {
    // It fails only if closing panics, and then there is nothing more to close.
    let _ = aside(move || store.close()).await;
}
