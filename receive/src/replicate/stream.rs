//! One stream at its receiving end: its dictionary, and how its batches are stored.

mod dictionary;

use std::sync::Arc;

use metrics::{Counter, counter};
use tokio::runtime::Handle;
use weir_proto::{
    replication::{BatchReader, FrameError, FrameReader},
    weir_replication::{Outcome, Reason, Refused, Verdict},
};
use weir_tsdb::{
    Labels, Sample,
    append::{AppendBatch, RefuseReason},
};

use self::dictionary::{Defined, Dictionary};
use super::fence::{NotStored, Pass, WriteFence};
use crate::tenants::{TENANT_NAME_BYTES_MAX, Tenant, TenantName, Tenants};

/// Tenants that a stream may name.
const TENANTS_MAX: u32 = 1 << 20;
/// Batches that are answered together: a verdict may be larger than the batch it is of.
const ANSWERED_TOGETHER: usize = 1024;

/// What ends a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The sender does not follow the format.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A tenant that the sender has numbered.
#[derive(Debug)]
struct StreamTenant {
    name: Result<TenantName, String>,
    open: Option<Arc<Tenant>>,
}

/// What is known of a stream, and memory that is used again.
#[derive(Debug)]
pub struct StreamState {
    tenants: Arc<Tenants>,
    fence: Arc<WriteFence>,
    /// For rings up to this epoch this node has waited in vain.
    missing_epoch: u64,
    runtime: Handle,
    dictionary_max: u32,
    dictionary: Dictionary,
    stream_tenants: Vec<StreamTenant>,
    batch: AppendBatch,
    /// Places in the message of the series that are in `batch`, and their numbers.
    place_of: Vec<(u32, Option<u32>)>,
    /// Number and index in `batch` of the series that are defined by the message.
    defining: Vec<(u32, usize)>,
    received: Counter,
}

impl StreamState {
    /// A stream on which nothing was received.
    pub fn new(tenants: Arc<Tenants>, fence: Arc<WriteFence>, runtime: Handle, dictionary_max: u32) -> Self {
        Self {
            tenants,
            fence,
            missing_epoch: 0,
            runtime,
            dictionary_max,
            dictionary: Dictionary::default(),
            stream_tenants: Vec::new(),
            batch: AppendBatch::default(),
            place_of: Vec::new(),
            defining: Vec::new(),
            received: counter!("weir_replication_received_samples_total"),
        }
    }

    /// Stores the next batches of a frame, all of them or as many as are answered together, and adds a
    /// verdict for each. True if the frame has more. Blocks; not for async code.
    ///
    /// # Errors
    /// If the frame cannot be read from some point on. The batches before it have their verdicts.
    pub fn store(
        &mut self,
        frame: &mut FrameReader<'_>,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<bool, StreamError> {
        for _ in 0..ANSWERED_TOGETHER {
            let Some(batch) = frame.next_batch()? else { return Ok(false) };
            verdicts.push(self.store_batch(batch)?);
        }
        Ok(true)
    }

    fn store_batch(&mut self, mut message: BatchReader<'_>) -> Result<Verdict, StreamError> {
        let head = *message.head();
        let mut verdict =
            Verdict { sequence: head.sequence, outcome: Outcome::Stored.into(), ..Verdict::default() };
        if let Some(name) = head.tenant_name {
            self.learn_tenant(head.tenant, name)?;
        }
        self.read(&mut message, head.tenant, &mut verdict)?;
        let tenant = match self.open_tenant(head.tenant) {
            Ok(tenant) => tenant,
            Err(cause) => return Ok(not_stored(&verdict, Outcome::Unavailable, cause)),
        };
        self.wait_for_ring(head.epoch);
        let fence = self.fence.clone();
        // Held until the samples are stored.
        let pass = fence.enter(head.epoch, head.digest).and_then(|pass| {
            self.check_owner(&pass, tenant.name.as_str())?;
            Ok(pass)
        });
        let _pass = match pass {
            Ok(pass) => pass,
            Err(NotStored { outcome, cause }) => return Ok(not_stored(&verdict, outcome, cause)),
        };
        if self.batch.series_count() == 0 {
            return Ok(verdict);
        }
        let appended = tenant.db.append(&mut self.batch);
        tenant.note_storage(appended.as_ref().map(drop));
        let settled = appended.and_then(|ticket| tenant.db.wait_durable(ticket));
        if let Err(error) = settled {
            return Ok(not_stored(&verdict, Outcome::Unavailable, error.to_string()));
        }
        self.received.increment(self.batch.sample_count() as u64);
        for &(number, index) in &self.defining {
            match self.batch.handle(index) {
                Some(handle) => self.dictionary.define(number, Defined { tenant: head.tenant, handle }),
                None => self.dictionary.forget(number),
            }
        }
        let place = |index: u32| self.place_of.get(index as usize).copied().unwrap_or_default();
        for (place, number) in self.batch.outdated().iter().map(|index| place(*index)) {
            verdict.unknown.push(place);
            verdict.unknown_numbers.extend(number);
        }
        verdict.refused.extend(self.batch.refused().iter().map(|refused| Refused {
            series: place(refused.series).0,
            reason: reason(refused.reason).into(),
            time_ms: refused.sample.t,
        }));
        Ok(verdict)
    }

