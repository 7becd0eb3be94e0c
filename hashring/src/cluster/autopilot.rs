//! The leader's care for the voters: it looks who is heard of, and makes one change at a time.
//!
//! A node that is to vote is first told to take part in Raft, then made a member that listens, and once
//! it has caught up all voters are changed in one step. Any of this may be left half done by a leader
//! that ends: the next one sees a member that listens, or a step half made, and goes on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use weir_proto::weir_cluster::{InfoRequest, StartRaftRequest};

use super::{
    machine::RingMachine,
    objections::HEARTBEATS_COUNTED,
    shared::Shared,
    soft::SoftTable,
    voters::{Health, Situation, VoterDuty, next_duty, raft_id},
    wire::{self, VERSION},
};
use crate::{
    ids::Uid,
    raft::{ChangeError, Peer, RaftId, RaftNode, Status},
    ring::{Node, RingState},
};

/// The setting of the cluster that lets people choose the voters, when it is `off`.
pub const AUTOPILOT_SETTING: &str = "raft.autopilot";

/// True if the leader chooses the voters.
pub fn is_autopilot_on(state: &RingState) -> bool {
    state.config().get(AUTOPILOT_SETTING).is_none_or(|setting| setting.value != "off")
}

/// What a leader remembers of the nodes. The next one begins anew, so what it waits for takes longer.
#[derive(Debug)]
struct Books {
    began: Instant,
    heard: BTreeMap<Uid, Heard>,
    /// Nodes that could not be made voters, and when that was tried.
    avoided: BTreeMap<Uid, Instant>,
    announced: Option<Instant>,
}

/// From when to when a node was heard of without a pause.
#[derive(Clone, Copy, Debug)]
struct Heard {
    since: Instant,
    last: Instant,
}

impl Books {
    fn new(now: Instant) -> Books {
        Books { began: now, heard: BTreeMap::new(), avoided: BTreeMap::new(), announced: None }
    }

    /// Takes note of the last reports of all nodes.
    fn listen(&mut self, state: &RingState, soft: &SoftTable, pause: Duration) {
        let reports = state.nodes().filter_map(|node| Some((node.uid, soft.get(node.uid)?.at)));
        let heard = reports.map(|(uid, at)| {
            let known =
                self.heard.get(&uid).filter(|known| at.saturating_duration_since(known.last) <= pause);
            (uid, Heard { since: known.map_or(at, |known| known.since), last: at })
        });
        self.heard = heard.collect();
    }

    fn health(&self, state: &RingState, pause: Duration, now: Instant) -> BTreeMap<Uid, Health> {
        let health = |node: &Node| {
            let Some(heard) = self.heard.get(&node.uid) else {
                return (node.uid, Health { silent: now.saturating_duration_since(self.began), heard: None });
            };
            // What was said to an earlier term of this leader says nothing about now.
            let silent = now.saturating_duration_since(heard.last.max(self.began));
            let is_heard = now.saturating_duration_since(heard.last) <= pause;
            let heard = is_heard.then(|| now.saturating_duration_since(heard.since));
            (node.uid, Health { silent, heard })
        };
        state.nodes().map(health).collect()
    }

    fn avoided(&mut self, now: Instant, time: Duration) -> BTreeSet<Uid> {
        self.avoided.retain(|_, since| now.saturating_duration_since(*since) < time);
        self.avoided.keys().copied().collect()
    }
}

/// Cares for the voters whenever this node leads.
pub async fn steer_voters(shared: &Arc<Shared>, raft: &RaftNode<RingMachine>) {
    loop {
        if raft.wait_for_status(|status| status.is_leader).await.is_none() {
            // Raft has stopped.
            return std::future::pending().await;
        }
        let mut books = Books::new(Instant::now());
        while raft.status().is_leader {
            step(shared, raft, &mut books).await;
            announce(shared, raft, &mut books);
            sleep(shared.config.timers.leader_round).await;
        }
    }
}

async fn step(shared: &Shared, raft: &RaftNode<RingMachine>, books: &mut Books) {
    let timers = &shared.config.timers;
    let machine = Arc::clone(&raft.watch().borrow().machine);
    let state = &machine.state;
    let pause = timers.heartbeat * HEARTBEATS_COUNTED;
    books.listen(state, &shared.soft.lock(), pause);
    if !is_autopilot_on(state) || state.cluster().is_none() {
        return;
    }
    let status = raft.status();
    if status.members.is_changing {
        report("the change of voters that was begun", raft.settle().await);
        return;
    }
    let now = Instant::now();
    let duty = next_duty(&Situation {
        state,
        members: &status.members,
        leader: status.id,
        health: &books.health(state, pause, now),
        avoided: &books.avoided(now, timers.voter_stabilization),
        max_voters: shared.config.max_voters,
        stabilization: timers.voter_stabilization,
        dead: timers.voter_dead,
        leads_for: now.saturating_duration_since(books.began),
    });
    match duty {
        VoterDuty::Rest => {}
        VoterDuty::RemoveLearner(id) => report("the removal of an idle learner", raft.remove(id).await),
        VoterDuty::SetVoters(wanted) => {
            let failed = set_voters(shared, raft, state, &status, &wanted).await;
            books.avoided.extend(failed.into_iter().map(|uid| (uid, Instant::now())));
        }
    }
}

