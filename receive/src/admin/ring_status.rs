//! `weir ring status`
//!
//! Whatever needs a person is a warning here, wherever it is known: what is wrong with pools, what nodes say of
//! their own part in the cluster, what the leader waits for with a node, and what only shows when voters are
//! compared.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use weir_hashring::{cluster::ClusterStatus, ring::NodeState};

use super::{
    client::{Client, Picture},
    error::AdminError,
    node_list::{NodeRow, rows},
    raft::{Voters, ask_voters, leader_name, voters_of},
    show::{ago, share},
    table::Table,
};

/// A leader that hears of no quorum for so many milliseconds leads nobody.
const QUORUM_WITHIN_MS: u64 = 5_000;

/// A cluster as its leader sees it, or the node that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RingStatus {
    /// Its identity, as 32 hexadecimal digits.
    pub cluster: Option<String>,
    /// How often its voters were set anew by force.
    pub generation: u64,
    /// The epoch of its ring.
    pub epoch: u64,
    /// The digest of its ring, as 16 hexadecimal digits.
    pub digest: String,
    /// Writes of earlier epochs are refused.
    pub min_write_epoch: u64,
    /// The name of the leader, if one is known.
    pub leader: Option<String>,
    /// The names of the voters; empty if no voter was found.
    pub voters: Vec<String>,
    /// How many voters have to agree.
    pub quorum: Option<usize>,
    /// Milliseconds since a quorum last answered the leader.
    pub quorum_acked_ms_ago: Option<u64>,
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// What needs a person.
    pub warnings: Vec<String>,
}

/// `weir ring status`
pub async fn ring_status(client: &Client) -> Result<RingStatus, AdminError> {
    let picture = client.picture().await?;
    let voters = voters_of(&picture).ok();
    let answers = match &voters {
        Some(voters) => ask_voters(client, voters).await,
        None => Vec::new(),
    };
    Ok(compose(&picture, voters.as_ref(), &answers))
}

fn compose(
    picture: &Picture,
    voters: Option<&Voters>,
    answers: &[Result<ClusterStatus, AdminError>],
) -> RingStatus {
    let best = picture.best();
    let leader = picture.leader.as_ref().ok().and_then(|leader| leader.raft.as_ref());
    let voter_names = voters.iter().flat_map(|voters| &voters.voters);
    RingStatus {
        cluster: best.cluster.map(|cluster| cluster.to_string()),
        generation: best.generation,
        epoch: best.epoch.0,
        digest: best.digest.to_string(),
        min_write_epoch: best.min_write_epoch.0,
        leader: leader_name(picture),
        voters: voter_names
            .map(|voter| voter.name.clone().unwrap_or_else(|| voter.raft_id.clone()))
            .collect(),
        quorum: voters.map(|voters| voters.quorum),
        quorum_acked_ms_ago: leader.and_then(|raft| raft.quorum_acked_ms_ago),
        nodes: rows(picture),
        warnings: warnings(picture, voters, answers),
    }
}

fn warnings(
    picture: &Picture,
    voters: Option<&Voters>,
    answers: &[Result<ClusterStatus, AdminError>],
) -> Vec<String> {
    let mut warnings = Vec::new();
    match &picture.leader {
        Err(what) => warnings.push(format!(
            "the leader is not reached ({what}); without one writes go on, and nothing of the ring changes"
        )),
        Ok(leader) => {
            let acked = leader.raft.as_ref().and_then(|raft| raft.quorum_acked_ms_ago);
            if acked.is_none_or(|ms| ms > QUORUM_WITHIN_MS) {
                let since = acked.map_or_else(|| "not yet".to_owned(), |ms| format!("last {}", ago(ms)));
                warnings.push(format!("no quorum answers the leader ({since}); nothing of the ring changes"));
            }
        }
    }
    if let Some(count) = voters.map(|voters| voters.voters.len()).filter(|count| count % 2 == 0) {
        warnings.push(format!("{count} voters bear no more losses than {}", count - 1));
    }
    let named = voters.iter().flat_map(|voters| &voters.voters).zip(answers);
    for (voter, answer) in named {
        let name = voter.name.as_ref().unwrap_or(&voter.raft_id);
        match answer {
            Ok(status) => warnings.extend(differs(picture.best(), name, status)),
            Err(error) => warnings.push(format!("voter {name} does not answer here: {error}")),
        }
    }
    warnings.extend(problems_of_nodes(picture, answers));
    for pool in &picture.best().pools {
        warnings.extend(pool.problems.iter().map(|problem| format!("pool {}: {problem}", pool.name)));
    }
    warnings.extend(node_warnings(picture));
    warnings
}

/// What the nodes that answered say of their own part in the cluster. What several say stands there once.
fn problems_of_nodes(picture: &Picture, answers: &[Result<ClusterStatus, AdminError>]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    let answered = answers.iter().filter_map(|answer| answer.as_ref().ok());
    for status in [&picture.asked, picture.best()].into_iter().chain(answered) {
        if !seen.insert(status.uid) {
            continue;
        }
        for problem in &status.problems {
            match said.iter_mut().find(|(known, _)| known == problem) {
                Some((_, names)) => names.push(&status.name),
                None => said.push((problem, vec![&status.name])),
            }
        }
    }
    said.into_iter().map(|(problem, names)| format!("{}: {problem}", names.join(", "))).collect()
}

