//! Whether a node without a cluster founds one, joins one, or waits.
//!
//! What is on disk decides before anything here is asked. Then, round after round, all peers are asked
//! who they are, and [`decide`] judges the answers. Its rules:
//!
//! - A cluster that anybody is in is joined; two different ones are an error that people must mend.
//! - A new one is founded only by exactly as many nodes as were announced, all of which see each
//!   other and nobody else who would found one, twice. The lowest uid founds, the others wait until they see its
//!   cluster with themselves among the founders.
//! - Silence never founds anything: who does not answer may well be a cluster.

use super::identity::{Founder, Membership};
use crate::ids::{ClusterId, Uid};

/// What a peer says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who it is.
    pub uid: Uid,
    /// Where it wants to be reached.
    pub address: String,
    /// The cluster that it is in.
    pub membership: Option<Membership>,
    /// How many nodes it wants to found a cluster with.
    pub bootstrap_expect: u32,
    /// The nodes without a cluster that it has seen and that would found one, ascending.
    pub fresh: Vec<Uid>,
}

/// The node that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Who it is.
    pub uid: Uid,
    /// Where it wants to be reached.
    pub address: String,
    /// How many nodes it wants to found a cluster with; 0 never does.
    pub bootstrap_expect: u32,
    /// The only cluster that it may be in.
    pub cluster: Option<ClusterId>,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet: ask again.
    Wait,
    /// Found a cluster of these.
    Found(Vec<Founder>),
    /// Enter the cluster as one of its founders.
    Follow(Membership),
    /// Ask to be registered in the cluster.
    Join(Membership),
}

/// What people must mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Peers are in different clusters.
    #[error("the peers are in different clusters, {0} and {1}: give the node peers of one of them only")]
    TwoClusters(ClusterId, ClusterId),
    /// Peers are in another cluster than the one that was named.
    #[error("the peers are in cluster {found}, and this node may be in {expected} only")]
    OtherCluster {
        /// The one that was named.
        expected: ClusterId,
        /// The one found.
        found: ClusterId,
    },
}

/// True for a node that has no cluster and would found one. Those that only join or watch say nothing
/// about who founds.
fn would_found(peer: &PeerInfo) -> bool {
    peer.membership.is_none() && peer.bootstrap_expect > 0
}

/// The nodes without a cluster that would found one: those that answered and the node itself, ascending by
/// uid.
pub fn fresh_founders(own: &Own, answers: &[PeerInfo]) -> Vec<Founder> {
    let others = answers.iter().filter(|peer| would_found(peer) && peer.uid != own.uid);
    let mut founders: Vec<Founder> =
        others.map(|peer| Founder { uid: peer.uid, address: peer.address.clone() }).collect();
    founders.push(Founder { uid: own.uid, address: own.address.clone() });
    founders.sort();
    founders.dedup_by_key(|founder| founder.uid);
    founders
}

