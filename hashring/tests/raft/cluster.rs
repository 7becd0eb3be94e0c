//! Members in one process, each with a directory of its own, on a network in memory.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use weir_hashring::raft::{
    Identity, Machine, Peer, ProposeError, RaftConfig, RaftId, RaftNode, RestoreError, StartError, Status,
    memory::MemoryNetwork,
};

/// How long a state is waited for: far beyond what any needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Remembers every command in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub lines: Vec<String>,
}

impl Machine for Ledger {
    type Command = String;
    type Answer = usize;

    fn apply(&mut self, command: String) -> usize {
        self.lines.push(command);
        self.lines.len()
    }

    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn restore(bytes: &[u8]) -> Result<Ledger, RestoreError> {
        serde_json::from_slice(bytes).map_err(|error| RestoreError(error.to_string()))
    }
}

pub struct Cluster {
    pub network: MemoryNetwork,
    pub nodes: BTreeMap<u64, RaftNode<Ledger>>,
    pub config: RaftConfig,
    /// Commands that were answered, in the order of the answers.
    pub acked: Vec<String>,
    dir: tempfile::TempDir,
}

/// Everything happens sooner than by default.
pub fn quick_config() -> RaftConfig {
    RaftConfig {
        heartbeat: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(700),
        election_timeout_max: Duration::from_millis(1400),
        snapshot_every_entries: 20,
        entries_kept: 40,
        ..RaftConfig::default()
    }
}

pub fn peer(id: u64) -> Peer {
    Peer { id: RaftId(id), address: format!("node-{id}:10903") }
}

pub fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<RaftId> {
    numbers.into_iter().map(RaftId).collect()
}

impl Cluster {
    /// Nodes that are in no cluster yet.
    pub async fn start(size: u64) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let network = MemoryNetwork::default();
        let nodes = BTreeMap::new();
        let mut cluster = Cluster { network, nodes, config: quick_config(), acked: Vec::new(), dir };
        for id in 1..=size {
            cluster.start_node(id).await;
        }
        cluster
    }

    /// A cluster with a leader.
    pub async fn found(size: u64) -> Cluster {
        Cluster::found_with(size, |_| ()).await
    }

    /// A cluster with a leader that keeps it however slow the machine is.
    pub async fn found_steady(size: u64) -> Cluster {
        let steady = |config: &mut RaftConfig| {
            config.election_timeout_min = PATIENCE;
            config.election_timeout_max = 2 * PATIENCE;
        };
        Cluster::found_with(size, steady).await
    }

    /// A cluster with a leader and a configuration of its own.
    pub async fn found_with(size: u64, configure: impl FnOnce(&mut RaftConfig)) -> Cluster {
        let mut cluster = Cluster::start(0).await;
        configure(&mut cluster.config);
        for id in 1..=size {
            cluster.start_node(id).await;
        }
        let founders: Vec<Peer> = (1..=size).map(peer).collect();
        cluster.nodes[&1].initialize(&founders).await.unwrap();
        cluster
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    pub async fn try_start_node(&mut self, id: u64, generation: u64) -> Result<(), StartError> {
        let identity = Identity { id: RaftId(id), cluster: "test".to_owned(), generation };
        let config = self.config.clone();
        let node = RaftNode::start(config, identity, &self.path(id), self.network.clone()).await?;
        self.network.connect(&node);
        self.nodes.insert(id, node);
        Ok(())
    }

    pub async fn start_node(&mut self, id: u64) {
        self.try_start_node(id, 1).await.unwrap();
    }

    pub async fn stop_node(&mut self, id: u64) {
        self.network.disconnect(RaftId(id));
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    /// Waits until a node's status is as wanted.
    pub async fn wait(&self, id: u64, what: &str, is_wanted: impl FnMut(&Status) -> bool) -> Status {
        let found = tokio::time::timeout(PATIENCE, self.nodes[&id].wait_for_status(is_wanted)).await;
        let all: Vec<Status> = self.nodes.values().map(RaftNode::status).collect();
        found.unwrap_or_else(|_| panic!("{id} waits until {what}: {all:#?}")).expect("the node runs")
    }

    /// The leader that all of these nodes follow.
    pub async fn leader_of(&self, among: &[u64]) -> u64 {
        loop {
            let mut leaders = Vec::new();
            for &id in among {
                let is_led = |status: &Status| status.leader.is_some_and(|leader| among.contains(&leader.0));
                leaders.push(self.wait(id, "it is led", is_led).await.leader);
            }
            leaders.dedup();
            if let [Some(leader)] = leaders[..]
                && self.nodes[&leader.0].status().is_leader
            {
                return leader.0;
            }
        }
    }

    pub async fn leader(&self) -> u64 {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        self.leader_of(&all).await
    }

    /// Has commands applied by whoever leads among these; tries again where that is safe.
    pub async fn propose(&mut self, among: &[u64], commands: impl IntoIterator<Item = String>) {
        for command in commands {
            loop {
                let leader = self.leader_of(among).await;
                match self.nodes[&leader].propose(&command).await {
                    Ok(_) => break,
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(error) => panic!("{command}: {error}"),
                }
            }
            self.acked.push(command);
        }
    }

    pub async fn propose_to_all(&mut self, commands: impl IntoIterator<Item = String>) {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        self.propose(&all, commands).await;
    }

    /// Waits until all of these nodes have applied all there is; they must agree, and what was
    /// answered must be there once and in order.
    pub async fn check_agreement(&self, among: &[u64]) -> Vec<String> {
        let leader = self.leader_of(among).await;
        tokio::time::timeout(PATIENCE, self.nodes[&leader].read_barrier()).await.unwrap().unwrap();
        let entries = self.nodes[&leader].watch().borrow().entries_applied;
        let mut ledgers = Vec::new();
        for id in among {
            let mut watch = self.nodes[id].watch();
            let caught_up =
                tokio::time::timeout(PATIENCE, watch.wait_for(|state| state.entries_applied >= entries));
            ledgers.push(caught_up.await.unwrap().unwrap().machine.lines.clone());
        }
        for ledger in &ledgers {
            assert_eq!(ledger, &ledgers[0]);
        }
        let mut lines = ledgers.swap_remove(0);
        let found = lines.clone();
        lines.retain(|line| self.acked.contains(line));
        assert_eq!(lines, self.acked);
        found
    }

    pub async fn check_all(&self) -> Vec<String> {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        self.check_agreement(&all).await
    }

    pub async fn stop(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop_node(id).await;
        }
    }
}

pub fn numbered(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what} {number}")).collect()
}
