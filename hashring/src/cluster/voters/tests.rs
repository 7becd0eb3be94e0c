use super::*;
use crate::{
    raft::Peer,
    ring::{
        Command, NodeState,
        tests::{init, registration, set_state},
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// A situation in numbers: nodes by uid, which is their Raft id too. Node 1 is in zone a, 2 in b, 3 in c,
/// 4 in a again and so on; 1 leads.
struct Case {
    state: RingState,
    voters: Vec<u64>,
    learners: Vec<u64>,
    health: BTreeMap<Uid, Health>,
    avoided: BTreeSet<Uid>,
    max_voters: Option<u32>,
    leader: u64,
    leads_for: Duration,
}

/// Active nodes without slots.
fn cluster_of(nodes: u128) -> RingState {
    let mut state = RingState::default();
    state.apply(&init()).expect("the state is empty");
    for uid in 1..=nodes {
        state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("the node is Joining");
    }
    state
}

fn case(nodes: u128, voters: &[u64]) -> Case {
    of_state(cluster_of(nodes), voters)
}

fn of_state(state: RingState, voters: &[u64]) -> Case {
    let heard = Health { silent: Duration::ZERO, heard: Some(MINUTE) };
    let health = state.nodes().map(|node| (node.uid, heard)).collect();
    let (learners, avoided) = (Vec::new(), BTreeSet::new());
    Case {
        state,
        voters: voters.to_vec(),
        learners,
        health,
        avoided,
        max_voters: None,
        leader: 1,
        leads_for: MINUTE,
    }
}

impl Case {
    fn silent(mut self, uid: u128, silent: Duration) -> Case {
        self.health.insert(Uid(uid), Health { silent, heard: None });
        self
    }

    fn heard(mut self, uid: u128, seconds: u64) -> Case {
        let health = Health { silent: Duration::ZERO, heard: Some(Duration::from_secs(seconds)) };
        self.health.insert(Uid(uid), health);
        self
    }

    fn becomes(mut self, uid: u128, states: &[NodeState]) -> Case {
        let mut from = NodeState::Active;
        for &to in states {
            self.state.apply(&set_state(uid, from, to)).expect("the node may become so");
            from = to;
        }
        self
    }

    fn learner(mut self, id: u64) -> Case {
        self.learners.push(id);
        self
    }

    fn avoided(mut self, uid: u128) -> Case {
        self.avoided.insert(Uid(uid));
        self
    }

    fn led_by(mut self, id: u64) -> Case {
        self.leader = id;
        self
    }

    fn led_for(mut self, leads_for: Duration) -> Case {
        self.leads_for = leads_for;
        self
    }

    fn at_most(mut self, voters: u32) -> Case {
        self.max_voters = Some(voters);
        self
    }

    fn duty(&self) -> VoterDuty {
        let peers =
            |ids: &[u64]| ids.iter().map(|&id| Peer { id: RaftId(id), address: String::new() }).collect();
        let (voters, learners) = (peers(&self.voters), peers(&self.learners));
        next_duty(&Situation {
            state: &self.state,
            members: &Members { voters, learners, is_changing: false },
            leader: RaftId(self.leader),
            health: &self.health,
            avoided: &self.avoided,
            max_voters: self.max_voters,
            stabilization: MINUTE / 2,
            dead: 5 * MINUTE,
            leads_for: self.leads_for,
        })
    }

    #[track_caller]
    fn wants(self, voters: &[u64]) {
        let expected = VoterDuty::SetVoters(voters.iter().map(|&id| RaftId(id)).collect());
        assert_eq!(self.duty(), expected);
    }

    #[track_caller]
    fn rests(self) {
        assert_eq!(self.duty(), VoterDuty::Rest);
    }
}

#[test]
fn how_many() {
    case(3, &[1, 2, 3]).rests();
    case(4, &[1, 2, 3]).rests();
    case(5, &[1, 2, 3]).wants(&[1, 2, 3, 4, 5]);
    case(5, &[1, 2, 3]).at_most(3).rests();
    case(9, &[1, 2, 3, 4, 5]).rests();
    case(9, &[1, 2, 3, 4, 5]).at_most(7).wants(&[1, 2, 3, 4, 5, 6, 7]);
    // One founder grows by two, never to two.
    case(1, &[1]).rests();
    case(2, &[1]).rests();
    case(3, &[1]).wants(&[1, 2, 3]);
    case(3, &[1]).heard(3, 29).rests();
    case(3, &[1]).heard(3, 30).wants(&[1, 2, 3]);
    case(3, &[1]).silent(2, Duration::ZERO).rests();
    case(3, &[1]).avoided(2).rests();
    case(3, &[1]).at_most(1).rests();
    // Founded by two or four.
    case(2, &[1, 2]).rests();
    case(3, &[1, 2]).wants(&[1, 2, 3]);
    case(4, &[1, 2, 3, 4]).wants(&[1, 2, 3]);
    case(5, &[1, 2, 3, 4]).wants(&[1, 2, 3, 4, 5]);
    // Told to be fewer.
    case(5, &[1, 2, 3, 4, 5]).at_most(3).wants(&[1, 2, 3]);
    case(5, &[1, 2, 3, 4, 5]).at_most(1).wants(&[1, 2, 3]);
    case(3, &[1, 2, 3]).at_most(1).rests();
}

#[test]
fn more_than_three_need_three_zones() {
    let mut state = cluster_of(0);
    for uid in 1..=6 {
        let mut node = registration(uid);
        node.zone = if uid % 2 == 1 { "x" } else { "y" }.to_owned();
        state.apply(&Command::RegisterNode(node)).unwrap();
        state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).unwrap();
    }
    of_state(state.clone(), &[1, 2, 3]).rests();
    of_state(state, &[1, 2, 3]).at_most(5).wants(&[1, 2, 3, 4, 5]);
}

#[test]
fn founders_are_waited_for() {
    let mut state = cluster_of(5);
    of_state(state.clone(), &[1, 2, 3, 4, 5]).rests();
    of_state(cluster_of(2), &[1, 2, 3, 4, 5]).rests();
    for uid in 6..=9 {
        state.apply(&Command::RegisterNode(registration(uid))).unwrap();
    }
    // Who has only joined is no voter yet, but stays one.
    of_state(state.clone(), &[1, 2, 9]).at_most(3).rests();
    of_state(state.clone(), &[1, 2, 3]).becomes(3, &[NodeState::Draining]).wants(&[1, 2, 4]);
    of_state(state, &[1, 2, 3]).avoided(4).rests();

    // Not for ever: node 3 founded the cluster and never came.
    let mut without = cluster_of(2);
    of_state(without.clone(), &[1, 2, 3]).led_for(6 * MINUTE).rests();
    without.apply(&Command::RegisterNode(registration(4))).unwrap();
    without.apply(&set_state(4, NodeState::Joining, NodeState::Active)).unwrap();
    of_state(without.clone(), &[1, 2, 3]).led_for(5 * MINUTE).rests();
    of_state(without, &[1, 2, 3]).led_for(6 * MINUTE).wants(&[1, 2, 4]);
}

#[test]
fn who_is_silent_or_gone_is_replaced() {
    use NodeState::{Drained, Draining, Left, Lost};
    let three = || case(4, &[1, 2, 3]);
    three().silent(2, 5 * MINUTE).rests();
    three().silent(2, 6 * MINUTE).wants(&[1, 3, 4]);
    three().silent(2, 6 * MINUTE).heard(4, 29).rests();
    three().silent(2, 6 * MINUTE).silent(4, MINUTE).rests();
    case(3, &[1, 2, 3]).silent(2, 6 * MINUTE).rests();
    // The rest has no majority.
    three().silent(2, 6 * MINUTE).silent(3, Duration::ZERO).rests();
    // At once.
    three().becomes(2, &[Draining]).wants(&[1, 3, 4]);
    three().becomes(2, &[Draining, Drained]).wants(&[1, 3, 4]);
    three().becomes(2, &[Draining, Drained, Left]).wants(&[1, 3, 4]);
    three().becomes(2, &[Lost]).silent(2, Duration::ZERO).wants(&[1, 3, 4]);
    three().becomes(2, &[Lost]).silent(2, MINUTE).silent(3, MINUTE).rests();
    case(3, &[1, 2, 3]).becomes(2, &[Lost]).rests();
    // Gone before silent, and the leader last.
    case(6, &[1, 2, 3]).at_most(3).silent(2, 6 * MINUTE).becomes(3, &[Draining]).wants(&[1, 2, 6]);
    case(6, &[1, 2, 3, 4, 5]).silent(2, 6 * MINUTE).becomes(3, &[Draining]).wants(&[1, 2, 4, 5, 6]);
    case(5, &[1, 2, 3]).at_most(3).becomes(1, &[Draining]).becomes(2, &[Draining]).wants(&[1, 3, 5]);
    three().becomes(1, &[Draining]).wants(&[2, 3, 4]);
    // The leader knows that it is there.
    three().silent(1, 6 * MINUTE).rests();
}

#[test]
fn five_become_three_if_one_is_gone_for_good() {
    use NodeState::{Draining, Lost};
    case(5, &[1, 2, 3, 4, 5]).silent(5, 6 * MINUTE).rests();
    case(5, &[1, 2, 3, 4, 5]).becomes(5, &[Lost]).wants(&[1, 2, 3]);
    case(5, &[1, 2, 3, 4, 5]).becomes(2, &[Draining]).wants(&[1, 3, 5]);
    case(5, &[1, 2, 3, 4, 5]).led_by(4).becomes(2, &[Draining]).wants(&[3, 4, 5]);
    case(4, &[1, 2, 3, 4]).becomes(2, &[Draining]).wants(&[1, 3, 4]);
}

#[test]
fn voters_are_spread_over_zones() {
    // 1 and 4 are in one zone.
    case(4, &[1, 2, 4]).wants(&[1, 2, 3]);
    case(4, &[1, 2, 4]).led_by(4).wants(&[2, 3, 4]);
    case(4, &[1, 2, 4]).avoided(3).rests();
    case(7, &[1, 4, 7]).at_most(3).wants(&[1, 2, 4]);
    case(6, &[1, 2, 3, 4, 5]).rests();
    case(7, &[1, 2, 4, 5, 7]).wants(&[1, 2, 3, 4, 5]);
    // Who comes is of the emptiest zone.
    case(7, &[1, 2, 3]).at_most(3).becomes(3, &[NodeState::Draining]).wants(&[1, 2, 6]);
    case(7, &[1, 2, 3]).at_most(3).becomes(3, &[NodeState::Draining]).avoided(6).wants(&[1, 2, 4]);
}

#[test]
fn whoever_listens_already_is_preferred_and_the_idle_are_let_go() {
    case(9, &[1, 2, 3]).at_most(3).silent(3, 6 * MINUTE).wants(&[1, 2, 6]);
    case(9, &[1, 2, 3]).at_most(3).silent(3, 6 * MINUTE).learner(9).wants(&[1, 2, 9]);
    assert_eq!(case(4, &[1, 2, 3]).learner(4).duty(), VoterDuty::RemoveLearner(RaftId(4)));
}

/// Whatever happens to nodes, each step is from odd to odd and ends, and at the end all is as wanted.
#[test]
fn it_comes_to_rest() {
    for nodes in 3..=9 {
        for first in 1..=3 {
            let founders: Vec<u64> = (1..=first).collect();
            for drained in 0..=nodes {
                let mut case = case(nodes, &founders);
                if drained > 0 {
                    case = case.becomes(drained, &[NodeState::Draining]);
                }
                let mut steps = 0;
                while let VoterDuty::SetVoters(wanted) = case.duty() {
                    assert!(wanted.len() % 2 == 1 || case.voters.len() == 2, "{wanted:?}");
                    case.voters = wanted.into_iter().map(|id| id.0).collect();
                    if !case.voters.contains(&case.leader) {
                        case.leader = case.voters[0];
                    }
                    steps += 1;
                    assert!(steps < 6, "{nodes} nodes, {drained} drained: {:?}", case.voters);
                }
                let zone = |id: u64| (id + 2) % 3;
                let staying: Vec<u64> = (1..=nodes as u64).filter(|&id| u128::from(id) != drained).collect();
                let possible: BTreeSet<u64> = staying.iter().copied().map(zone).collect();
                let zones: BTreeSet<u64> = case.voters.iter().copied().map(zone).collect();
                let expected = if staying.len() >= 5 && possible.len() == 3 { 5 } else { 3 };
                if staying.len() >= 3 {
                    assert_eq!(case.voters.len(), expected, "{nodes} nodes, {drained} drained");
                    assert!(!case.voters.contains(&(drained as u64)));
                    assert_eq!(zones, possible, "{:?}", case.voters);
                }
            }
        }
    }
}
