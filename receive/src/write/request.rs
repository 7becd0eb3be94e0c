//! One request, from its head to its answer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use metrics::Gauge;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Rules, WriteState,
    admission::AdmittedBytes,
    body,
    distribute::{Distribution, LateRing},
    headers,
    ingest::{self, Ingested, Scratch},
    plan::Received,
    pool::{BodyBuffer, Pooled},
};
use crate::{
    answer::{ERROR_ID_HEADER, RefusalReport, WriteError},
    replicate::routing::TenantRing,
    tenants::{RequestFigures, Tenant, TenantName, WriteMetrics},
};

/// The paths of the write port: `/api/v1/receive` (Thanos), `/api/v1/push` (Mimir, Cortex) and
/// `/api/v1/write` (Prometheus). While `state` is not ready, every path answers 503.
pub fn router(state: Arc<WriteState>) -> Router {
    let accepted = |status: StatusCode| {
        move |State(state): State<Arc<WriteState>>, request: Request| receive(state, request, status)
    };
    Router::new()
        .route("/api/v1/receive", post(accepted(StatusCode::OK)))
        .route("/api/v1/push", post(accepted(StatusCode::OK)))
        .route("/api/v1/write", post(accepted(StatusCode::NO_CONTENT)))
        .fallback(|| refused(StatusCode::NOT_FOUND, "path-unknown"))
        .method_not_allowed_fallback(|| refused(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"))
        .layer(middleware::from_fn_with_state(state.clone(), refuse_until_ready))
        .with_state(state)
}

/// The answer to what is no write.
async fn refused(status: StatusCode, id: &'static str) -> Response {
    (status, [(ERROR_ID_HEADER, id)], format!("{status}\n")).into_response()
}

async fn refuse_until_ready(State(state): State<Arc<WriteState>>, request: Request, next: Next) -> Response {
    if state.is_ready() {
        return next.run(request).await;
    }
    let started = Instant::now();
    let request_bytes = request.body().size_hint().exact().unwrap_or(0) as usize;
    let response = WriteError::NotReady.response(state.config.retry_after);
    count(&state.anonymous, started, request_bytes, None, &response);
    response
}

/// What is known of a request when it is answered, however far it came.
#[derive(Debug, Default)]
struct Progress {
    tenant: Option<Arc<Tenant>>,
    body_bytes: usize,
    received: Option<Received>,
}

/// Counts a request as under way until dropped, also when its connection goes away.
struct InFlight(Gauge);

impl InFlight {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

async fn receive(state: Arc<WriteState>, request: Request, accepted: StatusCode) -> Response {
    let started = Instant::now();
    let mut progress = Progress::default();
    let (head, body) = request.into_parts();
    let outcome = handle(&state, &head.headers, body, &mut progress).await;
    let response = match &outcome {
        Ok(()) => accepted.into_response(),
        Err(error) => {
            if matches!(error, WriteError::Internal(_)) {
                tracing::error!(%error, "a write failed by a fault of ours");
            } else {
                tracing::debug!(%error, "refused a write");
            }
            error.response(state.config.retry_after)
        }
    };
    let metrics = progress.tenant.as_ref().map_or(&state.anonymous, |tenant| &tenant.write_metrics);
    count(metrics, started, progress.body_bytes, progress.received, &response);
    response
}

fn count(
    metrics: &WriteMetrics,
    started: Instant,
    request_bytes: usize,
    received: Option<Received>,
    response: &Response,
) {
    metrics.count_request(&RequestFigures {
        status: response.status(),
        seconds: started.elapsed().as_secs_f64(),
        request_bytes,
        response_bytes: response.body().size_hint().exact().unwrap_or(0) as usize,
        content: received.map(|received| (received.series, received.samples)),
    });
}

async fn handle(
    state: &Arc<WriteState>,
    headers: &HeaderMap,
    body: Body,
    progress: &mut Progress,
) -> Result<(), WriteError> {
    let config = &state.config;
    if state.clock_is_off.load(Ordering::Relaxed) {
        return Err(WriteError::ClockOff);
    }
    let name = headers::tenant(headers, &config.tenant_header, &config.default_tenant)?;
    progress.tenant = state.tenants.get(name.as_str());
    let metrics = progress.tenant.as_ref().map_or(&state.anonymous, |tenant| &tenant.write_metrics);
    let _in_flight = InFlight::new(&metrics.inflight);
    headers::content_encoding(headers)?;
    headers::content_type(headers)?;
    let replica = headers::replica(headers, &config.replica_header)?;
    let rules = state.rules.load_full();
    let ring = tenant_ring(&rules, &name, replica)?;

    let mut admitted = state.admission.begin();
    let mut compressed = state.bodies.take();
    let reading = body::read(body, config.body_bytes_max, &mut admitted, &mut compressed.0);
    let read = tokio::time::timeout(config.body_timeout, reading)
        .await
        .unwrap_or(Err(WriteError::Deadline("the body took too long to arrive")));
    progress.body_bytes = compressed.0.len();
    read?;
    let decoded_len = body::decoded_len(&compressed.0, config.decoded_bytes_max)?;
    admitted.take(decoded_len)?;

    let mut job =
        Job { state: state.clone(), compressed, decoded_len, _admitted: admitted, rules, ring, replica };
    let tenant = match &progress.tenant {
        Some(tenant) => tenant.clone(),
        None => match job.first_look().await? {
            (_, Some(done)) => {
                progress.received = Some(done.received);
                return verdict(done);
            }
            (back, None) => {
                job = back;
                progress.tenant.insert(state.tenants.get_or_open(&name).await?).clone()
            }
        },
    };
    let done = job.run(tenant, &mut progress.received).await?;
    verdict(done)
}

/// Where the series of `tenant` go; `None` without a ring.
fn tenant_ring(rules: &Rules, tenant: &TenantName, replica: u64) -> Result<Option<TenantRing>, WriteError> {
    let Some(routing) = &rules.routing else { return Ok(None) };
    let replication_factor = routing.replication_factor();
    let ring = routing.tenant(tenant.as_str()).ok_or_else(|| match routing.active_nodes() {
        Some(active) => WriteError::NoOwners { active, needed: replication_factor },
        None => WriteError::NoRing(tenant.clone()),
    })?;
    // On a router the number means nothing: it stores no copy itself. Nor does it in a cluster, whose nodes
    // have a protocol of their own: no sender may choose to have one copy only.
    match usize::try_from(replica).unwrap_or(usize::MAX) {
        _ if routing.is_router() || routing.is_cluster() => Ok(Some(ring)),
        0 => Ok(Some(ring)),
        copy if copy <= replication_factor => Ok(Some(ring.only_replica(copy - 1))),
        _ => Err(WriteError::ReplicaTooHigh { replica, replication_factor }),
    }
}

fn verdict(done: Ingested) -> Result<(), WriteError> {
    done.refused.map_or(Ok(()), |report| Err(WriteError::Refused(report)))
}

/// A request that is read. It owns all it needs, so that it goes on without its connection.
struct Job {
    state: Arc<WriteState>,
    compressed: Pooled<BodyBuffer>,
    decoded_len: usize,
    /// Held until the work on these bytes is done, not until the answer is sent.
    _admitted: AdmittedBytes,
    rules: Arc<Rules>,
    ring: Option<TenantRing>,
    /// The number of the copy that the sender wants stored; 0 for all.
    replica: u64,
}

/// Pause before the owners of a request are asked again, because they did not know its ring yet.
const RING_PAUSE: Duration = Duration::from_millis(20);

impl Job {
    async fn turn(&self) -> Result<OwnedSemaphorePermit, WriteError> {
        let turn = self.state.turns.clone().acquire_owned();
        let waited = tokio::time::timeout(self.state.config.turn_timeout, turn).await;
        let turn = waited.map_err(|_| WriteError::Deadline("no turn in time, too many writes wait"))?;
        turn.map_err(|_| WriteError::NotReady)
    }

    /// Stores the message and waits until it is as durable as the database promises, and on a ring
    /// until enough owners have it. If owners say that the ring has changed since, all is done once more
    /// by the new one: what is stored already is stored, which a repeat finds out.
    async fn run(
        mut self,
        tenant: Arc<Tenant>,
        received: &mut Option<Received>,
    ) -> Result<Ingested, WriteError> {
        let mut deadline = None;
        loop {
            let (mut ingested, copies) = self.store(tenant.clone()).await?;
            *received = Some(ingested.received);
            let Some(mut copies) = copies else { return Ok(ingested) };
            let deadline = *deadline.get_or_insert(Instant::now() + copies.job.state.config.forward_timeout);
            match copies.decide(&tenant, deadline).await {
                Ok(refused) => {
                    ingested.refused = refused;
                    return Ok(ingested);
                }
                Err(error) => {
                    let Some(whose) = copies.distribution.late_ring() else { return Err(error) };
                    self = copies.job;
                    if !self.take_next_ring(whose, &tenant.name, deadline).await? {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Stores the message, as far as that is done here. Where there is a ring, the copies are under way.
    async fn store(self, tenant: Arc<Tenant>) -> Result<(Ingested, Option<Copies>), WriteError> {
        let turn = self.turn().await?;
        let jobs = self.state.jobs.clone();
        let work = move || {
            let mut scratch = self.state.scratches.take();
            let named = self.ring.as_ref().map(|ring| (ring, tenant.name.as_str()));
            let judge = self.state.judge(SystemTime::now(), named);
            let mut ingested = ingest::ingest(
                &tenant,
                self.rules.generation,
                &judge,
                self.state.peers.as_deref(),
                &self.compressed.0,
                self.decoded_len,
                &mut scratch,
            )?;
            if let Some(distribution) = ingested.distribution.take() {
                return Ok((ingested, Some(Copies { job: self, scratch, distribution })));
            }
            // Nothing of the message is needed any more: make room before the wait for the disk.
            drop((scratch, self, turn));
            if let Some(ticket) = ingested.ticket {
                let settled = tenant.db.wait_durable(ticket);
                settled.map_err(|error| ingest::storage_error(&tenant, &error))?;
            }
            Ok((ingested, None))
        };
        jobs.spawn_blocking(work).await.unwrap_or_else(panicked)
    }

    /// Waits until owners and this node may have the same ring, and takes it. False if that is not before
    /// `deadline`.
    async fn take_next_ring(
        &mut self,
        whose: LateRing,
        tenant: &TenantName,
        deadline: Instant,
    ) -> Result<bool, WriteError> {
        let own = self.ring.as_ref().map_or(0, |ring| ring.stamp().epoch);
        let come = async {
            match whose {
                LateRing::Sender => {
                    let mut epochs = self.state.ring_epoch.subscribe();
                    // The sender lives as long as the state.
                    let _ = epochs.wait_for(|epoch| *epoch > own).await;
                }
                LateRing::Owner => tokio::time::sleep(RING_PAUSE).await,
            }
        };
        if tokio::time::timeout_at(deadline.into(), come).await.is_err() {
            return Ok(false);
        }
        self.rules = self.state.rules.load_full();
        self.ring = tenant_ring(&self.rules, tenant, self.replica)?;
        Ok(true)
    }

    /// Judges the message of a tenant that is not open; see [`ingest::first_look`]. Gives the job
    /// back, so that no turn is held while the tenant is opened.
    async fn first_look(self) -> Result<(Self, Option<Ingested>), WriteError> {
        let turn = self.turn().await?;
        let jobs = self.state.jobs.clone();
        let work = move || {
            let mut scratch = self.state.scratches.take();
            let judge = self.state.judge(SystemTime::now(), None);
            let metrics = &self.state.anonymous;
            let looked =
                ingest::first_look(&self.compressed.0, self.decoded_len, &judge, metrics, &mut scratch);
            drop((scratch, turn));
            Ok((self, looked?))
        };
        jobs.spawn_blocking(work).await.unwrap_or_else(panicked)
    }
}

/// A request whose copies are on their way, with all that may have to be sent again.
struct Copies {
    job: Job,
    scratch: Pooled<Scratch>,
    distribution: Distribution,
}

impl Copies {
    /// Waits until it is decided.
    async fn decide(
        &mut self,
        tenant: &Tenant,
        deadline: Instant,
    ) -> Result<Option<Box<RefusalReport>>, WriteError> {
        if let Some(ring) = &self.job.ring {
            self.distribution.collect(self.scratch.content(tenant), ring, deadline.into()).await;
        }
        self.scratch.conclude(&tenant.write_metrics, &self.distribution)
    }
}

fn panicked<T>(error: tokio::task::JoinError) -> Result<T, WriteError> {
    Err(WriteError::Internal(format!("a write panicked: {error}").into()))
}
