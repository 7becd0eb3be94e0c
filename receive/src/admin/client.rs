//! Asks the nodes of a cluster.
//!
//! All begins at one address, which may be that of any node. What only the leader knows is looked for from
//! there. The ring, too, is best known by the leader; without one the node at the address tells the last that
//! it knows.

use std::{
    collections::{BTreeSet, VecDeque},
    error::Error,
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use weir_hashring::{
    cluster::{
        AdminAnswer, AdminQuestion, AdminRefused, ClusterStatus, MESSAGE_BYTES_MAX, MESSAGE_VERSION,
        NodeStatus, Outcome,
    },
    ring::{Applied, Command, RingState},
};
use weir_proto::weir_cluster::{
    AdministerRequest, LastRingRequest, ProposeRequest, StatusRequest, answer::Outcome as AnswerOutcome,
    cluster_client::ClusterClient,
};

use super::error::AdminError;

/// A node tries for 20 seconds to have a command applied.
const PROPOSE_MAX: Duration = Duration::from_secs(30);
/// A connection that takes longer is none.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// No more nodes are asked for the leader.
const ASKED_MAX: usize = 64;

/// Before a leader is asked again for what it does not show yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks the nodes of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    timeout: Duration,
}

/// A cluster as the node that was asked sees it, and as its leader does.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The node that was asked.
    pub asked: ClusterStatus,
    /// The leader, or what was wrong when it was looked for.
    pub leader: Result<ClusterStatus, String>,
}

/// The ring as one node knows it.
#[derive(Clone, Debug)]
pub struct KnownRing {
    /// The ring.
    pub state: RingState,
    /// Why there may be a later one; none if the node has contact to a leader.
    pub doubt: Option<String>,
}

impl Picture {
    /// Who knows most.
    pub fn best(&self) -> &ClusterStatus {
        self.leader.as_ref().unwrap_or(&self.asked)
    }

    /// The nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[NodeStatus] {
        &self.best().nodes
    }

    /// The node of a Raft id.
    pub fn node_of_raft(&self, id: u64) -> Option<&NodeStatus> {
        self.nodes().iter().find(|node| node.uid.raft_id().0 == id)
    }
}

