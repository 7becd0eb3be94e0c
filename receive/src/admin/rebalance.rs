//! `weir ring rebalance`: what the leader does not do by itself.
//!
//! The leader moves slots when nodes come, drain, change their weight or are given up. It leaves two things
//! to people: the slots of a node that is lost and not given up, because it may be replaced, and replica
//! groups, because they cost moves. Both are done here wave by wave, each a command from the epoch it was
//! planned from. The waves keep the pause and wait while a node says that nothing should be moved, as the
//! leader does.
//!
//! The slots of lost nodes are planned anew before each wave, which gives what is left. That is not so
//! with replica groups: half formed, they would be planned otherwise. So their table is planned once, and
//! each wave brings the ring closer to it, until that table is reached or nodes come or go.

use std::{fmt, time::Duration};

use serde::Serialize;
use tokio::time::sleep;
use weir_hashring::{
    ids::{PlanId, PoolName, ReplicaCount},
    planner::{Goal, Member},
    ring::{Applied, Command, PlanCommand, Rejected, RingState},
    table::{Move, Table},
};

use super::{
    args::RebalanceArgs,
    balance::{balanced_wave, moves_between},
    client::{Client, Picture},
    console::Output,
    error::AdminError,
    forecast::{Wish, lost_holders, moves_max},
    names::find_pool,
};

/// Between two looks at what holds moves back.
const LOOK: Duration = Duration::from_secs(1);
/// Somebody else moves slots at the same time if there are so many times more waves than were planned.
const WAVES_FACTOR: usize = 2;
/// And so many beside that.
const WAVES_MORE: usize = 16;

/// What a rebalance did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rebalanced {
    /// The pool whose table was changed.
    pub pool: String,
    /// How many placements were moved.
    pub placements_moved: usize,
    /// In how many waves.
    pub waves: usize,
    /// The epoch that it led to.
    pub epoch: u64,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl fmt::Display for Rebalanced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, placements_moved, waves, epoch, notes } = self;
        match placements_moved {
            0 => write!(out, "nothing was moved in pool {pool}, epoch {epoch}")?,
            moved => write!(
                out,
                "{moved} placements of pool {pool} were moved in {waves} waves, to epoch {epoch}"
            )?,
        }
        notes.iter().try_for_each(|note| write!(out, "\nnote: {note}"))
    }
}

/// What there is to do.
#[derive(Debug, PartialEq)]
enum Work {
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// To move the slots of lost nodes.
    Lost,
    /// To come to this table, as long as these nodes may own slots.
    Regroup(Table, Vec<Member>),
}

/// `weir ring rebalance`
pub async fn rebalance(
    client: &Client,
    output: &mut Output<'_>,
    args: &RebalanceArgs,
) -> Result<(), AdminError> {
    let state = client.ring().await?;
    let (pool, _) = find_pool(&state, &args.pool)?;
    let mut done = Rebalanced {
        pool: pool.to_string(),
        placements_moved: 0,
        waves: 0,
        epoch: state.epoch().0,
        notes: Vec::new(),
    };
    let work = work(&state, &pool, args.regroup)?;
    if let Work::Nothing(why) = work {
        done.notes.push(why.to_owned());
        output.report(&done);
        return Ok(());
    }
    let goal = if args.regroup { Goal::Regroup } else { Goal::Settle };
    let mut forecast = Wish::as_it_is(&state, &args.pool, goal)?.forecast(&state, args.pace)?;
    forecast.notes.push("this may be broken off and begun again at any time".to_owned());
    if output.confirm(&forecast, args.consent)? {
        let waves_max = forecast.waves * WAVES_FACTOR + WAVES_MORE;
        run(client, output, args, &work, waves_max, &mut done).await?;
        output.report(&done);
    }
    Ok(())
}

