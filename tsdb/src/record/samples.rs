//! Records of float samples.

use super::{
    RecordType, body,
    fields::{SAMPLE_BYTES_MAX, take_u64, take_varint, write_varint},
};
use crate::{
    types::{Sample, SeriesRef},
    varint::DecodeError,
};

/// Appends float samples to a record in a buffer of the caller. The head of the record is written
/// with the first sample, so an encoder that got none leaves the buffer as it was.
#[derive(Debug)]
pub struct SamplesEncoder<'a> {
    buf: &'a mut Vec<u8>,
    base_ref: u64,
    base_t: i64,
    count: usize,
}

impl<'a> SamplesEncoder<'a> {
    /// Begins a record at the end of `buf`.
    pub fn begin(buf: &'a mut Vec<u8>) -> Self {
        Self { buf, base_ref: 0, base_t: 0, count: 0 }
    }

    /// Adds a sample: time in milliseconds and the bits of the value.
    #[inline]
    pub fn push(&mut self, series: SeriesRef, t: i64, bits: u64) {
        if self.count == 0 {
            self.write_head(series, t);
        }
        let mut field = [0; SAMPLE_BYTES_MAX];
        let after_ref = write_varint(&mut field, 0, series.0.wrapping_sub(self.base_ref) as i64);
        let after_t = write_varint(&mut field, after_ref, t.wrapping_sub(self.base_t));
        field[after_t..after_t + 8].copy_from_slice(&bits.to_be_bytes());
        self.buf.extend_from_slice(&field[..after_t + 8]);
        self.count += 1;
    }

    /// Number of samples added.
    pub fn count(&self) -> usize {
        self.count
    }

    #[cold]
    fn write_head(&mut self, series: SeriesRef, t: i64) {
        self.base_ref = series.0;
        self.base_t = t;
        self.buf.push(RecordType::Samples.byte());
        self.buf.extend_from_slice(&series.0.to_be_bytes());
        self.buf.extend_from_slice(&t.to_be_bytes());
    }
}

/// Samples of a record of type [`RecordType::Samples`]. Ends after the first error.
#[derive(Clone, Debug)]
pub struct SamplesIter<'a> {
    rest: &'a [u8],
    base_ref: u64,
    base_t: i64,
}

impl<'a> SamplesIter<'a> {
    /// Reads `record`, whose type the caller has looked at. A record of the type byte alone has no
    /// samples.
    ///
    /// # Errors
    /// If the record ends within its head.
    pub fn new(record: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = body(record);
        if rest.is_empty() {
            return Ok(Self { rest, base_ref: 0, base_t: 0 });
        }
        let base_ref = take_u64(&mut rest)?;
        let base_t = take_u64(&mut rest)? as i64;
        Ok(Self { rest, base_ref, base_t })
    }

    #[inline]
    fn read(&mut self) -> Result<(SeriesRef, Sample), DecodeError> {
        let ref_delta = take_varint(&mut self.rest)?;
        let t_delta = take_varint(&mut self.rest)?;
        let bits = take_u64(&mut self.rest)?;
        let series = SeriesRef(self.base_ref.wrapping_add(ref_delta as u64));
        Ok((series, Sample { t: self.base_t.wrapping_add(t_delta), bits }))
    }
}

impl Iterator for SamplesIter<'_> {
    type Item = Result<(SeriesRef, Sample), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let sample = self.read();
        if sample.is_err() {
            self.rest = &[];
        }
        Some(sample)
    }
}
