//! Serves a router on a listener: the accept loop of all HTTP ports.
//!
//! The loop is our own because each connection needs limits that no library sets for us:
//!
//! * **How many.** Above `max_connections` a connection is answered 503 and closed at once. Waiting
//!   in the kernel's queue would look like a hanging server to the client.
//! * **Silence.** hyper counts one timeout both for a request's head and for the pause between two
//!   requests, and counts none before it knows the protocol version. So that one is set to the
//!   pause a polite client may make, and the first request has a shorter one of ours.
//! * **Age.** A connection that is old is asked to reconnect (`Connection: close`, GOAWAY), so that
//!   clients behind a balancer spread again after a restart. Ages differ by chance, so that they do
//!   not all come back in the same second.
//! * **A stop.** Accepting ends, idle connections close, busy ones finish their request and are told
//!   to close; what is left at the end of the grace period is cut. A handler that must not be cut
//!   half way runs in a task of its own.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, response::Response};
use http::{Request, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use metrics::{Counter, Gauge};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

/// Requests at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;
/// How often a silent HTTP/2 connection is asked whether it is alive, and how long it may think.
const H2_PING: Duration = Duration::from_secs(20);
/// How long accepting pauses when the process is out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// What a connection above the limit gets.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How a port behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Name of the port in metrics and logs.
    pub name: &'static str,
    /// Connections at once.
    pub max_connections: usize,
    /// Time for the head of the first request.
    pub first_request_timeout: Duration,
    /// Time between an answer and the head of the next request. Longer than what clients keep
    /// an idle connection for, or they send into a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Age at which a connection is asked to reconnect, up to a tenth more or less; `None` for
    /// never.
    pub max_connection_age: Option<Duration>,
    /// How long requests in flight may go on after a stop was asked for.
    pub grace: Duration,
}

impl ServeOptions {
    /// Options with which nothing is in a hurry: 8192 connections, 10 s for the first request,
    /// 6 minutes of silence (Prometheus keeps idle connections for 5), no greatest age, 3 s of grace.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            max_connections: 8192,
            first_request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(360),
            max_connection_age: None,
            grace: Duration::from_secs(3),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled and connections are drained.
/// Requests carry the client's address as [`ConnectInfo`]. A panic in a handler is answered 500.
///
/// Returns the number of connections that were cut with a request in flight. Never ends before
/// `shutdown`: errors of accepting are counted and waited out. If the future is dropped, no more is
/// accepted, but connections go on.
pub async fn serve_http(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> usize {
    let server = Arc::new(Server {
        router: router.layer(CatchPanicLayer::custom(answer_panic)),
        slots: Arc::new(Semaphore::new(options.max_connections)),
        open: metrics::gauge!("weir_http_connections", "port" => options.name),
        refused: metrics::counter!("weir_http_connections_refused_total", "port" => options.name),
        accept_errors: metrics::counter!("weir_http_accept_errors_total", "port" => options.name),
        drain: shutdown.child_token(),
        cut: CancellationToken::new(),
        options,
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => server.clone().begin(stream, peer, &connections),
            Err(error) => server.accept_failed(error).await,
        }
    }
    drop(listener);
    connections.close();
    if timeout(server.options.grace, connections.wait()).await.is_ok() {
        return 0;
    }
    let count = connections.len();
    tracing::warn!(port = server.options.name, connections = count, "requests in flight are cut off");
    metrics::counter!("weir_http_connections_cut_total", "port" => server.options.name)
        .increment(count as u64);
    server.cut.cancel();
    connections.wait().await;
    count
}

struct Server {
    router: Router,
    options: ServeOptions,
    slots: Arc<Semaphore>,
    open: Gauge,
    refused: Counter,
    accept_errors: Counter,
    /// Connections are to finish what they do.
    drain: CancellationToken,
    /// Connections are to end now.
    cut: CancellationToken,
}

impl Server {
    fn begin(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, connections: &TaskTracker) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.refused.increment(1);
            // A fresh connection takes these few bytes without waiting, or is not worth it.
            let _ = stream.try_write(TOO_MANY);
            return;
        };
        connections.spawn(async move {
            self.open.increment(1.0);
            self.serve(stream, peer, slot).await;
            self.open.decrement(1.0);
        });
    }

    async fn accept_failed(&self, error: std::io::Error) {
        self.accept_errors.increment(1);
        // The client went away between its connect and our accept.
        if error.kind() == std::io::ErrorKind::ConnectionAborted {
            return;
        }
        tracing::error!(port = self.options.name, %error, "cannot accept connections");
        sleep(ACCEPT_PAUSE).await;
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr, _slot: OwnedSemaphorePermit) {
        // Answers are small and single; without this they would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let spoke = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (router, spoke) = (self.router.clone(), spoke.clone());
            move |request: Request<Incoming>| {
                spoke.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request)
            }
        });
        let builder = self.builder();
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut first_request = std::pin::pin!(sleep(self.options.first_request_timeout));
        let mut old_age = std::pin::pin!(self.old_age());
        let (mut waits_for_first, mut may_go_on) = (true, true);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        // Clients break off all the time; it is their business.
                        tracing::debug!(port = self.options.name, %peer, error, "connection ended");
                    }
                    return;
                }
                () = self.cut.cancelled() => return,
                () = &mut first_request, if waits_for_first => {
                    waits_for_first = false;
                    if !spoke.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = self.drain.cancelled(), if may_go_on => {
                    may_go_on = false;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut old_age, if may_go_on => {
                    may_go_on = false;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Without a timer hyper panics at the first timeout it is to keep.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.options.idle_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS_MAX)
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING);
        builder
    }

    async fn old_age(&self) {
        match self.options.max_connection_age {
            Some(age) => sleep(age.mul_f64(rand::random_range(0.9..=1.1))).await,
            None => pending().await,
        }
    }
}

/// The panic hook has logged what happened.
fn answer_panic(_panic: Box<dyn std::any::Any + Send>) -> Response {
    metrics::counter!("weir_panics_total").increment(1);
    let mut answer = Response::new(Body::from("Internal Server Error\n"));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

#[cfg(test)]
mod tests;
