//! Where something lies in a log.

use std::fmt;

use crate::types::SegmentIndex;

/// A place in a log. Ordered as records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The segment.
    pub segment: SegmentIndex,
    /// Offset in bytes in the segment.
    pub offset: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "segment {}, offset {}", self.segment.0, self.offset)
    }
}
