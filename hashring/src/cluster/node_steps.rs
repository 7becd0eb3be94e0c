//! What comes next in the life of a node: a command of the leader, or what it waits for.
//!
//! A node that joins owns slots once those who read have had time to learn of it. If it has the name of
//! another node it is meant to replace that one: it takes over as soon as the other has been silent for
//! long, and then at once; if the other comes back before, the newcomer leaves. Nobody gets slots who is not
//! there. If the old one was a voter, its tombstone names
//! the successor; who votes is not decided here.
//!
//! What a disk held that is gone, replaced or given up, is on one disk less until all who shared its slots
//! have uploaded what they held then; none of these is replaced before that.
//!
//! A node that drains gives its slots away in waves, uploads all that it holds, is read from a while
//! longer, and is then safe to delete. When it is not there any more it has left, for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    config::ClusterTimers,
    objections::lives,
    policy::{ClusterPolicies, ReplacePolicy},
};
use crate::{
    ids::{Uid, UnixMillis},
    ring::{Command, Node, NodeState, OpenLoss, RingState},
};

/// What was acknowledged before a node was lost has times up to so much later than that: samples are taken
/// that are ten minutes ahead, and two more are for clocks that differ, and for what was acknowledged between
/// the leader's look at the clock and the change of the ring.
pub const TAKEN_AHEAD: Duration = Duration::from_secs(12 * 60);

/// What the leader knows of nodes beside the ring.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What time it is.
    pub now: UnixMillis,
    /// For how long this node leads; what was before, it does not know.
    pub leads_for: Duration,
    /// How long ago nodes were heard of, those that were since this node leads.
    pub heard: BTreeMap<Uid, Duration>,
    /// For how long nodes are Joining.
    pub joining: BTreeMap<Uid, Duration>,
    /// For how long nodes that drain, and have no slots, have said that all they held is uploaded.
    pub drained: BTreeMap<Uid, Duration>,
    /// Up to when all that nodes hold is in the bucket, as far as they say.
    pub uploaded: BTreeMap<Uid, UnixMillis>,
    /// Who said lately that it is not ready, or near its limit of series: it gets no slots now.
    pub not_ready: BTreeSet<Uid>,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts {
            now: UnixMillis(0),
            leads_for: Duration::ZERO,
            heard: BTreeMap::new(),
            joining: BTreeMap::new(),
            drained: BTreeMap::new(),
            uploaded: BTreeMap::new(),
            not_ready: BTreeSet::new(),
        }
    }
}

impl Facts {
    /// For how long a node is silent, as far as is known.
    pub fn silent_for(&self, uid: Uid) -> Duration {
        self.heard.get(&uid).copied().unwrap_or(self.leads_for)
    }
}

/// What is next for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Nothing.
    Stay,
    /// It waits for this, in words, and need not be looked after.
    Wait(String),
    /// It waits for this, in words, and a person should look.
    Warn(String),
    /// The leader has to propose this.
    Propose(Box<Command>),
}

/// The next step of a node.
pub fn node_step(
    state: &RingState,
    node: &Node,
    facts: &Facts,
    timers: &ClusterTimers,
    policies: &ClusterPolicies,
) -> NodeStep {
    match node.state {
        NodeState::Joining => match namesake(state, node) {
            Some(old) => replacement(state, old, node, facts, timers, policies),
            None => joining(state, node, facts, timers),
        },
        NodeState::Active => match inherited_loss(state, node, facts) {
            Some(what) => NodeStep::Wait(format!("it took over from a node whose data is gone; {what}")),
            None => active(node, facts, timers),
        },
        NodeState::Draining => draining(state, node, facts, timers),
        NodeState::Drained => drained(node, facts, timers),
        NodeState::Lost => lost(state, node),
        NodeState::Left => NodeStep::Stay,
    }
}

/// Nothing is done about a silent node; people are told.
fn active(node: &Node, facts: &Facts, timers: &ClusterTimers) -> NodeStep {
    let silent = facts.silent_for(node.uid);
    if silent < timers.replace_grace {
        return NodeStep::Stay;
    }
    NodeStep::Warn(format!(
        "nothing was heard of it for {silent:.0?}; it keeps its slots until it is replaced or given up"
    ))
}

