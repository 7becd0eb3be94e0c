//! Placement of series on nodes.
//!
//! Knows labels as text and nothing of storage, remote write or HTTP. [`static_ring`] places series by
//! the ring files of Thanos.

mod series_hash;
pub mod static_ring;

pub use series_hash::series_hash;
