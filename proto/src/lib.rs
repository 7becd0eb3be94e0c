//! Wire formats of Weir.
//!
//! The messages and gRPC services are generated from the `.proto` files in `proto/` beside this
//! crate's sources by `cargo run -p weir-proto-codegen`; the result is checked in under
//! `src/generated/`. Each service has a client and a server module, [`thanos::store_server`] for
//! instance.
//!
//! [`remote_write`] reads the same bytes as [`prometheus::WriteRequest`] without copying them; it is
//! what the write path uses. [`replication`] writes and reads the frames between nodes.

pub mod remote_write;
pub mod replication;

/// Remote write 1.0 (protobuf package `prometheus`).
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod prometheus {
    include!("generated/prometheus.rs");
}

/// StoreAPI of Thanos (protobuf package `thanos`).
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod thanos {
    include!("generated/thanos.rs");

    /// Info service of Thanos (protobuf package `thanos.info`).
    pub mod info {
        include!("generated/thanos.info.rs");
    }
}

/// Replication between nodes (protobuf package `weir.replication`).
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod weir_replication {
    include!("generated/weir.replication.rs");
}

/// The ring that nodes agree on, and coming into a cluster (protobuf package `weir.cluster`).
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod weir_cluster {
    include!("generated/weir.cluster.rs");
}

pub use thanos::info;

/// An encoded `google.protobuf.FileDescriptorSet` of everything above, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
