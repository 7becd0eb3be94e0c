//! A node: everything that runs in one `weir receive`, put together in order and taken apart in
//! order.
//!
//! # Start
//! 1. the configuration has been judged ([`Config::judge`]): nothing below fails for a typing error;
//! 2. the data directory is made and locked ([`data_dir`]);
//! 3. all listeners are bound: two nodes on one port are noticed before any data is touched;
//! 4. telemetry is installed: whatever is built from here on may keep handles of metrics;
//! 5. the servers run, not ready: probes answer, writes get 503, reads an error; in a ring, where
//!    others take them, connections of writers are reset;
//! 6. tenants are opened, which may take a while ([`Parts::open`]);
//! 7. ready; the background tasks run.
//!
//! # Stop
//! Asked for by a signal, or because a task that should run for ever ended:
//! 1. not ready, so that nothing new is sent here;
//! 2. write and read ports accept no more and drain until the grace period, at most
//!    `--stop.drain-max`; meanwhile background tasks end;
//! 3. tenants are closed ([`Parts::close`]);
//! 4. the admin port closes, last, so that probes and metrics tell of the stop;
//! 5. the exit code tells whether the stop was asked for.
//!
//! The polite stop saves clients retries and saves a little replay. Nothing else depends on it: what
//! was acknowledged is in the log, and kill -9 is a normal stop. So no step waits without a limit.

mod cluster;
pub mod data_dir;
mod drain;
mod error;
mod founding;
pub mod limits;
pub mod parts;
mod ring;
pub mod tasks;
mod uploads;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::error::NodeError;
use self::{cluster::Cluster, data_dir::DataDir, parts::Parts, tasks::TaskSet};
use crate::{
    config::{Config, ListenAddress, RingConfig},
    http_admin::admin_router,
    http_serve::{ServeOptions, serve_http},
    readiness::{Phase, Readiness},
    telemetry::{Telemetry, catalog, process::ProcessCollector, status::StatusCollector},
};

/// What background tasks get on top of the drain time to come to an end.
const BACKGROUND_EXTRA: Duration = Duration::from_millis(500);
/// How long closing the tenants may take.
const CLOSE_MAX: Duration = Duration::from_millis(1000);
/// How long ending the node's part in the cluster may take.
const CLUSTER_GRACE: Duration = Duration::from_millis(1000);
/// How long the admin port may finish a scrape.
const ADMIN_GRACE: Duration = Duration::from_millis(200);

/// A node whose ports are bound but not served yet.
#[derive(Debug)]
pub struct Node {
    config: Arc<Config>,
    readiness: Readiness,
    telemetry: Telemetry,
    http: TcpListener,
    grpc: TcpListener,
    write: TcpListener,
    cluster: Option<(Cluster, TcpListener)>,
    /// Keep the directories locked for as long as the node lives.
    data_dirs: Vec<DataDir>,
}

/// Where a node listens, once bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Metrics and probes.
    pub http: SocketAddr,
    /// StoreAPI.
    pub grpc: SocketAddr,
    /// Remote write.
    pub write: SocketAddr,
    /// Raft, the ring, joining and administration; `None` for a node that is in no cluster.
    pub cluster: Option<SocketAddr>,
}

impl Node {
    /// Steps 2 to 4 of the start.
    ///
    /// # Errors
    /// If the data directory cannot be used or is in use, or a port cannot be bound.
    pub async fn bind(config: Config) -> Result<Self, NodeError> {
        let mut data_dirs = vec![DataDir::claim("tsdb.path", &config.tsdb.path, config.tsdb.lock_file)?];
        let settings = config.ring.as_ref().and_then(RingConfig::cluster);
        if let Some(settings) = settings {
            data_dirs.push(DataDir::claim("data.path", &settings.data_path, true)?);
        }
        let http = bind("http-address", &config.http.address).await?;
        let grpc = bind("grpc-address", &config.grpc.address).await?;
        let write = bind("remote-write.address", &config.write.address).await?;
        let cluster_listener = match settings {
            Some(settings) => Some(bind("cluster.address", &settings.address).await?),
            None => None,
        };
        let telemetry = Telemetry::install().map_err(NodeError::Telemetry)?;
        let readiness = Readiness::default();
        catalog::register_at_start(config.replication_factor);
        telemetry.add_collector(ProcessCollector { runtime: tokio::runtime::Handle::current() });
        telemetry.add_collector(StatusCollector { readiness: readiness.clone() });
        let cluster = match settings.zip(cluster_listener) {
            Some((settings, listener)) => {
                let addresses = advertised(&settings.advertise, &grpc, &http, &listener)?;
                let bucket = parts::open_bucket(&config)?;
                Some((Cluster::start(settings, addresses, bucket).await?, listener))
            }
            None => None,
        };
        Ok(Self { config: Arc::new(config), readiness, telemetry, http, grpc, write, cluster, data_dirs })
    }

