//! Writes batches.

use super::{ANONYMOUS, FLAG_BITS, LABELS, MANY, zigzag};

/// Bytes of the two fixed numbers that a batch begins with.
const FIXED_LEN: usize = 8;

/// How a series is named in a batch.
#[derive(Clone, Copy, Debug)]
pub enum SeriesName<'a> {
    /// By the number under which it was defined on this stream.
    Known(u32),
    /// By its labels, ascending by name, which are from now on known by this number.
    Define(u32, &'a [(&'a str, &'a str)]),
    /// By its labels, ascending by name, this time only.
    Anonymous(&'a [(&'a str, &'a str)]),
}

/// Appends one batch to a frame.
#[derive(Debug)]
pub struct BatchWriter<'f> {
    frame: &'f mut Vec<u8>,
    /// Where the batch begins.
    start: usize,
    series: u32,
    /// Number of the series before.
    last: i64,
    base_ms: i64,
}

impl<'f> BatchWriter<'f> {
    /// Begins a batch at the end of `frame`. `tenant` is its number on the stream, and its name if
    /// that number is used for the first time. `base_ms` is best near the times of the samples.
    pub fn begin(
        frame: &'f mut Vec<u8>,
        sequence: u64,
        (epoch, digest): (u64, u64),
        tenant: (u32, Option<&str>),
        base_ms: i64,
    ) -> Self {
        let start = frame.len();
        frame.extend_from_slice(&[0; FIXED_LEN]);
        put_varint(frame, sequence);
        put_varint(frame, epoch);
        frame.extend_from_slice(&digest.to_le_bytes());
        let (number, name) = tenant;
        put_varint(frame, u64::from(number) << 1 | u64::from(name.is_some()));
        if let Some(name) = name {
            put_text(frame, name);
        }
        put_varint(frame, zigzag(base_ms));
        Self { frame, start, series: 0, last: -1, base_ms }
    }

    /// Appends a series with its samples, times in milliseconds and values as IEEE 754 bits. At
    /// least one, or the series is left out.
    #[inline]
    pub fn series(&mut self, name: SeriesName<'_>, samples: impl ExactSizeIterator<Item = (i64, u64)>) {
        if samples.len() == 0 {
            return;
        }
        self.series += 1;
        let (number, labels) = match name {
            SeriesName::Known(number) => (Some(number), None),
            SeriesName::Define(number, labels) => (Some(number), Some(labels)),
            SeriesName::Anonymous(labels) => (None, Some(labels)),
        };
        let step = match number {
            Some(number) => {
                let step = i64::from(number) - self.last - 1;
                self.last = number.into();
                step
            }
            None => 0,
        };
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let flags = flag(labels.is_some(), LABELS)
            | flag(number.is_none(), ANONYMOUS)
            | flag(samples.len() > 1, MANY);
        put_varint(self.frame, zigzag(step) << FLAG_BITS | flags);
        if let Some(labels) = labels {
            put_varint(self.frame, labels.len() as u64);
            for (name, value) in labels {
                put_text(self.frame, name);
                put_text(self.frame, value);
            }
        }
        if samples.len() > 1 {
            put_varint(self.frame, samples.len() as u64);
        }
        let mut before = self.base_ms;
        for (t, bits) in samples {
            put_varint(self.frame, zigzag(t.wrapping_sub(before)));
            self.frame.extend_from_slice(&bits.to_le_bytes());
            before = t;
        }
    }

    /// Ends the batch. Returns its length in the frame, in bytes; without any series nothing is left
    /// of it and the length is 0.
    ///
    /// # Panics
    /// If the batch has 4 GiB or more; requests are bounded far below.
    pub fn finish(self) -> usize {
        if self.series == 0 {
            self.frame.truncate(self.start);
            return 0;
        }
        let len = self.frame.len() - self.start;
        let body = u32::try_from(len - 4).expect("a batch is no longer than its request");
        let fixed = self.frame.get_mut(self.start..self.start + FIXED_LEN);
        if let Some([a, b, c, d, e, f, g, h]) = fixed {
            [*a, *b, *c, *d] = body.to_le_bytes();
            [*e, *f, *g, *h] = self.series.to_le_bytes();
        }
        len
    }
}

#[inline]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
