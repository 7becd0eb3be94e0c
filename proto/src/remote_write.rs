//! The decoder of the write path: remote write 1.0, borrowed from the body, without allocation.
//!
//! [`crate::prometheus::WriteRequest`] describes the same bytes, but its generated decoder makes two
//! strings per label, and nearly every series of a push has been seen before: all that is needed of
//! its labels is to compare them with what is known. So nothing is copied here. Three layers of
//! iterators walk the decompressed body where it lies:
//!
//! ```text
//! WriteRequestWalker   field 1 of the request, one SeriesWire each
//!   SeriesWire         finds where labels and samples lie
//!     LabelIter        (name, value)
//!     SampleIter       (timestamp, bits of the value)
//! ```
//!
//! # What is checked, and when
//! - The walker checks the fields of the request and, in full, the messages nobody reads further:
//!   metadata, and the exemplars and histograms of each series.
//! - A [`SeriesWire`] comes out of the walker with the outer bounds of all its fields checked.
//! - The inside of a label or sample is checked when its iterator reaches it.
//!
//! So a request is known to be well-formed when the walker and the iterators of each series have
//! come to their ends. A caller that finds [`SeriesWire::label_bytes`] equal to bytes it has checked
//! before need not walk the labels again.
//!
//! # Compared with the generated decoder
//! Both accept the same bodies and see the same values in them, whatever the order of the fields and
//! however often one is repeated (the last value of a scalar wins, an absent one is zero or empty),
//! with two deliberate differences:
//! - Strings are not checked for UTF-8. Callers check the labels they keep; the strings of exemplars
//!   and metadata go nowhere.
//! - Groups (wire types 3 and 4, long abandoned) are refused; the generated decoder skips them in
//!   unknown fields. No sender of remote write ever had any.
//!
//! # Speed
//! Senders write fields in the order of their numbers, so the expected layout is a run of labels,
//! then samples, each with its tag and its length in one byte. Every iterator tries that shape first
//! and falls back to a general step on anything else, so the short paths must reject, never guess.

use std::iter::FusedIterator;

mod check;
mod cursor;
mod error;
mod series;

pub use error::{WireError, WireErrorKind};
pub use series::{LabelIter, SampleIter, SeriesWire, label_iter};

use check::METADATA;
use cursor::Cursor;

/// Field numbers of `WriteRequest`.
const TIMESERIES: u32 = 1;
const METADATA_FIELD: u32 = 3;

/// Iterator over the series of a decompressed write request.
///
/// Yields each series in the order of the body. After an error it yields `None`, and what came
/// before the error is not to be used: a request is taken whole or not at all.
#[derive(Debug, Clone)]
pub struct WriteRequestWalker<'a> {
    cursor: Cursor<'a>,
    metadata_count: usize,
}

impl<'a> WriteRequestWalker<'a> {
    /// A walker over `body`, the request after snappy decompression.
    #[inline]
    pub fn new(body: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(body), metadata_count: 0 }
    }

    /// How many metadata entries have been passed so far; all of them once the walker is at its end.
    #[inline]
    pub fn metadata_count(&self) -> usize {
        self.metadata_count
    }

    #[inline]
    fn step(&mut self) -> Result<Option<SeriesWire<'a>>, WireError> {
        while !self.cursor.is_empty() {
            let key = self.cursor.key()?;
            match key.field {
                TIMESERIES => return SeriesWire::parse(self.cursor.delimited(key)?).map(Some),
                METADATA_FIELD => {
                    check::message(self.cursor.delimited(key)?, &METADATA)?;
                    self.metadata_count += 1;
                }
                _ => self.cursor.skip(key)?,
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for WriteRequestWalker<'a> {
    type Item = Result<SeriesWire<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step();
        if item.is_err() {
            self.cursor.finish();
        }
        item.transpose()
    }
}

impl FusedIterator for WriteRequestWalker<'_> {}
