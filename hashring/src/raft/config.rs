//! Timers and limits of a Raft node, and who it is.

use std::time::Duration;

use super::{
    network::{self, RaftRequest, Refusal},
    types::RaftId,
};

/// Who a node is. All of it is decided before the node starts, and kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node among the members; used once in the life of a cluster.
    pub id: RaftId,
    /// The cluster. Requests of any other are refused.
    pub cluster: String,
    /// Counts how often the cluster was forced to begin anew from one node. Requests of another
    /// generation are refused, so those who were left behind disturb nobody.
    pub generation: u64,
}

impl Identity {
    /// Refuses requests that are not for this member.
    pub fn check(&self, request: &RaftRequest) -> Result<(), Refusal> {
        network::check_addressee(self, request)
    }
}

/// Timers and limits. The defaults suit members in several zones of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// The leader is heard of this often.
    pub heartbeat: Duration,
    /// The least time without a leader after which a voter stands for election.
    pub election_timeout_min: Duration,
    /// The most; each voter draws its own time between the two.
    pub election_timeout_max: Duration,
    /// How long sending a snapshot to a member may take.
    pub install_snapshot_timeout: Duration,
    /// A snapshot is taken after so many entries.
    pub snapshot_every_entries: u64,
    /// So many entries before a snapshot stay in the log: members that lag behind a little need no
    /// snapshot. At least twice `snapshot_every_entries`, so that the log still joins on to the
    /// snapshot before the last, should the last one turn out damaged.
    pub entries_kept: u64,
    /// A command without an answer for so long counts as unknown.
    pub propose_timeout: Duration,
    /// How long one change of the members may take, with waiting for the new member to catch up.
    pub change_timeout: Duration,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            heartbeat: Duration::from_millis(250),
            election_timeout_min: Duration::from_millis(1500),
            election_timeout_max: Duration::from_millis(3000),
            install_snapshot_timeout: Duration::from_secs(10),
            snapshot_every_entries: 500,
            entries_kept: 1000,
            propose_timeout: Duration::from_secs(10),
            change_timeout: Duration::from_secs(30),
        }
    }
}

impl RaftConfig {
    /// The library's configuration, or what is wrong with ours.
    pub(super) fn validate(&self) -> Result<openraft::Config, String> {
        if self.entries_kept < 2 * self.snapshot_every_entries {
            return Err("entries_kept is less than twice snapshot_every_entries".to_owned());
        }
        if self.snapshot_every_entries == 0 {
            return Err("snapshot_every_entries is 0".to_owned());
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "weir".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.election_timeout_max),
            install_snapshot_timeout: millis(self.install_snapshot_timeout),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.entries_kept,
            // A member further behind than the log reaches gets a snapshot at once.
            replication_lag_threshold: self.entries_kept,
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_judged() {
        let check = |change: fn(&mut RaftConfig), expected: &str| {
            let mut config = RaftConfig::default();
            change(&mut config);
            let found = config.validate().err().unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(|_| (), "");
        check(|config| config.entries_kept = 999, "entries_kept");
        check(|config| config.snapshot_every_entries = 0, "snapshot_every_entries is 0");
        check(|config| config.election_timeout_max = config.election_timeout_min, "election timeout");
        check(|config| config.heartbeat = config.election_timeout_min, "heartbeat");
    }
}
