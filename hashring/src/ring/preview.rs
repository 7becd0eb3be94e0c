//! What a plan would mean, before anything is moved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Node, NodeState, RingState};
use crate::{
    ids::{NodeNumber, PoolName},
    planner::{Goal, Member, PlanError},
    spread::SpreadRule,
};

/// What it would take to bring the table of a pool to what is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanPreview {
    /// How many cells get another owner, or their first one.
    pub cells_moved: usize,
    /// Which share of all cells that is: about so much of all series is new on its receiver.
    pub moved_share: f64,
    /// In how many steps.
    pub waves: usize,
    /// The nodes that own slots, or would, by number.
    pub nodes: Vec<NodePreview>,
    /// What is wrong, for people. Without a plan nothing is moved.
    pub problems: Vec<String>,
}

/// What a plan would mean for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePreview {
    /// Its number.
    pub number: NodeNumber,
    /// Its name.
    pub name: String,
    /// In how many rows it is.
    pub slots_before: u32,
    /// In how many rows it would be.
    pub slots_after: u32,
}

impl RingState {
    /// Computes what it would take to settle or regroup a pool with the nodes that shall own its slots:
    /// those of [`RingState::members`], or others to see what that would mean. `moves_max` are the
    /// moves of one wave. None if there is no such pool.
    pub fn plan_preview(
        &self,
        pool: &PoolName,
        members: &[Member],
        goal: Goal,
        allow_degraded: bool,
        moves_max: usize,
    ) -> Option<PlanPreview> {
        let cluster = self.cluster.as_ref()?;
        let table = &self.mapping.pools.get(pool)?.table;
        let mut problems = self.pool_problems(pool);
        let plan = self.plan(pool, members, goal, allow_degraded)?;
        let plan = plan.map_err(|error| problems.push(error.to_string())).ok();
        let replicas = plan.as_ref().map(|plan| plan.replicas).or(table.replicas());
        let moves = plan.as_ref().map_or(&[][..], |plan| &plan.moves);
        let before = table.slots_of_nodes();
        let mut after = before.clone();
        for step in moves {
            if let Some(held) = step.from.and_then(|from| after.get_mut(&from)) {
                *held -= 1;
            }
            *after.entry(step.to).or_default() += 1;
        }
        let cells = cluster.slots.as_len() * replicas.map_or(1, |replicas| replicas.as_len());
        let name = |number: NodeNumber| {
            self.nodes
                .values()
                .find(|node| node.number == number)
                .map_or(String::new(), |node| node.name.clone())
        };
        let preview = |(&number, &slots_after): (&NodeNumber, &u32)| NodePreview {
            number,
            name: name(number),
            slots_before: before.get(&number).copied().unwrap_or_default(),
            slots_after,
        };
        Some(PlanPreview {
            cells_moved: moves.len(),
            moved_share: moves.len() as f64 / cells as f64,
            waves: plan.as_ref().map_or(0, |plan| plan.waves(moves_max.max(1)).len()),
            nodes: after.iter().map(preview).collect(),
            problems,
        })
    }

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
        planner::moves_per_step_default,
        ring::{
            Command, NodeRegistration,
            tests::{cluster_of, init, registration, set_state, settle},
        },
    };

    fn default_pool() -> PoolName {
        PoolName::from(PoolName::DEFAULT)
    }

    #[test]
    fn a_preview_says_what_a_plan_then_does() {
        let mut state = cluster_of(6);
        for uid in [7, 8, 9] {
            state.apply(&Command::RegisterNode(registration(uid))).expect("the node is new");
        }
        let pool = default_pool();
        let preview = |state: &RingState, members: &[Member], moves_max| {
            state.plan_preview(&pool, members, Goal::Settle, false, moves_max).expect("the pool is there")
        };
        let nothing = preview(&state, &state.members(&pool), 48);
        assert_eq!((nothing.cells_moved, nothing.waves, nothing.moved_share), (0, 0, 0.0));
        assert!(nothing.problems.is_empty(), "{nothing:?}");
        // As if three more were Active: a third of 768 cells, rounded down for each.
        for uid in [7, 8, 9] {
            state.apply(&set_state(uid, NodeState::Joining, NodeState::Active)).expect("it is Joining");
        }
        let step = moves_per_step_default(state.cluster().expect("it is founded").slots);
        let found = preview(&state, &state.members(&pool), step);
        assert!((255..=282).contains(&found.cells_moved), "{found:?}");
        assert!((found.moved_share - found.cells_moved as f64 / 768.0).abs() < 1e-9);
        assert_eq!(found.nodes.len(), 9);
        let before = state.epoch().0;
        let mut settled = state.clone();
        settle(&mut settled, step);
        let table = &settled.mapping().pools[&pool].table;
        for node in &found.nodes {
            assert_eq!(table.slots_of_nodes()[&node.number], node.slots_after, "{node:?}");
            assert_eq!(state.slots_held(node.number), node.slots_before, "{node:?}");
            assert_eq!(node.name, format!("node-{}", node.number.0));
        }
        assert!(found.waves >= 255_usize.div_ceil(step), "{} waves", found.waves);
        assert!(settled.epoch().0 - before >= found.waves as u64 - 1);
        // With two nodes there is no plan.
        let two = preview(&state, &state.members(&pool)[..2], step);
        assert_eq!((two.cells_moved, two.waves), (0, 0));
        assert_eq!(two.problems, ["2 nodes may own slots, 3 are needed"]);
        assert!(state.plan_preview(&PoolName::from("none"), &[], Goal::Settle, false, 1).is_none());
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
