//! Small value types that cross module borders.

/// A float sample. The value is kept as bits, because stale markers, other NaN payloads and -0.0
/// must survive unaltered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// IEEE 754 bits of the value.
    pub bits: u64,
}

impl Sample {
    /// A sample of `value` at `t` milliseconds.
    pub fn new(t: i64, value: f64) -> Self {
        Self { t, bits: value.to_bits() }
    }

    /// The value as a float.
    pub fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }
}

/// Bits of the stale marker (`model/value/value.go` of prometheus/prometheus).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Number of a series in the log and in chunks_head: counts up from 1, 0 means none, never reused,
/// below 2^40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

/// Where a chunk of the head lies: file number in the upper, offset of its first byte in the lower
/// 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadChunkRef(pub u64);

impl HeadChunkRef {
    /// A reference to byte `offset` of chunks_head file `file`.
    pub fn new(file: u32, offset: u32) -> Self {
        Self(u64::from(file) << 32 | u64::from(offset))
    }

    /// Number of the chunks_head file.
    pub fn file(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Offset in bytes of the chunk's first byte (its series ref).
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// Where a chunk of a block lies: file index from 0 in the upper, offset of its length byte in the
/// lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockChunkRef(pub u64);

/// A series entry of a block's index: its byte offset divided by 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexSeriesId(pub u32);

/// Number of a segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIndex(pub u32);

/// Length in milliseconds of the ranges that blocks cover: 2 h.
pub const BLOCK_RANGE_MS: i64 = 2 * 60 * 60 * 1000;

/// Start of the aligned range of `range_ms` that contains `t` (rounds down, also below zero).
pub fn range_start(t: i64, range_ms: i64) -> i64 {
    t.div_euclid(range_ms) * range_ms
}

/// End (exclusive) of the aligned range of `range_ms` that contains `t`.
pub fn range_end(t: i64, range_ms: i64) -> i64 {
    range_start(t, range_ms).saturating_add(range_ms)
}
