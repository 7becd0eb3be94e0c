//! StoreAPI and Info through the real gRPC server.

mod harness;
mod memory;
mod model;
mod names;
mod series;
mod server;
