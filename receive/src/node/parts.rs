//! The parts of a node (tenants, write path, reads, uploads), plugged together.
//!
//! [`super::Node`] knows when something is built, opened, served and closed; this module knows what.
//! Each function below is called once, in the order they stand here.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, response::Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weir_tsdb::{
    db::{DbOptions, DbStats},
    fs::{Fs, MemFs, StdFs},
};

use super::{
    NodeError,
    cluster::{Cluster, Doing, RingKeeper},
    drain::Drain,
    ring::RingFileKeeper,
    tasks::TaskSet,
    uploads::Uploads,
};
use crate::{
    config::{Config, RingConfig},
    grpc::{self, GrpcConfig, GrpcServices},
    objstore::{Bucket, BucketConfig, BucketOptions},
    readiness::Readiness,
    replicate::{
        Peers,
        fence::WriteFence,
        peer::PeerOptions,
        receiver::{Receiver, Senders},
    },
    store_api::{InfoApi, StoreApi, StoreLimits, TenantSource, TenantView},
    telemetry::{
        Telemetry,
        tenants::{TenantCollector, TenantStats},
    },
    tenants::{MayDelete, Tenant, TenantName, Tenants, TenantsConfig},
    write::{self, WriteState},
};

/// How long a node waits at its start for the streams of its peers.
const PEERS_WAIT_MAX: Duration = Duration::from_secs(3);

/// The parts of one node.
#[derive(Debug)]
pub struct Parts {
    config: Arc<Config>,
    readiness: Readiness,
    uploads: Option<Arc<Uploads>>,
    opened: Arc<OnceLock<Opened>>,
    /// Other nodes; `None` for a node on its own.
    peers: Option<Arc<Peers>>,
    /// What is known of the ring, to judge what others send.
    fence: Arc<WriteFence>,
    /// The cluster, where the nodes agree on the ring.
    cluster: Option<Cluster>,
    /// How this node leaves it.
    drain: Arc<Drain>,
    /// Which of them send to this one.
    senders: Senders,
}

/// What is there once the tenants are open. Before that writes are answered 503 and reads fail.
#[derive(Debug)]
struct Opened {
    tenants: Arc<Tenants>,
    write: Arc<WriteState>,
    write_router: Router,
    /// Taken by the task that watches the ring.
    ring: Mutex<Option<Keeper>>,
}

/// Who puts rings in force.
#[derive(Debug)]
enum Keeper {
    File(RingFileKeeper),
    Cluster(RingKeeper),
}

impl Parts {
    /// Builds what needs neither data nor network, and judges what only the parts understand.
    ///
    /// # Errors
    /// If a part finds its configuration wrong.
    pub fn new(
        config: Arc<Config>,
        readiness: Readiness,
        telemetry: &Telemetry,
        cluster: Option<Cluster>,
    ) -> Result<Self, NodeError> {
        let uploads = open_bucket(&config)?.map(|bucket| Arc::new(Uploads::new(bucket, &config.upload)));
        if uploads.is_none() {
            tracing::info!("no bucket is configured, blocks stay on this node");
        }
        let opened = Arc::new(OnceLock::new());
        telemetry.add_collector(TenantCollector(OpenTenants {
            opened: opened.clone(),
            readiness: readiness.clone(),
        }));
        let peers = config.ring.as_ref().map(|ring| Peers::new(peer_options(ring, cluster.as_ref())));
        let file = config.ring.as_ref().and_then(RingConfig::file);
        let fence = match &cluster {
            Some(_) => WriteFence::of_cluster(),
            None => WriteFence::of_file(file.and_then(|file| file.local_endpoint.clone())),
        };
        let (drain, senders) = (Drain::new(), Senders::default());
        Ok(Self { config, readiness, uploads, opened, peers, fence, cluster, drain, senders })
    }

