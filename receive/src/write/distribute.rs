//! A request on its way to the owners of its series.
//!
//! The batch of the database holds all series of the request, those that are stored elsewhere too.
//! Each owner's share is a list of indexes into it. What is sent is read from the batch and, where a
//! series has to be introduced, from the message; both stay until the request is answered.

use std::{collections::BTreeMap, ops::Range};

use metrics::counter;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout_at},
};
use weir_proto::{
    remote_write::label_iter,
    weir_replication::{Outcome, Reason, Verdict},
};
use weir_tsdb::append::AppendBatch;

use crate::{
    answer::Refusal,
    replicate::{
        connection::{BatchAnswer, BatchSource, BatchTerms, LabelSink, is_stored},
        quorum::{Decision, Vote, Votes},
        routing::{Member, TenantRing},
    },
};

/// Where a series of the batch goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its slot of the ring.
    pub slot: u32,
    /// The number that all streams know it by, if it has one.
    pub number: Option<u32>,
    /// Where its labels lie in the message, if it has a number.
    pub labels: Range<u32>,
}

/// The series of a request that one owner gets.
#[derive(Debug)]
struct Share {
    member: u16,
    /// Indexes in the batch, ascending.
    series: Vec<u32>,
}

/// The first sample that an owner refused, by series: why, and its time.
type Conflicts = BTreeMap<u32, (Refusal, i64)>;

/// A request on its way.
#[derive(Debug)]
pub struct Distribution {
    shares: Vec<Share>,
    votes: Votes,
    conflicts: Conflicts,
    /// Batches without an answer.
    open: usize,
    sender: UnboundedSender<BatchAnswer>,
    answers: UnboundedReceiver<BatchAnswer>,
    /// Batches that were sent a second time: share of each, beginning with mark `shares.len()`.
    again: Vec<(usize, Vec<u32>)>,
    /// Who knows an older ring than the other, if that is why a batch was refused.
    late_ring: Option<LateRing>,
}

/// Who lags behind when an owner refuses a batch for its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateRing {
    /// The ring that the request was split by counts no more.
    Sender,
    /// The owner does not know it yet.
    Owner,
}

/// What is sent: the batch, and the message behind it.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// All series of the request.
    pub batch: &'a AppendBatch,
    /// Where they go, by index.
    pub placed: &'a [Placed],
    /// The decoded message.
    pub message: &'a [u8],
}

/// Some of the series of a request.
struct Part<'a> {
    content: Content<'a>,
    series: &'a [u32],
    /// Send all of them with their labels and without their numbers.
    anonymous: bool,
}

impl Part<'_> {
    fn place(&self, index: usize) -> (usize, Option<&Placed>) {
        let series = self.series.get(index).map_or(usize::MAX, |series| *series as usize);
        (series, self.content.placed.get(series))
    }
}

impl BatchSource for Part<'_> {
    fn series_count(&self) -> usize {
        self.series.len()
    }

    fn number(&self, index: usize) -> Option<u32> {
        if self.anonymous { None } else { self.place(index).1?.number }
    }

    fn with_labels(&self, index: usize, sink: &mut LabelSink<'_>) {
        let (series, placed) = self.place(index);
        if let Some(labels) = self.content.batch.labels(series) {
            return sink(&labels.iter().collect::<Vec<_>>());
        }
        let range = placed.map_or(0..0, |placed| placed.labels.start as usize..placed.labels.end as usize);
        let bytes = self.content.message.get(range).unwrap_or_default();
        // They were judged when the series was met first.
        let mut labels: Vec<(&str, &str)> = label_iter(bytes)
            .flatten()
            .filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        labels.sort_unstable();
        sink(&labels);
    }

    fn samples(&self, index: usize) -> impl ExactSizeIterator<Item = (i64, u64)> {
        let (series, _) = self.place(index);
        self.content.batch.samples(series).iter().map(|sample| (sample.t, sample.bits))
    }
}

impl Distribution {
    /// Sends each peer its share. Must be called before the batch is appended here, and while the
    /// series table is locked for reading: a number must not change its meaning under way.
    pub fn begin(content: Content<'_>, ring: &TenantRing) -> Self {
        let (sender, answers) = unbounded_channel();
        let mut distribution = Self {
            shares: Vec::new(),
            votes: Votes::default(),
            conflicts: Conflicts::new(),
            open: 0,
            sender,
            answers,
            again: Vec::new(),
            late_ring: None,
        };
        // By member: which share is its own, if it has one.
        let mut share_of = vec![None; ring.member_count()];
        for (series, placed) in content.placed.iter().enumerate() {
            let owners = ring.owners(placed.slot);
            distribution.votes.push(owners.len(), ring.copies_needed(owners.len()));
            for member in owners.filter(|member| !ring.is_local(*member)) {
                let shares = &mut distribution.shares;
                let index = *share_of[usize::from(member)].get_or_insert_with(|| {
                    shares.push(Share { member, series: Vec::new() });
                    shares.len() - 1
                });
                shares[index].series.push(series as u32);
            }
        }
        for mark in 0..distribution.shares.len() {
            let share = &distribution.shares[mark];
            let part = Part { content, series: &share.series, anonymous: false };
            let sent = send(&part, ring.member(share.member), ring, mark, &distribution.sender);
            distribution.note_sent(sent, mark);
        }
        distribution
    }