/// A node drains: its slots go, then what it holds, and readers have time to find that elsewhere.
fn draining(state: &RingState, node: &Node, facts: &Facts, timers: &ClusterTimers) -> NodeStep {
    let slots = state.slots_held(node.number);
    if slots > 0 {
        return NodeStep::Wait(format!("{slots} slots are still to be moved away"));
    }
    let Some(drained) = facts.drained.get(&node.uid) else {
        let silent = facts.silent_for(node.uid);
        if silent >= timers.replace_grace {
            return NodeStep::Warn(format!(
                "it has not uploaded yet all that it holds, and nothing was heard of it for {silent:.0?}: it has to be started, or given up"
            ));
        }
        return NodeStep::Wait("it has no slots, and has not uploaded yet all that it holds".to_owned());
    };
    match timers.drain_read_grace.checked_sub(*drained).filter(|rest| !rest.is_zero()) {
        Some(rest) => NodeStep::Wait(format!(
            "all it held is uploaded; readers get {rest:.0?} more to find it in the bucket"
        )),
        None => set_state(node, NodeState::Drained, "all it held is uploaded: safe to delete"),
    }
}

/// A drained node has left when it is not there any more.
fn drained(node: &Node, facts: &Facts, timers: &ClusterTimers) -> NodeStep {
    let silent = facts.silent_for(node.uid);
    if silent < timers.leave_grace {
        let grace = timers.leave_grace;
        return NodeStep::Wait(format!(
            "safe to delete: it has left when it is silent for {grace:.0?}, so far it is for {silent:.0?}"
        ));
    }
    set_state(node, NodeState::Left, "it was drained, and is not there any more")
}

/// What a lost node holds is for people to decide.
fn lost(state: &RingState, node: &Node) -> NodeStep {
    let slots = state.slots_held(node.number);
    if node.forgotten {
        NodeStep::Wait(format!("it was given up; {slots} slots are still to be moved away"))
    } else {
        NodeStep::Warn(format!("it is lost and holds {slots} slots: it has to be replaced or given up"))
    }
}

/// A node may own slots when readers know it.
fn joining(state: &RingState, node: &Node, facts: &Facts, timers: &ClusterTimers) -> NodeStep {
    let not_yet = not_yet(node, facts, timers).filter(|_| !is_founding(state, node));
    let silent = facts.silent_for(node.uid);
    match not_yet {
        Some(_) if silent >= timers.replace_grace => NodeStep::Warn(format!(
            "nothing was heard of it for {silent:.0?}: it has to be started before it owns slots, or given up"
        )),
        Some(why) => NodeStep::Wait(format!("{why} before it owns slots")),
        None => set_state(node, NodeState::Active, "joined"),
    }
}

/// Why a node that joins may not own slots yet: readers do not know it, or it is not there any more.
fn not_yet(node: &Node, facts: &Facts, timers: &ClusterTimers) -> Option<String> {
    let joining = facts.joining.get(&node.uid).copied().unwrap_or_default();
    let rest = timers.join_read_grace.checked_sub(joining).filter(|rest| !rest.is_zero());
    if let Some(rest) = rest {
        return Some(format!("readers get {rest:.0?} more to learn of it"));
    }
    lives(facts, node.uid, timers).is_none().then(|| "it has to be heard of".to_owned())
}

/// True for the founders of a cluster, once all of them are there and before anybody owns anything:
/// there is nothing yet that could be read from them.
fn is_founding(state: &RingState, node: &Node) -> bool {
    let Some(cluster) = state.cluster() else { return false };
    let has_no_table = state.mapping().pools.get(&node.pool).is_some_and(|pool| pool.table.is_empty());
    let are_all_there = cluster.founders.iter().all(|uid| state.node(*uid).is_some());
    has_no_table && are_all_there && cluster.founders.contains(&node.uid)
}

/// Another node of the same name that is not gone.
fn namesake<'a>(state: &'a RingState, node: &Node) -> Option<&'a Node> {
    state.nodes().find(|other| other.uid != node.uid && other.name == node.name && !other.state.is_final())
}

