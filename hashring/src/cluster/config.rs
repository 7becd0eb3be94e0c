//! What a node is told when it starts.

use std::{path::PathBuf, time::Duration};

use super::{join_token::TokenText, policy::ClusterPolicies};
use crate::{
    ids::{ClusterId, FeatureLevel, PoolName, ReplicaCount, SlotCount, Weight},
    raft::RaftConfig,
    ring::Addresses,
};

/// The most cells of a table: so many moves make a first table that is one entry of the log.
pub const CELLS_MAX: usize = 49_152;

/// All that a node has to be told.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where `node.json`, `ring.bin` and the directory of Raft are.
    pub data_path: PathBuf,
    /// Its name, which no other node of the cluster may have.
    pub name: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its pool.
    pub pool: PoolName,
    /// Its share.
    pub weight: Weight,
    /// Where the others reach it.
    pub addresses: Addresses,
    /// Version of the program.
    pub version: String,
    /// What it can do.
    pub features: FeatureLevel,
    /// The token it joins with.
    pub token: Option<TokenText>,
    /// Where others may be: what the resolver understands. The node itself may be among them.
    pub peers: Vec<String>,
    /// How many nodes without a cluster found one; 0 never does.
    pub bootstrap_expect: u32,
    /// It owns nothing and is in no list of nodes: it only wants to know the ring. Such a node never
    /// founds a cluster.
    pub only_watches: bool,
    /// The only cluster that the node may be in.
    pub cluster: Option<ClusterId>,
    /// How many nodes own each slot, if this node founds a cluster.
    pub replicas: ReplicaCount,
    /// How many slots there are, if this node founds a cluster.
    pub slots: SlotCount,
    /// What the node expects of its cluster, and decides by if it leads.
    pub policies: ClusterPolicies,
    /// The name of the cluster that it founds, which no other cluster may have that uses the same
    /// [`FoundingGuard`](super::FoundingGuard).
    pub cluster_name: String,
    /// Found a cluster though another has its name, or had it.
    pub force_new: bool,
    /// How many voters there may be, odd; none for 5 if there are as many nodes in three zones, else 3.
    pub max_voters: Option<u32>,
    /// All times.
    pub timers: ClusterTimers,
    /// Timers and limits of Raft.
    pub raft: RaftConfig,
}

/// When things happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTimers {
    /// Pause between two looks at who is there, while there is no cluster.
    pub bootstrap_round: Duration,
    /// Pause between two looks at where peers are, once there is a cluster.
    pub resolve: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an answer to a small question may take.
    pub call: Duration,
    /// How long a command is tried on one leader after another.
    pub propose: Duration,
    /// A node tells the leader this often how it does, and whether what is known of it has changed.
    pub heartbeat: Duration,
    /// Pause before a leader, or somebody to watch, is looked for anew.
    pub retry: Duration,
    /// Who watches the ring hears of it at least this often, or else watches somebody else.
    pub watch_idle: Duration,
    /// A node is Joining for so long that whoever reads knows it before anything is written to it.
    pub join_read_grace: Duration,
    /// A node that is silent for so long may be replaced by a new one of the same name.
    pub replace_grace: Duration,
    /// A node that drains and has uploaded all it held is still read from for so long, until others read
    /// it from the bucket.
    pub drain_read_grace: Duration,
    /// A drained node that is silent for so long has left.
    pub leave_grace: Duration,
    /// Pause between two waves of moves.
    pub step_interval: Duration,
    /// Moves in one wave; none for one of sixteen slots.
    pub max_moves_per_step: Option<usize>,
    /// The leader looks this often for what there is to do, beside every change of the ring.
    pub leader_round: Duration,
    /// A node that is to become a voter was heard of for so long without a pause.
    pub voter_stabilization: Duration,
    /// A voter that is not heard of for so long is replaced by another node, if there is one.
    pub voter_dead: Duration,
}