/// Judges the answers of one round. `before` are the nodes without a cluster that were seen in the
/// round before.
pub fn decide(own: &Own, before: &[Uid], answers: &[PeerInfo]) -> Result<Decision, BootstrapError> {
    let mut found: Option<&Membership> = None;
    for membership in answers.iter().filter_map(|peer| peer.membership.as_ref()) {
        match found {
            Some(other) if other.cluster != membership.cluster => {
                return Err(BootstrapError::TwoClusters(other.cluster, membership.cluster));
            }
            // Of a later generation is more recent, and who knows the founders knows more.
            Some(other)
                if (other.generation, other.founders.len())
                    >= (membership.generation, membership.founders.len()) => {}
            _ => found = Some(membership),
        }
    }
    if let Some(membership) = found {
        if let Some(expected) = own.cluster.filter(|expected| *expected != membership.cluster) {
            return Err(BootstrapError::OtherCluster { expected, found: membership.cluster });
        }
        let is_founder = membership.founders.iter().any(|founder| founder.uid == own.uid);
        let entered = membership.clone();
        return Ok(if is_founder { Decision::Follow(entered) } else { Decision::Join(entered) });
    }

    let founders = fresh_founders(own, answers);
    let seen: Vec<Uid> = founders.iter().map(|founder| founder.uid).collect();
    // A cluster that was named exists, or did.
    let may_found = own.bootstrap_expect > 0 && own.cluster.is_none();
    let are_all = usize::try_from(own.bootstrap_expect) == Ok(seen.len()) && seen == before;
    let others_agree = answers
        .iter()
        .filter(|peer| would_found(peer) && peer.uid != own.uid)
        .all(|peer| peer.bootstrap_expect == own.bootstrap_expect && peer.fresh == seen);
    let is_lowest = seen.first() == Some(&own.uid);
    let founds = may_found && are_all && others_agree && is_lowest;
    Ok(if founds { Decision::Found(founders) } else { Decision::Wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(uid: u128, expect: u32) -> Own {
        Own { uid: Uid(uid), address: format!("n{uid}:1"), bootstrap_expect: expect, cluster: None }
    }

    fn uids(numbers: &[u128]) -> Vec<Uid> {
        numbers.iter().copied().map(Uid).collect()
    }

    fn fresh(uid: u128, expect: u32, sees: &[u128]) -> PeerInfo {
        PeerInfo {
            uid: Uid(uid),
            address: format!("n{uid}:1"),
            membership: None,
            bootstrap_expect: expect,
            fresh: uids(sees),
        }
    }

    fn founders(numbers: &[u128]) -> Vec<Founder> {
        numbers.iter().map(|&uid| Founder { uid: Uid(uid), address: format!("n{uid}:1") }).collect()
    }

    fn membership(cluster: u8, numbers: &[u128]) -> Membership {
        Membership { cluster: ClusterId([cluster; 16]), generation: 0, founders: founders(numbers) }
    }

    fn member(uid: u128, cluster: u8, numbers: &[u128]) -> PeerInfo {
        PeerInfo { membership: Some(membership(cluster, numbers)), ..fresh(uid, 3, &[]) }
    }

    #[test]
    fn who_founds() {
        let check = |uid, expect, before: &[u128], answers: &[PeerInfo], expected: &[u128]| {
            let found = decide(&own(uid, expect), &uids(before), answers);
            let expected =
                if expected.is_empty() { Decision::Wait } else { Decision::Found(founders(expected)) };
            assert_eq!(found, Ok(expected), "{uid} of {expect}, before {before:?}: {answers:?}");
        };
        let all: &[u128] = &[1, 2, 3];
        let others = [fresh(2, 3, all), fresh(3, 3, all)];
        check(1, 3, all, &others, all);
        // It may find itself among its peers, and others under two addresses.
        check(1, 3, all, &[fresh(1, 3, &[1]), fresh(2, 3, all), fresh(3, 3, all), fresh(3, 3, all)], all);
        check(1, 1, &[1], &[], &[1]);
        // Not twice.
        check(1, 3, &[], &others, &[]);
        check(1, 3, &[1, 2], &others, &[]);
        check(1, 3, &[1, 2, 4], &others, &[]);
        // Not the lowest.
        check(2, 3, all, &[fresh(1, 3, all), fresh(3, 3, all)], &[]);
        // Never by silence.
        check(1, 3, &[1], &[], &[]);
        check(1, 3, &[1, 2], &[fresh(2, 3, &[1, 2])], &[]);
        // Too many.
        check(1, 2, all, &[fresh(2, 2, all), fresh(3, 2, all)], &[]);
        check(1, 1, &[1, 2], &[fresh(2, 1, &[1, 2])], &[]);
        // Others see somebody else, or want something else.
        check(1, 3, all, &[fresh(2, 3, all), fresh(3, 3, &[1, 3])], &[]);
        check(1, 3, all, &[fresh(2, 3, all), fresh(3, 3, &[1, 2, 3, 4])], &[]);
        check(1, 3, all, &[fresh(2, 3, all), fresh(3, 5, all)], &[]);
        check(1, 3, all, &[fresh(2, 3, all), fresh(3, 0, all)], &[]);
        // Those that only join or watch are not counted, and what they see does not matter.
        let (joins, watches) = (fresh(4, 0, &[1, 2, 3, 4]), fresh(0, 0, &[]));
        check(1, 3, all, &[fresh(2, 3, all), fresh(3, 3, all), joins.clone(), watches.clone()], all);
        check(1, 3, &[1, 2], &[fresh(2, 3, &[1, 2]), joins, watches], &[]);
        // Never.
        check(1, 0, &[1], &[], &[]);
        check(1, 0, all, &others, &[]);
    }

    #[test]
    fn who_joins() {
        let check = |answers: &[PeerInfo], expected: Result<Decision, BootstrapError>| {
            let all = [1, 2, 3];
            assert_eq!(decide(&own(1, 3), &uids(&all), answers), expected, "{answers:?}");
        };
        let (a, b) = (ClusterId([7; 16]), ClusterId([8; 16]));
        let join = Decision::Join(membership(7, &[2, 3, 4]));
        check(&[member(2, 7, &[2, 3, 4])], Ok(join.clone()));
        check(
            &[fresh(3, 3, &[1, 2, 3]), fresh(5, 3, &[1, 2, 3]), member(2, 7, &[2, 3, 4])],
            Ok(join.clone()),
        );
        check(&[member(9, 7, &[]), member(2, 7, &[2, 3, 4])], Ok(join.clone()));
        check(&[member(2, 7, &[2, 3, 4]), member(9, 7, &[])], Ok(join));
        let mut later = member(9, 7, &[]);
        later.membership.as_mut().expect("it is in a cluster").generation = 1;
        let expected = Decision::Join(later.membership.clone().expect("it is in a cluster"));
        check(&[member(2, 7, &[1, 2, 3]), later.clone()], Ok(expected.clone()));
        check(&[later, member(2, 7, &[1, 2, 3])], Ok(expected));
        check(&[member(9, 7, &[])], Ok(Decision::Join(membership(7, &[]))));
        check(&[member(2, 7, &[1, 2, 3])], Ok(Decision::Follow(membership(7, &[1, 2, 3]))));
        check(&[member(2, 7, &[]), member(3, 8, &[])], Err(BootstrapError::TwoClusters(a, b)));
    }

    #[test]
    fn a_named_cluster_is_the_only_one() {
        let named = Own { cluster: Some(ClusterId([7; 16])), ..own(1, 1) };
        let other = BootstrapError::OtherCluster { expected: ClusterId([7; 16]), found: ClusterId([8; 16]) };
        assert_eq!(decide(&named, &uids(&[1]), &[]), Ok(Decision::Wait));
        assert_eq!(decide(&named, &[], &[member(2, 8, &[])]), Err(other));
        assert_eq!(decide(&named, &[], &[member(2, 7, &[])]), Ok(Decision::Join(membership(7, &[]))));
    }
}
