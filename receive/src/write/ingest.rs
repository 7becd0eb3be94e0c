//! What is done with one message once its turn has come: decompress, walk, append, learn, judge.
//!
//! This is the part of a request that is not cancelled: it runs to its end on a thread for blocking
//! work, whatever the connection does, and owns all it needs. Where a ring is configured, placement
//! goes between [`Plan::read`], which gives each series its key, and the append, which then is one
//! of several destinations.

use weir_tsdb::append::DurabilityTicket;

use super::{
    body,
    plan::{Judge, Known, Plan, Received},
    pool::Recycle,
};
use crate::{
    answer::{RefusalReport, WriteError},
    tenants::{SeriesTable, Tenant, WriteMetrics},
};

/// Memory that a message needs on its way; used again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The decoded message, and behind it leftovers of longer ones.
    decoded: Vec<u8>,
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
    /// To be settled before the message is acknowledged. `None` if nothing was to be stored.
    pub ticket: Option<DurabilityTicket>,
    /// What is told of refused samples.
    pub refused: Option<Box<RefusalReport>>,
}

/// Decodes a compressed message of `decoded_len` bytes and stores it. Blocks.
///
/// An error means that the sender must take nothing as stored. (When only the second of two
/// appends failed, the first has stored its part; sending all again is harmless.)
pub fn ingest(
    tenant: &Tenant,
    generation: u32,
    judge: &Judge<'_>,
    compressed: &[u8],
    decoded_len: usize,
    scratch: &mut Scratch,
) -> Result<Ingested, WriteError> {
    let Scratch { decoded, plan, again } = scratch;
    plan.clear();
    again.clear();
    let message = body::decode(compressed, decoded_len, decoded)?;

    let known =
        Known { lookup: tenant.series.lookup(generation), labels_of: &|handle| tenant.db.labels_of(handle) };
    plan.read(message, judge, &known)?;
    drop(known);

    let mut ticket = append(tenant, generation, plan)?;
    if !plan.batch.outdated().is_empty() {
        // Their series left the head since. The labels are on the wire, so send them once more by
        // these; the keys of the table are replaced on the way.
        again.read_again(message, judge, &plan.outdated())?;
        ticket = ticket.max(append(tenant, generation, again)?);
        plan.merge_refusals(again);
    }

    count(&tenant.write_metrics, plan);
    let refused = plan.report(message).map(Box::new);
    Ok(Ingested { received: plan.received, ticket, refused })
}

/// Appends the batch of `plan` and learns handles and refusals from the outcome.
fn append(tenant: &Tenant, generation: u32, plan: &mut Plan) -> Result<Option<DurabilityTicket>, WriteError> {
    if plan.batch.series_count() == 0 {
        return Ok(None);
    }
    let appended = tenant.db.append(&mut plan.batch);
    tenant.note_storage(appended.as_ref().map(drop));
    let ticket = appended.map_err(|error| storage_error(tenant, &error))?;
    if !plan.misses.is_empty() {
        let full = tenant.series.insert(generation, plan.learnt());
        if full > 0 {
            tenant.write_metrics.table_full.increment(full as u64);
        }
    }
    plan.note_refused();
    Ok(Some(ticket))
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
    Ok(Some(Ingested { received: plan.received, ticket: None, refused }))
}
