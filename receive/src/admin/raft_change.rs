//! `weir ring raft promote`, `demote`, `autopilot`, `snapshot` and `force-new`: changes below the ring.

use std::{fmt, path::Path};

use serde::Serialize;
use weir_hashring::{
    cluster::{AUTOPILOT_SETTING, AdminAnswer, AdminQuestion, force_new},
    ring::{Applied, Command},
};

use super::{
    args::Consent,
    change::{ChangePlan, Done},
    client::Client,
    console::Output,
    error::AdminError,
    names::find_node,
};

/// `weir ring raft promote` and `demote`
pub async fn set_voter(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    votes: bool,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let node = find_node(picture.nodes(), name)?;
    let change = format!("{} ({}) {}", node.name, node.uid, if votes { "votes" } else { "only watches" });
    let steps = vec!["the voters change in one step; the ring stays as it is".to_owned()];
    let plan = ChangePlan { change, steps, warnings: Vec::new(), forecast: None };
    if output.confirm(&plan, consent)? {
        let uid = node.uid;
        let question = if votes { AdminQuestion::Promote { uid } } else { AdminQuestion::Demote { uid } };
        done(client.administer(&picture, &question).await?)?;
        output.report(&Done::new(plan.change, Applied::Done));
    }
    Ok(())
}

/// `weir ring raft autopilot`
pub async fn set_autopilot(
    client: &Client,
    output: &mut Output<'_>,
    is_on: bool,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let (change, step) = match is_on {
        true => ("the leader chooses the voters", "it may change them at once"),
        false => ("people choose the voters", "a voter that dies is not replaced by itself"),
    };
    let (change, steps) = (change.to_owned(), vec![step.to_owned()]);
    let plan = ChangePlan { change, steps, warnings: Vec::new(), forecast: None };
    if output.confirm(&plan, consent)? {
        let value = (!is_on).then(|| "off".to_owned());
        let command = Command::SetConfig { key: AUTOPILOT_SETTING.to_owned(), value, if_version: None };
        let applied = client.propose(&picture, &command, false).await?;
        output.report(&Done::new(plan.change, applied));
    }
    Ok(())
}

/// `weir ring raft snapshot`
pub async fn snapshot(client: &Client, output: &mut Output<'_>) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    done(client.administer(&picture, &AdminQuestion::Snapshot).await?)?;
    output.report(&Done::new("the leader has taken a snapshot".to_owned(), Applied::Done));
    Ok(())
}

fn done(answer: AdminAnswer) -> Result<(), AdminError> {
    match answer {
        AdminAnswer::Done => Ok(()),
        other => Err(AdminError::NotPossible(format!("the leader answered something else: {other:?}"))),
    }
}

/// The cluster that begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forced {
    /// The node that it begins from.
    pub uid: String,
    /// The cluster.
    pub cluster: String,
    /// Its generation.
    pub generation: u64,
    /// The epoch of its ring.
    pub epoch: u64,
    /// The digest of its ring.
    pub digest: String,
}

impl fmt::Display for Forced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, cluster, generation, epoch, .. } = self;
        write!(
            out,
            "cluster {cluster} begins generation {generation} from node {uid}, with the ring of epoch {epoch}; \
             start the node, then the others: they follow it"
        )
    }
}

/// `weir ring raft force-new`; works on the directory of a node that is stopped, and asks nobody.
pub async fn force(output: &mut Output<'_>, data_path: &Path, consent: Consent) -> Result<(), AdminError> {
    let plan = ChangePlan {
        change: format!("the cluster begins anew from the node in {}", data_path.display()),
        steps: vec![
            "this node is its only voter; the leader makes voters of others as they come".to_owned(),
            "nodes of the generation before follow it when they meet it".to_owned(),
        ],
        warnings: vec!["only for a cluster whose voters are gone for good, and on one node only".to_owned()],
        forecast: None,
    };
    if !output.confirm(&plan, consent)? {
        return Ok(());
    }
    let path = data_path.to_owned();
    let forced = tokio::task::spawn_blocking(move || force_new(&path)).await;
    let forced = forced
        .map_err(|error| error.to_string())
        .and_then(|forced| forced.map_err(|error| error.to_string()));
    let forced = forced.map_err(AdminError::NotPossible)?;
    output.report(&Forced {
        uid: forced.uid.to_string(),
        cluster: forced.cluster.to_string(),
        generation: forced.generation,
        epoch: forced.epoch.0,
        digest: forced.digest.to_string(),
    });
    Ok(())
}
