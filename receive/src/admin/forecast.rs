//! What a change of the ring would move.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use weir_hashring::{
    ids::{NodeNumber, PoolName},
    planner::{Goal, Grouping, Member, Plan, moves_per_step_default},
    ring::{Node, NodeState, RingState},
    table::Table as RingTable,
};

use super::{
    args::Pace, balance::balanced_waves, error::AdminError, names::find_pool, show::share, table::Table,
};
use crate::duration::DisplayDuration;

/// What a change of the ring would move.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The pool whose table is changed.
    pub pool: String,
    /// The epoch that it was planned from.
    pub epoch: u64,
    /// Replicas of all slots, afterwards.
    pub placements: usize,
    /// How many of them move.
    pub placements_moved: usize,
    /// How many have to, for nodes to own as many slots as they will.
    pub placements_moved_min: usize,
    /// The part of all placements that moves, 0 to 1.
    pub moved_share: f64,
    /// The pool has no table yet, so that nothing is taken from anybody.
    pub is_first_table: bool,
    /// In how many steps.
    pub waves: usize,
    /// Seconds from the first to the last of them, if nothing holds them back.
    pub seconds: f64,
    /// The nodes that own slots before or afterwards.
    pub nodes: Vec<NodeForecast>,
    /// Replica groups before.
    pub groups_before: Groups,
    /// Replica groups afterwards.
    pub groups_after: Groups,
    /// What else one should know.
    pub notes: Vec<String>,
}

/// A node before and after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeForecast {
    /// Its name.
    pub name: String,
    /// Its identity; none if it does not exist yet.
    pub uid: Option<String>,
    /// What it may fail with.
    pub zone: String,
    /// In how many slots it is a replica now.
    pub slots_before: u32,
    /// And afterwards.
    pub slots_after: u32,
}

/// How much nodes depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// How many different sets of nodes own a slot together.
    pub replica_sets: usize,
    /// How many pairs of nodes share any slot.
    pub sharing_pairs: usize,
    /// How many pairs there are.
    pub pairs: usize,
}

/// Who shall own the slots of a pool.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The pool.
    pub pool: PoolName,
    /// The nodes that shall own slots.
    pub members: Vec<Member>,
    /// Names of nodes that do not exist yet.
    pub new_names: BTreeMap<NodeNumber, String>,
    /// What comes first.
    pub goal: Goal,
}

impl Wish {
    /// The nodes of the pool that shall own slots as it is.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn as_it_is(state: &RingState, pool: &str, goal: Goal) -> Result<Self, AdminError> {
        let (pool, _) = find_pool(state, pool)?;
        Ok(Self { members: state.members(&pool), pool, new_names: BTreeMap::new(), goal })
    }

    /// The plan.
    ///
    /// # Errors
    /// If there is none.
    pub fn plan(&self, state: &RingState) -> Result<Plan, AdminError> {
        // A table with fewer copies than the cluster was founded with says that its leader makes such tables.
        let replicas = state.mapping().pools.get(&self.pool).and_then(|pool| pool.table.replicas());
        let cluster = state.cluster();
        let is_degraded = cluster.zip(replicas).is_some_and(|(cluster, own)| own < cluster.replicas);
        let planned = state.plan(&self.pool, &self.members, self.goal, is_degraded);
        planned
            .ok_or_else(|| AdminError::NotPossible("the ring is not founded yet".to_owned()))?
            .map_err(AdminError::Plan)
    }

    /// What it would move.
    ///
    /// # Errors
    /// If there is no plan.
    pub fn forecast(&self, state: &RingState, pace: Pace) -> Result<Forecast, AdminError> {
        let plan = self.plan(state)?;
        let (_, pool) = find_pool(state, self.pool.as_str())?;
        let slots = state.cluster().map(|cluster| cluster.slots);
        let slots = slots.ok_or_else(|| AdminError::NotPossible("the ring is not founded yet".to_owned()))?;
        let (before, after) = (&pool.table, pool.table.moved(slots, plan.replicas, &plan.moves));
        // Without moves there may be no table yet.
        let after = if plan.is_empty() { before.clone() } else { after.map_err(not_fitting)? };
        let moves_max = moves_max(state, pace);
        let waves = match self.goal {
            Goal::Settle => plan.waves(moves_max).len(),
            Goal::Regroup => balanced_waves(&plan.moves, moves_max).len(),
        };
        let pauses = u32::try_from(waves.saturating_sub(1)).unwrap_or(u32::MAX);
        let (counts_before, counts_after) = (before.slots_of_nodes(), after.slots_of_nodes());
        let gained = counts_after.iter().map(|(number, &count)| {
            count.saturating_sub(counts_before.get(number).copied().unwrap_or_default()) as usize
        });
        let moved_share = plan.moves.len() as f64 / after.cells().len().max(1) as f64;
        Ok(Forecast {
            pool: self.pool.to_string(),
            epoch: state.epoch().0,
            placements: after.cells().len(),
            placements_moved: plan.moves.len(),
            placements_moved_min: gained.sum(),
            moved_share,
            is_first_table: before.is_empty(),
            waves,
            seconds: pace.step_interval.saturating_mul(pauses).as_secs_f64(),
            nodes: self.nodes(state, &counts_before, &counts_after),
            groups_before: Groups::of(before),
            groups_after: Groups::of(&after),
            notes: notes(state, &self.pool),
        })
    }

    fn nodes(
        &self,
        state: &RingState,
        before: &BTreeMap<NodeNumber, u32>,
        after: &BTreeMap<NodeNumber, u32>,
    ) -> Vec<NodeForecast> {
        let known: BTreeMap<NodeNumber, &Node> = state.nodes().map(|node| (node.number, node)).collect();
        let mut numbers: Vec<NodeNumber> = before.keys().chain(after.keys()).copied().collect();
        numbers.extend(self.members.iter().map(|member| member.number));
        numbers.sort_unstable();
        numbers.dedup();
        let forecast = |number: NodeNumber| {
            let node = known.get(&number);
            let zone = || self.members.iter().find(|member| member.number == number);
            NodeForecast {
                name: node.map(|node| node.name.clone()).unwrap_or_else(|| {
                    self.new_names.get(&number).cloned().unwrap_or_else(|| number.to_string())
                }),
                uid: node.map(|node| node.uid.to_string()),
                zone: node
                    .map(|node| node.zone.clone())
                    .or_else(|| zone().map(|member| member.zone.clone()))
                    .unwrap_or_default(),
                slots_before: before.get(&number).copied().unwrap_or_default(),
                slots_after: after.get(&number).copied().unwrap_or_default(),
            }
        };
        numbers.into_iter().map(forecast).collect()
    }
}

