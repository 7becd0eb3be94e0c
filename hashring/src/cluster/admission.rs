//! Whether the leader lets a node join: a pure judgement of what the node brings.
//!
//! A node that the ring knows already, or that founded the cluster, needs nothing: it may ask again
//! because an answer was lost, or its disk is older than the rule. What is counted, like the uses of a
//! token, is counted when the registration is applied, once per uid.

use super::{
    config::ClusterTimers,
    join_token::TokenText,
    node_steps::Facts,
    objections::may_live,
    policy::{ClusterPolicies, JoinPolicy},
    soft::ProcessId,
};
use crate::{
    ids::{ReplicaCount, TokenId, Uid, UnixMillis},
    ring::{Node, NodeRegistration, NodeState, Rejected, RingState, TokenFault},
};

/// What a node that wants to join brings.
#[derive(Clone, Debug)]
pub struct JoinAsk {
    /// How it wants to be known. Its token and time are for the leader to fill in.
    pub registration: NodeRegistration,
    /// Its token.
    pub token: Option<TokenText>,
    /// How many copies of each series it expects; none for any number.
    pub replicas: Option<ReplicaCount>,
    /// Which process asks.
    pub process: ProcessId,
}

/// The registration to propose, or why there is none.
pub fn admit(
    state: &RingState,
    policies: &ClusterPolicies,
    ask: &JoinAsk,
    now: UnixMillis,
) -> Result<NodeRegistration, Rejected> {
    let uid = ask.registration.uid;
    if state.tombstone(uid).is_some() {
        return Err(Rejected::Gone(uid));
    }
    let cluster = state.cluster().ok_or(Rejected::NoCluster)?;
    if let Some(replicas) = ask.replicas.filter(|replicas| *replicas != cluster.replicas) {
        return Err(Rejected::ReplicasDiffer { node: replicas.get(), cluster: cluster.replicas.get() });
    }
    let (features, level) = (ask.registration.features, state.feature_level());
    if features < level {
        return Err(Rejected::ProgramTooOld { node: features.0, cluster: level.0 });
    }
    let is_known = state.node(uid).is_some() || cluster.founders.contains(&uid);
    let token = match policies.join {
        JoinPolicy::Token if !is_known => Some(check_token(state, ask.token.as_ref(), now)?),
        JoinPolicy::Token | JoinPolicy::Open => None,
    };
    Ok(NodeRegistration { token, at: now, ..ask.registration.clone() })
}

/// Whether a newcomer may have its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewName {
    /// Nobody has it.
    Free,
    /// It is that of a node that is silent, which the newcomer is meant to replace.
    Replaces(Uid),
    /// It is that of a node that lives, or may live.
    Taken(Uid),
    /// This one, which never owned a slot and has been silent for long, has to leave first.
    AfterLeaving(Uid),
}

/// Judges the name of a node that wants to join.
pub fn name_of_newcomer(
    state: &RingState,
    uid: Uid,
    name: &str,
    facts: &Facts,
    timers: &ClusterTimers,
) -> NewName {
    if state.node(uid).is_some() {
        return NewName::Free;
    }
    let namesakes: Vec<&Node> =
        state.nodes().filter(|node| node.name == name && !node.state.is_final()).collect();
    if let Some(alive) = namesakes.iter().find(|node| may_live(facts, node.uid, timers).is_some()) {
        return NewName::Taken(alive.uid);
    }
    match namesakes.as_slice() {
        [] => NewName::Free,
        [old] => NewName::Replaces(old.uid),
        // Of two, the later one came to replace the earlier one, and is not needed for that any more.
        [first, ..] => {
            let later = namesakes.iter().find(|node| node.state == NodeState::Joining);
            match later {
                Some(node) if facts.silent_for(node.uid) >= timers.replace_grace => {
                    NewName::AfterLeaving(node.uid)
                }
                later => NewName::Taken(later.unwrap_or(first).uid),
            }
        }
    }
}

