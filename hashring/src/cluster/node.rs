//! The control plane of one node.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tracing::{info, warn};
use weir_proto::weir_cluster::{cluster_server::ClusterServer, raft_server::RaftServer};

use super::{
    admin::{AdminAnswer, AdminQuestion, MembersStatus},
    autopilot::steer_voters,
    bootstrap::{BootstrapError, Decision},
    channels::Channels,
    config::ClusterConfig,
    data_lock::DataLock,
    discovery::{Resolver, StaticPeers, ask, resolve_all, until_decided},
    follow::{follow_raft, meet_later_generation, watch_voters},
    founding::{FoundingGuard, GuardError},
    identity::{IdentityError, Membership, NodeIdentity},
    leader::lead,
    leader_client::ProposeFailed,
    presence::{be_present, keep_the_time, register},
    publisher::{Publisher, ViewReceiver},
    raft_part::RaftPart,
    ring_file::{self, RingFileError, RingRecord},
    services::{JOINS_REFUSED, Services},
    shared::{Shared, WATCHERS_MAX},
    soft::{Report, SoftTable},
    status::ClusterStatus,
    surroundings::Surroundings,
    wire::{MESSAGE_BYTES_MAX, MESSAGES_REFUSED},
};
use crate::{
    aside::aside,
    ids::{ClusterId, Uid},
    raft::StartError as RaftStartError,
    ring::{Applied, Command, RingState},
};

/// A node's part in the cluster. Clones are handles of the same. It runs until
/// [`ClusterNode::shutdown`], also when nobody holds a handle.
#[derive(Clone)]
pub struct ClusterNode {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it was told does not go together.
    #[error("the configuration of the cluster is wrong: {0}")]
    Config(String),
    /// Who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is in another cluster than the one it may be in.
    #[error("{path} is of cluster {own}, and the node may be in {expected} only")]
    OtherCluster {
        /// The directory of its data.
        path: PathBuf,
        /// The cluster that it is in.
        own: ClusterId,
        /// The cluster that was named.
        expected: ClusterId,
    },
    /// Another process works on its directory.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// Another process runs with the identity of this one.
    #[error(
        "another process runs as node {uid}, at {address}: its data or that in {path} is a copy of the other's, and only one of them may run"
    )]
    Cloned {
        /// The identity.
        uid: Uid,
        /// Where the other one is.
        address: String,
        /// The directory of the data of this one.
        path: PathBuf,
    },
    /// The lock of its directory.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// The directory of its data.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Its part in Raft.
    #[error(transparent)]
    Raft(#[from] RaftStartError),
    /// A task of its own ended.
    #[error("the start was broken off: {0}")]
    BrokenOff(String),
}

/// Why a node that runs cannot be part of the cluster any more. The process should end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterFailure {
    /// It cannot be said which cluster the node belongs to.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The cluster has been told that this node is gone for good.
    #[error("this node has left its cluster, or was replaced, and can never come back")]
    Gone,
    /// Another process runs with the identity of this one, from a copy of its data.
    #[error("{0}")]
    Cloned(String),
    /// The cluster that the node was about to found has the name of another.
    #[error(
        "no cluster is founded, for another one has the name {name:?}, or had it: {what}; if its data is still wanted, bring back its disks, else choose another name or force a new cluster"
    )]
    AlreadyFounded {
        /// The name.
        name: String,
        /// What was found.
        what: String,
    },
    /// What the node has to remember cannot be written.
    #[error("{0}")]
    Identity(String),
    /// Raft failed.
    #[error("Raft failed: {0}")]
    Raft(String),
}

impl ClusterNode {
    /// Starts a node whose peers are given as addresses.
    pub async fn start(config: ClusterConfig) -> Result<ClusterNode, StartError> {
        ClusterNode::start_with(config, Arc::new(StaticPeers)).await
    }

    /// Starts a node whose peers are names that the resolver understands.
    pub async fn start_with(
        config: ClusterConfig,
        resolver: Arc<dyn Resolver>,
    ) -> Result<ClusterNode, StartError> {
        ClusterNode::start_in(config, Surroundings { resolver, ..Surroundings::default() }).await
    }