/// Two voters have different rings, which must never happen.
fn differs(best: &ClusterStatus, name: &str, other: &ClusterStatus) -> Option<String> {
    if other.cluster != best.cluster {
        return Some(format!("voter {name} is in another cluster"));
    }
    let is_same =
        other.epoch != best.epoch || other.generation != best.generation || other.digest == best.digest;
    (!is_same).then(|| {
        format!(
            "voter {name} has another ring of epoch {}: digest {}, not {}",
            best.epoch, other.digest, best.digest
        )
    })
}

fn node_warnings(picture: &Picture) -> Vec<String> {
    let mut warnings = Vec::new();
    for node in picture.nodes() {
        let name = &node.name;
        // Of these the problems of their pool tell.
        if node.state == NodeState::Lost {
            continue;
        }
        let namesake = picture.nodes().iter().find(|other| other.name == *name && other.uid < node.uid);
        if let Some(namesake) = namesake {
            warnings.push(format!("{} and {} are both named {name}", namesake.uid, node.uid));
        }
        if picture.leader.is_err() {
            continue;
        }
        if let Some(waiting) = node.waiting.as_ref().filter(|_| node.needs_person) {
            warnings.push(format!("{name}: {waiting}"));
            continue;
        }
        match &node.report {
            None => warnings.push(format!("{name} has not been heard of since this leader leads")),
            Some(report) if !report.lives => {
                warnings.push(format!("{name} was last heard of {}", ago(report.ms_ago)));
            }
            Some(report) if !report.ready => {
                warnings.push(format!("{name} is not ready; meanwhile nothing is moved"));
            }
            Some(report) if report.holds_moves_back => warnings.push(format!(
                "{name} has {} of {} series; meanwhile nothing is moved",
                report.head_series, report.head_series_max
            )),
            Some(_) => {}
        }
    }
    warnings
}

