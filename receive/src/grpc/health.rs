//! `grpc.health.v1.Health`: the state of the node under the names of its services.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

/// How often a watched state is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Tells whether the node is ready. Cheap; asked at each check.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// The health service. All services of the node have one state, and so has the empty name.
#[derive(Clone)]
pub struct HealthApi {
    ready: Ready,
    shutdown: CancellationToken,
    services: Arc<[String]>,
}

impl HealthApi {
    /// A service that knows the names in `services` and the empty one. It says `SERVING` while
    /// `ready` does and `shutdown` is not cancelled.
    pub fn new(ready: Ready, shutdown: CancellationToken, services: &[String]) -> Self {
        Self { ready, shutdown, services: services.into() }
    }

    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !self.services.iter().any(|own| own == service) {
            ServingStatus::ServiceUnknown
        } else if !self.shutdown.is_cancelled() && (self.ready)() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for HealthApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match self.status(service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("service {service:?} is not known")))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    /// Tells the state at once and at each change. Ends when the node stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let own = self.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let status = own.status(&service);
                if told != Some(status) {
                    if sender.send(Ok(HealthCheckResponse { status: status.into() })).await.is_err() {
                        return;
                    }
                    told = Some(status);
                }
                if own.shutdown.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = own.shutdown.cancelled() => {}
                    () = tokio::time::sleep(WATCH_INTERVAL) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