    /// [`ClusterNode::start_with`] in other surroundings than those of a program.
    pub async fn start_in(
        config: ClusterConfig,
        surroundings: Surroundings,
    ) -> Result<ClusterNode, StartError> {
        config.validate().map_err(StartError::Config)?;
        for counted in [JOINS_REFUSED, MESSAGES_REFUSED] {
            metrics::counter!(counted).increment(0);
        }
        let (path, name) = (config.data_path.clone(), config.name.clone());
        let nature = Arc::clone(&surroundings.nature);
        let opened = aside(move || -> Result<_, StartError> {
            let failed = |source| StartError::Lock { path: path.clone(), source };
            let lock = DataLock::take(&path).map_err(failed)?;
            let lock = lock.ok_or_else(|| StartError::Locked(path.clone()))?;
            let identity = NodeIdentity::open_as(&path, &name, nature.as_ref())?;
            let ring = identity.membership().and_then(|membership| last_ring(&path, membership.cluster));
            Ok((lock, identity, ring))
        });
        let (lock, identity, ring) =
            opened.await.map_err(|error| StartError::BrokenOff(error.to_string()))??;
        if let (Some(membership), Some(expected)) = (identity.membership(), config.cluster)
            && membership.cluster != expected
        {
            let (path, own) = (config.data_path, membership.cluster);
            return Err(StartError::OtherCluster { path, own, expected });
        }
        let (uid, boot, epoch) =
            (identity.uid(), identity.boot(), ring.as_ref().map(|ring| ring.state.epoch().0));
        info!(%uid, boot, ring_epoch = epoch, "the node is known to itself");
        let shared = Arc::new(Shared {
            uid,
            boot,
            process_nonce: surroundings.nature.random() as u64,
            identity: Mutex::new(identity),
            fresh: Mutex::default(),
            peers: Mutex::default(),
            raft: RaftPart::default(),
            publisher: Publisher::new(config.data_path.clone(), ring),
            channels: Arc::new(Channels::new(config.timers.connect, Arc::clone(&surroundings.dialer))),
            moved: Arc::default(),
            soft: Mutex::new(SoftTable::default()),
            report: Mutex::default(),
            round_trip: Mutex::default(),
            clock_offset: watch::Sender::new(None),
            later: Arc::new(watch::Sender::new(None)),
            lock: Mutex::new(Some(lock)),
            leader: Mutex::default(),
            facts: Mutex::default(),
            held_waves: Mutex::default(),
            heard_by_leader: Mutex::default(),
            refusal: watch::Sender::new(None),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            failure: watch::Sender::new(None),
            stop: CancellationToken::new(),
            config,
            surroundings,
        });
        if let Some(address) = where_it_runs(&shared).await {
            let path = shared.config.data_path.clone();
            return Err(StartError::Cloned { uid, address, path });
        }
        shared.start_raft().await?;
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => {}
                    Err(failure) = run(&shared) => shared.fail(failure),
                }
            }
        });
        Ok(ClusterNode { shared, task: Arc::new(Mutex::new(Some(task))) })
    }

    /// Who this node is.
    pub fn uid(&self) -> Uid {
        self.shared.uid
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.shared.membership().map(|membership| membership.cluster)
    }

    /// The ring for the write path, and each ring after; none until the node knows one.
    pub fn view(&self) -> ViewReceiver {
        self.shared.publisher.watch_view()
    }

    /// The whole ring, as [`crate::fencing`] needs it, and each ring after; without a cluster until
    /// the node knows one.
    pub fn ring(&self) -> watch::Receiver<Arc<RingRecord>> {
        self.shared.publisher.watch_record()
    }

    /// The whole ring as it is now.
    pub fn ring_state(&self) -> RingState {
        self.shared.publisher.record().state.clone()
    }

    /// Says how this node is doing; the leader hears of it soon. A node is not ready until it says so.
    pub fn report(&self, report: Report) {
        *self.shared.report.lock() = report;
    }

    /// Has a command applied by whoever leads.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeFailed> {
        self.shared.propose(command, false).await
    }

    /// Has a command applied by whoever leads, also one that it would talk anybody out of: what is not
    /// possible at all is refused all the same.
    pub async fn propose_forced(&self, command: Command) -> Result<Applied, ProposeFailed> {
        self.shared.propose(command, true).await
    }

    /// All that people are shown of the cluster.
    pub fn status(&self) -> ClusterStatus {
        self.shared.status()
    }

    /// How many milliseconds the clock of this node is ahead of the middle of all clocks in the cluster,
    /// or behind it if negative; none until a leader said so.
    pub fn clock_offset(&self) -> watch::Receiver<Option<i64>> {
        self.shared.clock_offset.subscribe()
    }

    /// Who the members of Raft are, and how far, as the leader sees them.
    pub async fn raft_members(&self) -> Result<MembersStatus, ProposeFailed> {
        match self.shared.ask_admin(AdminQuestion::Members).await? {
            AdminAnswer::Members(members) => Ok(members),
            other => Err(ProposeFailed::Refused(format!("not the members, but {other:?}"))),
        }
    }

    /// Makes a node a voter, or lets a voter only watch, or has the leader take a snapshot. Voters are
    /// changed by hand only while the setting [`AUTOPILOT_SETTING`](super::AUTOPILOT_SETTING) is `off`.
    pub async fn administer(&self, question: AdminQuestion) -> Result<(), ProposeFailed> {
        self.shared.ask_admin(question).await.map(drop)
    }

    /// All that the cluster agreed on about the ring until now, as bytes that
    /// [`decode_backup`](super::decode_backup) understands.
    pub async fn backup(&self) -> Result<Vec<u8>, ProposeFailed> {
        self.shared.ask_admin_raw(AdminQuestion::Backup).await
    }

    /// Why the cluster last refused to register this node, as long as it does.
    pub fn refusal(&self) -> watch::Receiver<Option<ProposeFailed>> {
        self.shared.refusal.subscribe()
    }

    /// What has to be served on the node's address for the cluster.
    pub fn services(&self) -> Routes {
        let services = Services(Arc::clone(&self.shared));
        let raft = RaftServer::new(services.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let cluster = ClusterServer::new(services)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Routes::new(raft).add_service(cluster)
    }

    /// Serves the node's address for the cluster until the node is shut down.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let stop = self.shared.stop.clone().cancelled_owned();
        Server::builder().add_routes(self.services()).serve_with_incoming_shutdown(incoming, stop).await
    }

    /// Waits until the node cannot go on, and tells why. Never returns if it is shut down.
    pub async fn failed(&self) -> ClusterFailure {
        let mut failure = self.shared.failure.subscribe();
        let found = failure.wait_for(Option::is_some).await.map(|failure| failure.clone());
        match found {
            Ok(Some(failure)) => failure,
            _ => std::future::pending().await,
        }
    }

    /// Stops the node's part in the cluster and closes its files. The last view stays.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            warn!(%error, "the task of the cluster ended in a panic");
        }
        self.shared.raft.shutdown().await;
        self.shared.publisher.finish().await;
        self.shared.lock.lock().take();
    }
}

