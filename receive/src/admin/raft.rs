//! `weir ring raft`: the agreement below the ring.

use std::fmt;

use futures::future::join_all;
use serde::Serialize;
use weir_hashring::cluster::{ClusterStatus, RaftStatus};

use super::{
    client::{Client, Picture},
    error::AdminError,
    show::ago,
    table::Table,
};

/// The voters of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Voters {
    /// The name of the leader, if there is one.
    pub leader: Option<String>,
    /// How many voters have to agree.
    pub quorum: usize,
    /// The voters.
    pub voters: Vec<Voter>,
}

/// A voter as the list of nodes knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Voter {
    /// Its name; none if no node has its Raft id.
    pub name: Option<String>,
    /// Its identity.
    pub uid: Option<String>,
    /// Its identity in Raft, as 16 hexadecimal digits.
    pub raft_id: String,
    /// What it may fail with.
    pub zone: Option<String>,
    /// Its address for the cluster.
    pub address: Option<String>,
    /// Whether it leads.
    pub is_leader: bool,
}

/// What the voters of a cluster say of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RaftReport {
    /// The name of the leader, if there is one.
    pub leader: Option<String>,
    /// How many voters have to agree.
    pub quorum: usize,
    /// Milliseconds since a quorum last answered the leader.
    pub quorum_acked_ms_ago: Option<u64>,
    /// The voters.
    pub voters: Vec<VoterReport>,
}

/// What a voter says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VoterReport {
    /// Who it is.
    #[serde(flatten)]
    pub voter: Voter,
    /// `leader`, `follower`, `no voter` or `unreachable`.
    pub role: &'static str,
    /// The term it is in.
    pub term: Option<u64>,
    /// How many entries its log and snapshot reach.
    pub entries: Option<u64>,
    /// How many of them are in its ring.
    pub entries_applied: Option<u64>,
    /// The epoch of its ring.
    pub epoch: Option<u64>,
    /// Why it is not known.
    pub error: Option<String>,
}

/// What a picture knows of Raft.
fn raft_of(picture: &Picture) -> Result<&RaftStatus, AdminError> {
    let known = picture.best().raft.as_ref();
    known.ok_or_else(|| {
        let what = picture.leader.as_ref().err().cloned().unwrap_or_default();
        AdminError::NotPossible(format!("no voter is found: {what}; name one with --address"))
    })
}

/// The name of the leader.
pub fn leader_name(picture: &Picture) -> Option<String> {
    let leader = picture.best().raft.as_ref()?.leader?;
    Some(picture.node_of_raft(leader).map_or_else(|| raft_id_text(leader), |node| node.name.clone()))
}

/// How many of so many have to agree.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn raft_id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// The voters of a picture.
pub fn voters_of(picture: &Picture) -> Result<Voters, AdminError> {
    let raft = raft_of(picture)?;
    let voter = |&id: &u64| {
        let node = picture.node_of_raft(id);
        Voter {
            name: node.map(|node| node.name.clone()),
            uid: node.map(|node| node.uid.to_string()),
            raft_id: raft_id_text(id),
            zone: node.map(|node| node.zone.clone()),
            address: node.map(|node| node.addresses.cluster.clone()),
            is_leader: raft.leader == Some(id),
        }
    };
    Ok(Voters {
        leader: leader_name(picture),
        quorum: quorum(raft.voters.len()),
        voters: raft.voters.iter().map(voter).collect(),
    })
}

/// `weir ring raft voters`
pub async fn voters(client: &Client) -> Result<Voters, AdminError> {
    voters_of(&client.picture().await?)
}

/// What all voters show, in their order.
pub async fn ask_voters(client: &Client, voters: &Voters) -> Vec<Result<ClusterStatus, AdminError>> {
    let ask = async |voter: &Voter| match &voter.address {
        Some(address) => client.status_at(address).await,
        None => Err(AdminError::NotPossible("its address is not known".to_owned())),
    };
    join_all(voters.voters.iter().map(ask)).await
}

/// `weir ring raft status`
pub async fn raft_status(client: &Client) -> Result<RaftReport, AdminError> {
    let picture = client.picture().await?;
    let voters = voters_of(&picture)?;
    let answers = ask_voters(client, &voters).await;
    let leader = picture.leader.as_ref().ok().and_then(|leader| leader.raft.as_ref());
    Ok(RaftReport {
        leader: voters.leader.clone(),
        quorum: voters.quorum,
        quorum_acked_ms_ago: leader.and_then(|raft| raft.quorum_acked_ms_ago),
        voters: voters.voters.into_iter().zip(answers).map(|(voter, answer)| report(voter, answer)).collect(),
    })
}

