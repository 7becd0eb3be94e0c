//! What a query asks and what it gets.

use crate::{chunkenc::Encoding, labels::Labels, matchers::Matcher};

/// Which series and which time a query wants.
#[derive(Clone, Debug)]
pub struct Query {
    /// First millisecond, inclusive.
    pub mint: i64,
    /// Last millisecond, inclusive.
    pub maxt: i64,
    /// All must match. No matcher at all selects every series.
    pub matchers: Vec<Matcher>,
    /// Most series that may be selected; `None` for no limit. More fail with
    /// [`crate::Error::QueryLimit`].
    pub series_limit: Option<usize>,
}

/// A chunk as it is stored, whole, also where it reaches beyond the range asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Time of the first sample.
    pub mint: i64,
    /// Time of the last sample, inclusive.
    pub maxt: i64,
    /// Encoding of `data`.
    pub encoding: Encoding,
    /// The samples, from the sample count on.
    pub data: Vec<u8>,
}

/// The labels of a selected series; the index finds its chunks.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// Labels as stored, without external ones.
    pub labels: Labels,
}
