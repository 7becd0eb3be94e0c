//! What changes a node at once: undrain, replace, forget, weight.

use std::fmt;

use serde::Serialize;
use weir_hashring::{
    cluster::NodeStatus,
    ids::Weight,
    planner::{Goal, Member},
    ring::{Applied, Command, NodeState, NodeUpdate, RingState},
};

use super::{
    args::{Consent, Pace},
    client::{Client, Picture},
    console::Output,
    error::AdminError,
    forecast::{Forecast, Wish},
    names::find_node,
    show::ago,
};

/// What would be done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangePlan {
    /// In one line.
    pub change: String,
    /// What comes of it, one after the other.
    pub steps: Vec<String>,
    /// What one should think about.
    pub warnings: Vec<String>,
    /// What moves; none if nothing does.
    pub forecast: Option<Forecast>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// False if it was so already.
    pub changed: bool,
    /// In one line.
    pub change: String,
    /// The epoch that it led to; none if the mapping did not change at once.
    pub epoch: Option<u64>,
}

impl Done {
    /// What came of a command.
    pub fn new(change: String, applied: Applied) -> Self {
        let epoch = match applied {
            Applied::Ring { epoch, .. } => Some(epoch.0),
            _ => None,
        };
        Self { changed: applied != Applied::Unchanged, change, epoch }
    }
}

impl fmt::Display for ChangePlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.change)?;
        for (number, step) in (1..).zip(&self.steps) {
            write!(out, "\n  {number}. {step}")?;
        }
        if let Some(forecast) = &self.forecast {
            write!(out, "\n\n{forecast}")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(out, "\nwarning: {warning}"))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.changed { "done" } else { "it was so already" };
        write!(out, "{done}: {}", self.change)?;
        self.epoch.map_or(Ok(()), |epoch| write!(out, ", in epoch {epoch}"))
    }
}

/// What the ring would move if the nodes that may own slots were others.
///
/// # Errors
/// If there is no plan.
pub fn forecast_with(
    state: &RingState,
    node: &NodeStatus,
    pace: Pace,
    weight: Option<u32>,
) -> Result<Forecast, AdminError> {
    let mut wish = Wish::as_it_is(state, &node.pool, Goal::Settle)?;
    wish.members.retain(|member| member.number != node.number);
    if let Some(weight) = weight.and_then(Weight::new) {
        wish.members.push(Member { number: node.number, zone: node.zone.clone(), weight });
    }
    wish.forecast(state, pace)
}