    /// The routes of the write port. Served at once, with the gate of [`Readiness`] before them.
    pub fn write_router(&self) -> Router {
        let opened = self.opened.clone();
        let pass_on = move |request: Request| {
            let router = opened.get().map(|opened| opened.write_router.clone()).unwrap_or_default();
            async move {
                let answer: Result<Response, _> = router.oneshot(request).await;
                answer
            }
        };
        self.readiness.gate(Router::new().fallback(pass_on))
    }

    /// Serves StoreAPI, Info, health and reflection on `listener` until `shutdown` is cancelled and
    /// calls are drained, at most `grace` after it. Until the node is ready, calls fail.
    pub fn serve_grpc(
        &self,
        listener: TcpListener,
        grace: Duration,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let source = Arc::new(OpenTenants { opened: self.opened.clone(), readiness: self.readiness.clone() });
        let limits = StoreLimits {
            request_series: self.config.read.max_series.unwrap_or(0),
            request_samples: self.config.read.max_samples.unwrap_or(0),
        };
        let readiness = self.readiness.clone();
        let stores = self.config.ring.as_ref().is_none_or(|ring| !ring.is_router());
        let mut services = GrpcServices::new(move || readiness.is_ready());
        if stores {
            services = services
                .add_store(StoreApi::new(source.clone(), limits), InfoApi::new(source))
                .add_receiver(self.receiver(shutdown.clone()));
        }
        let config = GrpcConfig {
            grace_period: grace,
            max_connection_age: self.config.grpc.max_connection_age.unwrap_or_default(),
            ..GrpcConfig::default()
        };
        async move {
            grpc::serve(listener, services, shutdown, config).await;
        }
    }

    /// The receiving end of replication.
    fn receiver(&self, stop: CancellationToken) -> Receiver {
        // Copies are taken as soon as the tenants are open, before clients are: a node is ready when its
        // peers send to it.
        let opened = self.opened.clone();
        let tenants = move || opened.get().map(|opened| opened.tenants.clone());
        let (peers, senders) = (self.peers.clone(), self.senders.clone());
        Receiver::new(tenants, self.fence.clone(), peers, senders, stop)
    }

    /// Opens all tenants of `config.tsdb.path` and sets the write path. The node is ready when this
    /// returns. May be dropped half way when a stop is asked for.
    ///
    /// # Errors
    /// If the data directory as a whole cannot be used. One broken tenant is no error.
    pub async fn open(&self) -> Result<(), NodeError> {
        let default_tenant = TenantName::new(&self.config.tenancy.default_tenant)
            .map_err(NodeError::part("--receive.default-tenant-id"))?;
        let tenants = Tenants::open(self.tenants_config()).await.map_err(NodeError::part("tenants"))?;
        let config = self.write_config(default_tenant);
        let write = WriteState::with_peers(config, tenants.clone(), self.peers.clone());
        let ring = self.ring(&write).await?;
        let write_router = write::router(write.clone());
        if let Some(uploads) = &self.uploads {
            let write = write.clone();
            uploads.set_labels(move |tenant| write.external_labels(tenant));
        }
        let set = self.opened.set(Opened { tenants, write, write_router, ring: Mutex::new(ring) });
        assert!(set.is_ok(), "a node is opened once");
        self.wait_for_peers().await;
        Ok(())
    }

