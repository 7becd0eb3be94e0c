//! One series of a write request.

use std::iter::FusedIterator;

use super::WireError;
use super::check::{self, EXEMPLAR, HISTOGRAM};
use super::cursor::Cursor;

/// Field numbers of `TimeSeries`.
const LABELS: u32 = 1;
const SAMPLES: u32 = 2;
const EXEMPLARS: u32 = 3;
const HISTOGRAMS: u32 = 4;

/// Keys as they lie on the wire: field number times 8 plus wire type. In a series, then in a label,
/// then in a sample.
const LABELS_KEY: u8 = 0x0a;
const SAMPLES_KEY: u8 = 0x12;
const NAME_KEY: u8 = 0x0a;
const VALUE_KEY: u8 = 0x12;
const SAMPLE_VALUE_KEY: u8 = 0x09;
const SAMPLE_TIMESTAMP_KEY: u8 = 0x10;

/// One series, still on the wire.
///
/// The outer bounds of all its fields are good; labels and samples may yet turn out malformed when
/// they are iterated.
#[derive(Debug, Clone, Copy)]
pub struct SeriesWire<'a> {
    /// From the first label to the end of the last.
    labels: Cursor<'a>,
    /// From the first sample to the end of the last.
    samples: Cursor<'a>,
    /// Nothing but labels lies in `labels`.
    labels_contiguous: bool,
    histogram_count: usize,
    exemplar_count: usize,
}

impl<'a> SeriesWire<'a> {
    /// Walks over the fields of a series and notes where they lie.
    #[inline]
    pub(super) fn parse(message: Cursor<'a>) -> Result<Self, WireError> {
        let mut labels = Span::new(&message);
        let mut samples = Span::new(&message);
        let mut histogram_count = 0;
        let mut exemplar_count = 0;

        let mut cursor = message;
        loop {
            let start = cursor.offset();
            cursor.rest = skip_run(cursor.rest, LABELS_KEY);
            let middle = cursor.offset();
            cursor.rest = skip_run(cursor.rest, SAMPLES_KEY);
            labels.add(start, middle);
            samples.add(middle, cursor.offset());
            if cursor.is_empty() {
                break;
            }

            let key = cursor.key()?;
            match key.field {
                LABELS => {
                    cursor.delimited(key)?;
                    labels.add(key.offset, cursor.offset());
                }
                SAMPLES => {
                    cursor.delimited(key)?;
                    samples.add(key.offset, cursor.offset());
                }
                EXEMPLARS => {
                    check::message(cursor.delimited(key)?, &EXEMPLAR)?;
                    exemplar_count += 1;
                }
                HISTOGRAMS => {
                    check::message(cursor.delimited(key)?, &HISTOGRAM)?;
                    histogram_count += 1;
                }
                _ => cursor.skip(key)?,
            }
        }

        Ok(Self {
            labels: message.slice(labels.start, labels.end),
            samples: message.slice(samples.start, samples.end),
            labels_contiguous: labels.contiguous,
            histogram_count,
            exemplar_count,
        })
    }

    /// All label fields as they lie on the wire, keys and lengths included; `None` if other fields
    /// lie between them, which no usual sender does. Empty if there are no labels.
    ///
    /// Equal bytes are equal labels in equal order. The reverse holds for the output of one encoder
    /// only: the same labels can be written in several ways.
    #[inline]
    pub fn label_bytes(&self) -> Option<&'a [u8]> {
        self.labels_contiguous.then_some(self.labels.rest)
    }

    /// Where [`Self::label_bytes`] lie in the body.
    #[inline]
    pub fn label_range(&self) -> Option<std::ops::Range<usize>> {
        let start = self.labels.offset();
        self.labels_contiguous.then(|| start..start + self.labels.rest.len())
    }

    /// The labels as sent: not sorted, not checked for UTF-8, repeats or empty names.
    #[inline]
    pub fn labels(&self) -> LabelIter<'a> {
        LabelIter { cursor: self.labels }
    }

    /// The float samples as sent, in the order of the wire.
    #[inline]
    pub fn samples(&self) -> SampleIter<'a> {
        SampleIter { cursor: self.samples }
    }

    /// How many native histograms the series has. They are known to be well-formed protobuf.
    #[inline]
    pub fn histogram_count(&self) -> usize {
        self.histogram_count
    }

    /// How many exemplars the series has. They are known to be well-formed protobuf.
    #[inline]
    pub fn exemplar_count(&self) -> usize {
        self.exemplar_count
    }
}

/// From the first to the last field of one kind, offsets in the body.
#[derive(Debug)]
struct Span {
    start: usize,
    end: usize,
    contiguous: bool,
}

impl Span {
    /// Empty, at the start of the message, so that fields there count as its continuation.
    #[inline]
    fn new(message: &Cursor<'_>) -> Self {
        let start = message.offset();
        Self { start, end: start, contiguous: true }
    }

    /// Adds the fields from `start` to `end`, if there are any.
    #[inline]
    fn add(&mut self, start: usize, end: usize) {
        if start == end {
            return;
        }
        if self.end != start {
            if self.start == self.end {
                self.start = start;
            } else {
                self.contiguous = false;
            }
        }
        self.end = end;
    }
}

/// Passes over fields with this one-byte key and a length below 128. Stops in front of whatever is
/// not exactly that, be it a good field or a bad one.
#[inline]
fn skip_run(mut rest: &[u8], wanted: u8) -> &[u8] {
    while let [key, length, tail @ ..] = rest {
        if *key != wanted || *length >= 0x80 {
            break;
        }
        match tail.get(usize::from(*length)..) {
            Some(next) => rest = next,
            None => break,
        }
    }
    rest
}