/// A forecast to be shown with a change that is made all the same: if there is none, that is a warning.
fn advisory(
    forecast: Result<Forecast, AdminError>,
    warnings: &mut Vec<String>,
) -> Result<Option<Forecast>, AdminError> {
    match forecast {
        Ok(forecast) => Ok(Some(forecast)),
        Err(AdminError::Plan(error)) => {
            warnings.push(format!("no slot moves until that can be planned: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Shows a plan, asks, has the command applied and tells what came of it.
async fn carry_out(
    client: &Client,
    output: &mut Output<'_>,
    picture: &Picture,
    plan: ChangePlan,
    command: Command,
    force: bool,
    consent: Consent,
) -> Result<(), AdminError> {
    if output.confirm(&plan, consent)? {
        let applied = client.propose(picture, &command, force).await?;
        output.report(&Done::new(plan.change, applied));
    }
    Ok(())
}

/// `weir node undrain`
pub async fn undrain(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    pace: Pace,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let node = find_node(picture.nodes(), name)?;
    let change = format!("{} takes slots again", node.name);
    match node.state {
        NodeState::Draining => {}
        NodeState::Active => {
            output.report(&Done::new(change, Applied::Unchanged));
            return Ok(());
        }
        state => {
            let what = format!("{} is {state:?}: only a draining node goes back", node.name);
            return Err(AdminError::NotPossible(what));
        }
    }
    let state = client.ring().await?;
    let mut warnings = Vec::new();
    let forecast = advisory(forecast_with(&state, node, pace, Some(node.weight)), &mut warnings)?;
    let steps = vec!["it becomes active; the leader moves its share of slots to it in waves".to_owned()];
    let plan = ChangePlan { change, steps, warnings, forecast };
    let command = Command::SetNodeState {
        uid: node.uid,
        from: NodeState::Draining,
        to: NodeState::Active,
        reason: "undrained by an administrator".to_owned(),
    };
    carry_out(client, output, &picture, plan, command, false, consent).await
}

/// `weir node replace`
pub async fn replace(
    client: &Client,
    output: &mut Output<'_>,
    names: [&str; 2],
    force: bool,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let [old, new] = names.map(|name| find_node(picture.nodes(), name));
    let (old, new) = (old?, new?);
    let warnings = judge_replacement(old, new, force)?;
    let plan = ChangePlan {
        change: format!("{} ({}) replaces {} ({})", new.name, new.uid, old.name, old.uid),
        steps: vec![
            format!("{} gets all {} slots of {} at once; nothing else moves", new.name, old.slots, old.name),
            "the old node is lost for good: if it comes back, it stops".to_owned(),
        ],
        warnings,
        forecast: None,
    };
    let command = Command::ReplaceNode { dead: old.uid, new: new.uid, force, at: None };
    carry_out(client, output, &picture, plan, command, force, consent).await
}

/// What one should think about, if it is possible at all.
fn judge_replacement(old: &NodeStatus, new: &NodeStatus, force: bool) -> Result<Vec<String>, AdminError> {
    let not_possible = |what: String| Err(AdminError::NotPossible(what));
    if old.uid == new.uid {
        return not_possible("a node does not replace itself".to_owned());
    }
    if !matches!(new.state, NodeState::Joining | NodeState::Active) {
        return not_possible(format!("{} is {:?}: it takes no slots", new.name, new.state));
    }
    if new.slots > 0 {
        return not_possible(format!(
            "{} has {} slots: only a node without any can replace another; take one that is still joining",
            new.name, new.slots
        ));
    }
    if old.pool != new.pool {
        return not_possible(format!("{} is in pool {}, {} in {}", old.name, old.pool, new.name, new.pool));
    }
    let mut warnings = Vec::new();
    if let Some(heard) = alive(old) {
        warnings
            .push(format!("{} was heard of {heard}: what it has not uploaded is lost to readers", old.name));
    }
    if old.zone != new.zone {
        warnings.push(format!(
            "{} is of zone {:?}, {} of {:?}: replicas may come to lie in one zone",
            old.name, old.zone, new.name, new.zone
        ));
    }
    if !force && let Some(warning) = warnings.first() {
        return not_possible(format!("{warning}; --force does it all the same"));
    }
    Ok(warnings)
}

/// When a node that should be dead was heard of, if it lives.
fn alive(node: &NodeStatus) -> Option<String> {
    let report = node.report.as_ref().filter(|report| report.lives && node.state != NodeState::Lost);
    report.map(|report| ago(report.ms_ago))
}

/// `weir node forget`
pub async fn forget(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    force: bool,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let node = find_node(picture.nodes(), name)?;
    let plan = judge_forgetting(node, force)?;
    if node.forgotten {
        output.report(&Done::new(plan.change, Applied::Unchanged));
        return Ok(());
    }
    let reason = "forgotten by an administrator".to_owned();
    let command = Command::ForgetNode { uid: node.uid, reason };
    carry_out(client, output, &picture, plan, command, force, consent).await
}

/// What forgetting a node means. Whether the others can do without it, the leader judges.
fn judge_forgetting(node: &NodeStatus, force: bool) -> Result<ChangePlan, AdminError> {
    let name = &node.name;
    let is_lost = !matches!(node.state, NodeState::Joining | NodeState::Drained);
    let mut warnings = Vec::new();
    if let Some(heard) = alive(node).filter(|_| node.state != NodeState::Drained) {
        if !force {
            let what = format!(
                "{name} was heard of {heard}: drain it (weir node drain), or stop it first; --force does it all the same"
            );
            return Err(AdminError::NotPossible(what));
        }
        warnings.push(format!(
            "{name} was heard of {heard}: it will stop, and what it has not uploaded is lost to readers"
        ));
    }
    let mut steps = vec!["its identity is gone for good: if it comes back, it stops".to_owned()];
    if node.slots > 0 {
        steps.push(format!(
            "its {} slots have one replica less until the leader has moved them to others, in waves, or a new node \
             takes all of them (weir node replace)",
            node.slots
        ));
    }
    let change = format!("{name} ({}) is {}", node.uid, if is_lost { "given up" } else { "gone" });
    Ok(ChangePlan { change, steps, warnings, forecast: None })
}

/// `weir node weight`
pub async fn weight(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    weight: u32,
    pace: Pace,
    consent: Consent,
) -> Result<(), AdminError> {
    let picture = client.picture().await?;
    let node = find_node(picture.nodes(), name)?;
    let change = format!("the weight of {} is {weight}, from {}", node.name, node.weight);
    if node.weight == weight {
        output.report(&Done::new(change, Applied::Unchanged));
        return Ok(());
    }
    let is_active = node.state == NodeState::Active;
    let state = client.ring().await?;
    let mut warnings = Vec::new();
    let forecast = match is_active {
        true => advisory(forecast_with(&state, node, pace, Some(weight)), &mut warnings)?,
        false => None,
    };
    let plan = ChangePlan {
        change,
        steps: vec![if is_active {
            "the leader moves slots in waves until shares are as weights are".to_owned()
        } else {
            format!("it is {:?}, so nothing moves now", node.state)
        }],
        warnings,
        forecast,
    };
    let command = Command::UpdateNode(NodeUpdate {
        uid: node.uid,
        addresses: None,
        version: None,
        features: None,
        weight: Weight::new(weight),
        pool: None,
        zone: None,
    });
    carry_out(client, output, &picture, plan, command, false, consent).await
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{degraded_ring, node, ring, set_state},
        *,
    };

    fn dead(uid: u128, name: &str) -> NodeStatus {
        NodeStatus { report: None, ..node(uid, name) }
    }

    #[test]
    fn who_may_replace_whom() {
        let new = NodeStatus { zone: "zone-a".to_owned(), slots: 0, ..node(9, "n") };
        let check = |old: NodeStatus, new: NodeStatus, force, expected: Result<usize, &str>| {
            let found = judge_replacement(&old, &new, force).map(|warnings| warnings.len());
            let found = found.map_err(|error| error.to_string());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{found:?} is not {expected:?}"),
            }
        };
        check(dead(1, "a"), new.clone(), false, Ok(0));
        let joining = NodeStatus { state: NodeState::Joining, ..new.clone() };
        check(dead(1, "a"), joining, false, Ok(0));
        check(new.clone(), new.clone(), true, Err("does not replace itself"));
        check(node(1, "a"), new.clone(), false, Err("a was heard of 1.2s ago"));
        check(node(1, "a"), new.clone(), true, Ok(1));
        let mut silent = node(1, "a");
        silent.report.as_mut().expect("it reported").lives = false;
        check(silent, new.clone(), false, Ok(0));
        check(NodeStatus { state: NodeState::Lost, ..node(1, "a") }, new.clone(), false, Ok(0));
        let far = NodeStatus { zone: "far".to_owned(), ..new.clone() };
        check(dead(1, "a"), far.clone(), false, Err("a is of zone \"zone-a\", n of \"far\""));
        check(node(1, "a"), far, true, Ok(2));
        let busy = NodeStatus { slots: 1, ..new.clone() };
        check(dead(1, "a"), busy, true, Err("n has 1 slots"));
        let other = NodeStatus { pool: "big".to_owned(), ..new.clone() };
        check(dead(1, "a"), other, true, Err("a is in pool default, n in big"));
        let draining = NodeStatus { state: NodeState::Draining, ..new };
        check(dead(1, "a"), draining, true, Err("n is Draining"));
    }

    #[test]
    fn who_may_be_forgotten() {
        let check = |state, is_alive, force, expected: Result<&str, &str>| {
            let node = if is_alive { node(1, "a") } else { dead(1, "a") };
            let found = judge_forgetting(&NodeStatus { state, ..node }, force);
            match (found, expected) {
                (Ok(plan), Ok(expected)) => {
                    assert!(plan.change.ends_with(expected), "{plan}");
                    assert_eq!(plan.warnings.len(), usize::from(is_alive && force), "{plan}");
                }
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        };
        check(NodeState::Active, false, false, Ok("is given up"));
        check(NodeState::Draining, false, false, Ok("is given up"));
        check(NodeState::Joining, false, false, Ok("is gone"));
        check(NodeState::Drained, false, false, Ok("is gone"));
        check(NodeState::Active, true, false, Err("a was heard of 1.2s ago: drain it"));
        check(NodeState::Joining, true, false, Err("a was heard of 1.2s ago: drain it"));
        check(NodeState::Active, true, true, Ok("is given up"));
        // Marked as lost before: what is left is that its slots may be moved.
        check(NodeState::Lost, false, false, Ok("is given up"));
        // Neither has anything that could be lost, whatever was heard.
        for state in [NodeState::Drained, NodeState::Lost] {
            let plan = judge_forgetting(&NodeStatus { state, ..node(1, "a") }, false);
            assert_eq!(plan.expect("nothing is lost").warnings, [""; 0]);
        }
    }

    #[test]
    fn a_change_needs_no_forecast() {
        let pace = Pace { step_interval: std::time::Duration::ZERO, max_moves_per_step: None };
        let mut warnings = Vec::new();
        let mut check = |state: &RingState, expected: &[&str]| {
            let number = weir_hashring::ids::NodeNumber(1);
            let node = NodeStatus { number, ..node(1, "n1") };
            let forecast = advisory(forecast_with(state, &node, pace, Some(2)), &mut warnings);
            assert_eq!(forecast.expect("it is advisory").is_none(), !expected.is_empty());
            assert_eq!(warnings, expected);
        };
        check(&ring(3), &[]);
        check(&degraded_ring(), &[]);
        let mut too_few = ring(3);
        set_state(&mut too_few, 3, NodeState::Active, NodeState::Draining);
        let warning = "no slot moves until that can be planned: 2 nodes may own slots, 3 are needed";
        check(&too_few, &[warning]);
        let unknown =
            forecast_with(&ring(3), &NodeStatus { pool: "x".to_owned(), ..node(1, "a") }, pace, None);
        advisory(unknown, &mut warnings).expect_err("there is no such pool");
    }

    #[test]
    fn plans_are_told_to_people() {
        let plan = judge_forgetting(&dead(1, "a"), false).expect("it is dead");
        let expected = "\
a (00000000000000000000000000000001) is given up
  1. its identity is gone for good: if it comes back, it stops
  2. its 4096 slots have one replica less until the leader has moved them to others, in waves, or a new node \
takes all of them (weir node replace)";
        assert_eq!(plan.to_string(), expected);
        assert_eq!(Done::new("x".to_owned(), Applied::Done).to_string(), "done: x");
        assert_eq!(Done::new("x".to_owned(), Applied::Unchanged).to_string(), "it was so already: x");
    }
}