impl Default for ClusterTimers {
    fn default() -> ClusterTimers {
        ClusterTimers {
            bootstrap_round: Duration::from_secs(3),
            resolve: Duration::from_secs(30),
            connect: Duration::from_secs(2),
            call: Duration::from_secs(5),
            propose: Duration::from_secs(20),
            heartbeat: Duration::from_secs(5),
            retry: Duration::from_millis(500),
            watch_idle: Duration::from_secs(30),
            join_read_grace: Duration::from_secs(90),
            replace_grace: Duration::from_secs(60),
            drain_read_grace: Duration::from_secs(30 * 60),
            leave_grace: Duration::from_secs(60),
            step_interval: Duration::from_secs(30),
            max_moves_per_step: None,
            leader_round: Duration::from_secs(1),
            voter_stabilization: Duration::from_secs(30),
            voter_dead: Duration::from_secs(300),
        }
    }
}

impl ClusterConfig {
    /// What is wrong with it, if anything.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("the node has no name".to_owned());
        }
        if self.cluster_name.is_empty() {
            return Err("the cluster has no name".to_owned());
        }
        if self.addresses.cluster.is_empty() {
            return Err("the node has no address for the cluster".to_owned());
        }
        if self.peers.is_empty() && self.bootstrap_expect == 0 {
            return Err("without peers and without bootstrap-expect there is no cluster to be in".to_owned());
        }
        if self.only_watches && self.bootstrap_expect > 0 {
            return Err(
                "a node that only watches does not found a cluster: bootstrap-expect must be 0".to_owned()
            );
        }
        if self.max_voters.is_some_and(|voters| voters % 2 == 0) {
            return Err("the number of voters has to be odd".to_owned());
        }
        let cells = self.slots.as_len() * self.replicas.as_len();
        if cells > CELLS_MAX {
            return Err(format!("slots times replicas is {cells}, at most {CELLS_MAX} are possible"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        ids::{NodeNumber, PlanId, RingEpoch, Slot},
        raft::COMMAND_BYTES_MAX,
        ring::{Command, PlanCommand},
        table::Move,
    };

    #[test]
    fn the_largest_first_table_is_a_command() {
        let to = NodeNumber(999_999);
        let moves = (0..CELLS_MAX as u32).map(|cell| Move { slot: Slot(cell), position: 2, from: None, to });
        let plan = Command::ApplyPlan(PlanCommand {
            pool: PoolName::from("p".repeat(253).as_str()),
            base_epoch: RingEpoch(u64::MAX),
            replicas: ReplicaCount::MAX,
            degraded: false,
            moves: moves.collect(),
            reason: "first table".to_owned(),
            plan_id: PlanId(u128::MAX),
        });
        let bytes = serde_json::to_vec(&plan).expect("a command is text and numbers").len();
        assert!((COMMAND_BYTES_MAX / 2..COMMAND_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    }

    /// One that is right.
    pub fn config() -> ClusterConfig {
        let address = "a:1".to_owned();
        ClusterConfig {
            data_path: PathBuf::new(),
            name: "a".to_owned(),
            zone: String::new(),
            pool: PoolName::from(PoolName::DEFAULT),
            weight: Weight::DEFAULT,
            addresses: Addresses { grpc: address.clone(), http: address.clone(), cluster: address },
            version: String::new(),
            features: FeatureLevel(1),
            token: None,
            peers: Vec::new(),
            bootstrap_expect: 1,
            only_watches: false,
            cluster: None,
            replicas: ReplicaCount::new(3).expect("3 is allowed"),
            slots: SlotCount::new(16_384).expect("it is allowed"),
            cluster_name: "weir".to_owned(),
            force_new: false,
            max_voters: Some(5),
            policies: ClusterPolicies::default(),
            timers: ClusterTimers::default(),
            raft: RaftConfig::default(),
        }
    }

    #[test]
    fn is_judged() {
        let check = |change: fn(&mut ClusterConfig), expected: &str| {
            let mut config = config();
            change(&mut config);
            let found = config.validate().err().unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(|_| (), "");
        check(|config| config.name.clear(), "no name");
        check(|config| config.cluster_name.clear(), "the cluster has no name");
        check(|config| config.addresses.cluster.clear(), "no address");
        check(|config| config.bootstrap_expect = 0, "no cluster to be in");
        check(|config| config.only_watches = true, "does not found");
        check(|config| config.max_voters = Some(4), "has to be odd");
        check(|config| config.max_voters = Some(0), "has to be odd");
        check(|config| config.slots = SlotCount::MAX, "slots times replicas is 196608");
    }
}
