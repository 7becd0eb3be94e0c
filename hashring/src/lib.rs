//! Placement of series on nodes.
//!
//! Knows labels as text and nothing of storage, remote write or HTTP. So far it holds the hash that
//! decides where a series belongs; a node on its own places everything on itself.

mod series_hash;

pub use series_hash::series_hash;