impl Client {
    /// Begins at `address`; each answer may take `timeout`.
    pub fn new(address: String, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// The same, but it begins at another address.
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), timeout: self.timeout }
    }

    /// What the node at `address` shows.
    ///
    /// # Errors
    /// If it does not answer, or not as it should.
    pub async fn status_at(&self, address: &str) -> Result<ClusterStatus, AdminError> {
        let mut client = self.connect(address).await?;
        let asked = timeout(self.timeout, client.status(StatusRequest { version: MESSAGE_VERSION })).await;
        let answer = asked.map_err(|_| no_answer(address))?.map_err(|status| refused(address, &status))?;
        let answer = answer.into_inner();
        check_version(address, answer.version)?;
        decode(address, &answer.status)
    }

    /// The cluster as the node that was named and as its leader see it.
    ///
    /// # Errors
    /// If the node does not answer, or is in no cluster. That the leader is not found is none.
    pub async fn picture(&self) -> Result<Picture, AdminError> {
        let asked = self.status_at(&self.address).await?;
        if asked.cluster.is_none() {
            return Err(AdminError::NoCluster(self.address.clone()));
        }
        let leader = self.leader(&asked).await;
        Ok(Picture { asked, leader })
    }

    async fn leader(&self, asked: &ClusterStatus) -> Result<ClusterStatus, String> {
        let is_leader = |status: &ClusterStatus| status.raft.as_ref().is_some_and(|raft| raft.is_leader);
        if is_leader(asked) {
            return Ok(asked.clone());
        }
        let mut last = "no voter knows of a leader".to_owned();
        let mut to_ask = others(asked);
        let mut seen = BTreeSet::from([self.address.clone()]);
        name_leader(asked, &mut to_ask);
        while let Some(address) = to_ask.pop_front().filter(|_| seen.len() <= ASKED_MAX) {
            if !seen.insert(address.clone()) {
                continue;
            }
            match self.status_at(&address).await {
                Ok(status) if status.cluster != asked.cluster => {
                    last = format!("{address} is in another cluster");
                }
                Ok(status) if is_leader(&status) => return Ok(status),
                Ok(status) => name_leader(&status, &mut to_ask),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// The ring as the leader knows it, or else the node that was named.
    ///
    /// # Errors
    /// If the node does not answer, is in no cluster, or knows no ring yet.
    pub async fn known_ring(&self) -> Result<KnownRing, AdminError> {
        let picture = self.picture().await?;
        if let Ok(address) = self.leader_address(&picture)
            && let Ok(ring) = self.ring_at(&address, &picture).await
        {
            return Ok(ring);
        }
        self.ring_at(&self.address, &picture).await
    }

    /// As [`Client::known_ring`], for those who ask the leader for a change anyway.
    pub async fn ring(&self) -> Result<RingState, AdminError> {
        Ok(self.known_ring().await?.state)
    }

    fn leader_address<'a>(&self, picture: &'a Picture) -> Result<String, &'a str> {
        let leader = picture.leader.as_ref().map_err(String::as_str)?;
        if leader.uid == picture.asked.uid {
            return Ok(self.address.clone());
        }
        let node = picture.nodes().iter().find(|node| node.uid == leader.uid);
        node.map(|node| node.addresses.cluster.clone()).ok_or("its address is not known")
    }

    /// A leader answers before it shows what has changed. Whoever looks next shall see it, so this waits
    /// until the command would change nothing any more.
    async fn until_shown(&self, picture: &Picture, command: &Command) {
        let Ok(address) = self.leader_address(picture) else { return };
        let shown = async {
            while let Ok(KnownRing { state, .. }) = self.ring_at(&address, picture).await {
                let mut again = state.clone();
                // Refused or not: what counts is whether it has an effect.
                let _ = again.apply(command);
                if again == state {
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        // It is done all the same.
        let _ = timeout(self.timeout, shown).await;
    }

    /// The last ring that a node of the cluster of `picture` knows.
    async fn ring_at(&self, address: &str, picture: &Picture) -> Result<KnownRing, AdminError> {
        let mut client = self.connect(address).await?;
        let request = LastRingRequest { version: MESSAGE_VERSION, cluster_id: cluster_id(picture) };
        let asked = timeout(self.timeout, client.last_ring(request)).await;
        let answer = asked.map_err(|_| no_answer(address))?.map_err(|status| refused(address, &status))?;
        let answer = answer.into_inner();
        check_version(address, answer.version)?;
        let state: RingState = decode(address, &answer.state)?;
        let doubt = (!answer.has_quorum).then(|| {
            format!(
                "this is by the ring of epoch {} in generation {}, the last that {address} knows, which has no \
                 contact to a leader with a quorum: there may be a later one",
                state.epoch(),
                answer.generation
            )
        });
        Ok(KnownRing { state, doubt })
    }

    /// Has a command applied in the cluster of `picture`, by whoever leads; with `force` also though the
    /// leader has objections.
    ///
    /// # Errors
    /// If it is refused, or if it is not known what came of it.
    pub async fn propose(
        &self,
        picture: &Picture,
        command: &Command,
        force: bool,
    ) -> Result<Applied, AdminError> {
        let address = self.address.as_str();
        let mut client = self.connect(address).await?;
        let request = ProposeRequest {
            version: MESSAGE_VERSION,
            cluster_id: cluster_id(picture),
            command: serde_json::to_vec(command).expect("commands have only keys that are text or numbers"),
            forward: true,
            force,
            ..ProposeRequest::default()
        };
        let unknown = |what: String| AdminError::Unknown { address: address.to_owned(), what };
        let asked = timeout(PROPOSE_MAX.max(self.timeout), client.propose(request)).await;
        let answer = asked.map_err(|_| unknown("no answer in time".to_owned()))?;
        let answer = answer.map_err(|status| match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied => {
                refused(address, &status)
            }
            _ => unknown(status.message().to_owned()),
        })?;
        let answer = answer.into_inner();
        check_version(address, answer.version)?;
        let Some(AnswerOutcome::Answer(outcome)) = answer.outcome else {
            return Err(unknown("it says nothing of what came of it".to_owned()));
        };
        let outcome: Outcome = decode(address, &outcome)?;
        let applied = outcome?;
        self.until_shown(picture, command).await;
        Ok(applied)
    }

    /// Asks the leader of the cluster of `picture` for something below the ring.
    ///
    /// # Errors
    /// If it refuses, or if it is not known what came of it.
    pub async fn administer(
        &self,
        picture: &Picture,
        question: &AdminQuestion,
    ) -> Result<AdminAnswer, AdminError> {
        let address = self.address.as_str();
        let mut client = self.connect(address).await?;
        let request = AdministerRequest {
            version: MESSAGE_VERSION,
            cluster_id: cluster_id(picture),
            question: serde_json::to_vec(question).expect("questions have only keys that are text"),
            forward: true,
            ..AdministerRequest::default()
        };
        let unknown = |what: String| AdminError::Unknown { address: address.to_owned(), what };
        let asked = timeout(PROPOSE_MAX.max(self.timeout), client.administer(request)).await;
        let answer = asked.map_err(|_| unknown("no answer in time".to_owned()))?;
        let answer = answer.map_err(|status| unknown(status.message().to_owned()))?.into_inner();
        check_version(address, answer.version)?;
        let Some(AnswerOutcome::Answer(answer)) = answer.outcome else {
            return Err(unknown("it says nothing of what came of it".to_owned()));
        };
        let answer: Result<AdminAnswer, AdminRefused> = decode(address, &answer)?;
        answer.map_err(|refused| AdminError::Refused { address: address.to_owned(), what: refused.0 })
    }

    async fn connect(&self, address: &str) -> Result<ClusterClient<Channel>, AdminError> {
        let bad = || AdminError::BadAddress(address.to_owned());
        // What has a port has no scheme or path.
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || address.contains('/') {
            return Err(bad());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
        let connected = endpoint.connect_timeout(CONNECT_MAX.min(self.timeout)).connect().await;
        let channel = connected.map_err(|error| AdminError::Unreachable {
            address: address.to_owned(),
            what: innermost(&error).to_string(),
        })?;
        let client = ClusterClient::new(channel);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// Another cluster may be at an address by now.
fn cluster_id(picture: &Picture) -> Vec<u8> {
    picture.asked.cluster.map(|cluster| cluster.0.to_vec()).unwrap_or_default()
}

/// Where all nodes are; founders, which are likely to vote, have the lowest numbers.
fn others(status: &ClusterStatus) -> VecDeque<String> {
    let others = status.nodes.iter().filter(|node| node.uid != status.uid);
    others.map(|node| node.addresses.cluster.clone()).filter(|address| !address.is_empty()).collect()
}

/// Puts first whom a node takes for the leader.
fn name_leader(status: &ClusterStatus, to_ask: &mut VecDeque<String>) {
    let leader = status.raft.as_ref().and_then(|raft| raft.leader);
    let node = status.nodes.iter().find(|node| Some(node.uid.raft_id().0) == leader);
    if let Some(node) = node {
        to_ask.push_front(node.addresses.cluster.clone());
    }
}

fn check_version(address: &str, version: u32) -> Result<(), AdminError> {
    if version == MESSAGE_VERSION {
        return Ok(());
    }
    let what = format!("version {version} of messages is not known");
    Err(AdminError::NotUnderstood { address: address.to_owned(), what })
}

fn decode<T: DeserializeOwned>(address: &str, bytes: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(bytes)
        .map_err(|error| AdminError::NotUnderstood { address: address.to_owned(), what: error.to_string() })
}

fn no_answer(address: &str) -> AdminError {
    AdminError::Unreachable { address: address.to_owned(), what: "no answer in time".to_owned() }
}

fn refused(address: &str, status: &tonic::Status) -> AdminError {
    let (address, what) = (address.to_owned(), status.message().to_owned());
    match status.code() {
        Code::Unimplemented => {
            AdminError::Refused { address, what: "this is not the address for the cluster".to_owned() }
        }
        _ => AdminError::Refused { address, what },
    }
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