    /// Tells the peers that this node takes copies, and waits a little until those that live send to
    /// it: else the next node of a rollout would stop while this one still misses its copies.
    async fn wait_for_peers(&self) {
        let Some((peers, ring)) = self.peers.as_ref().zip(self.config.ring.as_ref()) else { return };
        if ring.is_router() {
            return;
        }
        peers.announce();
        let deadline = Instant::now() + PEERS_WAIT_MAX;
        // Those that live are connected to by then, if not before.
        let settled = Instant::now() + ring.failure_timeout.min(PEERS_WAIT_MAX);
        loop {
            let connected = peers.connected();
            let all_send = connected.iter().all(|peer| self.senders.has(peer));
            let is_settled = connected.len() == peers.count() || Instant::now() >= settled;
            if (is_settled && all_send) || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Puts the ring in force that is there at start. A node of a cluster waits for one.
    async fn ring(&self, write: &Arc<WriteState>) -> Result<Option<Keeper>, NodeError> {
        let Some((config, peers)) = self.config.ring.as_ref().zip(self.peers.clone()) else {
            return Ok(None);
        };
        if let Some(cluster) = &self.cluster {
            cluster.first_ring().await;
            let keeper = cluster.keeper(peers, self.fence.clone(), self.drain.clone());
            return Ok(Some(Keeper::Cluster(keeper.put_in_force(write.clone()).await)));
        }
        let Some(file) = config.file().cloned() else { return Ok(None) };
        let factor = self.config.replication_factor;
        let keeper = RingFileKeeper::new(file, factor, peers, self.fence.clone());
        let (keeper, read) = keeper.read().await;
        if let Some(routing) = read.map_err(NodeError::part("--receive.hashrings"))? {
            let stamp = routing.stamp();
            tracing::info!(nodes = routing.members().len(), digest = stamp.digest, "the ring is in force");
            write.set_routing(routing);
        }
        Ok(Some(Keeper::File(keeper)))
    }

    fn tenants_config(&self) -> TenantsConfig {
        let tsdb = &self.config.tsdb;
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let db = DbOptions {
            block_range_ms: millis(tsdb.block_duration),
            retention_ms: tsdb.retention.map(millis),
            retention_bytes: tsdb.retention_bytes,
            out_of_order_window_ms: tsdb.out_of_order_window.map_or(0, millis),
            out_of_order_cap: tsdb.out_of_order_cap.into(),
            wal_compression: tsdb.wal_compression,
            lock_file: tsdb.lock_file,
            ..DbOptions::default()
        };
        // A router stores nothing; what it keeps of tenants needs no directory.
        let is_router = self.config.ring.as_ref().is_some_and(RingConfig::is_router);
        let fs: Arc<dyn Fs> = if is_router { Arc::new(MemFs::new()) } else { Arc::new(StdFs) };
        let mut config = TenantsConfig::new(tsdb.path.clone(), fs, db);
        config.external_labels = self.config.external_labels.clone();
        config.tenant_label = self.config.tenancy.tenant_label.clone();
        config.tenants_max = self.config.tenancy.max_count.map_or(usize::MAX, |count| count as usize);
        config.maintenance_interval = tsdb.maintenance_interval;
        config.series_table_entries = self.config.write.series_table_size as usize;
        config
    }

    fn write_config(&self, default_tenant: TenantName) -> write::WriteConfig {
        let tenancy = &self.config.tenancy;
        let config = &self.config.write;
        let max_request_bytes = config.max_request_bytes as usize;
        write::WriteConfig {
            tenant_header: tenancy.tenant_header.clone(),
            default_tenant,
            replica_header: tenancy.replica_header.clone(),
            body_bytes_max: snap::raw::max_compress_len(max_request_bytes).max(max_request_bytes),
            decoded_bytes_max: max_request_bytes,
            bytes_in_flight_max: config.max_bytes_in_flight as usize,
            series_max: config.max_request_series,
            samples_max: config.max_request_samples,
            labels: write::LabelLimits {
                count_max: config.max_label_names_per_series,
                name_bytes_max: config.max_label_name_length,
                value_bytes_max: config.max_label_value_length,
            },
            future_window: self.config.tsdb.future_window,
            concurrency: config.concurrency.unwrap_or_else(write::default_concurrency),
            body_timeout: config.body_timeout,
            turn_timeout: config.queue_timeout,
            retry_after: config.retry_after,
            forward_timeout: self.config.ring.as_ref().map_or(Duration::ZERO, |ring| ring.forward_timeout),
        }
    }

    /// Starts what runs beside requests. Each task ends soon after `stop` is cancelled.
    pub fn spawn_background(&self, tasks: &mut TaskSet, stop: &CancellationToken) {
        let Some(Opened { tenants, write, ring, .. }) = self.opened.get() else { return };
        match ring.lock().take() {
            Some(Keeper::File(ring)) => tasks.spawn("ring", ring.watch(write.clone(), stop.clone())),
            Some(Keeper::Cluster(ring)) => tasks.spawn("ring", ring.watch(write.clone(), stop.clone())),
            None => {}
        }
        if let Some(cluster) = self.cluster.clone() {
            let drain = self.drain.clone().run(
                self.fence.clone(),
                tenants.clone(),
                self.uploads.clone(),
                stop.clone(),
            );
            tasks.spawn("drain", drain);
            let doing = Doing {
                write: write.clone(),
                readiness: self.readiness.clone(),
                tenants: tenants.clone(),
                uploads: self.uploads.clone(),
                drain: self.drain.clone(),
            };
            tasks.spawn("report to the cluster", cluster.report(doing, stop.clone()));
        }
        let may_delete: MayDelete = match self.uploads.clone() {
            Some(uploads) => Arc::new(move |tenant, ulid| uploads.is_uploaded(tenant, ulid)),
            None => Arc::new(|_, _| true),
        };
        tasks.spawn("upkeep of tenants", tenants.clone().maintain(may_delete, stop.clone()));
        if let Some(uploads) = &self.uploads {
            tasks.spawn("uploads", uploads.clone().run(tenants.clone(), stop.clone()));
        }
    }

    /// Closes what [`Parts::open`] opened, perhaps half way. Servers have ended and background tasks
    /// too, or have been broken off; work they left on blocking threads may still run.
    pub async fn close(&self) {
        if let Some(Opened { tenants, write, .. }) = self.opened.get() {
            write.drain().await;
            if let Some(peers) = &self.peers {
                peers.stop();
            }
            tenants.close().await;
        }
    }
}

/// The bucket of the configuration, if there is one.
///
/// # Errors
/// If its configuration is wrong.
pub fn open_bucket(config: &Config) -> Result<Option<Bucket>, NodeError> {
    let Some(text) = &config.upload.objstore else { return Ok(None) };
    let bucket = BucketConfig::parse(text.yaml.reveal())
        .and_then(|bucket| Bucket::open(&bucket, &BucketOptions::default()));
    bucket.map(Some).map_err(NodeError::part("--objstore.config"))
}

fn peer_options(ring: &RingConfig, cluster: Option<&Cluster>) -> PeerOptions {
    let of_file = ring.file().and_then(|file| file.local_endpoint.clone());
    let sender = cluster.map(|cluster| cluster.uid().to_string()).or(of_file);
    PeerOptions {
        sender: sender.unwrap_or_else(|| "router".to_owned()),
        window_bytes: ring.window_bytes,
        ping_interval: ring.failure_timeout / 4,
        failure_timeout: ring.failure_timeout,
        backoff_max: ring.backoff_max,
        ..PeerOptions::default()
    }
}

/// The tenants as readers and metrics see them: none until they are open.
struct OpenTenants {
    opened: Arc<OnceLock<Opened>>,
    readiness: Readiness,
}

impl TenantSource for OpenTenants {
    fn ready(&self) -> bool {
        self.readiness.serves() && self.opened.get().is_some()
    }

    fn tenants(&self) -> Vec<TenantView> {
        let Some(opened) = self.opened.get() else { return Vec::new() };
        let view = |tenant: Arc<Tenant>| TenantView {
            tenant: tenant.name.as_str().to_owned(),
            external_labels: opened.write.external_labels(&tenant),
            db: Arc::new(tenant.db.clone()),
        };
        opened.tenants.list().into_iter().map(view).collect()
    }
}

impl TenantStats for OpenTenants {
    fn visit(&self, visit: &mut dyn FnMut(&str, DbStats)) {
        let Some(opened) = self.opened.get() else { return };
        for tenant in opened.tenants.list() {
            visit(tenant.name.as_str(), tenant.db.stats());
        }
    }
}
