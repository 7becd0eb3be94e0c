//! What the leader answers to heartbeats, and what they say about clocks.

use tokio::time::Instant;

use serde::{Deserialize, Serialize};

use super::{clocks::Median, objections::HEARTBEATS_COUNTED, shared::Shared, voters::raft_id};
use crate::{ids::Uid, raft::LogPlace};

/// What a node learns from the leader whenever it says how it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The term of the leader.
    pub term: u64,
    /// The node is a member of Raft.
    pub is_member: bool,
    /// Where the log of the leader says so.
    pub members_at: Option<LogPlace>,
    /// The node is gone for good. One that slept through that and takes part in Raft is told of it by
    /// nobody else.
    #[serde(default)]
    pub is_gone: bool,
    /// How many milliseconds the clock of the node is ahead of the middle of all.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
}

impl Shared {
    /// What the leader, which is this node, answers to a node; none if it does not lead, or nobody follows.
    pub fn heartbeat_answer(&self, uid: Uid) -> Option<HeartbeatAnswer> {
        let status = self.raft.get()?.status();
        let id = raft_id(uid);
        self.leads().then(|| HeartbeatAnswer {
            term: status.term,
            is_member: status.members.is_voter(id) || status.members.is_learner(id),
            members_at: status.members_at,
            is_gone: self.publisher.record().state.tombstone(uid).is_some(),
            clock_offset_ms: self.clock_offset_of(uid),
        })
    }

    /// What the leader, which is this node, answers to one that is in no list of nodes and only asks for the
    /// time; none if it does not lead, or nobody follows.
    pub fn time_answer(&self, clock_offset: Option<i64>) -> Option<HeartbeatAnswer> {
        let term = self.raft.get()?.status().term;
        let clock_offset_ms = clock_offset.and_then(|offset| Some(self.clock_median()?.off(offset)));
        self.leads().then(|| HeartbeatAnswer { term, clock_offset_ms, ..HeartbeatAnswer::default() })
    }

    /// How far the clock of another node is ahead of the own one, by its heartbeat; none if it does not
    /// say what time it is.
    pub fn clock_ahead(&self, clock_ms: i64, round_trip_ms: u64) -> Option<i64> {
        let way = i64::try_from(round_trip_ms / 2).unwrap_or(i64::MAX);
        (clock_ms != 0).then(|| clock_ms.saturating_add(way).saturating_sub(self.surroundings.nature.now().0))
    }

    /// What is in the middle of the clocks of all who were heard of lately.
    pub fn clock_median(&self) -> Option<Median> {
        let within = self.config.timers.heartbeat * HEARTBEATS_COUNTED;
        Median::of(&self.soft.lock().clock_offsets(Instant::now(), within))
    }

    fn clock_offset_of(&self, uid: Uid) -> Option<i64> {
        let median = self.clock_median()?;
        let offset = self.soft.lock().get(uid)?.clock_offset?;
        Some(median.off(offset))
    }
}
