//! Metrics of the gRPC server, under the names that dashboards for Go's gRPC servers use.
//!
//! A call is counted under its method only if the method is served; all others share one set of
//! labels, so that strangers cannot make metrics grow. A call ends with its status: in the head of
//! the answer if it failed at once, else in the trailers. A call whose client went away before that
//! counts as `Canceled`.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use metrics::{Counter, Histogram};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service;

/// Status codes by number, as the label spells them.
const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Metrics of one method.
struct Method {
    started: Counter,
    /// By status code.
    handled: [Counter; 17],
    handling_seconds: Histogram,
}

impl Method {
    fn new(kind: &'static str, service: &str, method: &str) -> Self {
        let labels = [
            ("grpc_type", kind.to_owned()),
            ("grpc_service", service.to_owned()),
            ("grpc_method", method.to_owned()),
        ];
        Self {
            started: metrics::counter!("grpc_server_started_total", &labels),
            handled: CODE_NAMES.map(|code| {
                let labels: Vec<_> = labels.iter().cloned().chain([("grpc_code", code.to_owned())]).collect();
                metrics::counter!("grpc_server_handled_total", &labels)
            }),
            handling_seconds: metrics::histogram!("grpc_server_handling_seconds", &labels),
        }
    }
}

/// The methods that are served, by path.
pub struct MethodTable {
    methods: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

impl MethodTable {
    /// A table of the methods of `services` as `descriptors` (encoded `FileDescriptorSet`s) list
    /// them. Registers all their metrics, so the recorder must be installed before.
    ///
    /// # Panics
    /// If descriptors are not valid.
    pub fn new(descriptors: &[&[u8]], services: &[String]) -> Self {
        metrics::describe_counter!("grpc_server_started_total", "RPCs started on the server.");
        metrics::describe_counter!(
            "grpc_server_handled_total",
            "RPCs completed on the server, whatever their outcome."
        );
        metrics::describe_histogram!(
            "grpc_server_handling_seconds",
            metrics::Unit::Seconds,
            "Time from the start of an RPC to its end."
        );
        let mut methods = HashMap::new();
        for encoded in descriptors {
            let set = FileDescriptorSet::decode(*encoded).expect("descriptors are valid");
            for file in &set.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    if !services.contains(&name) {
                        continue;
                    }
                    for method in &service.method {
                        let kind = match (method.client_streaming(), method.server_streaming()) {
                            (false, false) => "unary",
                            (true, false) => "client_stream",
                            (false, true) => "server_stream",
                            (true, true) => "bidi_stream",
                        };
                        let path = format!("/{name}/{}", method.name());
                        methods.insert(path, Arc::new(Method::new(kind, &name, method.name())));
                    }
                }
            }
        }
        Self { methods, unknown: Arc::new(Method::new("unary", "unknown", "unknown")) }
    }

    fn get(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.methods.get(path).unwrap_or(&self.unknown))
    }
}

/// A call that has started. Counts its end once, at the latest when it is dropped.
struct Call {
    method: Arc<Method>,
    started: Instant,
    code: Code,
}

impl Call {
    fn start(method: Arc<Method>) -> Self {
        method.started.increment(1);
        Self { method, started: Instant::now(), code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(handled) = self.method.handled.get(self.code as usize) {
            handled.increment(1);
        }
        self.method.handling_seconds.record(self.started.elapsed().as_secs_f64());
    }
}

/// The routes of the server, counted.
#[derive(Clone)]
pub struct Metered {
    routes: Routes,
    methods: Arc<MethodTable>,
}

impl Metered {
    /// Counts the calls of `routes` under `methods`.
    pub fn new(routes: Routes, methods: MethodTable) -> Self {
        Self { routes, methods: Arc::new(methods) }
    }
}

impl Service<Request<Incoming>> for Metered {
    type Response = Response<MeteredBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let call = Call::start(self.methods.get(request.uri().path()));
        let answer = self.routes.call(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            let (head, body) = response.into_parts();
            let call = match Status::from_header_map(&head.headers) {
                Some(status) => {
                    call.end(status.code());
                    None
                }
                None => Some(call),
            };
            Ok(Response::from_parts(head, MeteredBody { call, body }))
        })
    }
}

/// An answer whose call is still counted.
pub struct MeteredBody {
    /// Before the body, so that the end is counted before what the body holds is given up.
    call: Option<Call>,
    body: Body,
}

impl MeteredBody {
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(call) = self.call.take() {
            let status = trailers.and_then(Status::from_header_map);
            call.end(status.map_or(Code::Unknown, |status| status.code()));
        }
    }
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) if frame.is_data() => {}
            Some(Ok(frame)) => self.end(frame.trailers_ref()),
            Some(Err(_)) | None => self.end(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_are_in_order() {
        for (number, name) in CODE_NAMES.iter().enumerate() {
            let code = Code::from_i32(number as i32);
            assert_eq!(code as usize, number, "{name}");
        }
        assert_eq!(CODE_NAMES[Code::Unavailable as usize], "Unavailable");
        assert_eq!(CODE_NAMES[Code::Cancelled as usize], "Canceled");
        assert_eq!(CODE_NAMES[Code::Unauthenticated as usize], "Unauthenticated");
    }

    #[test]
    fn methods_of_served_services_only() {
        let table = MethodTable::new(&[weir_proto::FILE_DESCRIPTOR_SET], &["thanos.Store".to_owned()]);
        let mut paths: Vec<&str> = table.methods.keys().map(String::as_str).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/thanos.Store/LabelNames", "/thanos.Store/LabelValues", "/thanos.Store/Series"]);
        assert!(Arc::ptr_eq(&table.get("/thanos.info.Info/Info"), &table.unknown));
        assert!(Arc::ptr_eq(&table.get("/no/such"), &table.unknown));
    }
}
