//! The parts of a node with real databases, servers and buckets, each without the rest: the write
//! path, tenants, StoreAPI, uploads, administration.

mod admin;
#[path = "../common/buckets/mod.rs"]
mod buckets;
#[allow(dead_code)]
#[path = "../../../hashring/tests/cluster/harness.rs"]
mod cluster;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/copy_dir.rs"]
mod copy_dir;
mod read_back;
mod ship;
mod store_api;
mod tenants;
mod write_path;
