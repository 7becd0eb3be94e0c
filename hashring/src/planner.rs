//! From who shall own slots to the moves that make it so.
//!
//! A plan is computed by whoever leads, and what is committed are its moves, so the way to compute it
//! may change between versions. Its goals, each more important than the next:
//!
//! 1. Rows are valid: distinct nodes that may own slots, kept apart as [`SpreadRule`] says.
//! 2. Each node owns its quota: its share by weight, rounded down or up.
//! 3. As few moves as can be.
//! 4. Replica groups: few pairs of nodes share a slot. With three replicas two dead nodes stop writes
//!    if they share any, which is likely when every node shares with every other.
//! 5. Where all that leaves a choice, a fixed hash decides.
//!
//! If no node has a zone, the planner deals the nodes to as many virtual columns as there are
//! replicas and treats these as zones, because groups come about that way. Quotas are then by
//! column, as they are by zone.
//!
//! A plan is applied in waves; each completes the rows that it touches, so all of them are valid
//! afterwards. Whoever plans again after a wave gets what is left.

mod board;
mod bundle;
mod columns;
mod exchange;
mod grouping;
mod layout;
mod quota;
mod regroup;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    ids::{NodeNumber, ReplicaCount, Slot, SlotCount, Weight},
    spread::{Domain, SpreadRule},
    table::{Move, Table},
};
use board::Board;

pub use grouping::Grouping;

/// A node that shall own slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub number: NodeNumber,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its share.
    pub weight: Weight,
}

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The table as it is.
    pub table: &'a Table,
    /// How many slots the cluster has.
    pub slots: SlotCount,
    /// How many owners each slot shall have.
    pub replicas: ReplicaCount,
    /// Whether fewer will do when there are fewer nodes.
    pub allow_degraded: bool,
    /// The nodes that shall own slots. All others that do lose theirs.
    pub members: &'a [Member],
    /// What is wanted.
    pub goal: Goal,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The goals of this module in their order. That covers the first table, nodes that come or go,
    /// and changed weights.
    Settle,
    /// Replica groups before few moves.
    Regroup,
}

/// Moves that lead to a wanted table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many owners each slot will have.
    pub replicas: ReplicaCount,
    /// The moves, the rows in an order that mixes all nodes. None if there is nothing to do.
    pub moves: Vec<Move>,
    /// Whether cells are added, which is only possible at once.
    adds_cells: bool,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Rows cannot be filled.
    #[error("{members} nodes may own slots, {needed} are needed")]
    TooFewNodes {
        /// How many there are.
        members: usize,
        /// How many there must be.
        needed: usize,
    },
    /// A number stands for two nodes.
    #[error("{0} is listed twice")]
    Repeated(NodeNumber),
    /// The table has more replicas than wanted.
    #[error("a table does not get fewer replicas")]
    FewerReplicas,
    /// More nodes than the planner counts.
    #[error("{0} nodes are too many")]
    TooManyNodes(usize),
}

/// The most nodes of one table.
pub const MEMBERS_MAX: usize = 4096;

/// How many moves a step has unless told otherwise: one for sixteen slots.
pub fn moves_per_step_default(slots: SlotCount) -> usize {
    slots.as_len() / 16
}

/// Computes the moves that lead from a table to the wanted one.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    let members = sorted_members(request.members)?;
    let replicas = replicas(request, members.len())?;
    let numbers_and_zones = members.iter().map(|member| (member.number, member.zone.as_str()));
    let too_few = PlanError::TooFewNodes { members: members.len(), needed: replicas.as_len() };
    let in_columns = members.iter().all(|member| member.zone.is_empty());
    let rule = if in_columns {
        SpreadRule::with_domains(columns::columns(&members, request.table, replicas), replicas)
    } else {
        SpreadRule::new(numbers_and_zones, replicas)
    };
    let rule = rule.ok_or(too_few)?;

    let mut board = Board::new(request.table, request.slots, replicas, &members, &rule);
    if request.table.is_empty() {
        layout::fill(&mut board);
    } else {
        bundle::settle(&mut board);
        exchange::save_moves(&mut board);
        if request.goal == Goal::Regroup {
            regroup::regroup(&mut board);
        }
    }
    Ok(Plan {
        replicas,
        moves: moves(request.table, &board, &rule, in_columns),
        adds_cells: request.table.replicas() != Some(replicas),
    })
}

