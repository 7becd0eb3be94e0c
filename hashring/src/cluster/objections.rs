//! What a leader does not do for whoever asks, though the ring would allow it, unless it is forced.

use std::time::Duration;

use super::{
    config::{ClusterConfig, ClusterTimers},
    node_steps::Facts,
};
use crate::{
    ids::Uid,
    planner::Member,
    ring::{Command, Node, NodeState, RingState},
    spread::SpreadRule,
};

/// A node is heard of again within so many heartbeats, or what it said last counts no more.
pub const HEARTBEATS_COUNTED: u32 = 3;

/// True if a node lives that was heard of so long ago.
pub fn is_recent(ago: Duration, timers: &ClusterTimers) -> bool {
    ago <= timers.heartbeat * HEARTBEATS_COUNTED
}

/// How long ago a node was heard of, if that is so short that it lives.
pub fn lives(facts: &Facts, uid: Uid, timers: &ClusterTimers) -> Option<Duration> {
    facts.heard.get(&uid).copied().filter(|ago| is_recent(*ago, timers))
}

/// For how long a node is silent, if that is so short that it may live: of a node that was not heard of it
/// is only known that it is silent for as long as this leader listens.
pub fn may_live(facts: &Facts, uid: Uid, timers: &ClusterTimers) -> Option<Duration> {
    Some(facts.silent_for(uid)).filter(|silent| is_recent(*silent, timers))
}

/// That a node lives, or may, in words.
fn sign_of_life(facts: &Facts, uid: Uid, timers: &ClusterTimers) -> Option<String> {
    let silent = may_live(facts, uid, timers)?;
    Some(match facts.heard.get(&uid) {
        Some(_) => format!("was heard of {silent:.0?} ago"),
        None => format!("may live, as this leader has listened for {silent:.0?} only"),
    })
}

/// What speaks against a command, in words.
pub fn objection(
    state: &RingState,
    command: &Command,
    facts: &Facts,
    config: &ClusterConfig,
) -> Option<String> {
    match command {
        Command::ReplaceNode { dead, force: false, .. } => {
            // Whoever was given up has no say any more.
            let node = state.node(*dead).filter(|node| !node.state.is_final())?;
            let lives = sign_of_life(facts, *dead, &config.timers)?;
            Some(format!("node {} {lives}: stop it before it is replaced for good, or force it", node.name))
        }
        Command::SetNodeState { uid, from: NodeState::Active, to: NodeState::Draining, .. } => {
            let node = state.node(*uid)?;
            let why = cannot_do_without(state, node)?;
            Some(format!("node {} cannot be drained: {why}", node.name))
        }
        Command::ForgetNode { uid, .. } | Command::SetNodeState { uid, to: NodeState::Lost, .. } => {
            must_not_be_lost(state, state.node(*uid)?, facts, &config.timers)
        }
        _ => None,
    }
}

/// Why a node is not given up; none if it may be.
fn must_not_be_lost(state: &RingState, node: &Node, facts: &Facts, timers: &ClusterTimers) -> Option<String> {
    // All that a drained node had is elsewhere, and nobody is given up twice.
    if node.state == NodeState::Drained || node.forgotten {
        return None;
    }
    // What was heard of a node before it was lost does not count.
    if let Some(lives) = sign_of_life(facts, node.uid, timers).filter(|_| !node.state.is_final()) {
        return Some(format!("node {} {lives}: drain it, or stop it before it is given up", node.name));
    }
    if let Some(other) = state.take_over_near(node.uid) {
        return Some(format!(
            "node {} shared slots with {}, which is gone and whose data is not uploaded yet: what only this one has would be lost",
            node.name, other.name
        ));
    }
    let why = cannot_do_without(state, node)?;
    Some(format!("node {} cannot be given up, but replaced: {why}", node.name))
}

