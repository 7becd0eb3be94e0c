//! What people are shown of a cluster.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, Digest, NodeNumber, NodesVersion, PoolName, RingEpoch, TokenId, Uid, UnixMillis},
    ring::{Addresses, NodeState},
};

/// A cluster as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that was asked.
    pub uid: Uid,
    /// Its name.
    pub name: String,
    /// How often it was started.
    pub boot: u64,
    /// The cluster that it is in.
    pub cluster: Option<ClusterId>,
    /// The generation of the cluster.
    pub generation: u64,
    /// The epoch of its ring; 0 if it knows none.
    pub epoch: RingEpoch,
    /// The digest of its ring.
    pub digest: Digest,
    /// Writes of earlier epochs are refused.
    pub min_write_epoch: RingEpoch,
    /// The version of its list of nodes.
    pub nodes_version: NodesVersion,
    /// Whether commands are taken, as far as the node can tell: it leads and a majority answers it, or it
    /// was heard by a leader a short while ago.
    pub has_quorum: bool,
    /// The steps to the latest epochs, the newest last.
    pub epochs: Vec<EpochStatus>,
    /// The pools, and what is wrong with them.
    pub pools: Vec<PoolStatus>,
    /// The tokens with which nodes may join.
    pub tokens: Vec<TokenStatus>,
    /// What people should know, whatever it is about.
    pub problems: Vec<String>,
    /// How it is doing in Raft, if it is a voter.
    pub raft: Option<RaftStatus>,
    /// The nodes that it knows, in the order of their numbers.
    pub nodes: Vec<NodeStatus>,
}

/// How an epoch came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStatus {
    /// The epoch.
    pub epoch: RingEpoch,
    /// The digest that goes with it.
    pub digest: Digest,
    /// What changed.
    pub change: String,
    /// Why, if that is known.
    pub reason: Option<String>,
}

/// A group of nodes with a table of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// How many nodes are in it.
    pub nodes: usize,
    /// How many of them may own slots.
    pub members: usize,
    /// How many nodes own each slot; none as long as there is no table.
    pub replicas: Option<u8>,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Its public part.
    pub id: TokenId,
    /// When it ends.
    pub expires: UnixMillis,
    /// How many more nodes may join with it.
    pub uses_left: u32,
}

/// A voter as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// The term it is in.
    pub term: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// The Raft id of the leader, if it knows.
    pub leader: Option<u64>,
    /// The Raft ids of the voters.
    pub voters: Vec<u64>,
    /// The voters are being changed: the old and the new ones both have to agree.
    #[serde(default)]
    pub is_changing: bool,
    /// How many entries its log and snapshot reach.
    pub entries: u64,
    /// How many of them are in its ring.
    pub entries_applied: u64,
    /// Of a leader: milliseconds since a majority last answered.
    pub quorum_acked_ms_ago: Option<u64>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its identity.
    pub uid: Uid,
    /// Its name in tables.
    pub number: NodeNumber,
    /// Its name.
    pub name: String,
    /// What it may fail with.
    pub zone: String,
    /// Its pool.
    pub pool: String,
    /// Its share.
    pub weight: u32,
    /// Where it is in its life.
    pub state: NodeState,
    /// Since which version of the list of nodes it is in that state.
    pub since: NodesVersion,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Version of its program.
    pub version: String,
    /// It is lost, and its slots are moved to others.
    #[serde(default)]
    pub forgotten: bool,
    /// In how many rows of tables it is; of one that drains or was given up, how many are left to move.
    pub slots: u32,
    /// What it waits for, for people; only the leader knows.
    pub waiting: Option<String>,
    /// A person should look at what it waits for.
    #[serde(default)]
    pub needs_person: bool,
    /// What it last said about itself; only the leader knows.
    pub report: Option<ReportStatus>,
}

/// What a node said about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportStatus {
    /// How often it was started.
    pub boot: u64,
    /// It takes writes.
    pub ready: bool,
    /// Series in its head.
    pub head_series: u64,
    /// How many it may have; 0 for any number.
    pub head_series_max: u64,
    /// Every sample older than this that it holds is in the bucket; none if it cannot say.
    pub uploaded_through: Option<UnixMillis>,
    /// It has cut and uploaded all that it held.
    pub drained: bool,
    /// Milliseconds since it said so.
    pub ms_ago: u64,
    /// That is so short that it lives.
    #[serde(default)]
    pub lives: bool,
    /// It is not ready, or near its limit of series: as long as it lives, nothing is moved.
    #[serde(default)]
    pub holds_moves_back: bool,
    /// How many milliseconds its clock is ahead of the middle of all, or behind it if negative.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
}
