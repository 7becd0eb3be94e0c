//! Who should vote: a pure choice from what the leader knows.
//!
//! What is wanted, the first of these that is not so:
//!
//! 1. No voter is leaving or gone, none has stayed unknown for long, and none is silent for too long. Such a one is replaced by another
//!    node; without one it stays, unless it is gone for good and there are more than three voters.
//! 2. There are as many voters as there should be: one, three or five, see [`Situation::max_voters`].
//! 3. The voters are in as many zones as the nodes allow.
//!
//! All else being equal the voters stay who they are, and the leader before all others. Each choice is
//! one step from an odd number of voters to an odd number, made only while a majority of the voters
//! before and after it is heard of. Nothing here leaves less than three voters where there were three.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    ids::Uid,
    raft::{Members, RaftId},
    ring::{Node, NodeState, RingState},
};

/// Fewer voters are never wanted where there are so many.
const VOTERS_LEAST: usize = 3;
/// More voters are not wanted unless people say so.
const VOTERS_MOST: usize = 5;
/// Three voters that die with two of three zones are no better than five.
const ZONES_FOR_MOST: usize = 3;

/// When a node was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// How long ago the leader last heard of it, or began to listen.
    pub silent: Duration,
    /// For how long it has been heard of without a pause; none if it is not heard of now.
    pub heard: Option<Duration>,
}

/// What the leader knows.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The ring.
    pub state: &'a RingState,
    /// The members of Raft.
    pub members: &'a Members,
    /// The leader.
    pub leader: RaftId,
    /// What is known of nodes; whoever is missing was not heard of at all.
    pub health: &'a BTreeMap<Uid, Health>,
    /// Nodes that could not be made voters lately.
    pub avoided: &'a BTreeSet<Uid>,
    /// The most voters; none for five if there are as many nodes in three zones, else three.
    pub max_voters: Option<u32>,
    /// A new voter was heard of for so long.
    pub stabilization: Duration,
    /// A voter that is silent for so long counts as dead.
    pub dead: Duration,
    /// For how long the leader leads.
    pub leads_for: Duration,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterDuty {
    /// Nothing.
    Rest,
    /// Make these the voters, in one step.
    SetVoters(BTreeSet<RaftId>),
    /// Let go of a member that only listens, and is not to become a voter.
    RemoveLearner(RaftId),
}

/// A voter, as the choice sees it.
#[derive(Clone, Copy, Debug)]
struct Voter<'a> {
    id: RaftId,
    zone: &'a str,
    standing: Standing,
    is_heard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    /// Silent for too long; may come back.
    Dead,
    /// Leaves, or will never come back.
    Gone,
    /// The ring has not heard of it yet.
    Unknown,
}

/// A node that may become a voter.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    id: RaftId,
    zone: &'a str,
    /// It listens already.
    is_learner: bool,
    number: u32,
}

/// The Raft id of a node.
pub fn raft_id(uid: Uid) -> RaftId {
    RaftId(uid.raft_id().0)
}

/// The next step.
pub fn next_duty(situation: &Situation<'_>) -> VoterDuty {
    let voters = voters(situation);
    let current: BTreeSet<RaftId> = voters.iter().map(|voter| voter.id).collect();
    if let Some(wanted) = wanted(situation, &voters)
        && is_safe(&voters, &wanted)
    {
        return VoterDuty::SetVoters(wanted);
    }
    let learners = situation.members.learners.iter().map(|peer| peer.id);
    match learners.into_iter().find(|id| !current.contains(id)) {
        Some(idle) => VoterDuty::RemoveLearner(idle),
        None => VoterDuty::Rest,
    }
}

/// A majority of the voters before and after is heard of. Those who come are.
fn is_safe(voters: &[Voter<'_>], wanted: &BTreeSet<RaftId>) -> bool {
    let heard = voters.iter().filter(|voter| voter.is_heard).count();
    let unheard_after = voters.iter().filter(|voter| !voter.is_heard && wanted.contains(&voter.id)).count();
    heard > voters.len() / 2 && (wanted.len() - unheard_after) > wanted.len() / 2
}

fn wanted(situation: &Situation<'_>, voters: &[Voter<'_>]) -> Option<BTreeSet<RaftId>> {
    // Founders that have not registered yet: for a while nobody knows how many nodes there are.
    if voters.iter().any(|voter| voter.standing == Standing::Unknown) {
        return None;
    }
    let candidates = candidates(situation);
    let without = |out: &[RaftId]| -> Vec<Voter<'_>> {
        voters.iter().filter(|voter| !out.contains(&voter.id)).copied().collect()
    };
    // The leader goes last: without it nobody does anything for a while.
    let of_standing = |standing| {
        let mut found: Vec<&Voter<'_>> = voters.iter().filter(|voter| voter.standing == standing).collect();
        found.sort_by_key(|voter| voter.id == situation.leader);
        found.first().map(|voter| voter.id)
    };
    let (gone, dead) = (of_standing(Standing::Gone), of_standing(Standing::Dead));
    for out in gone.into_iter().chain(dead) {
        let kept = without(&[out]);
        if let Some(with) = add(&kept, &candidates, 1) {
            return Some(with);
        }
        if Some(out) != gone {
            continue;
        }
        if kept.len() % 2 == 1 && kept.len() >= VOTERS_LEAST {
            return Some(ids(&kept));
        }
        if kept.len() > VOTERS_LEAST {
            let also = least_useful(&kept, situation.leader)?;
            return Some(ids(&without(&[out, also])));
        }
    }
    let target = target(situation, voters.len());
    if voters.len() < target {
        let missing = if voters.len().is_multiple_of(2) { 1 } else { 2 };
        return add(voters, &candidates, missing);
    }
    if voters.len() > target && target >= VOTERS_LEAST {
        let first = least_useful(voters, situation.leader)?;
        let kept = without(&[first]);
        if kept.len() % 2 == 1 {
            return Some(ids(&kept));
        }
        let second = least_useful(&kept, situation.leader)?;
        return Some(ids(&without(&[first, second])));
    }
    spread(situation, voters, &candidates)
}

