//! The gRPC server: connections, health, reflection and metrics around the services it is given.
//!
//! The accept loop is ours rather than the one of the gRPC library for three reasons: the greatest
//! age of a connection varies from one to the next, so that clients do not all come back in the same
//! second; at the end of the grace period connections are cut, not forgotten; and a stream that has
//! been through TLS can be served like any other.
//!
//! # Stopping
//! When the shutdown token is cancelled the listener is closed, health turns to `NOT_SERVING`, and
//! each connection gets a GOAWAY: calls that run may finish, new ones go elsewhere. What is still
//! open after the grace period is cut.

mod connection;
mod health;
mod linger;
mod metrics;
mod services;

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::services::GrpcServices;

use self::connection::Stop;

/// Greatest size in bytes of a message we accept: 256 MiB. Peers have no limit of their own, and the
/// library's 4 MiB is less than a large write of theirs.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// How the server treats connections.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    /// How long calls may go on after the shutdown (`--grpc-grace-period`).
    pub grace_period: Duration,
    /// After this a client is asked to connect anew, a tenth earlier or later by chance
    /// (`--grpc-server-max-connection-age`). Zero is for ever.
    pub max_connection_age: Duration,
    /// A connection without traffic is probed this often.
    pub keepalive_interval: Duration,
    /// A connection whose probe is not answered for this long is dead.
    pub keepalive_timeout: Duration,
    /// Most connections; more wait to be accepted.
    pub connections_max: usize,
    /// Most calls at once on a connection.
    pub streams_per_connection_max: u32,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            grace_period: Duration::from_secs(120),
            max_connection_age: Duration::from_secs(60 * 60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            connections_max: 4096,
            streams_per_connection_max: 1024,
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeEnd {
    /// All calls ended by themselves.
    Drained,
    /// This many connections were cut at the end of the grace period.
    Cut(usize),
}

/// Serves `services` in clear text until `shutdown` is cancelled and connections have ended.
/// Dropping the future cuts all connections.
pub async fn serve(
    listener: TcpListener,
    services: GrpcServices,
    shutdown: CancellationToken,
    config: GrpcConfig,
) -> ServeEnd {
    serve_with(listener, |stream| async { Ok(stream) }, services, shutdown, config).await
}

/// As [`serve`], with `handshake` run on each connection first, as for TLS. A handshake that fails
/// ends that connection; it should have a time limit of its own.
pub async fn serve_with<H, F, S>(
    listener: TcpListener,
    handshake: H,
    services: GrpcServices,
    shutdown: CancellationToken,
    config: GrpcConfig,
) -> ServeEnd
where
    H: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = services.build(shutdown.clone());
    let stop = Stop::new(shutdown.clone(), &config);
    let slots = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
            // Also keeps the set from growing by connections that have ended.
            Some(_) = connections.join_next() => continue,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of the connection, or because descriptors ran out: then others must end first.
                tracing::warn!(%error, "cannot accept a gRPC connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let handshake = handshake(stream);
        let (service, config, stop) = (service.clone(), config.clone(), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            let stream = tokio::select! {
                () = stop.drain.cancelled() => return,
                stream = handshake => stream,
            };
            match stream {
                Ok(stream) => connection::serve(stream, service, &config, &stop).await,
                Err(error) => tracing::debug!(%error, "handshake of a gRPC connection failed"),
            }
        });
    }
    drop(listener);

    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.grace_period, drained).await.is_ok() {
        return ServeEnd::Drained;
    }
    let cut = connections.len();
    connections.shutdown().await;
    ServeEnd::Cut(cut)
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off delayed sending");
    }
    Ok((stream, slot))
}