/// What is to be moved, and not by the leader.
fn work(state: &RingState, pool: &PoolName, regroup: bool) -> Result<Work, AdminError> {
    let lost = lost_holders(state, pool);
    let plan = |goal| Wish::as_it_is(state, pool.as_str(), goal)?.plan(state);
    let settling = plan(Goal::Settle)?;
    if !regroup {
        return Ok(match (settling.is_empty(), lost.is_empty()) {
            (true, _) => Work::Nothing("slots are where they should be"),
            (false, true) => Work::Nothing("the leader moves by itself what is to be moved"),
            (false, false) => Work::Lost,
        });
    }
    if let Some(lost) = lost.first() {
        let what = format!(
            "{} is lost and holds slots: replace it, give it up, or rebalance without --regroup first",
            lost.name
        );
        return Err(AdminError::NotPossible(what));
    }
    if !settling.is_empty() {
        let count = settling.moves.len();
        let what = format!("{count} placements are still to be moved by the leader: regroup when they are");
        return Err(AdminError::NotPossible(what));
    }
    let plan = plan(Goal::Regroup)?;
    if plan.is_empty() {
        return Ok(Work::Nothing("replica groups are as good as they can be"));
    }
    let (_, own) = find_pool(state, pool.as_str())?;
    let slots = state.cluster().map(|cluster| cluster.slots);
    let wanted = slots.and_then(|slots| own.table.moved(slots, plan.replicas, &plan.moves).ok());
    let wanted = wanted.ok_or_else(|| AdminError::NotPossible("the plan does not fit".to_owned()))?;
    Ok(Work::Regroup(wanted, state.members(pool)))
}

/// Moves to be made at once, after which each slot has so many owners.
#[derive(Debug)]
struct Wave {
    replicas: ReplicaCount,
    moves: Vec<Move>,
}

impl Wave {
    /// The command that makes the moves.
    fn command(self, state: &RingState, pool: &PoolName, reason: &str) -> PlanCommand {
        PlanCommand {
            pool: pool.clone(),
            base_epoch: state.epoch(),
            replicas: self.replicas,
            degraded: state.cluster().is_some_and(|cluster| self.replicas < cluster.replicas),
            moves: self.moves,
            reason: reason.to_owned(),
            plan_id: PlanId(rand::random()),
        }
    }
}

/// The next wave; none if there is nothing left to do here.
fn next_wave(
    state: &RingState,
    pool: &PoolName,
    work: &Work,
    moves_max: usize,
) -> Result<Option<Wave>, AdminError> {
    let (_, own) = find_pool(state, pool.as_str())?;
    let Some(mut replicas) = own.table.replicas() else { return Ok(None) };
    let moves = match work {
        Work::Nothing(_) => Vec::new(),
        Work::Lost if lost_holders(state, pool).is_empty() => Vec::new(),
        Work::Lost => {
            let plan = Wish::as_it_is(state, pool.as_str(), Goal::Settle)?.plan(state)?;
            replicas = plan.replicas;
            plan.waves(moves_max).first().map(|wave| wave.to_vec()).unwrap_or_default()
        }
        Work::Regroup(_, members) if state.members(pool) != *members => {
            let what = "nodes came or went meanwhile: begin again when their slots are moved".to_owned();
            return Err(AdminError::NotPossible(what));
        }
        Work::Regroup(wanted, _) => balanced_wave(&moves_between(&own.table, wanted), moves_max),
    };
    Ok((!moves.is_empty()).then_some(Wave { replicas, moves }))
}