    fn note_sent(&mut self, sent: bool, mark: usize) {
        if sent {
            self.open += 1;
        } else {
            self.vote_all(mark, Vote::Missed);
        }
    }

    fn series_of(&self, mark: usize) -> &[u32] {
        match self.shares.get(mark) {
            Some(share) => &share.series,
            None => self.again.get(mark - self.shares.len()).map_or(&[], |(_, series)| series),
        }
    }

    fn vote_all(&mut self, mark: usize, vote: Vote) {
        for at in 0..self.series_of(mark).len() {
            let series = self.series_of(mark)[at];
            self.votes.vote(series as usize, vote);
        }
    }

    /// Counts what this node did with its own series: stored, unless the batch or `late` says
    /// otherwise.
    pub fn vote_local(&mut self, batch: &AppendBatch, late: &LateVotes) {
        for (series, reason, time_ms) in &late.refused {
            self.note_conflict(*series, *reason, *time_ms);
        }
        for refused in batch.refused() {
            self.note_conflict(refused.series, refused.reason.into(), refused.sample.t);
        }
        let mut refused = batch.refused().iter().map(|refused| refused.series).peekable();
        for series in 0..batch.series_count() as u32 {
            if batch.is_elsewhere(series as usize) {
                continue;
            }
            let mut is_refused = false;
            while refused.next_if(|next| *next == series).is_some() {
                is_refused = true;
            }
            let vote = if late.misses(series) {
                Vote::Missed
            } else if is_refused || late.refuses(series) {
                Vote::Refused
            } else {
                Vote::Stored
            };
            self.votes.vote(series as usize, vote);
        }
    }

    fn note_conflict(&mut self, series: u32, reason: Refusal, time_ms: i64) {
        self.conflicts.entry(series).or_insert((reason, time_ms));
    }

    /// Collects answers until the request is decided, all have answered, or `deadline` is over.
    pub async fn collect(&mut self, content: Content<'_>, ring: &TenantRing, deadline: Instant) {
        while !self.votes.is_decided() && self.open > 0 {
            let Ok(Some(answer)) = timeout_at(deadline, self.answers.recv()).await else { return };
            self.open -= 1;
            self.take(answer, content, ring);
        }
    }

    fn take(&mut self, answer: BatchAnswer, content: Content<'_>, ring: &TenantRing) {
        let mark = answer.mark;
        if let Some(late) = answer.verdict.as_ref().and_then(late_ring) {
            // With a later ring the split is another one, and who lagged behind it may not any more.
            self.late_ring =
                if late == LateRing::Sender { Some(late) } else { self.late_ring.or(Some(late)) };
        }
        let Some(verdict) = answer.verdict.filter(is_stored) else {
            return self.vote_all(mark, Vote::Missed);
        };
        let Verdict { unknown, refused, .. } = verdict;
        if unknown.is_empty() && refused.is_empty() {
            return self.vote_all(mark, Vote::Stored);
        }
        let series = self.series_of(mark).to_vec();
        let mut votes = vec![Some(Vote::Stored); series.len()];
        for conflict in &refused {
            let place = conflict.series as usize;
            let (Some(vote), Some(&index)) = (votes.get_mut(place), series.get(place)) else { continue };
            *vote = Some(Vote::Refused);
            self.note_conflict(index, refusal(conflict.reason()), conflict.time_ms);
        }
        let mut again = Vec::new();
        for place in unknown {
            let place = place as usize;
            let (Some(vote), Some(&index)) = (votes.get_mut(place), series.get(place)) else { continue };
            // What came with labels cannot be unknown; nothing more could be told of it.
            if content.placed.get(index as usize).is_none_or(|placed| placed.number.is_none()) {
                *vote = Some(Vote::Missed);
            } else if vote.take().is_some() {
                again.push(index);
            }
        }
        for (index, vote) in series.iter().zip(votes) {
            if let Some(vote) = vote {
                self.votes.vote(*index as usize, vote);
            }
        }
        if !again.is_empty() {
            self.introduce(mark, again, content, ring);
        }
    }