/// How many voters there should be.
fn target(situation: &Situation<'_>, voters: usize) -> usize {
    let stays = |node: &&Node| matches!(node.state, NodeState::Joining | NodeState::Active);
    let staying: Vec<&Node> = situation.state.nodes().filter(stays).collect();
    let zones: BTreeSet<&str> = staying.iter().map(|node| node.zone.as_str()).collect();
    let most = match situation.max_voters {
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None if staying.len() >= VOTERS_MOST && zones.len() >= ZONES_FOR_MOST => VOTERS_MOST,
        None => VOTERS_LEAST,
    };
    let possible = most.min(staying.len());
    let odd = possible - usize::from(possible.is_multiple_of(2) && possible > 0);
    odd.max(voters.min(VOTERS_LEAST))
}

/// A voter of a full zone makes place for a node of an emptier one.
fn spread(
    situation: &Situation<'_>,
    voters: &[Voter<'_>],
    candidates: &[Candidate<'_>],
) -> Option<BTreeSet<RaftId>> {
    let out = least_useful(voters, situation.leader)?;
    let zone = voters.iter().find(|voter| voter.id == out)?.zone;
    let kept: Vec<Voter<'_>> = voters.iter().filter(|voter| voter.id != out).copied().collect();
    let best = best(&kept, candidates)?;
    (crowd(&kept, best.zone) < crowd(&kept, zone)).then(|| {
        let mut wanted = ids(&kept);
        wanted.insert(best.id);
        wanted
    })
}

/// So many candidates more, or none if there are not so many.
fn add(kept: &[Voter<'_>], candidates: &[Candidate<'_>], missing: usize) -> Option<BTreeSet<RaftId>> {
    let mut voters = kept.to_vec();
    for _ in 0..missing {
        let best = best(&voters, candidates)?;
        voters.push(Voter { id: best.id, zone: best.zone, standing: Standing::Good, is_heard: true });
    }
    Some(ids(&voters))
}

/// The candidate of the emptiest zone; of equal ones the one that listens already, or is there longest.
fn best<'a>(voters: &[Voter<'_>], candidates: &[Candidate<'a>]) -> Option<Candidate<'a>> {
    let free = candidates.iter().filter(|candidate| voters.iter().all(|voter| voter.id != candidate.id));
    free.min_by_key(|candidate| (crowd(voters, candidate.zone), !candidate.is_learner, candidate.number))
        .copied()
}

/// The voter of the fullest zone, but not the leader; of equal ones one that is not heard of, or else
/// the one with the greatest id.
fn least_useful(voters: &[Voter<'_>], leader: RaftId) -> Option<RaftId> {
    let others = voters.iter().filter(|voter| voter.id != leader);
    others
        .max_by_key(|voter| (voter.standing != Standing::Good, crowd(voters, voter.zone), voter.id))
        .map(|voter| voter.id)
}

/// How many voters are in a zone.
fn crowd(voters: &[Voter<'_>], zone: &str) -> usize {
    voters.iter().filter(|voter| voter.zone == zone).count()
}

fn ids(voters: &[Voter<'_>]) -> BTreeSet<RaftId> {
    voters.iter().map(|voter| voter.id).collect()
}

fn voters<'a>(situation: &Situation<'a>) -> Vec<Voter<'a>> {
    let state = situation.state;
    let voter = |id: RaftId| {
        let node = state.nodes().find(|node| raft_id(node.uid) == id);
        let is_buried = state.tombstones().any(|(uid, _)| raft_id(uid) == id);
        let health = node.and_then(|node| situation.health.get(&node.uid));
        let is_leader = id == situation.leader;
        let standing = match node.map(|node| node.state) {
            Some(NodeState::Joining | NodeState::Active) => {
                let is_dead = health.is_some_and(|health| health.silent > situation.dead) && !is_leader;
                if is_dead { Standing::Dead } else { Standing::Good }
            }
            Some(NodeState::Draining | NodeState::Drained | NodeState::Left | NodeState::Lost) => {
                Standing::Gone
            }
            None if is_buried => Standing::Gone,
            // A founder that has not registered for so long may be one that never will.
            None if situation.leads_for > situation.dead => Standing::Gone,
            None => Standing::Unknown,
        };
        let is_heard = is_leader || health.is_some_and(|health| health.heard.is_some());
        Voter { id, zone: node.map_or("", |node| node.zone.as_str()), standing, is_heard }
    };
    situation.members.voters.iter().map(|peer| voter(peer.id)).collect()
}

fn candidates<'a>(situation: &Situation<'a>) -> Vec<Candidate<'a>> {
    let may_vote = |node: &&Node| {
        let health = situation.health.get(&node.uid);
        node.state == NodeState::Active
            && !situation.avoided.contains(&node.uid)
            && !situation.members.is_voter(raft_id(node.uid))
            && health.and_then(|health| health.heard).is_some_and(|heard| heard >= situation.stabilization)
    };
    let candidates = situation.state.nodes().filter(may_vote);
    candidates
        .map(|node| Candidate {
            id: raft_id(node.uid),
            zone: &node.zone,
            is_learner: situation.members.is_learner(raft_id(node.uid)),
            number: node.number.0,
        })
        .collect()
}

#[cfg(test)]
mod tests;
