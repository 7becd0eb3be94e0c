//! Records of the write-ahead log: what they say, byte by byte.
//!
//! A record is one entry of a log ([`crate::wlog`]). Its first byte is its type; the rest depends on
//! it. Encoders append to a buffer of the caller and allocate nothing of their own. Decoders borrow
//! from the record. Upstream: `tsdb/record/record.go` of prometheus/prometheus.
//!
//! - Series: repeat { ref u64 BE, n uvarint, n × (name, value) }.
//! - Samples: base ref u64 BE, base t i64 BE, then for EVERY sample, the first too,
//!   { ref − base ref varint, t − base t varint, bits u64 BE }. The base is the first sample. Refs may
//!   fall or repeat, so the differences are signed and wrap.
//! - Tombstones: repeat { ref u64 BE, mint varint, maxt varint }, both ends inclusive.
//! - Mmap markers (write-behind log only): repeat { series ref u64 BE, head chunk ref u64 BE }.
//! - Samples V2 are read and not written, because releases before 3.11 drop them in silence. Their
//!   start timestamps are passed over.
//!
//! The other types are recognised, so that they can be counted or copied, but not decoded.
//! Unknown types are to be skipped, not refused.

mod fields;
mod markers;
mod samples;
mod samples_v2;
mod series;
#[cfg(test)]
mod tests;
mod tombstones;

pub use markers::{MmapMarker, MmapMarkersIter, encode_mmap_markers};
pub use samples::{SamplesEncoder, SamplesIter};
pub use samples_v2::SamplesV2Iter;
pub use series::{LabelPairs, SeriesEncoder, SeriesEntry, SeriesIter, encode_series};
pub use tombstones::{Tombstone, TombstonesIter, encode_tombstones};

/// Type of a record: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// Labels of series (1). [`SeriesIter`] decodes it.
    Series,
    /// Float samples (2). [`SamplesIter`] decodes it.
    Samples,
    /// Deleted ranges (3). [`TombstonesIter`] decodes it.
    Tombstones,
    /// Exemplars (4).
    Exemplars,
    /// Out-of-order chunks written to chunks_head (5). [`MmapMarkersIter`] decodes it.
    MmapMarkers,
    /// Type, unit and help of metrics (6).
    Metadata,
    /// Integer native histograms (7).
    Histograms,
    /// Float native histograms (8).
    FloatHistograms,
    /// Integer native histograms with custom buckets (9).
    CustomBucketHistograms,
    /// Float native histograms with custom buckets (10).
    CustomBucketFloatHistograms,
    /// Float samples with start timestamps (11). [`SamplesV2Iter`] decodes it.
    SamplesV2,
    /// Integer native histograms with start timestamps (12).
    HistogramsV2,
    /// Float native histograms with start timestamps (13).
    FloatHistogramsV2,
    /// Anything else: to be skipped. A record without any byte counts as 0.
    Unknown(u8),
}

impl RecordType {
    /// The type of this number.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Series,
            2 => Self::Samples,
            3 => Self::Tombstones,
            4 => Self::Exemplars,
            5 => Self::MmapMarkers,
            6 => Self::Metadata,
            7 => Self::Histograms,
            8 => Self::FloatHistograms,
            9 => Self::CustomBucketHistograms,
            10 => Self::CustomBucketFloatHistograms,
            11 => Self::SamplesV2,
            12 => Self::HistogramsV2,
            13 => Self::FloatHistogramsV2,
            other => Self::Unknown(other),
        }
    }

    /// The number of this type.
    pub fn byte(self) -> u8 {
        match self {
            Self::Series => 1,
            Self::Samples => 2,
            Self::Tombstones => 3,
            Self::Exemplars => 4,
            Self::MmapMarkers => 5,
            Self::Metadata => 6,
            Self::Histograms => 7,
            Self::FloatHistograms => 8,
            Self::CustomBucketHistograms => 9,
            Self::CustomBucketFloatHistograms => 10,
            Self::SamplesV2 => 11,
            Self::HistogramsV2 => 12,
            Self::FloatHistogramsV2 => 13,
            Self::Unknown(byte) => byte,
        }
    }
}

/// Type of `record`. An empty record is `Unknown(0)`.
#[inline]
pub fn record_type(record: &[u8]) -> RecordType {
    RecordType::from_byte(record.first().copied().unwrap_or(0))
}

/// What follows the type byte.
fn body(record: &[u8]) -> &[u8] {
    record.get(1..).unwrap_or_default()
}
