//! Frames of the replication stream: how samples travel between nodes.
//!
//! # Requirements
//! A sample of a series that was sent before costs about 11 bytes and no allocation on either side.
//! A frame is appended to while it waits to be sent, so nothing in it needs to be patched behind the
//! batch that is being written. A reader bears any bytes.
//!
//! # Format, version 1
//! A frame is a sequence of batches. All fixed integers are little endian; `varint` is LEB128,
//! `zigzag` a varint of the zigzag encoding.
//!
//! | Field of a batch | Encoding |
//! |---|---|
//! | length of what follows | u32 |
//! | number of series | u32 |
//! | sequence number | varint |
//! | ring epoch | varint |
//! | ring digest | u64 |
//! | tenant number on this stream, times two, plus one if its name follows | varint |
//! | length of the name, name | varint, UTF-8 |
//! | base time | zigzag |
//! | series | see below |
//!
//! | Field of a series | Encoding |
//! |---|---|
//! | head: zigzag(number − number before − 1) × 8 + flags; the number before the first is −1 | varint |
//! | with `LABELS`: count, then length and bytes of each name and value, ascending by name | varints, UTF-8 |
//! | with `MANY`: number of samples; without it there is one | varint |
//! | each sample: time less the time before, for the first less the base time; value | zigzag, u64 |
//!
//! Flags: 1 `LABELS`, the labels follow; 2 `ANONYMOUS`, the series has no number, always with
//! `LABELS`, and its difference of numbers is 0 (it does not change the number before); 4 `MANY`. A
//! series with a number and labels defines that number for the rest of the stream, anew if it was
//! defined before.

mod reader;
mod writer;

pub use reader::{BatchHead, BatchReader, FrameReader, LabelsReader, SeriesHead};
pub use writer::{BatchWriter, SeriesName};

/// The version described here.
pub const FRAME_VERSION: u32 = 1;

/// Labels follow.
const LABELS: u64 = 1;
/// The series has no number.
const ANONYMOUS: u64 = 2;
/// The number of samples follows.
const MANY: u64 = 4;
/// Bits of the flags.
const FLAG_BITS: u32 = 3;

/// A frame that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replication frame: {what} at byte {offset}")]
pub struct FrameError {
    /// What is wrong.
    pub what: &'static str,
    /// Where in the frame.
    pub offset: usize,
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests;