    /// Where the node listens.
    ///
    /// # Errors
    /// If the system does not tell, which it does.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr()?,
            grpc: self.grpc.local_addr()?,
            write: self.write.local_addr()?,
            cluster: self.cluster.as_ref().map(|(_, listener)| listener.local_addr()).transpose()?,
        })
    }

    /// The phase the node is in, for whoever waits for it.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The metrics of this node.
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry.clone()
    }

    /// Runs the node until `stop` is cancelled, then stops it in order.
    ///
    /// # Errors
    /// If tenants could not be opened, or a task that should run for ever has ended. The node has
    /// been stopped in order then, too.
    pub async fn run(self, stop: CancellationToken) -> Result<(), NodeError> {
        let Self { config, readiness, telemetry, http, grpc, write, cluster, data_dirs } = self;
        let (cluster, cluster_listener) = cluster.unzip();
        let parts = Parts::new(config.clone(), readiness.clone(), &telemetry, cluster.clone())?;
        let tokens = Tokens::default();

        let mut admin = TaskSet::default();
        let router = admin_router(telemetry.clone(), readiness.clone());
        admin.spawn("admin server", serve_http(http, router, admin_options(), tokens.admin.clone()));
        admin.spawn("metrics upkeep", telemetry.upkeep());

        let mut members = TaskSet::default();
        if let Some((cluster, listener)) = cluster.clone().zip(cluster_listener) {
            members.spawn("cluster server", cluster.serve(listener));
        }

        let mut servers = TaskSet::default();
        // On its own a node tells early writers that it is not ready. In a ring others take them: a
        // connection that is reset sends a client there at once, and no answer is an error.
        let serve_writes = |listener, servers: &mut TaskSet| {
            let (router, options) = (parts.write_router(), write_options(&config));
            servers.spawn("write server", serve_http(listener, router, options, tokens.servers.clone()));
        };
        let mut later = Some(write);
        if config.ring.is_none()
            && let Some(listener) = later.take()
        {
            serve_writes(listener, &mut servers);
        }
        servers.spawn("gRPC server", parts.serve_grpc(grpc, grpc_grace(&config), tokens.servers.clone()));

        let mut background = TaskSet::default();
        let outcome = tokio::select! {
            biased;
            ended = supervise(&stop, cluster.as_ref(), [&mut admin, &mut members, &mut servers, &mut background]) => ended,
            opened = open_turning_away(&parts, &readiness, later.as_ref()) => match opened {
                Ok(()) => {
                    if let Some(listener) = later.take() {
                        serve_writes(listener, &mut servers);
                    }
                    parts.spawn_background(&mut background, &tokens.background);
                    let sets = [&mut admin, &mut members, &mut servers, &mut background];
                    supervise(&stop, cluster.as_ref(), sets).await
                }
                Err(error) => Err(error),
            },
        };

        match &outcome {
            Ok(()) => tracing::info!("stop was asked for"),
            // The caller handles it; this line tells when the stop began.
            Err(error) => tracing::info!(reason = %error, "node stops"),
        }
        readiness.advance(Phase::Stopping);
        tokens.servers.cancel();
        tokens.background.cancel();
        let drain_max = config.drain_max + BACKGROUND_EXTRA;
        tokio::join!(servers.finish(drain_max), background.finish(drain_max));
        if timeout(CLOSE_MAX, parts.close()).await.is_err() {
            tracing::warn!("tenants are not closed in time; their logs are replayed at the next start");
        }
        if let Some(cluster) = &cluster {
            // Others may need this node's vote until the end.
            if timeout(CLUSTER_GRACE, cluster.shutdown()).await.is_err() {
                tracing::warn!("the node's part in the cluster does not end in time");
            }
            members.finish(ADMIN_GRACE).await;
        }
        tokens.admin.cancel();
        // The upkeep goes on for ever; it is dropped with its set.
        admin.finish_named("admin server", 2 * ADMIN_GRACE).await;
        drop(data_dirs);
        tracing::info!("node is stopped");
        outcome
    }
}