/// Moves wave after wave.
async fn run(
    client: &Client,
    output: &mut Output<'_>,
    args: &RebalanceArgs,
    work: &Work,
    waves_max: usize,
    done: &mut Rebalanced,
) -> Result<(), AdminError> {
    let pool = PoolName::from(args.pool.as_str());
    for _ in 0..waves_max {
        let picture = until_free(client, output).await?;
        let state = client.ring().await?;
        let Some(wave) = next_wave(&state, &pool, work, moves_max(&state, args.pace))? else { return Ok(()) };
        let count = wave.moves.len();
        let reason = if args.regroup { "regrouped" } else { "rebalanced" };
        let command = Command::ApplyPlan(wave.command(&state, &pool, reason));
        match client.propose(&picture, &command, false).await {
            Ok(Applied::Ring { epoch, .. }) => {
                done.epoch = epoch.0;
                done.placements_moved += count;
                done.waves += 1;
                output.tell(&format!("epoch {epoch}: {count} placements moved"));
            }
            Ok(_) => {}
            // Something else came first: look again.
            Err(AdminError::Rejected(Rejected::StalePlan { .. })) => continue,
            Err(error @ AdminError::Unknown { .. }) => output.tell(&error.to_string()),
            Err(error) => return Err(error),
        }
        sleep(args.pace.step_interval).await;
    }
    let what = "somebody else moves slots at the same time; try again later".to_owned();
    Err(AdminError::NotPossible(what))
}

/// Waits until no node says that nothing should be moved.
async fn until_free(client: &Client, output: &mut Output<'_>) -> Result<Picture, AdminError> {
    let mut told = None;
    loop {
        let picture = client.picture().await?;
        let Some(why) = held_back(&picture) else { return Ok(picture) };
        if told.as_ref() != Some(&why) {
            output.tell(&format!("waiting: {why}"));
        }
        told = Some(why);
        sleep(LOOK).await;
    }
}

fn held_back(picture: &Picture) -> Option<String> {
    if let Err(what) = &picture.leader {
        return Some(format!("the leader is not reached ({what})"));
    }
    let holds_back = picture
        .nodes()
        .iter()
        .find(|node| node.report.as_ref().is_some_and(|report| report.lives && report.holds_moves_back));
    holds_back.map(|node| format!("{} is not ready, or near its limit of series", node.name))
}

#[cfg(test)]
mod tests {
    use weir_hashring::{planner::Grouping, ring::NodeState};

    use super::{
        super::samples::{add, degraded_ring, leader_of_three, ring, set_state, settle},
        *,
    };

    fn pool() -> PoolName {
        PoolName::from(PoolName::DEFAULT)
    }

    fn found(state: &RingState, regroup: bool) -> Result<Work, String> {
        work(state, &pool(), regroup).map_err(|error| error.to_string())
    }

    /// Thirty nodes of which some have left, so that groups are broken.
    fn broken() -> RingState {
        let mut state = ring(30);
        for number in [2, 3, 5, 11, 13, 20, 28] {
            set_state(&mut state, number, NodeState::Active, NodeState::Draining);
            settle(&mut state);
        }
        state
    }

    #[test]
    fn only_what_the_leader_leaves_is_done() {
        let settled = ring(9);
        assert_eq!(found(&settled, false), Ok(Work::Nothing("slots are where they should be")));
        assert_eq!(found(&settled, true), Ok(Work::Nothing("replica groups are as good as they can be")));

        let mut joined = settled.clone();
        add(&mut joined, 10);
        assert_eq!(
            found(&joined, false),
            Ok(Work::Nothing("the leader moves by itself what is to be moved"))
        );
        let error = found(&joined, true).expect_err("the leader is at work");
        assert!(error.ends_with("still to be moved by the leader: regroup when they are"), "{error}");

        let mut lost = settled;
        set_state(&mut lost, 4, NodeState::Active, NodeState::Lost);
        assert_eq!(found(&lost, false), Ok(Work::Lost));
        let error = found(&lost, true).expect_err("slots are without a replica");
        assert!(error.starts_with("n4 is lost and holds slots"), "{error}");
        let mut waves = 0;
        while let Some(wave) = next_wave(&lost, &pool(), &Work::Lost, 64).expect("there is a plan") {
            assert!(wave.moves.len() <= 64);
            apply(&mut lost, wave);
            waves += 1;
        }
        assert!(waves > 1 && lost_holders(&lost, &pool()).is_empty());
    }

