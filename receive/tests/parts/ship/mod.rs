//! Blocks to buckets, with real parts: golden blocks, a directory, an S3 server in process behind a
//! layer of faults, Azurite.

mod azurite;
mod damage;
mod fault_store;
mod filesystem;
mod gcs;
mod golden;
mod kill;
mod outage;
mod resume;
mod rounds;
mod run_loop;
mod s3;
mod support;