/// Why the others cannot own the slots of a node too; none if they can, or it has none.
fn cannot_do_without(state: &RingState, node: &Node) -> Option<String> {
    if !state.holds_slots(node.number) {
        return None;
    }
    let replicas = state.mapping().pools.get(&node.pool)?.table.replicas()?;
    let members = state.members(&node.pool);
    let rule = |members: &mut dyn Iterator<Item = &Member>| {
        SpreadRule::new(members.map(|member| (member.number, member.zone.as_str())), replicas)
    };
    let mut others = members.iter().filter(|member| member.number != node.number);
    let Some(after) = rule(&mut others) else {
        let left = members.iter().filter(|member| member.number != node.number).count();
        return Some(format!(
            "{left} nodes would be left in pool {}, and each slot is owned by {}",
            node.pool,
            replicas.get()
        ));
    };
    let before = rule(&mut members.iter())?;
    (after.domain_nodes_max() > before.domain_nodes_max()).then(|| {
        let most = after.domain_nodes_max();
        format!("{most} of {} copies of a series would be in one zone", replicas.get())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UnixMillis;
    use crate::ring::tests::{cluster_of, registration, set_state};

    #[test]
    fn a_new_leader_does_not_know_who_lives() {
        let config = crate::cluster::config::tests::config();
        let mut state = cluster_of(4);
        let forget = Command::ForgetNode { uid: Uid(1), reason: String::new() };
        let found = |state: &RingState, leads_for| {
            let facts = Facts { leads_for: Duration::from_secs(leads_for), ..Facts::default() };
            objection(state, &forget, &facts, &config)
        };
        let unknown = "node node-1 may live, as this leader has listened for 15s only: drain it, or stop it before it is given up";
        assert_eq!(found(&state, 15).as_deref(), Some(unknown));
        assert_eq!(found(&state, 16), None);
        state.apply(&set_state(1, NodeState::Active, NodeState::Lost)).expect("it is Active");
        assert_eq!(found(&state, 0), None, "it was lost before");
    }

    #[test]
    fn what_speaks_against_commands() {
        let config = crate::cluster::config::tests::config();
        let drain = |uid| set_state(uid, NodeState::Active, NodeState::Draining);
        let forget = |uid| Command::ForgetNode { uid: Uid(uid), reason: String::new() };
        let check = |state: &RingState, command: &Command, seconds: u64, expected: &str| {
            let heard = state.nodes().map(|node| (node.uid, Duration::from_secs(seconds))).collect();
            let facts = Facts { heard, ..Facts::default() };
            let found = objection(state, command, &facts, &config).unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        let three = cluster_of(3);
        check(
            &three,
            &drain(2),
            0,
            "cannot be drained: 2 nodes would be left in pool default, and each slot",
        );
        check(&three, &forget(2), 15, "was heard of 15s ago: drain it");
        check(&three, &forget(2), 16, "cannot be given up, but replaced: 2 nodes would be left");
        // Whichever way it is lost.
        let lose = set_state(2, NodeState::Active, NodeState::Lost);
        check(&three, &lose, 15, "was heard of 15s ago: drain it");
        check(&three, &lose, 16, "cannot be given up, but replaced: 2 nodes would be left");
        let mut lost = three.clone();
        lost.apply(&lose).expect("it is Active");
        check(&lost, &forget(2), 15, "cannot be given up, but replaced: 2 nodes would be left");
        lost.apply(&forget(2)).expect("it is lost");
        check(&lost, &forget(2), 15, "");
        // Zones a, b, c, a: without node 2 there is no zone b.
        let four = cluster_of(4);
        check(&four, &drain(2), 0, "2 of 3 copies of a series would be in one zone");
        check(&four, &drain(1), 0, "");
        check(&four, &forget(1), 16, "");
        check(&four, &set_state(2, NodeState::Draining, NodeState::Active), 0, "");
        // Of a node that drains already nothing is left to take over.
        let mut drains = cluster_of(6);
        drains.apply(&drain(1)).expect("it is Active");
        check(&drains, &drain(4), 0, "2 of 3 copies");
        check(&drains, &drain(5), 0, "");

        let mut idle = three.clone();
        idle.apply(&Command::RegisterNode(registration(4))).expect("the node is new");
        check(&idle, &forget(4), 16, "");
        check(&idle, &forget(4), 15, "was heard of 15s ago: drain it");
        // Nothing is lost with a node that is drained, though it still runs.
        let mut drained = cluster_of(4);
        drained.apply(&drain(1)).expect("it is Active");
        check(&drained, &forget(1), 15, "was heard of 15s ago: drain it");
        crate::ring::tests::settle(&mut drained, 100_000);
        drained.apply(&set_state(1, NodeState::Draining, NodeState::Drained)).expect("it has no slots");
        check(&drained, &forget(1), 0, "");
        let replace = |force| Command::ReplaceNode { dead: Uid(1), new: Uid(4), force, at: None };
        check(&idle, &replace(false), 15, "was heard of 15s ago: stop it before");
        check(&idle, &replace(false), 16, "");
        check(&idle, &replace(true), 0, "");
        let replaced =
            Command::ReplaceNode { dead: Uid(1), new: Uid(4), force: false, at: Some(UnixMillis(1)) };
        let mut recent = idle;
        recent.apply(&replaced).expect("they are alike");
        check(&recent, &forget(2), 16, "what only this one has would be lost");

        // A new leader has heard of nobody, which says nothing of them.
        let unheard = |seconds: u64, command: &Command| {
            let facts = Facts { leads_for: Duration::from_secs(seconds), ..Facts::default() };
            objection(&cluster_of(4), command, &facts, &config).unwrap_or_default()
        };
        assert!(unheard(0, &forget(1)).contains("may live, as this leader has listened for 0"));
        assert!(
            unheard(15, &forget(1)).contains("may live, as this leader has listened for 15s only: drain")
        );
        assert_eq!(unheard(16, &forget(1)), "");
        assert!(unheard(15, &replace(false)).contains("for 15s only: stop it before"));
        assert_eq!(unheard(16, &replace(false)), "");
    }
}