/// The most moves of one wave.
pub fn moves_max(state: &RingState, pace: Pace) -> usize {
    let default = || state.cluster().map_or(1, |cluster| moves_per_step_default(cluster.slots));
    pace.max_moves_per_step.map_or_else(default, |max| max as usize).max(1)
}

/// The nodes of a pool that are lost, not given up, and hold slots. As long as there is one, the leader moves
/// nothing.
pub fn lost_holders<'a>(state: &'a RingState, pool: &PoolName) -> Vec<&'a Node> {
    let counts = state.mapping().pools.get(pool).map(|pool| pool.table.slots_of_nodes()).unwrap_or_default();
    let is_it =
        |node: &&Node| node.state == NodeState::Lost && !node.forgotten && counts.contains_key(&node.number);
    state.nodes().filter(is_it).collect()
}

fn notes(state: &RingState, pool: &PoolName) -> Vec<String> {
    let mut notes = Vec::new();
    let joining = state.nodes().filter(|node| node.pool == *pool && node.state == NodeState::Joining);
    let joining: Vec<&str> = joining.map(|node| node.name.as_str()).collect();
    if !joining.is_empty() {
        notes.push(format!("not counted, because they are still joining: {}", joining.join(", ")));
    }
    for lost in lost_holders(state, pool) {
        notes.push(format!(
            "{} is lost and holds slots: the leader moves nothing before it is replaced or given up (weir node \
             forget), or its slots are moved with weir ring rebalance",
            lost.name
        ));
    }
    notes
}

/// What the planner says always fits.
fn not_fitting(fault: weir_hashring::table::MoveFault) -> AdminError {
    AdminError::NotPossible(format!("the plan does not fit the table: {fault}"))
}

impl Groups {
    fn of(table: &RingTable) -> Self {
        let Grouping { replica_sets, sharing_pairs, pairs } = Grouping::of(table);
        Self { replica_sets, sharing_pairs, pairs }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica_sets, sharing_pairs, pairs } = self;
        write!(out, "{replica_sets} replica sets, {sharing_pairs} of {pairs} pairs of nodes share slots")
    }
}

