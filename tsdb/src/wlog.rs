//! A log in segments: the write-ahead log, the write-behind log, and checkpoints of the former.
//!
//! # Hard constraints
//! Prometheus and Thanos Receive must read what we write, and we what they write. Upstream:
//! `tsdb/wlog` of prometheus/prometheus.
//!
//! # Format
//! A log is a directory of segments `00000000`, `00000001` and so on, without a gap, each a multiple
//! of a page of 32 KiB when it is finished. A segment has no header. A page is a row of fragments,
//! and zeros where none fits any more:
//!
//! ```text
//! kind u8 | length u16 BE | CRC-32C of the data u32 BE | data
//! ```
//!
//! Bits 0 to 2 of the kind: 0 the rest of the page is zeros, 1 a full record, 2 its first fragment,
//! 3 one in the middle, 4 its last. Bit 3 says snappy (block format), bit 4 zstd (one frame). A record
//! is compressed as a whole and then cut; what does not shrink is stored plain. A record may cross
//! pages, never segments; one that is longer than a segment makes an oversized segment. A first
//! fragment may be empty: when exactly the 7 bytes of a head are left in a page.
//!
//! # What a crash leaves
//! Segments are only ever appended to, in one write per batch, and opening for writing begins a new
//! one. A segment is synced when it is finished, before the next one exists. So kill -9 leaves at
//! most one record that is cut short, at the end of the last segment, and a power cut leaves of the
//! last segment what was synced and then something that may be torn. The reader therefore
//! distinguishes (see [`Damage`]):
//! - a torn tail: in the last segment, nothing valid behind it. It was never synced, so nobody was
//!   promised anything, and [`repair_torn_tail`] cuts it off.
//! - anything else: bytes that were once good are not any more. Nothing is cut; the caller keeps the
//!   files and says so loudly.
//!
//! A short last page is normal, in any segment: whoever was killed did not pad it.

mod damage;
mod fragment;
mod position;
mod reader;
mod repair;
mod segments;
#[cfg(test)]
mod tests;
mod unpack;
mod writer;

pub use damage::Damage;
pub use position::LogPosition;
pub use reader::LogReader;
pub use repair::{recover_repairs, repair_torn_tail};
pub use segments::{last_segment, list_segments, list_segments_after, segment_path, truncate_before};
pub use writer::{Compression, Writer, WriterOptions};

/// Length of a page in bytes.
pub const PAGE_BYTES: usize = 32 * 1024;

/// Default length of a segment in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 128 * 1024 * 1024;

/// Longest record, after decompression, that is read. No writer comes near it; it bounds what a
/// damaged length can make us allocate.
pub const RECORD_BYTES_MAX: usize = 512 * 1024 * 1024;