fn report(voter: Voter, answer: Result<ClusterStatus, AdminError>) -> VoterReport {
    let (status, error) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let raft = status.as_ref().and_then(|status| status.raft.as_ref());
    let role = match raft {
        Some(raft) if raft.is_leader => "leader",
        Some(_) => "follower",
        None if status.is_some() => "no voter",
        None => "unreachable",
    };
    VoterReport {
        role,
        term: raft.map(|raft| raft.term),
        entries: raft.map(|raft| raft.entries),
        entries_applied: raft.map(|raft| raft.entries_applied),
        epoch: status.as_ref().map(|status| status.epoch.0),
        voter,
        error,
    }
}

fn title(out: &mut fmt::Formatter<'_>, leader: Option<&str>, quorum: usize, voters: usize) -> fmt::Result {
    write!(out, "leader {}, quorum {quorum} of {voters} voters", leader.unwrap_or("unknown"))
}

impl fmt::Display for Voters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(out, self.leader.as_deref(), self.quorum, self.voters.len())?;
        let mut table = Table::new(&["NAME", "RAFT ID", "UID", "ZONE", "ADDRESS", "LEADS"]);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        for voter in &self.voters {
            table.row([
                text(&voter.name),
                voter.raft_id.clone(),
                text(&voter.uid),
                text(&voter.zone),
                text(&voter.address),
                if voter.is_leader { "yes" } else { "" }.to_owned(),
            ]);
        }
        write!(out, "\n\n{table}")
    }
}

impl fmt::Display for RaftReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(out, self.leader.as_deref(), self.quorum, self.voters.len())?;
        if let Some(ms) = self.quorum_acked_ms_ago {
            write!(out, ", which last agreed {}", ago(ms))?;
        }
        let mut table =
            Table::new(&["NAME", "RAFT ID", "ROLE", ">TERM", ">ENTRIES", ">APPLIED", ">EPOCH", "ADDRESS"]);
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        for report in &self.voters {
            table.row([
                report.voter.name.clone().unwrap_or_default(),
                report.voter.raft_id.clone(),
                report.role.to_owned(),
                number(report.term),
                number(report.entries),
                number(report.entries_applied),
                number(report.epoch),
                report.voter.address.clone().unwrap_or_default(),
            ]);
        }
        write!(out, "\n\n{table}")?;
        for report in &self.voters {
            if let Some(error) = &report.error {
                let name = report.voter.name.as_ref().unwrap_or(&report.voter.raft_id);
                write!(out, "\nwarning: {name}: {error}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::leader_of_three, *};

    #[test]
    fn voters_are_listed_with_those_who_are_no_nodes() {
        let mut leader = leader_of_three();
        leader.raft.as_mut().expect("it votes").voters = vec![1, 3, 0xab];
        let picture = Picture { asked: leader.clone(), leader: Ok(leader) };
        let voters = voters_of(&picture).expect("they are known");
        let expected = "\
leader a, quorum 2 of 3 voters

NAME  RAFT ID           UID                               ZONE    ADDRESS  LEADS
a     0000000000000001  00000000000000000000000000000001  zone-a  a:10903  yes
c     0000000000000003  00000000000000000000000000000003  zone-c  c:10903  -
-     00000000000000ab  -                                 -       -        -
";
        assert_eq!(voters.to_string(), expected);
    }

    #[test]
    fn voters_tell_how_they_are() {
        let picture = Picture { asked: leader_of_three(), leader: Ok(leader_of_three()) };
        let voters = voters_of(&picture).expect("they are known").voters;
        let mut follower = leader_of_three();
        follower.raft.as_mut().expect("it votes").is_leader = false;
        let answers =
            [Ok(leader_of_three()), Ok(follower), Err(AdminError::NotPossible("it is off".to_owned()))];
        let report = RaftReport {
            leader: Some("a".to_owned()),
            quorum: 2,
            quorum_acked_ms_ago: Some(40),
            voters: voters.into_iter().zip(answers).map(|(voter, answer)| report(voter, answer)).collect(),
        };
        let expected = "\
leader a, quorum 2 of 3 voters, which last agreed 0.0s ago

NAME  RAFT ID           ROLE         TERM  ENTRIES  APPLIED  EPOCH  ADDRESS
a     0000000000000001  leader          2       12       12      5  a:10903
b     0000000000000002  follower        2       12       12      5  b:10903
c     0000000000000003  unreachable     -        -        -      -  c:10903

warning: c: it is off";
        assert_eq!(report.to_string(), expected);
        let json = serde_json::to_value(&report.voters[0]).expect("it is text and numbers");
        let expected = serde_json::json!({
            "name": "a", "uid": "00000000000000000000000000000001", "raft_id": "0000000000000001",
            "zone": "zone-a", "address": "a:10903", "is_leader": true, "role": "leader", "term": 2,
            "entries": 12, "entries_applied": 12, "epoch": 5, "error": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn more_than_half_have_to_agree() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }
}