/// What tells tasks to end, in order of use.
#[derive(Default)]
struct Tokens {
    servers: CancellationToken,
    background: CancellationToken,
    admin: CancellationToken,
}

async fn bind(flag: &'static str, address: &ListenAddress) -> Result<TcpListener, NodeError> {
    let cause = |source| NodeError::Bind { flag, address: address.to_string(), source };
    address.bind().await.map_err(cause)
}

/// Where others reach the node: one host, and the ports of its listeners.
fn advertised(
    host: &str,
    grpc: &TcpListener,
    http: &TcpListener,
    cluster: &TcpListener,
) -> Result<weir_hashring::ring::Addresses, NodeError> {
    let at = |listener: &TcpListener| -> Result<String, NodeError> {
        let port = listener.local_addr().map_err(NodeError::part("listener"))?.port();
        Ok(ListenAddress { host: host.to_owned(), port }.to_string())
    };
    Ok(weir_hashring::ring::Addresses { grpc: at(grpc)?, http: at(http)?, cluster: at(cluster)? })
}

/// Opens the node. Until that is done connections to `listener` are reset.
async fn open_turning_away(
    parts: &Parts,
    readiness: &Readiness,
    listener: Option<&TcpListener>,
) -> Result<(), NodeError> {
    let turn_away = async {
        let Some(listener) = listener else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                // Without lingering the close is a reset, which no client takes for an answer.
                Ok((stream, _)) => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
                // Of the connection, or because descriptors ran out.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::select! {
        opened = open(parts, readiness) => opened,
        () = turn_away => Ok(()),
    }
}

/// Steps 6 and 7 of the start.
async fn open(parts: &Parts, readiness: &Readiness) -> Result<(), NodeError> {
    let begin = std::time::Instant::now();
    parts.open().await?;
    readiness.advance(Phase::Ready);
    tracing::info!(seconds = begin.elapsed().as_secs_f64(), "node is ready");
    Ok(())
}

/// Waits until `stop` is cancelled, a task that should run for ever has ended, or the node cannot be
/// part of its cluster any more.
async fn supervise(
    stop: &CancellationToken,
    cluster: Option<&Cluster>,
    sets: [&mut TaskSet; 4],
) -> Result<(), NodeError> {
    let [admin, members, servers, background] = sets;
    let failed = async {
        match cluster {
            Some(cluster) => cluster.failed().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        failure = failed => return Err(failure.into()),
        ended = admin.next_end() => ended,
        ended = members.next_end() => ended,
        ended = servers.next_end() => ended,
        ended = background.next_end() => ended,
    };
    Err(NodeError::TaskEnded { task: ended.task, how: ended.how })
}

fn admin_options() -> ServeOptions {
    ServeOptions { max_connections: 256, grace: ADMIN_GRACE, ..ServeOptions::new("admin") }
}

fn write_options(config: &Config) -> ServeOptions {
    ServeOptions {
        max_connections: config.write.max_connections,
        max_connection_age: config.write.max_connection_age,
        grace: config.http.grace.min(config.drain_max),
        ..ServeOptions::new("write")
    }
}

fn grpc_grace(config: &Config) -> Duration {
    config.grpc.grace.min(config.drain_max)
}

#[cfg(test)]
mod tests;
