//! Samples that were refused while the others of their request were stored: why, how many, which
//! first.

use std::fmt;

use weir_tsdb::append::RefuseReason;

/// Why a sample was refused. No retry can mend any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Older than the newest sample of its series.
    OutOfOrder,
    /// Another value is stored for the same time.
    DuplicateTimestamp,
    /// Older than what the head takes.
    OutOfBounds,
    /// Out of order, and older than the window for that.
    TooOld,
    /// Later than now plus the window.
    TooFarInFuture,
    /// A label without a name.
    LabelNameEmpty,
    /// Two labels of one name.
    LabelNameDuplicate,
    /// A label name or value that is not UTF-8.
    LabelNotUtf8,
    /// More labels than the limit.
    LabelCount,
    /// A label name longer than the limit.
    LabelNameLength,
    /// A label value longer than the limit.
    LabelValueLength,
    /// No label with a value.
    NoLabels,
    /// A native histogram; they are not stored yet.
    HistogramUnsupported,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::OutOfOrder,
        Self::DuplicateTimestamp,
        Self::OutOfBounds,
        Self::TooOld,
        Self::TooFarInFuture,
        Self::LabelNameEmpty,
        Self::LabelNameDuplicate,
        Self::LabelNotUtf8,
        Self::LabelCount,
        Self::LabelNameLength,
        Self::LabelValueLength,
        Self::NoLabels,
        Self::HistogramUnsupported,
    ];

    /// Stable id, for answers and as the metrics' `reason` label.
    pub fn id(self) -> &'static str {
        match self {
            Self::OutOfOrder => "sample-out-of-order",
            Self::DuplicateTimestamp => "sample-duplicate-timestamp",
            Self::OutOfBounds => "sample-out-of-bounds",
            Self::TooOld => "sample-too-old",
            Self::TooFarInFuture => "sample-too-far-in-future",
            Self::LabelNameEmpty => "label-name-empty",
            Self::LabelNameDuplicate => "label-name-duplicate",
            Self::LabelNotUtf8 => "label-not-utf8",
            Self::LabelCount => "label-count-limit",
            Self::LabelNameLength => "label-name-length-limit",
            Self::LabelValueLength => "label-value-length-limit",
            Self::NoLabels => "series-without-labels",
            Self::HistogramUnsupported => "histogram-unsupported",
        }
    }

    /// For people; where upstream has words for it, those.
    pub fn text(self) -> &'static str {
        match self {
            Self::OutOfOrder => "out of order sample",
            Self::DuplicateTimestamp => "duplicate sample for timestamp with another value",
            Self::OutOfBounds => "out of bounds: older than what the head takes",
            Self::TooOld => "too old sample: out of order, and older than the window for that",
            Self::TooFarInFuture => "too far in the future",
            Self::LabelNameEmpty => "a label name is empty",
            Self::LabelNameDuplicate => "a label name occurs twice",
            Self::LabelNotUtf8 => "a label is not valid UTF-8",
            Self::LabelCount => "more labels than the limit",
            Self::LabelNameLength => "a label name is longer than the limit",
            Self::LabelValueLength => "a label value is longer than the limit",
            Self::NoLabels => "the series has no labels",
            Self::HistogramUnsupported => "native histograms are not supported yet",
        }
    }

    /// True if the sample is fine by itself and conflicts with what is stored.
    pub fn is_conflict(self) -> bool {
        matches!(self, Self::OutOfOrder | Self::DuplicateTimestamp | Self::OutOfBounds | Self::TooOld)
    }
}

impl From<RefuseReason> for Refusal {
    fn from(reason: RefuseReason) -> Self {
        match reason {
            RefuseReason::OutOfOrder => Self::OutOfOrder,
            RefuseReason::DuplicateTimestamp => Self::DuplicateTimestamp,
            RefuseReason::OutOfBounds => Self::OutOfBounds,
            RefuseReason::TooOld => Self::TooOld,
        }
    }
}

/// How many samples were refused for which reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts([u64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Counts `samples` more.
    pub fn add(&mut self, reason: Refusal, samples: u64) {
        self.0[reason as usize] += samples;
    }

    /// Number refused for `reason`.
    pub fn of(&self, reason: Refusal) -> u64 {
        self.0[reason as usize]
    }

    /// Number refused.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Reasons that occurred, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.0).filter(|(_, samples)| *samples > 0)
    }
}

/// The refused sample that came first in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstRefusal {
    /// Why.
    pub reason: Refusal,
    /// Its series, readable, perhaps shortened.
    pub series: String,
    /// Its time, unless the whole series was refused.
    pub time_ms: Option<i64>,
}

/// What is told of a request of which samples were refused. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReport {
    counts: RefusalCounts,
    received: u64,
    first: FirstRefusal,
}

impl RefusalReport {
    /// A report on a request of `received` samples. `None` if none was refused.
    pub fn new(counts: RefusalCounts, received: u64, first: FirstRefusal) -> Option<Self> {
        (counts.total() > 0).then_some(Self { counts, received, first })
    }

    /// Numbers by reason.
    pub fn counts(&self) -> &RefusalCounts {
        &self.counts
    }

    /// Samples in the request.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The first refused sample.
    pub fn first(&self) -> &FirstRefusal {
        &self.first
    }

    /// True if all that were refused conflict with what is stored, and nothing else is wrong.
    pub fn is_conflict(&self) -> bool {
        self.counts.iter().all(|(reason, _)| reason.is_conflict())
    }

    /// Stable id of the answer: that of the first refused sample, unless it was a conflict and a
    /// worse fault decides the code.
    pub fn id(&self) -> &'static str {
        let worse = self.counts.iter().map(|(reason, _)| reason).find(|reason| !reason.is_conflict());
        match worse {
            Some(worse) if self.first.reason.is_conflict() => worse.id(),
            _ => self.first.reason.id(),
        }
    }
}

/// As in `conflict: 3 of 2000 samples refused (3 samples: out of order sample), all others are
/// stored; first: {job="a"} at 1700: out of order sample`.
impl fmt::Display for RefusalReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_conflict() {
            out.write_str("conflict: ")?;
        }
        write!(out, "{} of {} samples refused (", self.counts.total(), self.received)?;
        for (index, (reason, samples)) in self.counts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{samples} samples: {}", reason.text())?;
        }
        write!(out, "), all others are stored; first: {}", self.first.series)?;
        if let Some(time_ms) = self.first.time_ms {
            write!(out, " at {time_ms}")?;
        }
        write!(out, ": {}", self.first.reason.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_apart() {
        for (index, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let mut ids: Vec<&str> = Refusal::ALL.iter().map(|reason| reason.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Refusal::ALL.len());
    }

    #[test]
    fn tells_numbers_and_the_first() {
        let mut counts = RefusalCounts::default();
        counts.add(Refusal::OutOfOrder, 2);
        counts.add(Refusal::DuplicateTimestamp, 1);
        let first = FirstRefusal {
            reason: Refusal::DuplicateTimestamp,
            series: r#"{__name__="up"}"#.into(),
            time_ms: Some(1700),
        };
        let report = RefusalReport::new(counts, 2000, first.clone()).unwrap();
        assert_eq!(
            report.to_string(),
            "conflict: 3 of 2000 samples refused (2 samples: out of order sample; 1 samples: duplicate \
             sample for timestamp with another value), all others are stored; first: {__name__=\"up\"} at \
             1700: duplicate sample for timestamp with another value"
        );
        assert_eq!(counts.of(Refusal::OutOfOrder), 2);
        assert_eq!(RefusalReport::new(RefusalCounts::default(), 5, first), None);
    }
}
