//! What is wrong with pools, for people.

use std::collections::BTreeMap;

use super::{Node, NodeState, RingState};
use crate::{ids::PoolName, planner::PlanError, spread::SpreadRule};

impl RingState {
    /// What people should know of a pool that is not as it should be; empty if it is.
    pub fn pool_problems(&self, pool: &PoolName) -> Vec<String> {
        let (Some(cluster), Some(known)) = (&self.cluster, self.mapping.pools.get(pool)) else {
            return Vec::new();
        };
        let (table, members) = (&known.table, self.members(pool));
        let of_pool: Vec<&Node> = self.nodes.values().filter(|node| node.pool == *pool).collect();
        let mut problems = Vec::new();
        let replicas = table.replicas().unwrap_or(cluster.replicas);
        if members.len() < replicas.as_len() {
            let error = PlanError::TooFewNodes { members: members.len(), needed: replicas.as_len() };
            problems.push(if table.is_empty() {
                format!("{error}: there is no table, and writes are refused")
            } else {
                format!("{error}: no slot can be moved")
            });
        } else if table.is_empty() {
            problems.push("there is no table yet, and writes are refused".to_owned());
        }
        if !table.is_empty() && replicas < cluster.replicas {
            problems.push(format!(
                "{} copies of each series are kept, not {}: the loss of a node may lose data",
                replicas.get(),
                cluster.replicas.get()
            ));
        }
        let zones = members.iter().map(|member| (member.number, member.zone.as_str()));
        let most = SpreadRule::new(zones, replicas).map_or(1, |rule| rule.domain_nodes_max());
        if most > 1 {
            let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
            members.iter().for_each(|member| *sizes.entry(&member.zone).or_default() += 1);
            let zones: Vec<String> =
                sizes.iter().map(|(zone, size)| format!("{zone:?} with {size}")).collect();
            problems.push(format!(
                "up to {most} of {} copies of a series are in one zone, since the zones are {}",
                replicas.get(),
                zones.join(", ")
            ));
        }
        for node in of_pool.iter().filter(|node| node.state == NodeState::Lost && !node.forgotten) {
            problems.push(format!(
                "node {} is lost and holds {} slots: nothing is moved until it is replaced or given up",
                node.name,
                self.slots_held(node.number)
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Uid,
        ring::{
            Command, NodeRegistration,
            tests::{cluster_of, init, registration, set_state},
        },
    };

    fn default_pool() -> PoolName {
        PoolName::from(PoolName::DEFAULT)
    }

    #[test]
    fn problems_of_pools() {
        let check = |state: &RingState, expected: &[&str]| {
            let found = state.pool_problems(&default_pool());
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{found}");
            }
        };
        check(&RingState::default(), &[]);
        let mut state = RingState::default();
        state.apply(&init()).expect("the state is empty");
        check(&state, &["0 nodes may own slots, 3 are needed: there is no table, and writes are refused"]);
        for uid in 1..=3 {
            state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
            state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
        }
        check(&state, &["there is no table yet"]);
        let mut state = cluster_of(3);
        check(&state, &[]);
        state.apply(&set_state(2, NodeState::Active, NodeState::Draining)).expect("it is Active");
        check(&state, &["2 nodes may own slots, 3 are needed: no slot can be moved"]);

        // One node in zone a, three in zone b: skewed.
        let mut state = cluster_of(3);
        for uid in [4, 5] {
            let skewed = NodeRegistration { zone: "b".to_owned(), ..registration(uid) };
            state.apply(&Command::RegisterNode(skewed)).expect("the node is new");
            state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
        }
        check(&state, &[]);
        state.apply(&set_state(3, NodeState::Active, NodeState::Lost)).expect("it is Active");
        check(
            &state,
            &[
                "up to 2 of 3 copies of a series are in one zone, since the zones are \"a\" with 1, \"b\" with 3",
                "node node-3 is lost and holds 256 slots",
            ],
        );
        state.apply(&Command::ForgetNode { uid: Uid(3), reason: String::new() }).expect("it is lost");
        check(&state, &["up to 2 of 3"]);
    }
}