impl fmt::Display for RingStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "unknown".to_owned();
        writeln!(out, "cluster     {}", self.cluster.clone().unwrap_or_else(unknown))?;
        writeln!(out, "generation  {}", self.generation)?;
        writeln!(out, "epoch       {} (writes from {} on)", self.epoch, self.min_write_epoch)?;
        writeln!(out, "digest      {}", self.digest)?;
        writeln!(out, "leader      {}", self.leader.clone().unwrap_or_else(unknown))?;
        match self.quorum {
            Some(quorum) => {
                let (voters, count) = (self.voters.join(", "), self.voters.len());
                let acked = self.quorum_acked_ms_ago.map(|ms| format!(", last agreed {}", ago(ms)));
                writeln!(out, "voters      {voters}")?;
                writeln!(out, "quorum      {quorum} of {count}{}", acked.unwrap_or_default())?;
            }
            None => writeln!(out, "voters      unknown")?,
        }
        let mut table = Table::new(&["NODE", "ZONE", "POOL", "STATE", ">SLOTS", ">SHARE", "READY", ">HEARD"]);
        for node in &self.nodes {
            table.row([
                node.name.clone(),
                node.zone.clone(),
                node.pool.clone(),
                node.state.to_owned(),
                node.slots.to_string(),
                share(node.share),
                node.ready.map_or("", |ready| if ready { "yes" } else { "no" }).to_owned(),
                node.heard_ms_ago.map(ago).unwrap_or_default(),
            ]);
        }
        write!(out, "\n{table}")?;
        let waiting = self.nodes.iter().filter_map(|node| Some((&node.name, node.waiting.as_ref()?)));
        for (name, waiting) in waiting {
            write!(out, "\nwaiting: {name}: {waiting}")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(out, "\nwarning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use weir_hashring::{
        cluster::PoolStatus,
        ids::{ClusterId, Digest, PoolName, RingEpoch, Uid},
    };

    use super::{super::samples::leader_of_three, *};

    fn status(
        change: impl FnOnce(&mut ClusterStatus),
        change_voter: impl FnOnce(&mut ClusterStatus),
    ) -> RingStatus {
        let mut leader = leader_of_three();
        change(&mut leader);
        let mut voter = leader.clone();
        change_voter(&mut voter);
        let picture = Picture { asked: leader.clone(), leader: Ok(leader.clone()) };
        let voters = voters_of(&picture).expect("they are known");
        compose(&picture, Some(&voters), &[Ok(leader.clone()), Ok(voter), Ok(leader)])
    }

    #[test]
    fn a_cluster_that_is_well() {
        let expected = "\
cluster     07070707070707070707070707070707
generation  0
epoch       5 (writes from 0 on)
digest      000000000000feed
leader      a
voters      a, b, c
quorum      2 of 3, last agreed 0.0s ago

NODE  ZONE    POOL     STATE   SLOTS  SHARE  READY     HEARD
a     zone-a  default  active   4096  33.3%  yes    1.2s ago
b     zone-b  default  active   4096  33.3%  yes    1.2s ago
c     zone-c  default  active   4096  33.3%  yes    1.2s ago
";
        assert_eq!(status(|_| (), |_| ()).to_string(), expected);
    }

    #[test]
    fn what_needs_a_person_is_told() {
        let check = |change: fn(&mut ClusterStatus), expected: &[&str]| {
            assert_eq!(status(change, |_| ()).warnings, expected);
        };
        check(|_| (), &[]);
        check(
            |leader| leader.raft.as_mut().expect("it votes").quorum_acked_ms_ago = Some(5_001),
            &["no quorum answers the leader (last 5.0s ago); nothing of the ring changes"],
        );
        check(
            |leader| leader.raft.as_mut().expect("it votes").quorum_acked_ms_ago = None,
            &["no quorum answers the leader (not yet); nothing of the ring changes"],
        );
        check(
            |leader| leader.raft.as_mut().expect("it votes").voters.truncate(2),
            &["2 voters bear no more losses than 1"],
        );
        check(|leader| leader.nodes[1].report = None, &["b has not been heard of since this leader leads"]);
        check(
            |leader| {
                let report = leader.nodes[1].report.as_mut().expect("it reported");
                (report.lives, report.ms_ago) = (false, 30_000);
            },
            &["b was last heard of 30s ago"],
        );
        check(
            |leader| leader.nodes[1].report.as_mut().expect("it reported").ready = false,
            &["b is not ready; meanwhile nothing is moved"],
        );
        check(
            |leader| {
                let report = leader.nodes[1].report.as_mut().expect("it reported");
                (report.holds_moves_back, report.head_series_max) = (true, 1111);
            },
            &["b has 1000 of 1111 series; meanwhile nothing is moved"],
        );
        fn pool(leader: &mut ClusterStatus, problem: &str) {
            let (name, problems) = (PoolName::from("default"), vec![problem.to_owned()]);
            leader.pools.push(PoolStatus { name, nodes: 2, members: 2, replicas: None, problems });
        }
        check(|leader| pool(leader, "writes are refused"), &["pool default: writes are refused"]);
        // The leader has told of the pool; nothing is said twice.
        check(
            |leader| {
                pool(leader, "node b is lost");
                leader.nodes[1].state = NodeState::Lost;
                (leader.nodes[1].waiting, leader.nodes[1].needs_person) = (Some("x".to_owned()), true);
            },
            &["pool default: node b is lost"],
        );
        check(
            |leader| {
                leader.nodes[1].report = None;
                (leader.nodes[1].waiting, leader.nodes[1].needs_person) =
                    (Some("it is silent".to_owned()), true);
            },
            &["b: it is silent"],
        );
        check(|leader| leader.nodes[1].waiting = Some("readers".to_owned()), &[]);
        check(|leader| leader.problems.push("too hot".to_owned()), &["a: too hot"]);
        check(
            |leader| leader.nodes[1].name = "a".to_owned(),
            &["00000000000000000000000000000001 and 00000000000000000000000000000002 are both named a"],
        );
    }

    #[test]
    fn what_nodes_say_of_themselves_stands_there_once() {
        let of = |uid, name: &str, problems: &[&str]| ClusterStatus {
            uid: Uid(uid),
            name: name.to_owned(),
            problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
            ..leader_of_three()
        };
        let (a, b, c) = (of(1, "a", &["x"]), of(2, "b", &["y", "x"]), of(3, "c", &["x"]));
        let picture = Picture { asked: b.clone(), leader: Ok(a.clone()) };
        let lost = AdminError::NoCluster("d".to_owned());
        let found = problems_of_nodes(&picture, &[Ok(a), Err(lost), Ok(b), Ok(c)]);
        assert_eq!(found, ["b: y", "b, a, c: x"]);
    }

    #[test]
    fn who_waits_is_told() {
        let found = status(|leader| leader.nodes[1].waiting = Some("readers learn of it".to_owned()), |_| ());
        assert!(found.to_string().ends_with("\nwaiting: b: readers learn of it"), "{found}");
    }

    #[test]
    fn two_rings_of_one_epoch_are_an_alarm() {
        let check = |change: fn(&mut ClusterStatus), expected: &[&str]| {
            assert_eq!(status(|_| (), change).warnings, expected);
        };
        check(
            |voter| voter.digest = Digest(1),
            &["voter b has another ring of epoch 5: digest 0000000000000001, not 000000000000feed"],
        );
        check(|voter| (voter.epoch, voter.digest) = (RingEpoch(4), Digest(1)), &[]);
        check(|voter| voter.cluster = Some(ClusterId([8; 16])), &["voter b is in another cluster"]);
    }

    #[test]
    fn without_a_leader_there_is_what_a_node_knows() {
        let mut asked = leader_of_three();
        asked.raft = None;
        asked.nodes.iter_mut().for_each(|node| node.report = None);
        let picture = Picture { asked, leader: Err("nobody is there".to_owned()) };
        let found = compose(&picture, None, &[]);
        assert_eq!((found.epoch, found.leader.clone(), found.quorum), (5, None, None));
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        assert!(found.warnings[0].contains("(nobody is there)"));
        assert!(found.to_string().contains("voters      unknown\n"));
    }
}
