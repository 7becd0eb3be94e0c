//! `weir node drain`

use std::{fmt, time::Duration};

use serde::Serialize;
use tokio::time::sleep;
use weir_hashring::{
    cluster::NodeStatus,
    ids::Uid,
    ring::{Command, NodeState},
};

use super::{
    args::{Consent, Pace},
    change::{ChangePlan, forecast_with},
    client::{Client, Picture},
    console::Output,
    error::AdminError,
    names::find_node,
    node_list::state_text,
};

/// Between two looks at a node that drains, which takes minutes.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks at which no node answered, it is given up.
const FAILURES_MAX: u32 = 60;

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draining {
    /// The node.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Where it is in its life.
    pub state: &'static str,
    /// How many slots it still has.
    pub slots: u32,
    /// What it waits for, in the words of the leader.
    pub waiting: Option<String>,
    /// All it had is elsewhere: machine and disk may go.
    pub safe_to_delete: bool,
}

impl Draining {
    fn of(node: &NodeStatus) -> Self {
        Self {
            name: node.name.clone(),
            uid: node.uid.to_string(),
            state: state_text(node.state),
            slots: node.slots,
            waiting: node.waiting.clone(),
            safe_to_delete: matches!(node.state, NodeState::Drained | NodeState::Left),
        }
    }
}

impl fmt::Display for Draining {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, state, slots, waiting, safe_to_delete, .. } = self;
        match (safe_to_delete, slots) {
            (true, _) => write!(out, "{name} is {state}: safe to delete"),
            (false, 0) if let Some(waiting) = waiting => write!(out, "{name} is {state}: {waiting}"),
            (false, 0) => write!(out, "{name} is {state}: no slots left; its data is being cut and uploaded"),
            (false, slots) => write!(out, "{name} is {state}: {slots} slots left"),
        }
    }
}

/// `weir node drain`
pub async fn drain(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    wait: bool,
    pace: Pace,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let node = find_node(picture.nodes(), name)?;
    let mut shown = Draining::of(node);
    match node.state {
        NodeState::Active => {
            let plan = drain_plan(client, node, pace).await?;
            if !output.confirm(&plan, consent)? {
                return Ok(());
            }
            let command = Command::SetNodeState {
                uid: node.uid,
                from: NodeState::Active,
                to: NodeState::Draining,
                reason: "drained by an administrator".to_owned(),
            };
            client.propose(&picture, &command, false).await?;
            shown.state = state_text(NodeState::Draining);
        }
        NodeState::Draining | NodeState::Drained | NodeState::Left => {}
        NodeState::Joining => {
            let what = format!("{name} is still joining and has no slots: weir node forget takes it back");
            return Err(AdminError::NotPossible(what));
        }
        NodeState::Lost => return Err(AdminError::Lost(node.uid)),
    }
    if wait && !consent.dry_run {
        shown = follow(client, output, &picture, node.uid, shown).await?;
    }
    output.report(&shown);
    Ok(())
}

async fn drain_plan(client: &Client, node: &NodeStatus, pace: Pace) -> Result<ChangePlan, AdminError> {
    let state = client.ring().await?;
    let name = &node.name;
    let forecast = forecast_with(&state, node, pace, None).map_err(|error| match error {
        AdminError::Plan(error) => {
            AdminError::NotPossible(format!("{name} cannot be drained, its slots would stay: {error}"))
        }
        other => other,
    })?;
    let step = |text: &str| text.to_owned();
    Ok(ChangePlan {
        change: format!("{name} ({}) is drained", node.uid),
        steps: vec![
            step("it becomes draining; the leader moves its slots to others in waves, and writes follow"),
            step("it is still read from while its data is cut into blocks and uploaded"),
            step("when it is drained, machine and disk may be deleted (--wait waits for it)"),
        ],
        warnings: Vec::new(),
        forecast: Some(forecast),
    })
}

/// Looks at the node until it can be deleted. Its own address, if it is the one that was named, goes
/// with it, so the others are asked too.
async fn follow(
    client: &Client,
    output: &mut Output<'_>,
    picture: &Picture,
    uid: Uid,
    mut shown: Draining,
) -> Result<Draining, AdminError> {
    let mut clients = vec![client.clone()];
    let others = picture.nodes().iter().filter(|node| node.uid != uid);
    clients.extend(others.map(|node| client.at(&node.addresses.cluster)));
    let (mut failures, mut has_begun) = (0, false);
    output.tell(&shown.to_string());
    loop {
        match look(&clients[0], uid, &shown).await {
            Ok(now) => {
                (failures, has_begun) = (0, true);
                if now != shown {
                    output.tell(&now.to_string());
                }
                shown = now;
                if shown.safe_to_delete {
                    return Ok(shown);
                }
            }
            Err(error @ AdminError::Lost(_)) => return Err(error),
            // Before, it is one who has not heard of the drain.
            Err(error @ AdminError::NotPossible(_)) if has_begun => return Err(error),
            Err(error) => {
                failures += 1;
                if failures >= FAILURES_MAX {
                    return Err(error);
                }
                output.tell(&format!("{error}; another node is asked"));
                clients.rotate_left(1);
            }
        }
        sleep(LOOK).await;
    }
}

async fn look(client: &Client, uid: Uid, before: &Draining) -> Result<Draining, AdminError> {
    let picture = client.picture().await?;
    if let Some(node) = picture.nodes().iter().find(|node| node.uid == uid) {
        return match node.state {
            NodeState::Lost => Err(AdminError::Lost(uid)),
            NodeState::Active => {
                Err(AdminError::NotPossible(format!("{} is active: the drain was taken back", node.name)))
            }
            _ => Ok(Draining::of(node)),
        };
    }
    let state = client.ring().await?;
    match state.tombstone(uid).map(|tombstone| tombstone.state) {
        Some(state @ NodeState::Left) => {
            Ok(Draining { state: state_text(state), slots: 0, safe_to_delete: true, ..before.clone() })
        }
        Some(_) => Err(AdminError::Lost(uid)),
        None => Err(AdminError::NoRing(format!("{} is not known there", before.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::node, *};

    #[test]
    fn how_far_a_drain_is() {
        let check = |state, slots, expected: &str| {
            let shown = Draining::of(&NodeStatus { state, slots, ..node(1, "a") });
            assert_eq!(shown.to_string(), expected);
            assert_eq!(shown.safe_to_delete, expected.ends_with("safe to delete"));
        };
        check(NodeState::Draining, 12, "a is draining: 12 slots left");
        check(NodeState::Draining, 0, "a is draining: no slots left; its data is being cut and uploaded");
        check(NodeState::Drained, 0, "a is drained: safe to delete");
    }
}