impl Plan {
    /// True if the table is as wanted.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// The moves in waves of at most `moves_max`, or one row if that has more. A wave leaves no row
    /// half moved. What adds cells to a table, like its first plan, is one wave: nothing is moved
    /// by it from one node to another.
    pub fn waves(&self, moves_max: usize) -> Vec<&[Move]> {
        if self.moves.is_empty() {
            return Vec::new();
        }
        if self.adds_cells {
            return vec![&self.moves];
        }
        let mut waves = Vec::new();
        let (mut start, mut end) = (0, 0);
        for row in self.moves.chunk_by(|a, b| a.slot == b.slot) {
            if end > start && end - start + row.len() > moves_max {
                waves.push(&self.moves[start..end]);
                start = end;
            }
            end += row.len();
        }
        waves.push(&self.moves[start..end]);
        waves
    }
}

fn sorted_members(members: &[Member]) -> Result<Vec<Member>, PlanError> {
    if members.len() > MEMBERS_MAX {
        return Err(PlanError::TooManyNodes(members.len()));
    }
    let mut sorted = members.to_vec();
    sorted.sort_by_key(|member| member.number);
    match sorted.windows(2).find(|pair| pair[0].number == pair[1].number) {
        Some(pair) => Err(PlanError::Repeated(pair[0].number)),
        None => Ok(sorted),
    }
}

/// How many owners each slot gets: as many as wanted, or what a degraded cluster can do.
fn replicas(request: &Request<'_>, members: usize) -> Result<ReplicaCount, PlanError> {
    let so_far = request.table.replicas();
    if so_far.is_some_and(|so_far| so_far > request.replicas) {
        return Err(PlanError::FewerReplicas);
    }
    if members >= request.replicas.as_len() {
        return Ok(request.replicas);
    }
    let degraded = u8::try_from(members).ok().and_then(ReplicaCount::new);
    match degraded {
        Some(degraded) if request.allow_degraded && so_far.is_none_or(|so_far| so_far <= degraded) => {
            Ok(degraded)
        }
        _ => {
            let needed = if request.allow_degraded {
                so_far.map_or(1, ReplicaCount::as_len)
            } else {
                request.replicas.as_len()
            };
            Err(PlanError::TooFewNodes { members, needed })
        }
    }
}

/// Order in which slots are taken where nothing else decides.
fn slot_order(slot: Slot) -> u64 {
    xxh3_64(&slot.0.to_le_bytes())
}

/// The moves from the table to what is on the board.
fn moves(table: &Table, board: &Board, rule: &SpreadRule, in_columns: bool) -> Vec<Move> {
    let mut slots: Vec<Slot> = board.slots().collect();
    slots.sort_by_key(|&slot| slot_order(slot));
    let mut moves = Vec::new();
    for slot in slots {
        let mut wanted: Vec<NodeNumber> = board.row_numbers(slot).collect();
        wanted.sort_by_key(|&node| (rule.domain(node), node));
        let owners = table.owners(slot);
        let mut row: Vec<NodeNumber> = wanted.clone();
        if in_columns {
            for (column, &node) in wanted.iter().enumerate() {
                row[columns::position_at(slot, column, wanted.len())] = node;
            }
        } else {
            order_row(slot, owners, &mut row);
        }
        moves.extend((0..).zip(&row).zip(0..).filter_map(|((index, &to), position): ((usize, _), u8)| {
            let from = owners.get(index).copied();
            (from != Some(to)).then_some(Move { slot, position, from, to })
        }));
    }
    moves
}

/// Puts the nodes that stay where they are, and the new ones into what is left.
fn order_row(slot: Slot, owners: &[NodeNumber], row: &mut [NodeNumber]) {
    let mut new: Vec<NodeNumber> = row.iter().copied().filter(|node| !owners.contains(node)).rev().collect();
    let mut places: Vec<usize> = (0..row.len()).collect();
    places.sort_by_key(|&position| columns::column_at(slot, position, row.len()));
    let wanted = row.to_vec();
    for position in places {
        match owners.get(position) {
            Some(owner) if wanted.contains(owner) => row[position] = *owner,
            _ => row[position] = new.pop().unwrap_or(row[position]),
        }
    }
}

/// The domains of nodes by number.
type Domains = BTreeMap<NodeNumber, Domain>;

#[cfg(test)]
mod tests;