/// Nodes of an earlier generation do not speak to this one of their own accord, as long as they have a
/// leader of their own. They are told where this one is.
fn announce(shared: &Arc<Shared>, raft: &RaftNode<RingMachine>, books: &mut Books) {
    let (pause, now) = (shared.config.timers.heartbeat * HEARTBEATS_COUNTED, Instant::now());
    let is_due = books.announced.is_none_or(|last| now.saturating_duration_since(last) >= pause);
    let Some(membership) = shared.membership().filter(|own| own.generation > 0 && is_due) else { return };
    books.announced = Some(now);
    let machine = Arc::clone(&raft.watch().borrow().machine);
    let health = books.health(&machine.state, pause, now);
    let silent =
        machine.state.nodes().filter(|node| health.get(&node.uid).is_none_or(|at| at.heard.is_none()));
    for node in silent.filter(|node| node.uid != shared.uid) {
        let (shared, address) = (Arc::clone(shared), node.addresses.cluster.clone());
        let request = InfoRequest {
            version: VERSION,
            cluster_id: membership.cluster.0.to_vec(),
            generation: membership.generation,
            address: shared.config.addresses.cluster.clone(),
        };
        // Ends by itself soon, and nobody waits for it.
        tokio::spawn(async move {
            if let Ok(mut client) = shared.channels.cluster(&address) {
                let _ = timeout(shared.config.timers.call, client.info(request)).await;
            }
        });
    }
}

fn report(what: &str, result: Result<(), ChangeError>) {
    match result {
        Ok(()) => info!(what, "the leader changed the members of Raft"),
        Err(error) => warn!(%error, what, "the members of Raft are not changed"),
    }
}

/// Makes these the voters; gives those new ones that were in the way of it.
async fn set_voters(
    shared: &Shared,
    raft: &RaftNode<RingMachine>,
    state: &RingState,
    status: &Status,
    wanted: &BTreeSet<RaftId>,
) -> Vec<Uid> {
    let is_new = |node: &&Node| {
        let id = raft_id(node.uid);
        wanted.contains(&id) && !status.members.is_voter(id)
    };
    let new: Vec<&Node> = state.nodes().filter(is_new).collect();
    info!(?wanted, new = new.len(), "the leader changes the voters");
    for node in &new {
        if let Err(what) = shared.make_learner(raft, node).await {
            warn!(node = node.name, what, "a node cannot be made a voter");
            return vec![node.uid];
        }
    }
    match raft.set_voters(wanted).await {
        Ok(()) => {
            info!(?wanted, "the voters are changed");
            Vec::new()
        }
        Err(error) => {
            warn!(%error, "the voters are not changed");
            new.iter().map(|node| node.uid).collect()
        }
    }
}

impl Shared {
    /// Has a node take part in Raft and makes it a member that listens. Only the leader can.
    pub async fn make_learner(&self, raft: &RaftNode<RingMachine>, node: &Node) -> Result<(), String> {
        let membership = self.membership().ok_or("this node is in no cluster")?;
        let peer = Peer { id: raft_id(node.uid), address: node.addresses.cluster.clone() };
        let is_used = raft.is_used(peer.id);
        let request = StartRaftRequest {
            version: VERSION,
            cluster_id: membership.cluster.0.to_vec(),
            generation: membership.generation,
            uid: wire::uid_bytes(node.uid),
            is_used,
        };
        let mut client = self.channels.cluster(&peer.address).map_err(|error| error.to_string())?;
        let asked = timeout(self.config.timers.call, client.start_raft(request)).await;
        asked.map_err(|_| "no answer in time")?.map_err(|status| status.message().to_owned())?;
        let added = if is_used { raft.readmit_learner(&peer).await } else { raft.add_learner(&peer).await };
        added.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::soft::{ProcessId, Report, SoftState},
        ring::tests::cluster_of,
    };

    #[test]
    fn a_pause_begins_the_time_anew() {
        let (start, pause) = (Instant::now(), Duration::from_secs(3));
        let at = |seconds| start + Duration::from_secs(seconds);
        let state = cluster_of(3);
        let mut books = Books::new(at(0));
        let mut soft = SoftTable::default();
        let mut check = |said: u64, now: u64, silent: u64, heard: Option<u64>| {
            let (address, version) = (String::new(), String::new());
            let report = SoftState {
                process: ProcessId { boot: 1, nonce: 1 },
                report: Report::default(),
                address,
                version,
                at: at(said),
                clock_offset: None,
            };
            soft.take(Uid(1), report).unwrap();
            books.listen(&state, &soft, pause);
            let health = books.health(&state, pause, at(now));
            let seconds = Duration::from_secs;
            assert_eq!(health[&Uid(1)], Health { silent: seconds(silent), heard: heard.map(seconds) });
            assert_eq!(health[&Uid(2)], Health { silent: seconds(now), heard: None });
        };
        check(1, 1, 0, Some(0));
        check(4, 5, 1, Some(4));
        check(4, 7, 3, Some(6));
        check(4, 8, 4, None);
        check(8, 8, 0, Some(0));
        check(11, 12, 1, Some(4));
    }

    #[test]
    fn who_failed_is_avoided_for_a_while() {
        let start = Instant::now();
        let mut books = Books::new(start);
        books.avoided.insert(Uid(2), start);
        let time = Duration::from_secs(30);
        assert_eq!(books.avoided(start + Duration::from_secs(29), time), BTreeSet::from([Uid(2)]));
        assert!(books.avoided(start + time, time).is_empty());
    }
}
