//! Full chunks of the head, in files below chunks_head.
//!
//! # Hard constraints
//! Prometheus and Thanos Receive read what we write and the other way round (upstream:
//! `tsdb/chunks/head_chunks.go`). Nothing here is the only copy of a sample: all are in the
//! write-ahead log too, until they are in a block. So these files need no sync per write, and if one
//! is damaged, it and all later ones are deleted and the log is replayed instead.
//!
//! # Format
//! Files are `000001`, `000002` and so on, without a gap. Each begins with the magic 0x0130BC91, the
//! version 1 and three zero bytes. Then chunk after chunk:
//!
//! ```text
//! series ref u64 BE | mint i64 BE | maxt i64 BE | encoding u8 | len uvarint | data | CRC-32C of all of it
//! ```
//!
//! Bit 0x80 of the encoding marks a chunk of out-of-order samples. Times are in milliseconds, both
//! ends inclusive. Upstream allocates files in advance, so zeros at the end are normal; we do not.
//!
//! # Order
//! A series' in-order chunks are written oldest first. Damage must not hide an older chunk while a newer
//! one is found, since a replay passes over samples older than the newest chunk. Therefore damage
//! takes all later files with it, and zeros count as the end only if nothing stands behind them.

mod files;
mod loader;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use loader::{HeadChunkDamage, LoadedHeadChunk};
pub use reader::HeadChunkReader;
pub use writer::{HeadChunk, HeadChunkWriter};

use crate::types::SeriesRef;

/// Default limit of a file in bytes.
pub const HEAD_CHUNK_FILE_BYTES_MAX: u32 = 128 * 1024 * 1024;

/// Set in the encoding byte of a chunk of out-of-order samples.
pub const OUT_OF_ORDER_BIT: u8 = 0x80;

/// What stands before the data of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadChunkMeta {
    /// The series.
    pub series: SeriesRef,
    /// Time of the oldest sample.
    pub mint: i64,
    /// Time of the newest sample.
    pub maxt: i64,
    /// Number of the encoding, perhaps with [`OUT_OF_ORDER_BIT`].
    pub encoding: u8,
}
