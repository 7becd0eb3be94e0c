//! Tombstone records: ranges deleted from series of the head.

use super::{RecordType, body};
use crate::{
    types::SeriesRef,
    varint::{DecodeError, Decoder, put_varint},
};

/// A deleted range of a series. The whole time axis means, to newer releases, that the series left
/// the head before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The series.
    pub series: SeriesRef,
    /// First deleted millisecond.
    pub mint: i64,
    /// Last deleted millisecond.
    pub maxt: i64,
}

/// Appends a record of `tombstones` to `buf`; nothing if there is none.
pub fn encode_tombstones(buf: &mut Vec<u8>, tombstones: impl IntoIterator<Item = Tombstone>) {
    for (index, tombstone) in tombstones.into_iter().enumerate() {
        if index == 0 {
            buf.push(RecordType::Tombstones.byte());
        }
        buf.extend_from_slice(&tombstone.series.0.to_be_bytes());
        put_varint(buf, tombstone.mint);
        put_varint(buf, tombstone.maxt);
    }
}

/// Tombstones of a record of type [`RecordType::Tombstones`]. Ends after the first error.
#[derive(Clone, Debug)]
pub struct TombstonesIter<'a> {
    decoder: Decoder<'a>,
}

impl<'a> TombstonesIter<'a> {
    /// Reads `record`, whose type the caller has looked at.
    pub fn new(record: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(body(record)) }
    }

    fn read(&mut self) -> Result<Tombstone, DecodeError> {
        let series = SeriesRef(self.decoder.u64_be()?);
        Ok(Tombstone { series, mint: self.decoder.varint()?, maxt: self.decoder.varint()? })
    }
}

impl Iterator for TombstonesIter<'_> {
    type Item = Result<Tombstone, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let tombstone = self.read();
        if tombstone.is_err() {
            self.decoder = Decoder::new(&[]);
        }
        Some(tombstone)
    }
}
