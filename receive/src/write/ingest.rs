//! What is done with one message once its turn has come: decompress, walk, append, learn, judge.
//!
//! This is the part of a request that is not cancelled: it runs to its end on a thread for blocking
//! work, whatever the connection does, and owns all it needs. Where there is a ring,
//! [`Plan::read`] places the series, and the append is one of several destinations.

use weir_tsdb::append::DurabilityTicket;

use super::{
    body,
    distribute::{Content, Distribution, LateVotes},
    plan::{Judge, Known, Plan, Received},
    pool::Recycle,
};
use crate::{
    answer::{RefusalReport, WriteError},
    replicate::Peers,
    tenants::{KnownSeries, SeriesTable, Tenant, WriteMetrics},
};

/// Memory that a message needs on its way; used again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The decoded message, and behind it leftovers of longer ones.
    decoded: Vec<u8>,
    message_len: usize,
    plan: Plan,
    /// For series whose handles were outdated.
    again: Plan,
}

/// Bytes up to which the buffer of decoded messages is kept.
const DECODED_BYTES_KEPT: usize = 4 << 20;

impl Recycle for Scratch {
    fn recycle(&mut self) {
        if self.decoded.capacity() > DECODED_BYTES_KEPT {
            self.decoded = Vec::new();
        }
        self.plan.recycle();
        self.again.recycle();
    }
}

/// What became of a message.
#[derive(Debug)]
pub struct Ingested {
    /// What it held.
    pub received: Received,
    /// To be settled before the message is acknowledged. `None` if nothing was to be stored, or on
    /// a ring, where that is done.
    pub ticket: Option<DurabilityTicket>,
    /// What is told of refused samples; on a ring that is not known yet.
    pub refused: Option<Box<RefusalReport>>,
    /// On a ring, the copies that are on their way.
    pub distribution: Option<Distribution>,
}

/// Decodes a compressed message of `decoded_len` bytes and stores it, on a ring what of it is
/// stored here; the rest is sent to its owners. Blocks.
///
/// An error means that the sender must take nothing as stored. (When only the second of two
/// appends failed, the first has stored its part; sending all again is harmless.)
pub fn ingest(
    tenant: &Tenant,
    generation: u32,
    judge: &Judge<'_>,
    peers: Option<&Peers>,
    compressed: &[u8],
    decoded_len: usize,
    scratch: &mut Scratch,
) -> Result<Ingested, WriteError> {
    let Scratch { decoded, message_len, plan, again } = scratch;
    plan.clear();
    again.clear();
    let message = body::decode(compressed, decoded_len, decoded)?;
    *message_len = message.len();

    let known =
        Known { lookup: tenant.series.lookup(generation), labels_of: &|handle| tenant.db.labels_of(handle) };
    plan.read(message, judge, &known)?;
    let distribution = judge.ring.map(|(ring, _)| Distribution::begin(content(tenant, plan, message), ring));
    drop(known);

    if let Some(mut distribution) = distribution {
        let late = append_share(tenant, generation, judge, peers, message, plan, again);
        distribution.vote_local(&plan.batch, &late);
        let received = plan.received;
        return Ok(Ingested { received, ticket: None, refused: None, distribution: Some(distribution) });
    }

    let mut ticket = append(tenant, plan)?;
    learn(tenant, generation, plan, peers);
    plan.note_refused();
    if !plan.batch.outdated().is_empty() {
        // Their series left the head since. The labels are on the wire, so send them once more by
        // these; the keys of the table are replaced on the way.
        again.read_again(message, judge, &plan.outdated())?;
        ticket = ticket.max(append(tenant, again)?);
        learn(tenant, generation, again, peers);
        again.note_refused();
        plan.merge_refusals(again);
    }
    count(&tenant.write_metrics, plan);
    let refused = plan.report(message).map(Box::new);
    Ok(Ingested { received: plan.received, ticket, refused, distribution: None })
}

/// What of a message is sent to others.
fn content<'a>(tenant: &'a Tenant, plan: &'a Plan, message: &'a [u8]) -> Content<'a> {
    Content { tenant: tenant.name.as_str(), batch: &plan.batch, placed: &plan.placed, message }
}

impl Scratch {
    /// What of the message is sent to others.
    pub fn content<'a>(&'a self, tenant: &'a Tenant) -> Content<'a> {
        content(tenant, &self.plan, self.decoded.get(..self.message_len).unwrap_or_default())
    }

    /// Once the copies are decided: what the sender is told.
    ///
    /// # Errors
    /// If too few owners have some of the series.
    pub fn conclude(
        &mut self,
        metrics: &WriteMetrics,
        distribution: &Distribution,
    ) -> Result<Option<Box<RefusalReport>>, WriteError> {
        let missed = distribution.missed();
        if missed > 0 {
            // What was refused comes again with the rest.
            return Err(WriteError::NoQuorum { missed, series: self.plan.batch.series_count() });
        }
        let conflicts: Vec<_> = distribution.refused(&self.plan.batch).collect();
        self.plan.note_conflicts(conflicts.into_iter());
        count(metrics, &self.plan);
        let message = self.decoded.get(..self.message_len).unwrap_or_default();
        Ok(self.plan.report(message).map(Box::new))
    }
}

