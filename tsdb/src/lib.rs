//! One tenant's Prometheus-format time series database.
//!
//! A directory of this crate is a Prometheus data directory: `promtool` and Prometheus open it,
//! and it opens theirs and those of Thanos Receive. The crate knows labels, chunks, logs, blocks
//! and queries. It knows nothing of HTTP, gRPC, tenants, rings or protobuf, and it has no async
//! code: callers bring their own threads.
//!
//! Modules are named after what lies on disk, as in Prometheus: [`chunkenc`] (chunk encodings),
//! [`record`] and [`wlog`] (the log and what it holds), [`checkpoint`], [`head_chunks`]
//! (`chunks_head`), [`block`] and [`tombstones`]. The head, in memory, is private; [`db`] binds all
//! of them.

pub mod append;
pub mod block;
pub mod checkpoint;
pub mod chunkenc;
pub mod crc;
pub mod db;
pub mod error;
pub mod fs;
#[doc(hidden)]
pub mod fuzz_wal;
mod head;
pub mod head_chunks;
pub mod labels;
pub mod matchers;
mod postings;
pub mod query;
pub mod record;
pub mod tombstones;
pub mod types;
pub mod varint;
pub mod wlog;

pub use error::{Error, Result};
pub use labels::{Labels, LabelsBuilder};
pub use types::{Sample, SeriesRef};
