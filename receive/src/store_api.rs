//! StoreAPI and Info: how a Thanos Querier reads this node.
//!
//! Each tenant is a store of its own with external labels; one call answers for all of them, as if
//! their stores were merged. A request goes through these steps, each in a module below:
//!
//! 1. `request`: fields are read; what cannot be honoured is refused by name.
//! 2. `matching`: matchers on external labels are answered and dropped. A tenant that fails one is
//!    passed over; one with no matcher left makes the call invalid, since it would select all.
//! 3. `select`: each tenant's series, then one order over all of them. Readers rely on it: ascending
//!    by the labels *as sent*, with external labels added and replica labels taken off, equal sets
//!    side by side. That order is not the stored one: with `c="x"` added, `{a="1"}` comes after
//!    `{a="1", b="2"}`.
//! 4. `series`: chunks are read series by series and leave as they are stored, whole, in frames of
//!    about 1 MiB.
//!
//! Every caller sees all tenants; the metadata `thanos-tenant` is not looked at. To ask for one tenant
//! is to match the tenant label.
//!
//! # Memory
//! A request holds the stored labels of what it selected, eight bytes of order per series, and a few
//! frames. The series limit bounds the first, and the channel to the client the last.
//!
//! # Failures
//! A tenant or series that cannot be read is a warning, or the end of the call with `Internal`, as
//! the request wishes. Passing a limit ends the call with `ResourceExhausted`. Until all tenants are
//! open every call is `Unavailable`, lest a Querier take an empty answer for the truth.

mod chunks;
mod composition;
mod frames;
mod info;
mod limits;
mod matching;
mod names;
mod request;
mod select;
mod series;
mod shard;
mod source;

use std::sync::Arc;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weir_proto::thanos::{self as pb, store_server};

pub use frames::FRAME_BYTES;
pub use info::InfoApi;
pub use limits::StoreLimits;
pub use series::SeriesStream;
pub use source::{SelectedSet, SeriesSource, TenantSource, TenantView};

use limits::{Budget, Dropped};

/// The Store service.
#[derive(Clone)]
pub struct StoreApi {
    source: Arc<dyn TenantSource>,
    limits: StoreLimits,
    dropped: Dropped,
}

impl StoreApi {
    /// A service over the tenants of `source`. Registers its metrics, so the recorder must be
    /// installed before.
    pub fn new(source: Arc<dyn TenantSource>, limits: StoreLimits) -> Self {
        Self { source, limits, dropped: Dropped::new() }
    }

    fn check_ready(&self) -> Result<(), Status> {
        if self.source.ready() { Ok(()) } else { Err(not_ready()) }
    }

    /// Runs a call that is answered at once on a thread that may block. If the client goes away, the
    /// token is cancelled.
    async fn blocking<T: Send + 'static>(
        &self,
        method: &'static str,
        call: impl FnOnce(Vec<TenantView>, &CancellationToken) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        self.check_ready()?;
        let source = Arc::clone(&self.source);
        let stop = CancellationToken::new();
        let stop_call = stop.clone();
        let _stop_if_dropped = stop.drop_guard();
        let answer = tokio::task::spawn_blocking(move || call(source.tenants(), &stop_call)).await;
        answer.map_err(|panic| broke_off(method, &panic))?.map(Response::new)
    }
}

#[tonic::async_trait]
impl store_server::Store for StoreApi {
    type SeriesStream = SeriesStream;

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        self.check_ready()?;
        let call = request::SeriesCall::from_wire(request.get_ref())?;
        let budget = Budget::new(self.limits, self.dropped.clone());
        let stop = CancellationToken::new();
        let run = series::SeriesRun::new(Arc::clone(&self.source), call, budget, stop.clone());
        Ok(Response::new(SeriesStream::start(run, stop)))
    }

    async fn label_names(
        &self,
        request: Request<pb::LabelNamesRequest>,
    ) -> Result<Response<pb::LabelNamesResponse>, Status> {
        let request = request.into_inner();
        self.blocking("LabelNames", move |tenants, stop| names::label_names(tenants, &request, stop)).await
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelValuesRequest>,
    ) -> Result<Response<pb::LabelValuesResponse>, Status> {
        let request = request.into_inner();
        self.blocking("LabelValues", move |tenants, stop| names::label_values(tenants, &request, stop)).await
    }
}

fn not_ready() -> Status {
    Status::unavailable("the databases of this node are being opened")
}

fn broke_off(method: &str, panic: &JoinError) -> Status {
    tracing::error!(method, %panic, "a call broke off");
    Status::internal("the call broke off by a fault of the server")
}
