//! From the bytes of a message to a batch for the database, in one walk.
//!
//! A series whose key is in the table goes into the batch by its handle: no label is looked at and
//! nothing is allocated. All others take the slow path. What is wrong by itself is refused here;
//! the database judges the rest.
//!
//! Positions: a *wire index* counts the series of the message, a *batch index* those that went into
//! the batch; `wire_of` maps the second to the first.

use weir_proto::remote_write::{SeriesWire, WireError, WriteRequestWalker};
use weir_tsdb::{
    append::{AppendBatch, SeriesHandle},
    labels::Labels,
    types::Sample,
};

use super::{
    distribute::Placed,
    key::SeriesKeys,
    labels::{self, LabelLimits, Pairs},
    pool::Recycle,
};
use crate::{
    answer::{FirstRefusal, Refusal, RefusalCounts, RefusalReport, WriteError},
    replicate::routing::TenantRing,
    tenants::{KnownSeries, SeriesKey, SeriesLookup},
};

/// One hit of so many is decoded in full and compared.
const HITS_PER_CHECK: u32 = 1024;

/// What the series of one message are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Makes keys.
    pub keys: &'a SeriesKeys,
    /// What labels may look like.
    pub limits: &'a LabelLimits,
    /// Later samples are refused; `i64::MAX` for none.
    pub latest_ms: i64,
    /// Most series of the message.
    pub series_max: usize,
    /// Most samples of the message, histograms included.
    pub samples_max: usize,
    /// The ring that places series, and the tenant; without it all of them are stored here.
    pub ring: Option<(&'a TenantRing, &'a str)>,
}

/// What is known of series from before: the table, and how to check it.
pub struct Known<'a> {
    /// The table, locked.
    pub lookup: SeriesLookup<'a>,
    /// Labels behind a handle, if it is not outdated.
    pub labels_of: &'a dyn Fn(SeriesHandle) -> Option<Labels>,
}

/// A key that was not found, and the series of the batch whose handle belongs to it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Batch index.
    pub series: u32,
    /// The key.
    pub key: SeriesKey,
}

/// Counts of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Series.
    pub series: u64,
    /// Samples, histograms included.
    pub samples: u64,
    /// Exemplars, which are dropped.
    pub exemplars: u64,
    /// Look-ups that found their key.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Hits that were compared and did not match.
    pub mismatches: u64,
}

/// The first refusal, by its place in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct First {
    wire: u32,
    reason: Refusal,
    time_ms: Option<i64>,
}

/// The batch made from a message and what was found on the way. Reuse it: its buffers stay.
#[derive(Debug, Default)]
pub struct Plan {
    /// The samples to store.
    pub batch: AppendBatch,
    /// Keys to be learnt after the append.
    pub misses: Vec<Miss>,
    /// Where each series of the batch goes, if there is a ring.
    pub placed: Vec<Placed>,
    /// Counts.
    pub received: Received,
    wire_of: Vec<u32>,
    refusals: RefusalCounts,
    first: Option<First>,
    /// Hits until the next one is checked.
    unchecked_hits: u32,
}

/// Series whose keys are looked up together. A look-up mostly waits for memory, and the processor
/// waits for several at once if nothing stands between them.
const WINDOW: usize = 64;

/// Samples of a batch up to which its buffers are kept; 16 bytes each.
const BATCH_SAMPLES_KEPT: usize = 1 << 16;

impl Recycle for Plan {
    fn recycle(&mut self) {
        let large = self.batch.sample_count().max(self.batch.series_count()) > BATCH_SAMPLES_KEPT
            || self.batch.refused().len() > BATCH_SAMPLES_KEPT;
        if large {
            *self = Self { unchecked_hits: self.unchecked_hits, ..Self::default() };
        } else {
            self.clear();
        }
    }
}