/// The content of the field in front, if it has this one-byte key and a length below 128, and what
/// comes after it.
#[inline]
fn short_field(rest: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    match rest {
        [key, length, tail @ ..] if *key == wanted && *length < 0x80 => {
            tail.split_at_checked(usize::from(*length))
        }
        _ => None,
    }
}

/// Name and value.
type Label<'a> = (&'a [u8], &'a [u8]);

/// The labels in `label_bytes`, as [`SeriesWire::label_bytes`] gave them.
pub fn label_iter(label_bytes: &[u8]) -> LabelIter<'_> {
    LabelIter { cursor: Cursor::new(label_bytes) }
}

/// Iterator over the labels of a series: name and value, raw bytes, an absent one empty.
///
/// Ends after the first error.
#[derive(Debug, Clone)]
pub struct LabelIter<'a> {
    cursor: Cursor<'a>,
}

impl<'a> LabelIter<'a> {
    /// The next item however it is written.
    #[inline(never)]
    fn next_unusual(&mut self) -> Option<Result<Label<'a>, WireError>> {
        let item = self.step();
        if item.is_err() {
            self.cursor.finish();
        }
        item.transpose()
    }

    fn step(&mut self) -> Result<Option<Label<'a>>, WireError> {
        while !self.cursor.is_empty() {
            let key = self.cursor.key()?;
            if key.field == LABELS {
                return label(self.cursor.delimited(key)?).map(Some);
            }
            self.cursor.skip(key)?;
        }
        Ok(None)
    }
}

impl<'a> Iterator for LabelIter<'a> {
    type Item = Result<Label<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((content, next)) = short_field(self.cursor.rest, LABELS_KEY)
            && let Some((name, rest)) = short_field(content, NAME_KEY)
            && let Some((value, [])) = short_field(rest, VALUE_KEY)
        {
            self.cursor.rest = next;
            return Some(Ok((name, value)));
        }
        if self.cursor.is_empty() { None } else { self.next_unusual() }
    }
}

impl FusedIterator for LabelIter<'_> {}

/// Any valid `Label`.
fn label(mut cursor: Cursor<'_>) -> Result<Label<'_>, WireError> {
    let (mut name, mut value) = (&[][..], &[][..]);
    while !cursor.is_empty() {
        let key = cursor.key()?;
        match key.field {
            1 => name = cursor.delimited(key)?.rest,
            2 => value = cursor.delimited(key)?.rest,
            _ => cursor.skip(key)?,
        }
    }
    Ok((name, value))
}

/// Iterator over the float samples of a series: timestamp in milliseconds since 1970, and the bits
/// of the value, which must stay as they are because one particular NaN marks a stale series.
///
/// Ends after the first error.
#[derive(Debug, Clone)]
pub struct SampleIter<'a> {
    cursor: Cursor<'a>,
}

impl SampleIter<'_> {
    /// The next item however it is written.
    #[inline(never)]
    fn next_unusual(&mut self) -> Option<Result<(i64, u64), WireError>> {
        let item = self.step();
        if item.is_err() {
            self.cursor.finish();
        }
        item.transpose()
    }

    fn step(&mut self) -> Result<Option<(i64, u64)>, WireError> {
        while !self.cursor.is_empty() {
            let key = self.cursor.key()?;
            if key.field == SAMPLES {
                return sample(self.cursor.delimited(key)?).map(Some);
            }
            self.cursor.skip(key)?;
        }
        Ok(None)
    }
}

impl Iterator for SampleIter<'_> {
    type Item = Result<(i64, u64), WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((content, next)) = short_field(self.cursor.rest, SAMPLES_KEY)
            && let Some(sample) = usual_sample(content)
        {
            self.cursor.rest = next;
            return Some(Ok(sample));
        }
        if self.cursor.is_empty() { None } else { self.next_unusual() }
    }
}

impl FusedIterator for SampleIter<'_> {}

/// A `Sample` as every encoder writes it: the value (left out if it is 0.0), then a timestamp of
/// six bytes, as it has from 1971 to 2109. `None` for anything else.
#[inline]
fn usual_sample(content: &[u8]) -> Option<(i64, u64)> {
    let (bits, rest) = match content.split_first_chunk::<9>() {
        Some(([SAMPLE_VALUE_KEY, value @ ..], rest)) => (u64::from_le_bytes(*value), rest),
        _ => (0, content),
    };
    let &[SAMPLE_TIMESTAMP_KEY, a, b, c, d, e, f] = rest else { return None };
    // All but the last byte say that another follows.
    if a & b & c & d & e & !f & 0x80 == 0 {
        return None;
    }
    let digit = |byte: u8, index: u32| i64::from(byte & 0x7f) << (7 * index);
    let timestamp = digit(a, 0) | digit(b, 1) | digit(c, 2) | digit(d, 3) | digit(e, 4) | digit(f, 5);
    Some((timestamp, bits))
}

/// Any valid `Sample`.
fn sample(mut cursor: Cursor<'_>) -> Result<(i64, u64), WireError> {
    let (mut timestamp, mut bits) = (0, 0);
    while !cursor.is_empty() {
        let key = cursor.key()?;
        match key.field {
            1 => bits = cursor.fixed64(key)?,
            // Negative numbers are sent as their two's complement.
            2 => timestamp = cursor.varint_field(key)?.cast_signed(),
            _ => cursor.skip(key)?,
        }
    }
    Ok((timestamp, bits))
}