/// Appends the share of a node on a ring. It fails as one of several owners does: a series that
/// cannot be stored here is a copy that is missed. Returns what is not as the batch says.
fn append_share(
    tenant: &Tenant,
    generation: u32,
    judge: &Judge<'_>,
    peers: Option<&Peers>,
    message: &[u8],
    plan: &mut Plan,
    again: &mut Plan,
) -> LateVotes {
    let settle = |ticket: Option<DurabilityTicket>| match ticket {
        Some(ticket) => tenant.db.wait_durable(ticket).map_err(|error| storage_error(tenant, &error)),
        None => Ok(()),
    };
    if append(tenant, plan).and_then(settle).is_err() {
        return LateVotes::all_missed();
    }
    learn(tenant, generation, plan, peers);
    if plan.batch.outdated().is_empty() {
        return LateVotes::default();
    }
    let wires = plan.outdated();
    let indexes = plan.indexes_of(&wires);
    let judge = Judge { ring: None, ..*judge };
    let read = again.read_again(message, &judge, &wires);
    if read.and_then(|()| append(tenant, again)).and_then(settle).is_err() {
        return LateVotes::missed(indexes);
    }
    // They are placed and numbered already.
    let handles = again.learnt().map(|(key, handle, _)| (key, handle));
    tenant.series.update(generation, handles, |known, handle| known.handle = handle);
    let mut late = LateVotes::default();
    for refused in again.batch.refused() {
        let wire = again.wire_of(refused.series);
        if let Some(index) = wire.and_then(|wire| plan.indexes_of(&[wire]).first().copied()) {
            late.refuse(index, refused.reason.into(), refused.sample.t);
        }
    }
    late
}

/// Appends the batch of `plan`.
fn append(tenant: &Tenant, plan: &mut Plan) -> Result<Option<DurabilityTicket>, WriteError> {
    if plan.batch.series_count() == 0 {
        return Ok(None);
    }
    let appended = tenant.db.append(&mut plan.batch);
    tenant.note_storage(appended.as_ref().map(drop));
    appended.map(Some).map_err(|error| storage_error(tenant, &error))
}

/// After the append: keeps what was found out about series that the table did not have.
fn learn(tenant: &Tenant, generation: u32, plan: &Plan, peers: Option<&Peers>) {
    if plan.misses.is_empty() {
        return;
    }
    let mut numbers =
        peers.map(|peers| peers.take_numbers(plan.misses.len())).unwrap_or_default().into_iter();
    let entries = plan.learnt().map(|(key, handle, slot)| {
        let number = numbers.next().unwrap_or(KnownSeries::NO_NUMBER);
        (key, KnownSeries { handle, slot: slot.unwrap_or_default(), number })
    });
    let full = tenant.series.insert(generation, entries);
    if full > 0 {
        tenant.write_metrics.table_full.increment(full as u64);
    }
    let displaced = tenant.series.take_displaced();
    if let Some(peers) = peers {
        let displaced = displaced.into_iter().map(|known| known.number);
        peers.release_numbers(displaced.filter(|number| *number != KnownSeries::NO_NUMBER).chain(numbers));
    }
}

/// What a failure of the database is answered with.
pub fn storage_error(tenant: &Tenant, error: &weir_tsdb::Error) -> WriteError {
    WriteError::Storage { tenant: tenant.name.clone(), cause: error.to_string().into() }
}

/// Counts once per message.
fn count(metrics: &WriteMetrics, plan: &Plan) {
    let Received { exemplars, hits, misses, mismatches, .. } = plan.received;
    let counters = [
        (&metrics.dropped_exemplars, exemplars),
        (&metrics.table_hits, hits),
        (&metrics.table_misses, misses),
        (&metrics.table_mismatches, mismatches),
    ];
    for (counter, more) in counters {
        if more > 0 {
            counter.increment(more);
        }
    }
    for (reason, samples) in plan.refusals().iter() {
        metrics.count_refused(reason, samples);
    }
}

/// A look at the first message of a tenant that does not exist: nobody becomes a tenant by a
/// message that leaves nothing to store. Returns the outcome of such a message, or `None` if it
/// holds something to store. Blocks.
pub fn first_look(
    compressed: &[u8],
    decoded_len: usize,
    judge: &Judge<'_>,
    metrics: &WriteMetrics,
    scratch: &mut Scratch,
) -> Result<Option<Ingested>, WriteError> {
    let Scratch { decoded, plan, .. } = scratch;
    plan.clear();
    let message = body::decode(compressed, decoded_len, decoded)?;
    let nothing = SeriesTable::new(0);
    plan.read(message, judge, &Known { lookup: nothing.lookup(0), labels_of: &|_| None })?;
    if plan.batch.sample_count() > 0 {
        return Ok(None);
    }
    count(metrics, plan);
    let refused = plan.report(message).map(Box::new);
    Ok(Some(Ingested { received: plan.received, ticket: None, refused, distribution: None }))
}