/// The id of a token that lets a node join.
fn check_token(state: &RingState, text: Option<&TokenText>, now: UnixMillis) -> Result<TokenId, TokenFault> {
    let text = text.ok_or(TokenFault::Missing)?;
    let id = text.id().clone();
    let Some(token) = state.tokens().get(&id) else { return Err(TokenFault::Unknown(id)) };
    // Whoever does not know the secret learns nothing else of the token.
    if !text.has_hash(&token.sha256) {
        return Err(TokenFault::WrongSecret(id));
    }
    token.check(&id, now)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cluster::join_token::new_join_token,
        ids::{FeatureLevel, Uid},
        ring::{
            Command, NodeState,
            tests::{cluster_of, registration, set_state},
        },
    };

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn asks(uid: u128) -> JoinAsk {
        JoinAsk {
            registration: registration(uid),
            token: None,
            replicas: None,
            process: ProcessId { boot: 1, nonce: 1 },
        }
    }

    fn with_tokens() -> ClusterPolicies {
        ClusterPolicies { join: JoinPolicy::Token, ..ClusterPolicies::default() }
    }

    #[test]
    fn who_needs_which_token() {
        let mut state = cluster_of(4);
        let (token, add) = new_join_token(Duration::from_secs(10), 1, NOW).expect("it makes sense");
        state.apply(&add).expect("the token is new");
        state.apply(&set_state(3, NodeState::Active, NodeState::Lost)).expect("it is Active");
        let id = token.id().clone();
        let check =
            |state: &RingState, uid, text: Option<&str>, seconds: i64, expected: Result<bool, TokenFault>| {
                let token = text.map(|text| TokenText::parse(text).expect("it is a token"));
                let ask = JoinAsk { token, ..asks(uid) };
                let at = UnixMillis(NOW.0 + seconds * 1000);
                let found = admit(state, &with_tokens(), &ask, at).map(|admitted| {
                    assert_eq!(admitted.at, at);
                    admitted.token.is_some()
                });
                assert_eq!(found, expected.map_err(Rejected::Token), "node {uid}");
                let open = admit(state, &ClusterPolicies::default(), &ask, at);
                assert_eq!(open.map(|admitted| admitted.token), Ok(None), "node {uid}");
            };
        let (good, wrong) = (token.reveal(), format!("{id}.wrong"));
        check(&state, 9, Some(&good), 9, Ok(true));
        check(&state, 9, None, 0, Err(TokenFault::Missing));
        check(&state, 9, Some("other.secret"), 0, Err(TokenFault::Unknown(TokenId::from("other"))));
        check(&state, 9, Some(&wrong), 0, Err(TokenFault::WrongSecret(id.clone())));
        check(&state, 9, Some(&good), 10, Err(TokenFault::Expired(id.clone())));
        check(&state, 9, Some(&wrong), 10, Err(TokenFault::WrongSecret(id.clone())));
        // Node 4 is known, 1 founded the cluster.
        check(&state, 4, None, 0, Ok(false));
        check(&state, 1, Some(&wrong), 0, Ok(false));
        let founded = {
            let mut state = RingState::default();
            state.apply(&crate::ring::tests::init()).expect("the state is empty");
            state
        };
        check(&founded, 2, None, 0, Ok(false));
        check(&founded, 4, None, 0, Err(TokenFault::Missing));

        let ask = JoinAsk { token: Some(token), ..asks(9) };
        let admitted = admit(&state, &with_tokens(), &ask, NOW).expect("the token is good");
        state.apply(&Command::RegisterNode(admitted)).expect("the node is new");
        check(&state, 10, Some(&good), 0, Err(TokenFault::UsedUp(id)));
        check(&state, 9, Some(&good), 0, Ok(false));
        assert_eq!(admit(&state, &with_tokens(), &asks(3), NOW), Err(Rejected::Gone(Uid(3))));
        assert_eq!(admit(&RingState::default(), &with_tokens(), &ask, NOW), Err(Rejected::NoCluster));
    }

    #[test]
    fn copies_and_features_must_fit() {
        let mut state = cluster_of(3);
        state.apply(&Command::SetFeatureLevel(FeatureLevel(1))).expect("all can do it");
        let check = |replicas: Option<u8>, features, expected: Option<Rejected>| {
            let registration = NodeRegistration { features: FeatureLevel(features), ..registration(9) };
            let replicas =
                replicas.map(|count| ReplicaCount::new(count).expect("a test's number is allowed"));
            let ask = JoinAsk { registration, replicas, ..asks(9) };
            let found = admit(&state, &ClusterPolicies::default(), &ask, NOW);
            assert_eq!(found.err(), expected, "{replicas:?} copies, features {features}");
        };
        check(None, 1, None);
        check(Some(3), 2, None);
        check(Some(2), 1, Some(Rejected::ReplicasDiffer { node: 2, cluster: 3 }));
        check(Some(4), 1, Some(Rejected::ReplicasDiffer { node: 4, cluster: 3 }));
        check(None, 0, Some(Rejected::ProgramTooOld { node: 0, cluster: 1 }));
    }

    #[test]
    fn a_name_is_free_when_whoever_has_it_is_silent() {
        let timers = ClusterTimers::default();
        let mut state = cluster_of(3);
        let judge = |state: &RingState, uid, silent: &[(u128, u64)], leads_for, expected| {
            let heard = silent.iter().map(|&(uid, seconds)| (Uid(uid), Duration::from_secs(seconds)));
            let leads_for = Duration::from_secs(leads_for);
            let facts = Facts { heard: heard.collect(), leads_for, ..Facts::default() };
            let found = name_of_newcomer(state, Uid(uid), "node-2", &facts, &timers);
            assert_eq!(found, expected, "{silent:?}");
        };
        let check =
            |state: &RingState, uid, silent: &[_], expected| judge(state, uid, silent, 3600, expected);
        // A new leader has not heard of anybody yet.
        judge(&state, 9, &[], 0, NewName::Taken(Uid(2)));
        judge(&state, 9, &[], 15, NewName::Taken(Uid(2)));
        judge(&state, 9, &[], 16, NewName::Replaces(Uid(2)));
        check(&state, 9, &[(2, 15)], NewName::Taken(Uid(2)));
        check(&state, 9, &[(2, 16)], NewName::Replaces(Uid(2)));
        check(&state, 9, &[], NewName::Replaces(Uid(2)));
        check(&state, 2, &[(2, 0)], NewName::Free);
        let named = NodeRegistration { name: "node-2".to_owned(), replaces: Some(Uid(2)), ..registration(5) };
        state.apply(&Command::RegisterNode(named)).expect("the node is new");
        check(&state, 9, &[(2, 99), (5, 15)], NewName::Taken(Uid(5)));
        check(&state, 9, &[(2, 99), (5, 59)], NewName::Taken(Uid(5)));
        check(&state, 9, &[(2, 99), (5, 60)], NewName::AfterLeaving(Uid(5)));
        state.apply(&set_state(2, NodeState::Active, NodeState::Lost)).expect("it is Active");
        state.apply(&set_state(5, NodeState::Joining, NodeState::Left)).expect("it is Joining");
        check(&state, 9, &[], NewName::Free);
    }

    /// What a node says of a token in its registration counts for nothing.
    #[test]
    fn the_leader_names_the_token() {
        let claims = NodeRegistration { token: Some(TokenId::from("x")), ..registration(9) };
        let ask = JoinAsk { registration: claims, ..asks(9) };
        let admitted = admit(&cluster_of(3), &ClusterPolicies::default(), &ask, NOW);
        assert_eq!(admitted.map(|admitted| admitted.token), Ok(None));
    }
}