    /// Gives this node the time to hear of a newer ring, once for each.
    fn wait_for_ring(&mut self, epoch: u64) {
        let is_waited_for = epoch > self.missing_epoch && self.fence.is_behind(epoch);
        if is_waited_for && !self.runtime.block_on(self.fence.catch_up(epoch)) {
            self.missing_epoch = epoch;
        }
    }

    /// Looks whether the series that came with their labels belong here by the ring of both. Of the
    /// others that was looked at when they came first.
    fn check_owner(&self, pass: &Pass<'_>, tenant: &str) -> Result<(), NotStored> {
        let mut named =
            (0..self.batch.series_count()).filter_map(|index| self.batch.labels(index)).peekable();
        if named.peek().is_none() {
            return Ok(());
        }
        let Some(check) = pass.owner_check(tenant) else { return Ok(()) };
        match named.find(|labels| !pass.owns(&check, tenant, labels.iter())) {
            None => Ok(()),
            Some(labels) => {
                self.fence.count_not_owner();
                tracing::error!(tenant, %labels, "a peer sends a series that belongs elsewhere by its own ring");
                let cause = format!("by the ring of both nodes {labels} belongs elsewhere");
                Err(NotStored { outcome: Outcome::NotOwner, cause })
            }
        }
    }

    /// Reads the series of a message into `self.batch`; those whose number is not known go into the
    /// verdict.
    fn read(
        &mut self,
        message: &mut BatchReader<'_>,
        tenant: u32,
        verdict: &mut Verdict,
    ) -> Result<(), FrameError> {
        self.batch.clear();
        self.place_of.clear();
        self.defining.clear();
        let mut place = 0;
        while let Some(series) = message.next_series()? {
            let number = series.number;
            let known = match (number, series.labels) {
                (_, Some(labels)) => {
                    if let Some(number) = number.filter(|number| *number < self.dictionary_max) {
                        // What it meant before must not be used any more, whatever becomes of this
                        // batch: the sender takes the number for defined.
                        self.dictionary.forget(number);
                        self.defining.push((number, self.batch.series_count()));
                    }
                    if labels.clone().next().is_none() {
                        return Err(FrameError { what: "series without labels", offset: 0 });
                    }
                    let Some(labels) = Labels::from_sorted(labels) else {
                        return Err(FrameError { what: "labels do not ascend, or are empty", offset: 0 });
                    };
                    self.batch.push_labels(labels);
                    true
                }
                (Some(number), None) => {
                    let defined = self.dictionary.get(number);
                    match defined.filter(|defined| defined.tenant == tenant) {
                        Some(defined) => {
                            self.batch.push_known(defined.handle);
                            true
                        }
                        // A series may come more than once in the message that defines it.
                        None => self.push_as_defined(number),
                    }
                }
                (None, None) => false,
            };
            if known {
                self.place_of.push((place, number));
                while let Some((t, bits)) = message.next_sample()? {
                    self.batch.push_sample(Sample { t, bits });
                }
            } else {
                verdict.unknown.push(place);
                verdict.unknown_numbers.extend(number);
            }
            place += 1;
        }
        Ok(())
    }

    /// Begins a series that this message has defined before. False if it has not.
    fn push_as_defined(&mut self, number: u32) -> bool {
        let defined = self.defining.iter().rev().find(|(defined, _)| *defined == number);
        let Some(labels) = defined.and_then(|(_, index)| self.batch.labels(*index)).cloned() else {
            return false;
        };
        self.batch.push_labels(labels);
        true
    }

    fn learn_tenant(&mut self, number: u32, name: &str) -> Result<(), FrameError> {
        if number as usize != self.stream_tenants.len() || number >= TENANTS_MAX {
            return Err(FrameError {
                what: "tenants are not numbered one after the other, or too many",
                offset: 0,
            });
        }
        let name = TenantName::new(name).map_err(|cause| {
            // It is kept as long as the stream lasts, and may be as long as a frame.
            let begin: String = name.chars().take(TENANT_NAME_BYTES_MAX).collect();
            format!("invalid tenant {begin:?}: {cause}")
        });
        self.stream_tenants.push(StreamTenant { name, open: None });
        Ok(())
    }

    /// The tenant's database, opened if need be.
    fn open_tenant(&mut self, number: u32) -> Result<Arc<Tenant>, String> {
        let Some(tenant) = self.stream_tenants.get_mut(number as usize) else {
            return Err("the tenant was not named".to_owned());
        };
        if let Some(open) = &tenant.open {
            return Ok(open.clone());
        }
        let name = tenant.name.as_ref().map_err(Clone::clone)?;
        let opened =
            self.runtime.block_on(self.tenants.get_or_open(name)).map_err(|error| error.to_string())?;
        Ok(tenant.open.insert(opened).clone())
    }
}

fn not_stored(verdict: &Verdict, outcome: Outcome, cause: String) -> Verdict {
    Verdict {
        sequence: verdict.sequence,
        outcome: outcome.into(),
        unknown_numbers: verdict.unknown_numbers.clone(),
        cause,
        ..Verdict::default()
    }
}

fn reason(reason: RefuseReason) -> Reason {
    match reason {
        RefuseReason::OutOfOrder => Reason::OutOfOrder,
        RefuseReason::DuplicateTimestamp => Reason::DuplicateTimestamp,
        RefuseReason::OutOfBounds => Reason::OutOfBounds,
        RefuseReason::TooOld => Reason::TooOld,
    }
}
