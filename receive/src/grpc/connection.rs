//! One connection of the gRPC server.

use std::{pin::pin, time::Duration};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{GrpcConfig, linger, metrics::Metered};

/// Bytes a client may send on one call, and on all calls of a connection, before we have read them.
/// Large, so that a peer's write is not held up by the round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Greatest size in bytes of a call's headers.
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// Calls cancelled by the client before we have looked at them, above which it is taken for an
/// attack. A Querier that gives up a dashboard cancels many in one packet, more than the library's 20.
const UNSEEN_CANCELLED_MAX: usize = 512;

/// When connections are to end.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Cancelled when calls shall finish and no new ones begin.
    pub drain: CancellationToken,
    age: Duration,
}

impl Stop {
    /// Ends connections when `drain` is cancelled, or at the age the configuration gives.
    pub fn new(drain: CancellationToken, config: &GrpcConfig) -> Self {
        Self { drain, age: config.max_connection_age }
    }

    /// Returns when a connection made now is to end.
    async fn wait(&self) {
        let jitter = rand::random_range(0.9..1.1);
        let old = async {
            if self.age.is_zero() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.age.mul_f64(jitter)).await;
        };
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = old => {}
        }
    }
}

/// Serves one connection until it ends. Once `stop` says so, the client is told to go away, and the
/// connection ends with its last call.
pub async fn serve<S>(stream: S, service: Metered, config: &GrpcConfig, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, returned) = linger::lend(stream);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .max_concurrent_streams(config.streams_per_connection_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(UNSEEN_CANCELLED_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    match run(connection, stop).await {
        Ok(()) => {
            if let Ok(stream) = returned.await {
                linger::close(stream).await;
            }
        }
        Err(error) => tracing::debug!(%error, "a gRPC connection broke"),
    }
}

/// Runs the connection to its end and drops it.
async fn run<S>(
    connection: http2::Connection<TokioIo<S>, TowerToHyperService<Metered>, TokioExecutor>,
    stop: &Stop,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
