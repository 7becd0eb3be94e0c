//! Chunk encodings: how the samples of one series over some minutes lie in bytes.
//!
//! All encodings begin with the sample count, a big-endian u16; all that follows is a stream of
//! bits, the most significant first, whose last byte is filled with zeros. Format:
//! prometheus/prometheus `tsdb/chunkenc`.
//!
//! Floats are written as [`Encoding::Xor`] only. Where a chunk ends and the next begins is a matter
//! of [`FloatCutter`], which the head and the block writer share, so that equal samples give equal
//! bytes.

mod bits;
mod cutter;
mod merge;
mod xor;
mod xor2;

pub use cutter::{FloatChunkEncoder, FloatCutter, OpenChunk, encode_float_chunks};
pub use merge::{merge_overlapping, sort_and_deduplicate};
pub use xor::{SampleBytes, XorIter, XorState, encode_xor, xor_first_time};
pub use xor2::Xor2Iter;

use crate::{types::Sample, varint::DecodeError};

/// How the samples of a chunk are encoded; the number is the one on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats.
    Xor = 1,
    /// Integer native histograms.
    Histogram = 2,
    /// Float native histograms.
    FloatHistogram = 3,
    /// Floats with start timestamps, newer than what we write.
    Xor2 = 4,
    /// Integer native histograms with start timestamps, newer than what we write.
    HistogramSt = 5,
    /// Float native histograms with start timestamps, newer than what we write.
    FloatHistogramSt = 6,
}

impl Encoding {
    /// The encoding of this number, if it is known.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Xor,
            2 => Self::Histogram,
            3 => Self::FloatHistogram,
            4 => Self::Xor2,
            5 => Self::HistogramSt,
            6 => Self::FloatHistogramSt,
            _ => return None,
        })
    }

    /// True for the encodings of plain float samples.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Xor | Self::Xor2)
    }
}

/// Why the samples of a chunk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The data ends before the last of the samples that its header promises.
    #[error("chunk ends within sample {sample} of {count}")]
    Truncated {
        /// Index of the sample that is not all there, from 0.
        sample: u16,
        /// Number of samples according to the header.
        count: u16,
    },
    /// There are not even the two bytes of the sample count.
    #[error("chunk of less than two bytes")]
    NoHeader,
    /// A field has a value that no writer makes.
    #[error("chunk has an invalid {what} in sample {sample}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// Index of the sample, from 0.
        sample: u16,
    },
    /// The encoding is known but not one of floats.
    #[error("chunk encoding {0:?} does not hold plain floats")]
    NotFloat(Encoding),
}

/// Number of samples that the header of a chunk promises.
pub fn sample_count(encoding: Encoding, data: &[u8]) -> Result<u16, ChunkError> {
    let count = data.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)).ok_or(ChunkError::NoHeader)?;
    Ok(match encoding {
        // The two reset bits of the histogram share the bytes of the count.
        Encoding::HistogramSt | Encoding::FloatHistogramSt => count & 0x3fff,
        _ => count,
    })
}

/// Iterates over the samples of a chunk of floats, of whatever encoding. After an error there is
/// nothing more.
#[derive(Clone, Debug)]
pub enum FloatIter<'a> {
    /// Over [`Encoding::Xor`].
    Xor(XorIter<'a>),
    /// Over [`Encoding::Xor2`].
    Xor2(Xor2Iter<'a>),
}

impl Iterator for FloatIter<'_> {
    type Item = Result<Sample, ChunkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Xor(samples) => samples.next(),
            Self::Xor2(samples) => samples.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Xor(samples) => samples.size_hint(),
            Self::Xor2(samples) => samples.size_hint(),
        }
    }
}

/// The samples of a chunk of floats. Histograms fail with [`ChunkError::NotFloat`].
pub fn decode_floats(encoding: Encoding, data: &[u8]) -> Result<FloatIter<'_>, ChunkError> {
    match encoding {
        Encoding::Xor => XorIter::new(data).map(FloatIter::Xor),
        Encoding::Xor2 => Xor2Iter::new(data).map(FloatIter::Xor2),
        Encoding::Histogram
        | Encoding::FloatHistogram
        | Encoding::HistogramSt
        | Encoding::FloatHistogramSt => Err(ChunkError::NotFloat(encoding)),
    }
}

/// Adds to a reader's error which sample it was in.
fn in_sample(sample: u16, count: u16) -> impl Fn(DecodeError) -> ChunkError {
    move |error| match error {
        DecodeError::UnexpectedEnd => ChunkError::Truncated { sample, count },
        DecodeError::Overflow | DecodeError::InvalidUtf8 => ChunkError::Invalid { what: "varint", sample },
    }
}