impl Plan {
    /// Forgets content, keeps buffers and the turn of checks.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.misses.clear();
        self.placed.clear();
        self.received = Received::default();
        self.wire_of.clear();
        self.refusals = RefusalCounts::default();
        self.first = None;
    }

    /// Reads all of `message`. Fails, and is then to be cleared, if any part of the message is
    /// unsound or it holds more than it may; nothing of it must be stored then.
    pub fn read(&mut self, message: &[u8], judge: &Judge<'_>, known: &Known<'_>) -> Result<(), WriteError> {
        let mut pairs = Vec::new();
        let mut walker = WriteRequestWalker::new(message);
        let mut window = Vec::with_capacity(WINDOW);
        let mut wire = 0;
        loop {
            window.clear();
            for series in walker.by_ref().take(WINDOW) {
                let series = series.map_err(undecodable)?;
                window.push((series, judge.keys.key(&series), None));
            }
            if window.is_empty() {
                break;
            }
            for (_, key, found) in &mut window {
                *found = key.and_then(|key| known.lookup.get(key));
            }
            for &(series, key, found) in &window {
                if wire as usize >= judge.series_max {
                    return Err(WriteError::TooManySeries { limit: judge.series_max });
                }
                self.received.series += 1;
                self.received.exemplars += series.exemplar_count() as u64;
                let histograms = series.histogram_count() as u64;
                if histograms > 0 {
                    self.received.samples += histograms;
                    self.refuse(wire, Refusal::HistogramUnsupported, None, histograms);
                }
                self.add_series(wire, &series, key, judge, Some((known, found)), &mut pairs)?;
                wire += 1;
            }
        }
        // Histograms alone may have passed it; all else is checked as it is read.
        if self.received.samples > judge.samples_max as u64 {
            return Err(WriteError::TooManySamples { limit: judge.samples_max });
        }
        Ok(())
    }

    /// Reads those series of `message` again whose wire indexes are in `wanted`, ascending, for
    /// their labels. What [`Self::read`] counted and refused is not counted again.
    pub fn read_again(
        &mut self,
        message: &[u8],
        judge: &Judge<'_>,
        wanted: &[u32],
    ) -> Result<(), WriteError> {
        let mut wanted = wanted.iter().copied().peekable();
        let mut pairs = Vec::new();
        for (wire, series) in WriteRequestWalker::new(message).enumerate() {
            if wanted.next_if(|next| *next as usize == wire).is_some() {
                let series = series.map_err(undecodable)?;
                self.add_series(wire as u32, &series, judge.keys.key(&series), judge, None, &mut pairs)?;
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Adds the samples of one series to the batch. `known` comes with what the table said of `key`;
    /// without it this is the second reading: samples refused before are skipped in silence.
    fn add_series<'a>(
        &mut self,
        wire: u32,
        series: &SeriesWire<'a>,
        key: Option<SeriesKey>,
        judge: &Judge<'_>,
        known: Option<(&Known<'_>, Option<KnownSeries>)>,
        pairs: &mut Pairs<'a>,
    ) -> Result<(), WriteError> {
        let mut samples = series.samples().peekable();
        if samples.peek().is_none() {
            // Only histograms or exemplars, or nothing: no series is made of it.
            return Ok(());
        }
        let found = match (key, known) {
            (Some(_), Some((known, found))) => {
                self.check(found, series, judge, known, pairs).map_err(undecodable)?
            }
            _ => None,
        };
        let mut target = match found {
            Some(known) => Some(Target::Known(known)),
            None => match labels::parse(series, judge.limits, pairs).map_err(undecodable)? {
                Ok(()) => Some(Target::New(labels::build(pairs))),
                Err(reason) => {
                    let mut count = 0;
                    for sample in samples {
                        sample.map_err(undecodable)?;
                        count += 1;
                    }
                    self.received.samples += if known.is_some() { count } else { 0 };
                    self.refuse(wire, reason, None, count);
                    return Ok(());
                }
            },
        };
        let room = (judge.samples_max as u64).saturating_sub(self.received.samples);
        let mut count = 0;
        for sample in samples {
            let (t, bits) = sample.map_err(undecodable)?;
            count += 1;
            if count > room && known.is_some() {
                return Err(WriteError::TooManySamples { limit: judge.samples_max });
            }
            if t > judge.latest_ms {
                if known.is_some() {
                    self.refuse(wire, Refusal::TooFarInFuture, Some(t), 1);
                }
                continue;
            }
            // The series is begun by its first good sample.
            if let Some(begun) = target.take() {
                self.begin_series(wire, series, begun, key, judge);
            }
            self.batch.push_sample(Sample { t, bits });
        }
        self.received.samples += if known.is_some() { count } else { 0 };
        Ok(())
    }

    fn begin_series(
        &mut self,
        wire: u32,
        series: &SeriesWire<'_>,
        target: Target,
        key: Option<SeriesKey>,
        judge: &Judge<'_>,
    ) {
        let index = self.wire_of.len() as u32;
        self.wire_of.push(wire);
        if let (Target::New(_), Some(key)) = (&target, key) {
            self.misses.push(Miss { series: index, key });
        }
        let is_local = judge.ring.is_none_or(|(ring, tenant)| {
            let placed = place(series, &target, ring, tenant);
            let owns = ring.owns(placed.slot);
            self.placed.push(placed);
            owns
        });
        match (target, is_local) {
            (Target::Known(known), true) => self.batch.push_known(known.handle),
            (Target::New(labels), true) => self.batch.push_labels(labels),
            (Target::Known(_), false) => self.batch.push_elsewhere(None),
            (Target::New(labels), false) => self.batch.push_elsewhere(Some(labels)),
        }
    }

    /// Counts what the table said, and now and then looks whether it is right.
    fn check<'a>(
        &mut self,
        found: Option<KnownSeries>,
        series: &SeriesWire<'a>,
        judge: &Judge<'_>,
        known: &Known<'_>,
        pairs: &mut Pairs<'a>,
    ) -> Result<Option<KnownSeries>, WireError> {
        let Some(found) = found else {
            self.received.misses += 1;
            return Ok(None);
        };
        self.received.hits += 1;
        self.unchecked_hits += 1;
        // Of what is stored elsewhere there is nothing to compare with.
        if self.unchecked_hits < HITS_PER_CHECK || found.handle == SeriesHandle::NONE {
            return Ok(Some(found));
        }
        self.unchecked_hits = 0;
        // An outdated handle is no mismatch; the append finds out by itself.
        let Some(stored) = (known.labels_of)(found.handle) else { return Ok(None) };
        match labels::parse(series, judge.limits, pairs)? {
            Ok(()) if stored.iter().eq(pairs.iter().copied()) => Ok(Some(found)),
            other => {
                self.received.mismatches += 1;
                let sent = labels::describe(series);
                tracing::error!(%stored, %sent, valid = other.is_ok(), "series table holds another series under this key");
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, wire: u32, reason: Refusal, time_ms: Option<i64>, samples: u64) {
        self.refusals.add(reason, samples);
        if self.first.is_none_or(|first| wire < first.wire) {
            self.first = Some(First { wire, reason, time_ms });
        }
    }

    /// After the append: takes the database's refusals in.
    pub fn note_refused(&mut self) {
        for index in 0..self.batch.refused().len() {
            let Some(refused) = self.batch.refused().get(index).copied() else { break };
            let Some(wire) = self.wire_of.get(refused.series as usize).copied() else { continue };
            self.refuse(wire, refused.reason.into(), Some(refused.sample.t), 1);
        }
    }

    /// Takes the refusals of a plan over that read a part of the same message again.
    pub fn merge_refusals(&mut self, again: &Self) {
        for (reason, samples) in again.refusals.iter() {
            self.refusals.add(reason, samples);
        }
        if let Some(first) = again.first
            && self.first.is_none_or(|own| first.wire < own.wire)
        {
            self.first = Some(first);
        }
    }

    /// After the append: wire indexes of the series whose handles were outdated, ascending.
    pub fn outdated(&self) -> Vec<u32> {
        let wire_of = |series: &u32| self.wire_of.get(*series as usize).copied();
        let mut wires: Vec<u32> = self.batch.outdated().iter().filter_map(wire_of).collect();
        wires.sort_unstable();
        wires.dedup();
        wires
    }

    /// After the append: keys and handles to be learnt, and the slot of each series if there is a
    /// ring.
    pub fn learnt(&self) -> impl Iterator<Item = (SeriesKey, SeriesHandle, Option<u32>)> {
        self.misses.iter().filter_map(|miss| {
            let series = miss.series as usize;
            let handle = match self.batch.handle(series) {
                Some(handle) => handle,
                None if self.batch.is_elsewhere(series) => SeriesHandle::NONE,
                None => return None,
            };
            Some((miss.key, handle, self.placed.get(series).map(|placed| placed.slot)))
        })
    }

    /// Takes in what the owners refused: index in the batch, reason, time of the first sample, and
    /// number of samples.
    pub fn note_conflicts(&mut self, conflicts: impl Iterator<Item = (u32, Refusal, i64, u64)>) {
        for (series, reason, time_ms, samples) in conflicts {
            let Some(wire) = self.wire_of.get(series as usize).copied() else { continue };
            self.refuse(wire, reason, Some(time_ms), samples);
        }
    }

    /// Wire index of series number `series` of the batch.
    pub fn wire_of(&self, series: u32) -> Option<u32> {
        self.wire_of.get(series as usize).copied()
    }

    /// Indexes in the batch of the series with these wire indexes, both ascending.
    pub fn indexes_of(&self, wires: &[u32]) -> Vec<u32> {
        wires.iter().filter_map(|wire| Some(self.wire_of.binary_search(wire).ok()? as u32)).collect()
    }

    /// Samples refused so far.
    pub fn refusals(&self) -> &RefusalCounts {
        &self.refusals
    }

    /// What the sender of `message` is told, if samples were refused.
    pub fn report(&self, message: &[u8]) -> Option<RefusalReport> {
        let first = self.first?;
        let series = WriteRequestWalker::new(message).nth(first.wire as usize);
        let series = match series {
            Some(Ok(series)) => labels::describe(&series),
            _ => format!("series {}", first.wire),
        };
        let first = FirstRefusal { reason: first.reason, series, time_ms: first.time_ms };
        RefusalReport::new(self.refusals, self.received.samples, first)
    }
}

enum Target {
    Known(KnownSeries),
    New(Labels),
}

/// Where a series goes. One that is new has no number yet: it travels with its labels.
fn place(series: &SeriesWire<'_>, target: &Target, ring: &TenantRing, tenant: &str) -> Placed {
    match target {
        Target::New(labels) => Placed { slot: ring.slot(tenant, labels.iter()), number: None, labels: 0..0 },
        Target::Known(known) => {
            let labels = series.label_range().unwrap_or_default();
            Placed {
                slot: known.slot,
                number: (known.number != KnownSeries::NO_NUMBER).then_some(known.number),
                labels: labels.start as u32..labels.end as u32,
            }
        }
    }
}

pub(super) fn undecodable(error: WireError) -> WriteError {
    WriteError::Protobuf(error.to_string().into())
}

#[cfg(test)]
mod tests;
