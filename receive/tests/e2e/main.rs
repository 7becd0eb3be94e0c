//! The real binary, driven from outside: clients, signals, kills, other programs on the same
//! directories.

mod admin;
mod bad_input;
mod blocks;
#[path = "../common/buckets/mod.rs"]
mod buckets;
mod cluster;
#[path = "../common/copy_dir.rs"]
mod copy_dir;
mod harness;
mod kill;
mod load;
mod network;
mod program;
mod prometheus;
mod ring;
mod ring_changes;
mod strangers;
mod takeover;
mod vmagent;
