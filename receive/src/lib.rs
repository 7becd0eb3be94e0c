//! A Weir node: remote write in, blocks and StoreAPI out.
//!
//! The write path reads in this order: [`mod@write`], [`tenants`], the database of `weir-tsdb`; then
//! [`ship`] uploads blocks to the [`objstore`], and [`store_api`] serves readers over [`grpc`].
//! [`node`] assembles all of it from a [`config`], which [`cli`] makes of the flags.

pub mod admin;
pub mod answer;
pub mod cli;
pub mod config;
pub mod dev;
pub mod duration;
pub mod grpc;
pub mod http_admin;
pub mod http_serve;
pub mod logging;
pub mod node;
pub mod objstore;
pub mod readiness;
pub mod replicate;
pub mod ship;
pub mod store_api;
pub mod telemetry;
pub mod tenants;
#[cfg(test)]
mod test_http;
pub mod write;
