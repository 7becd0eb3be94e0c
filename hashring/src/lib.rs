//! Placement of series on nodes, and the ring that nodes agree on.
//!
//! Knows labels as text and nothing of storage, remote write or HTTP. All of it but [`raft`] and
//! [`cluster`] is computed from what is passed in: no clock, no chance, no files, no network.
//!
//! Two ways lead to the owners of a series: [`static_ring`] places by the ring files of Thanos; all
//! else here is the ring of a cluster, whose [`ring`] state is changed by commands that [`raft`]
//! brings to all nodes in one order. [`cluster`] runs all that on a node.

mod aside;
pub mod cluster;
pub mod fencing;
pub mod ids;
pub mod placement;
pub mod planner;
pub mod raft;
pub mod ring;
mod series_hash;
pub mod spread;
pub mod static_ring;
pub mod table;
pub mod view;

pub use series_hash::series_hash;
