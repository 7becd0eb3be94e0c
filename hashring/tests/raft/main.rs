//! The Raft node on real disks: members in one process, killed writers, cut power.

mod cluster;
mod elections;
mod kill;
mod members;
mod power_cut;
mod proposer;
mod snapshots;
mod writer;