/// What is next for a node that joined under the name of an older one.
fn replacement(
    state: &RingState,
    old: &Node,
    new: &Node,
    facts: &Facts,
    timers: &ClusterTimers,
    policies: &ClusterPolicies,
) -> NodeStep {
    let wait = |what: String| NodeStep::Wait(what);
    if old.number > new.number {
        return wait(format!("a later node of its name, {}, is there", old.uid));
    }
    // It came while the other was silent, which was an outage, or has the other's name by mistake.
    if lives(facts, old.uid, timers).is_some() {
        let reason = format!("node {} of the same name is there again", old.uid);
        return set_state(new, NodeState::Left, &reason);
    }
    let silent = facts.silent_for(old.uid);
    if silent < timers.replace_grace {
        let grace = timers.replace_grace;
        return wait(format!(
            "node {} of the same name was silent for {silent:.0?}; it is replaced after {grace:.0?}",
            old.uid
        ));
    }
    if old.pool != new.pool || old.zone != new.zone {
        return NodeStep::Warn(format!(
            "it cannot replace node {} of the same name: that is in pool {} and zone {:?}, not in pool {} and zone {:?}",
            old.uid, old.pool, old.zone, new.pool, new.zone
        ));
    }
    if old.state == NodeState::Drained {
        return wait(format!("node {} of the same name is drained, and is about to leave", old.uid));
    }
    if policies.replace == ReplacePolicy::Manual {
        return NodeStep::Warn(format!(
            "an operator has to let it replace node {} of the same name",
            old.uid
        ));
    }
    if let Some(other) = state.take_over_near(old.uid) {
        return NodeStep::Warn(format!(
            "node {} of the same name shared slots with {}, which was lost lately: a second one is replaced when what the others have of the first is uploaded, or by force",
            old.uid, other.name
        ));
    }
    match not_yet(new, facts, timers) {
        Some(why) => wait(format!("{why} before it replaces node {}", old.uid)),
        None => {
            let at = Some(facts.now);
            let replace = Command::ReplaceNode { dead: old.uid, new: new.uid, force: false, at };
            NodeStep::Propose(Box::new(replace))
        }
    }
}

/// What there is to propose about a node that is gone with its data: when that was, or that it is safe
/// again, as all who shared its slots have uploaded what they held then, or are gone.
pub fn loss_step(state: &RingState, gone: Uid, loss: &OpenLoss, facts: &Facts) -> Option<Command> {
    let Some(at) = loss.at else { return Some(Command::DateLoss { uid: gone, at: facts.now }) };
    still_open(state, loss, facts).is_empty().then_some(Command::CloseLoss { uid: gone, at })
}

/// The names of those who shared slots with a node that is gone, and have not uploaded what they held then.
fn still_open<'a>(state: &'a RingState, loss: &OpenLoss, facts: &Facts) -> Vec<&'a str> {
    let ahead = i64::try_from(TAKEN_AHEAD.as_millis()).unwrap_or(i64::MAX);
    let is_open = |uid: &&Uid| {
        let is_uploaded = |at: UnixMillis| {
            facts.uploaded.get(*uid).is_some_and(|through| through.0 >= at.0.saturating_add(ahead))
        };
        !loss.at.is_some_and(is_uploaded) && state.tombstone(**uid).is_none()
    };
    let name = |uid: &Uid| state.node(*uid).map_or("one that is unknown", |node| node.name.as_str());
    loss.waits_for.iter().filter(is_open).map(name).collect()
}

/// What is still to be uploaded of the data of those whose slots a node has, in words.
fn inherited_loss(state: &RingState, node: &Node, facts: &Facts) -> Option<String> {
    let mut losses = state.open_losses().iter();
    let is_heir = |gone: &Uid| state.tombstone(*gone).is_some_and(|it| it.successor == Some(node.uid));
    let (_, loss) = losses.find(|(gone, _)| is_heir(gone))?;
    let open = still_open(state, loss, facts);
    Some(format!("these have not uploaded yet what they held then: {}", open.join(", ")))
}

fn set_state(node: &Node, to: NodeState, reason: &str) -> NodeStep {
    let (uid, from, reason) = (node.uid, node.state, reason.to_owned());
    NodeStep::Propose(Box::new(Command::SetNodeState { uid, from, to, reason }))
}

#[cfg(test)]
mod tests;
