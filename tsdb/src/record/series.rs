//! Series records.

use super::{RecordType, body};
use crate::{
    labels::Labels,
    types::SeriesRef,
    varint::{DecodeError, Decoder, put_str, put_uvarint},
};

/// Appends series to a record in a buffer of the caller. The type byte is written with the first
/// series, so an encoder that got none leaves the buffer as it was.
#[derive(Debug)]
pub struct SeriesEncoder<'a> {
    buf: &'a mut Vec<u8>,
    count: usize,
}

impl<'a> SeriesEncoder<'a> {
    /// Begins a record at the end of `buf`.
    pub fn begin(buf: &'a mut Vec<u8>) -> Self {
        Self { buf, count: 0 }
    }

    /// Adds a series.
    pub fn push(&mut self, series: SeriesRef, labels: &Labels) {
        self.push_pairs(series, labels.iter());
    }

    /// Adds a series given by pairs of name and value, which must ascend strictly by name.
    pub fn push_pairs<'l>(
        &mut self,
        series: SeriesRef,
        pairs: impl ExactSizeIterator<Item = (&'l str, &'l str)>,
    ) {
        self.begin_series();
        self.buf.extend_from_slice(&series.0.to_be_bytes());
        put_uvarint(self.buf, pairs.len() as u64);
        for (name, value) in pairs {
            put_str(self.buf, name);
            put_str(self.buf, value);
        }
    }

    /// Adds a series as it was read from another record.
    pub fn push_entry(&mut self, entry: &SeriesEntry<'_>) {
        self.begin_series();
        self.buf.extend_from_slice(entry.raw);
    }

    /// Number of series added.
    pub fn count(&self) -> usize {
        self.count
    }

    fn begin_series(&mut self) {
        if self.count == 0 {
            self.buf.push(RecordType::Series.byte());
        }
        self.count += 1;
    }
}

/// Appends a record of `series` to `buf`; nothing if there is none.
pub fn encode_series<'l>(buf: &mut Vec<u8>, series: impl IntoIterator<Item = (SeriesRef, &'l Labels)>) {
    let mut encoder = SeriesEncoder::begin(buf);
    for (series, labels) in series {
        encoder.push(series, labels);
    }
}

/// A series of a record.
#[derive(Clone, Debug)]
pub struct SeriesEntry<'a> {
    /// Its number.
    pub series: SeriesRef,
    /// Its labels, as they stand in the record: normally ascending and unique.
    pub labels: LabelPairs<'a>,
    raw: &'a [u8],
}

/// Labels of a series, name and value.
#[derive(Clone, Debug)]
pub struct LabelPairs<'a> {
    decoder: Decoder<'a>,
    left: usize,
}

impl<'a> Iterator for LabelPairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // All was read once when the entry was, so neither read fails.
        let name = self.decoder.str().ok()?;
        let value = self.decoder.str().ok()?;
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for LabelPairs<'_> {}

/// Series of a record of type [`RecordType::Series`]. Ends after the first error.
#[derive(Clone, Debug)]
pub struct SeriesIter<'a> {
    decoder: Decoder<'a>,
}

impl<'a> SeriesIter<'a> {
    /// Reads `record`, whose type the caller has looked at.
    pub fn new(record: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(body(record)) }
    }

    fn read(&mut self) -> Result<SeriesEntry<'a>, DecodeError> {
        let start = self.decoder.rest();
        let series = SeriesRef(self.decoder.u64_be()?);
        let count = usize::try_from(self.decoder.uvarint()?).map_err(|_| DecodeError::UnexpectedEnd)?;
        let labels = LabelPairs { decoder: self.decoder, left: count };
        // An absurd count ends at the end of the record; nothing is allocated by it.
        for _ in 0..count {
            self.decoder.str()?;
            self.decoder.str()?;
        }
        let len = start.len() - self.decoder.remaining();
        let raw = start.get(..len).unwrap_or_default();
        Ok(SeriesEntry { series, labels, raw })
    }
}

impl<'a> Iterator for SeriesIter<'a> {
    type Item = Result<SeriesEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.decoder = Decoder::new(&[]);
        }
        Some(entry)
    }
}
