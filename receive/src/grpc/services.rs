//! The services of the server, collected before it starts.

use std::{convert::Infallible, sync::Arc};

use axum::response::IntoResponse;
use http::Request;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codec::CompressionEncoding,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tonic_health::pb::health_server::HealthServer;
use tower::Service;
use weir_proto::{
    info::info_server::InfoServer, thanos::store_server::StoreServer,
    weir_replication::replication_server::ReplicationServer,
};

use super::{
    MESSAGE_BYTES_MAX,
    health::{HealthApi, Ready},
    metrics::{Metered, MethodTable},
};
use crate::{
    replicate::receiver::Receiver,
    store_api::{InfoApi, StoreApi},
};

/// Descriptors of everything that may be served.
const DESCRIPTORS: [&[u8]; 4] = [
    weir_proto::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

const REFLECTION_V1: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// The services of a server. Health and reflection are added by the server itself.
pub struct GrpcServices {
    routes: RoutesBuilder,
    names: Vec<String>,
    ready: Ready,
}

impl GrpcServices {
    /// No service yet. `ready` tells the state of the node to the health service; it is asked often
    /// and must not block.
    pub fn new(ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { routes: Routes::builder(), names: Vec::new(), ready: Arc::new(ready) }
    }

    /// Adds a service as generated. Its limits on message sizes and its compressions are its own:
    /// see [`MESSAGE_BYTES_MAX`]. To be counted by method it must be described in `weir-proto`.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME.to_owned());
        self.routes.add_service(service);
        self
    }

    /// Adds Store and Info.
    pub fn add_store(self, store: StoreApi, info: InfoApi) -> Self {
        let store = StoreServer::new(store)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        let info = InfoServer::new(info)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_encoding_message_size(usize::MAX);
        self.add_service(store).add_service(info)
    }

    /// Adds the receiving end of replication.
    pub fn add_receiver(self, receiver: Receiver) -> Self {
        let receiver = ReplicationServer::new(receiver).max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.add_service(receiver)
    }

    /// All services with health, reflection and metrics. Health turns to `NOT_SERVING` when
    /// `shutdown` is cancelled.
    pub(super) fn build(mut self, shutdown: CancellationToken) -> Metered {
        let health = HealthApi::new(Arc::clone(&self.ready), shutdown, &self.names);
        self = self.add_service(HealthServer::new(health));
        // Named by hand: they are two, and both must be in the lists of both.
        self.names.extend([REFLECTION_V1.to_owned(), REFLECTION_V1_ALPHA.to_owned()]);
        let reflection = || {
            let mut builder =
                tonic_reflection::server::Builder::configure().include_reflection_service(false);
            for descriptors in DESCRIPTORS {
                builder = builder.register_encoded_file_descriptor_set(descriptors);
            }
            self.names.iter().fold(builder, |builder, name| builder.with_service_name(name))
        };
        let described = "descriptors built into the program are valid";
        let (v1, v1_alpha) =
            (reflection().build_v1().expect(described), reflection().build_v1alpha().expect(described));
        self.routes.add_service(v1).add_service(v1_alpha);

        let methods = MethodTable::new(&DESCRIPTORS, &self.names);
        Metered::new(self.routes.routes().prepare(), methods)
    }
}