    fn apply(state: &mut RingState, wave: Wave) {
        let command = Command::ApplyPlan(wave.command(state, &pool(), "test"));
        state.apply(&command).expect("the wave fits");
    }

    #[test]
    fn slots_of_lost_nodes_move_in_a_degraded_ring() {
        let mut state = degraded_ring();
        set_state(&mut state, 2, NodeState::Active, NodeState::Lost);
        let error = found(&state, false).expect_err("one is too few");
        assert_eq!(error, "this cannot be planned: 1 nodes may own slots, 2 are needed");
        add(&mut state, 3);
        assert_eq!(found(&state, false), Ok(Work::Lost));
        let wave =
            next_wave(&state, &pool(), &Work::Lost, 4096).expect("there is a plan").expect("there is work");
        assert_eq!((wave.replicas.get(), wave.moves.len()), (2, 1024));
        // With as many as the cluster was founded for there are three copies.
        let mut more = state.clone();
        apply(&mut state, wave);
        assert_eq!(found(&state, false), Ok(Work::Nothing("slots are where they should be")));
        add(&mut more, 4);
        let wave =
            next_wave(&more, &pool(), &Work::Lost, 4096).expect("there is a plan").expect("there is work");
        assert_eq!(wave.replicas.get(), 3);
        apply(&mut more, wave);
        assert!(lost_holders(&more, &pool()).is_empty());
    }

    /// The leader mends after each wave what is not in balance, and that is not much.
    #[test]
    fn groups_are_formed_beside_the_leader() {
        let mut state = broken();
        let grouping = |state: &RingState| Grouping::of(&state.mapping().pools[&pool()].table).sharing_pairs;
        let (before, work) = (grouping(&state), found(&state, true).expect("groups are broken"));
        let Work::Regroup(wanted, _) = &work else { panic!("{work:?}") };
        let planned = moves_between(&state.mapping().pools[&pool()].table, wanted).len();
        let (mut moved, mut waves) = (0, 0);
        while let Some(wave) = next_wave(&state, &pool(), &work, 64).expect("nobody comes or goes") {
            assert!(wave.moves.len() <= 64);
            (moved, waves) = (moved + wave.moves.len(), waves + 1);
            assert!(waves < 60, "{moved} of {planned}");
            apply(&mut state, wave);
            let table = state.mapping().pools[&pool()].table.clone();
            settle(&mut state);
            moved += moves_between(&table, &state.mapping().pools[&pool()].table).len();
        }
        assert_eq!(state.mapping().pools[&pool()].table, *wanted);
        assert!(grouping(&state) < before / 2 + 1, "{before}");
        assert!((planned..=planned * 11 / 10).contains(&moved), "{moved} of {planned}");

        add(&mut state, 31);
        let error = next_wave(&state, &pool(), &work, 64).expect_err("a node came").to_string();
        assert!(error.starts_with("nodes came or went meanwhile"), "{error}");
    }

    #[test]
    fn who_holds_moves_back() {
        let check = |change: fn(&mut Picture), expected: Option<&str>| {
            let mut picture = Picture { asked: leader_of_three(), leader: Ok(leader_of_three()) };
            change(&mut picture);
            let found = held_back(&picture);
            assert_eq!(found.as_deref(), expected);
        };
        check(|_| (), None);
        check(|picture| picture.leader = Err("x".to_owned()), Some("the leader is not reached (x)"));
        fn report(picture: &mut Picture) -> &mut weir_hashring::cluster::ReportStatus {
            let leader = picture.leader.as_mut().expect("it is known");
            leader.nodes[2].report.as_mut().expect("it reported")
        }
        let full = Some("c is not ready, or near its limit of series");
        check(|picture| report(picture).holds_moves_back = true, full);
        check(|picture| (report(picture).holds_moves_back, report(picture).lives) = (true, false), None);
    }
}