impl Forecast {
    /// What moves, in one line.
    pub fn summary(&self) -> String {
        let Self { placements, placements_moved, placements_moved_min, waves, .. } = self;
        if self.is_first_table {
            return format!("{placements_moved} placements are given out at once: it is the first table");
        }
        if *placements_moved == 0 {
            return "nothing moves".to_owned();
        }
        let time = DisplayDuration(Duration::from_secs_f64(self.seconds));
        format!(
            "{placements_moved} of {placements} placements move ({}; the least possible is \
             {placements_moved_min}), in {waves} waves over {time}",
            share(self.moved_share)
        )
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "pool {}, from epoch {}: {}\n", self.pool, self.epoch, self.summary())?;
        let mut table = Table::new(&["NODE", "ZONE", ">SLOTS", ">AFTERWARDS", ">CHANGE"]);
        for node in &self.nodes {
            let change = i64::from(node.slots_after) - i64::from(node.slots_before);
            table.row([
                node.name.clone(),
                node.zone.clone(),
                node.slots_before.to_string(),
                node.slots_after.to_string(),
                if change == 0 { "0".to_owned() } else { format!("{change:+}") },
            ]);
        }
        write!(
            out,
            "{table}\ngroups before:  {}\ngroups after:   {}",
            self.groups_before, self.groups_after
        )?;
        self.notes.iter().try_for_each(|note| write!(out, "\nnote: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{add, degraded_ring, ring, set_state, settle},
        *,
    };

    const PACE: Pace = Pace { step_interval: Duration::from_secs(30), max_moves_per_step: None };

    fn forecast(state: &RingState, change: impl FnOnce(&mut Wish)) -> Result<Forecast, AdminError> {
        let mut wish = Wish::as_it_is(state, "default", Goal::Settle)?;
        change(&mut wish);
        wish.forecast(state, PACE)
    }

    #[test]
    fn nothing_moves_in_a_settled_ring() {
        let found = forecast(&ring(6), |_| ()).expect("there is a plan");
        assert_eq!((found.placements, found.placements_moved, found.waves), (3072, 0, 0));
        assert_eq!(found.groups_before, Groups { replica_sets: 2, sharing_pairs: 6, pairs: 15 });
        assert_eq!(found.groups_after, found.groups_before);
        assert_eq!(found.summary(), "nothing moves");
    }

    #[test]
    fn a_forecast_is_what_comes() {
        let mut state = ring(6);
        let new = NodeNumber(7);
        let found = forecast(&state, |wish| {
            let member =
                Member { number: new, zone: "b".to_owned(), weight: weir_hashring::ids::Weight::DEFAULT };
            wish.members.push(member);
            wish.new_names.insert(new, "next".to_owned());
        });
        let found = found.expect("there is a plan");
        // A third of what its zone has.
        assert_eq!((found.placements_moved, found.placements_moved_min), (341, 341));
        // 64 at a time.
        assert_eq!((found.waves, found.seconds), (6, 150.0));
        let last = found.nodes.last().expect("there are nodes");
        assert_eq!((last.name.as_str(), &last.uid, last.zone.as_str()), ("next", &None, "b"));
        assert_eq!((last.slots_before, last.slots_after), (0, 341));
        let text = found.to_string();
        assert!(
            text.contains(
                "341 of 3072 placements move (11.1%; the least possible is 341), in 6 waves over 2m30s"
            ),
            "{text}"
        );
        assert!(text.contains("+341\n"), "{text}");

        add(&mut state, 7);
        settle(&mut state);
        let counts = state.mapping().pools[&PoolName::from("default")].table.slots_of_nodes();
        let came: Vec<u32> = counts.into_values().collect();
        assert_eq!(found.nodes.iter().map(|node| node.slots_after).collect::<Vec<_>>(), came);
    }

    #[test]
    fn groups_cost_moves_that_balance_does_not_need() {
        let mut state = ring(9);
        for number in [4, 8] {
            set_state(&mut state, number, NodeState::Active, NodeState::Draining);
            settle(&mut state);
        }
        let found = forecast(&state, |wish| wish.goal = Goal::Regroup).expect("there is a plan");
        assert_eq!(found.placements_moved_min, 0);
        assert!(found.placements_moved > 0 && found.waves > 1, "{found}");
        assert!(found.groups_after.sharing_pairs < found.groups_before.sharing_pairs, "{found}");
    }

    #[test]
    fn too_few_nodes_are_no_plan() {
        let error = forecast(&ring(3), |wish| drop(wish.members.pop())).expect_err("two are too few");
        assert_eq!(error.to_string(), "this cannot be planned: 2 nodes may own slots, 3 are needed");
        let error = Wish::as_it_is(&ring(3), "x", Goal::Settle).expect_err("there is no such pool");
        assert_eq!(error.to_string(), "there is no pool \"x\"; there are: default");
    }

    #[test]
    fn a_degraded_ring_is_planned_as_it_is() {
        let mut state = degraded_ring();
        assert_eq!(forecast(&state, |_| ()).expect("two will do").placements_moved, 0);
        let found = forecast(&state, |wish| wish.members.truncate(1));
        let error = found.expect_err("one will not").to_string();
        assert_eq!(error, "this cannot be planned: 1 nodes may own slots, 2 are needed");
        // There are three copies as soon as there can be.
        add(&mut state, 3);
        let found = forecast(&state, |_| ()).expect("three will do");
        assert_eq!((found.placements, found.placements_moved, found.waves), (3072, 1024, 1));
    }

    #[test]
    fn lost_nodes_are_noted() {
        let mut state = ring(6);
        set_state(&mut state, 2, NodeState::Active, NodeState::Lost);
        let found = forecast(&state, |_| ()).expect("there is a plan");
        assert!(found.notes[0].starts_with("n2 is lost and holds slots"), "{:?}", found.notes);
        assert_eq!(found.nodes[1].slots_after, 0);
        assert!(found.placements_moved > 0);
    }
}