/// The ring of the last run. A damaged one is as good as none: the others know it.
fn last_ring(path: &std::path::Path, cluster: ClusterId) -> Option<RingRecord> {
    let found = ring_file::read(path).map_err(|error: RingFileError| {
        warn!(%error, path = %path.display(), "the last known ring cannot be read");
    });
    let record = found.ok().flatten()?;
    let of = record.state.cluster().map(|cluster| cluster.id);
    if of != Some(cluster) {
        warn!(path = %path.display(), "the last known ring is of another cluster");
        return None;
    }
    Some(record)
}

/// Comes into a cluster and stays in it; returns only if it cannot.
async fn run(shared: &Arc<Shared>) -> Result<std::convert::Infallible, ClusterFailure> {
    let (resolver, guard) = (shared.surroundings.resolver.as_ref(), shared.surroundings.guard.as_deref());
    let membership = match shared.membership() {
        Some(membership) => membership,
        None => enter(shared, resolver, guard).await?,
    };
    let cluster = membership.cluster;
    let presence = async {
        if shared.config.only_watches {
            keep_the_time(shared, cluster).await;
        } else {
            be_present(shared, cluster).await;
        }
    };
    tokio::select! {
        biased;
        failure = know_the_ring(shared, cluster) => return failure,
        () = presence => {}
        () = keep_peers_current(shared, resolver) => {}
    }
    // None of these ends by itself.
    Err(ClusterFailure::Raft("a task has ended".to_owned()))
}

/// Looks up again and again where peers are. A node that knows nobody by the ring any more, as all
/// have moved while it was away, finds them so.
async fn keep_peers_current(shared: &Shared, resolver: &dyn Resolver) {
    loop {
        let addresses = resolve_all(resolver, &shared.config.peers).await;
        shared.peers.lock().clone_from(&addresses);
        tokio::time::sleep(shared.config.timers.resolve).await;
    }
}

