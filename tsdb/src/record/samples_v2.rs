//! Records of float samples with start timestamps, which are passed over.

use super::body;
use crate::{
    types::{Sample, SeriesRef},
    varint::{DecodeError, Decoder},
};

/// Start timestamp markers: none, same as the sample before, explicit.
const ST_NONE: u8 = 0;
const ST_SAME: u8 = 1;
const ST_EXPLICIT: u8 = 2;

/// Samples of a record of type [`super::RecordType::SamplesV2`]. Ends after the first error.
///
/// The first sample stands whole: { ref varint, t varint, st varint, bits }. The others are
/// { ref − PREVIOUS ref varint, t − FIRST t varint, st, bits }, where st is one byte, and if that is
/// 2, a varint follows.
#[derive(Clone, Debug)]
pub struct SamplesV2Iter<'a> {
    decoder: Decoder<'a>,
    /// Time of the first sample, once it was read.
    first_t: Option<i64>,
    previous_ref: u64,
}

impl<'a> SamplesV2Iter<'a> {
    /// Reads `record`, whose type the caller has looked at.
    pub fn new(record: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(body(record)), first_t: None, previous_ref: 0 }
    }

    fn read(&mut self) -> Result<(SeriesRef, Sample), DecodeError> {
        let ref_field = self.decoder.varint()?;
        let t_field = self.decoder.varint()?;
        let t = match self.first_t {
            None => {
                self.decoder.varint()?;
                self.first_t = Some(t_field);
                t_field
            }
            Some(first_t) => {
                self.skip_start_timestamp()?;
                first_t.wrapping_add(t_field)
            }
        };
        let bits = self.decoder.u64_be()?;
        self.previous_ref = self.previous_ref.wrapping_add(ref_field as u64);
        Ok((SeriesRef(self.previous_ref), Sample { t, bits }))
    }

    fn skip_start_timestamp(&mut self) -> Result<(), DecodeError> {
        match self.decoder.u8()? {
            ST_NONE | ST_SAME => Ok(()),
            ST_EXPLICIT => self.decoder.varint().map(|_| ()),
            // No marker of this number exists, so the fields are out of step.
            _ => Err(DecodeError::Overflow),
        }
    }
}

impl Iterator for SamplesV2Iter<'_> {
    type Item = Result<(SeriesRef, Sample), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let sample = self.read();
        if sample.is_err() {
            self.decoder = Decoder::new(&[]);
        }
        Some(sample)
    }
}
