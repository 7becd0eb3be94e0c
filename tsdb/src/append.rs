//! What an append carries in and what it tells back.

use crate::{
    labels::Labels,
    types::{Sample, SeriesRef},
};

/// Finds a series of the head without its labels. Valid until the series leaves the head; an
/// outdated handle is recognised and reported, never confused with another series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesHandle {
    pub(crate) slot: u32,
    pub(crate) series: SeriesRef,
}

impl SeriesHandle {
    /// The handle of no series; always outdated.
    pub const NONE: Self = Self { slot: u32::MAX, series: SeriesRef(0) };
}

/// Why a sample was refused. None of these can be mended by sending it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// Older than the newest sample of its series.
    OutOfOrder,
    /// Another value is stored for the same time.
    DuplicateTimestamp,
    /// Older than what the head takes.
    OutOfBounds,
    /// Out of order, and older than the window for late samples reaches.
    TooOld,
}

/// A sample that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the series in the batch.
    pub series: u32,
    /// The sample as it was sent.
    pub sample: Sample,
    /// Why.
    pub reason: RefuseReason,
}

/// Which series the samples of a batch entry belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Known from an earlier append.
    Known(SeriesHandle),
    /// Index into the batch's label sets.
    New(u32),
    /// A handle that no longer finds its series; its samples were not stored.
    Outdated,
    /// The series is stored by others. Index into the batch's label sets, if it was given by them.
    Elsewhere(Option<u32>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSeries {
    pub target: Target,
    /// Index behind its last sample in the batch's samples.
    pub samples_end: u32,
}

/// Samples of many series of one tenant, appended together. Reuse it: its buffers stay.
#[derive(Debug, Default)]
pub struct AppendBatch {
    pub(crate) series: Vec<BatchSeries>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) labels: Vec<Labels>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) outdated: Vec<u32>,
    pub(crate) late_from: Option<i64>,
}

impl AppendBatch {
    /// Forgets content and results, keeps the buffers.
    pub fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.labels.clear();
        self.refused.clear();
        self.outdated.clear();
        self.late_from = None;
    }

    /// Late samples of this batch are taken from `t` milliseconds on, whatever the window of the database:
    /// for samples that were judged before, on another node or at another time.
    pub fn take_late_from(&mut self, t: i64) {
        self.late_from = Some(t);
    }

    /// Begins the samples of a series known by its handle.
    pub fn push_known(&mut self, handle: SeriesHandle) {
        self.push_target(Target::Known(handle));
    }

    /// Begins the samples of a series given by its labels. It may be known or not.
    pub fn push_labels(&mut self, labels: Labels) {
        self.labels.push(labels);
        self.push_target(Target::New((self.labels.len() - 1) as u32));
    }

    /// Begins the samples of a series that is not stored here. They are passed over by the append,
    /// but can be read from the batch like those of all others.
    pub fn push_elsewhere(&mut self, labels: Option<Labels>) {
        let index = labels.map(|labels| {
            self.labels.push(labels);
            (self.labels.len() - 1) as u32
        });
        self.push_target(Target::Elsewhere(index));
    }

    fn push_target(&mut self, target: Target) {
        self.series.push(BatchSeries { target, samples_end: self.samples.len() as u32 });
    }

    /// Adds a sample to the series begun last.
    ///
    /// # Panics
    /// If no series was begun.
    pub fn push_sample(&mut self, sample: Sample) {
        self.samples.push(sample);
        let last = self.series.last_mut().expect("a series is begun before its samples");
        last.samples_end = self.samples.len() as u32;
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Number of samples.
    pub fn sample_count(&self) -> usize {
        self.samples.len()
    }

    /// The samples of series number `series`; none if there is no such series.
    pub fn samples(&self, series: usize) -> &[Sample] {
        let end_of = |index: usize| self.series.get(index).map(|entry| entry.samples_end as usize);
        let start = series.checked_sub(1).and_then(end_of).unwrap_or(0);
        end_of(series).and_then(|end| self.samples.get(start..end)).unwrap_or_default()
    }

    /// Before the append: the labels of series number `series`, if it was given by them.
    pub fn labels(&self, series: usize) -> Option<&Labels> {
        match self.series.get(series)?.target {
            Target::New(index) | Target::Elsewhere(Some(index)) => self.labels.get(index as usize),
            Target::Known(_) | Target::Outdated | Target::Elsewhere(None) => None,
        }
    }

    /// After the append: the handle of series number `series`, to be used from now on. `None` if
    /// its handle was outdated, or the series is not stored here.
    pub fn handle(&self, series: usize) -> Option<SeriesHandle> {
        match self.series.get(series)?.target {
            Target::Known(handle) => Some(handle),
            Target::New(_) | Target::Outdated | Target::Elsewhere(_) => None,
        }
    }

    /// True if series number `series` is not stored here.
    pub fn is_elsewhere(&self, series: usize) -> bool {
        self.series.get(series).is_some_and(|entry| matches!(entry.target, Target::Elsewhere(_)))
    }

    /// After the append: the samples that were refused, in the order they were sent.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// After the append: the series whose handles were outdated. Nothing of them was stored: send
    /// them again by their labels.
    pub fn outdated(&self) -> &[u32] {
        &self.outdated
    }
}

/// Proof that an append is in the log, and a place to wait until it is as durable as the database
/// promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "an append may be acknowledged only when its ticket is settled"]
pub struct DurabilityTicket {
    /// Count of bytes appended to the log since it was opened, up to and with this append.
    pub(crate) log_position: u64,
}