/// Takes the ring from Raft while the node takes part in it, and from a voter while it does not.
async fn know_the_ring(
    shared: &Arc<Shared>,
    cluster: ClusterId,
) -> Result<std::convert::Infallible, ClusterFailure> {
    let mut part = shared.raft.watch();
    loop {
        let raft = part.borrow_and_update().clone();
        let Some(raft) = raft else {
            tokio::select! {
                biased;
                () = watch_voters(shared, cluster) => {}
                () = meet_later_generation(shared, cluster) => {}
                _ = part.changed() => {}
            }
            continue;
        };
        tokio::select! {
            biased;
            () = follow_raft(shared, &raft) => {}
            () = lead(shared, &raft) => {}
            () = steer_voters(shared, &raft) => {}
            () = meet_later_generation(shared, cluster) => {}
            _ = part.changed() => {}
            cause = raft.failed() => return Err(ClusterFailure::Raft(cause)),
        }
    }
}

/// Finds the node's cluster, or founds it.
async fn enter(
    shared: &Arc<Shared>,
    resolver: &dyn Resolver,
    guard: Option<&dyn FoundingGuard>,
) -> Result<Membership, ClusterFailure> {
    let membership = match until_decided(shared, resolver).await? {
        // It only ends with something to do.
        Decision::Wait => return std::future::pending().await,
        Decision::Found(founders) => {
            let cluster = cluster_to_found(shared, guard).await?;
            let membership = Membership { cluster, generation: 0, founders };
            info!(cluster = %membership.cluster, founders = membership.founders.len(), "this node founds a cluster");
            membership
        }
        Decision::Follow(membership) => {
            info!(cluster = %membership.cluster, "this node is a founder of a cluster");
            membership
        }
        Decision::Join(membership) => {
            info!(cluster = %membership.cluster, "this node joins a cluster");
            if !shared.config.only_watches {
                register(shared, membership.cluster).await;
                shared.refusal.send_replace(None);
            }
            // It is no founder, so who they are is not its business.
            Membership { founders: Vec::new(), ..membership }
        }
    };
    let failed = |error: IdentityError| ClusterFailure::Identity(error.to_string());
    let entered = membership.clone();
    shared.change_identity(move |identity| identity.enter(entered)).await.map_err(failed)?;
    shared.start_raft().await.map_err(|error| ClusterFailure::Raft(error.to_string()))?;
    Ok(membership)
}

/// Where another process runs with the identity of this one; none if there is none that the ring knows of.
/// A node that has moved finds nobody at its old address; one whose disk was copied finds the original.
async fn where_it_runs(shared: &Shared) -> Option<String> {
    let record = shared.publisher.record();
    let known = &record.state.node(shared.uid)?.addresses.cluster;
    if *known == shared.config.addresses.cluster {
        // Only this process can be there.
        return None;
    }
    let other = ask(shared, known).await?;
    (other.uid == shared.uid).then(|| known.clone())
}

/// The cluster to found: its id is on disk, and its name is claimed.
async fn cluster_to_found(
    shared: &Shared,
    guard: Option<&dyn FoundingGuard>,
) -> Result<ClusterId, ClusterFailure> {
    let failed = |error: IdentityError| ClusterFailure::Identity(error.to_string());
    let fresh = ClusterId(shared.surroundings.nature.random().to_be_bytes());
    let chosen =
        shared.change_identity(move |identity| identity.choose_cluster(fresh)).await.map_err(failed)?;
    let cluster = chosen.founding().expect("it was just chosen");
    let Some(guard) = guard else { return Ok(cluster) };
    let name = &shared.config.cluster_name;
    loop {
        match guard.claim(cluster, name).await {
            Ok(()) => return Ok(cluster),
            Err(GuardError::Taken(what)) if shared.config.force_new => {
                warn!(name, what, "a cluster is founded though another has its name, or had it");
                return Ok(cluster);
            }
            Err(GuardError::Taken(what)) => {
                return Err(ClusterFailure::AlreadyFounded { name: name.clone(), what });
            }
            Err(GuardError::Unavailable(what)) => {
                warn!(name, what, "the name of the cluster cannot be claimed yet");
                tokio::time::sleep(shared.config.timers.bootstrap_round).await;
            }
        }
    }
}