    /// Sends series once more, with labels and without their numbers: the peer does not know these any
    /// more, and by now they may be those of other series.
    fn introduce(&mut self, mark: usize, mut series: Vec<u32>, content: Content<'_>, ring: &TenantRing) {
        series.sort_unstable();
        let share = if mark < self.shares.len() { mark } else { self.again[mark - self.shares.len()].0 };
        let member = ring.member(self.shares[share].member);
        let mark = self.shares.len() + self.again.len();
        self.again.push((share, series));
        let part = Part { content, series: self.series_of(mark), anonymous: true };
        let sent = send(&part, member, ring, mark, &self.sender);
        self.note_sent(sent, mark);
    }

    /// Who knows an older ring than the other, if an owner has refused its part for that.
    pub fn late_ring(&self) -> Option<LateRing> {
        self.late_ring
    }

    /// Number of series that must be sent again.
    pub fn missed(&self) -> usize {
        self.votes.decisions().filter(|decision| *decision == Decision::Missed).count()
    }

    /// Conflicts of series that so many owners refused that no quorum has them: index in the batch,
    /// reason and time of the first, and number of samples. That is all samples of the series: owners
    /// may have refused different ones, so of none it is known that a quorum has it.
    pub fn refused(&self, batch: &AppendBatch) -> impl Iterator<Item = (u32, Refusal, i64, u64)> {
        let decided: Vec<Decision> = self.votes.decisions().collect();
        self.conflicts.iter().filter_map(move |(&series, &(reason, time_ms))| {
            let is_refused = decided.get(series as usize) == Some(&Decision::Refused);
            let samples = batch.samples(series as usize).len() as u64;
            is_refused.then_some((series, reason, time_ms, samples))
        })
    }
}

/// What this node did with series beside what their batch says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateVotes {
    all_missed: bool,
    /// Indexes in the batch, ascending.
    missed: Vec<u32>,
    refused: Vec<(u32, Refusal, i64)>,
}

impl LateVotes {
    /// Nothing is stored.
    pub fn all_missed() -> Self {
        Self { all_missed: true, ..Self::default() }
    }

    /// These are not stored; ascending.
    pub fn missed(series: Vec<u32>) -> Self {
        Self { missed: series, ..Self::default() }
    }

    /// A sample of `series` is in conflict; series ascend.
    pub fn refuse(&mut self, series: u32, reason: Refusal, time_ms: i64) {
        self.refused.push((series, reason, time_ms));
    }

    fn misses(&self, series: u32) -> bool {
        self.all_missed || self.missed.binary_search(&series).is_ok()
    }

    fn refuses(&self, series: u32) -> bool {
        self.refused.binary_search_by_key(&series, |(refused, ..)| *refused).is_ok()
    }
}

/// Sends a part of a request to a peer. False if it cannot be sent now.
fn send(
    part: &Part<'_>,
    member: &Member,
    ring: &TenantRing,
    mark: usize,
    answers: &UnboundedSender<BatchAnswer>,
) -> bool {
    let samples = sample_count(part.content, part.series);
    let Some(peer) = member.peer() else {
        // A node that is lost or has drained, and whose slots are others' soon.
        counter!("weir_replication_missed_samples_total", "peer" => member.name().to_owned())
            .increment(samples);
        return false;
    };
    let base_ms = part.samples(0).next().map_or(0, |(t, _)| t);
    let terms =
        BatchTerms { tenant: part.content.tenant, ring: ring.stamp(), base_ms, samples, mark, answers };
    let sent = peer.connection().map(|connection| connection.send(&terms, part));
    match sent {
        Some(Ok(bytes)) => {
            peer.metrics().samples.increment(samples);
            peer.metrics().bytes.increment(bytes as u64);
            true
        }
        _ => {
            peer.metrics().missed.increment(samples);
            false
        }
    }
}

fn late_ring(verdict: &Verdict) -> Option<LateRing> {
    match Outcome::try_from(verdict.outcome) {
        Ok(Outcome::StaleRing) => Some(LateRing::Sender),
        Ok(Outcome::RingBehind) => Some(LateRing::Owner),
        _ => None,
    }
}

fn sample_count(content: Content<'_>, series: &[u32]) -> u64 {
    series.iter().map(|index| content.batch.samples(*index as usize).len() as u64).sum()
}

fn refusal(reason: Reason) -> Refusal {
    match reason {
        Reason::OutOfOrder => Refusal::OutOfOrder,
        Reason::DuplicateTimestamp => Refusal::DuplicateTimestamp,
        Reason::OutOfBounds => Refusal::OutOfBounds,
        Reason::TooOld => Refusal::TooOld,
    }
}
