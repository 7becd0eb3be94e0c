//! One connection at work.

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use super::{
    client::{Client, Outcome},
    encode::{SampleEncoder, SeriesTable},
    plan::{Batch, Schedule},
    report::Tally,
};

/// How many scrapes a connection may be ahead of the slowest.
///
/// Connections that have drifted hours of sample time apart would send what a database must
/// refuse as too old.
const SCRAPES_AHEAD_MAX: u64 = 4;
/// The first and the longest wait before a request is sent again.
const BACKOFF_FIRST: Duration = Duration::from_millis(30);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A tenant's name and the headers of its requests.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) headers: HeaderMap,
}

/// What all connections of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) schedule: Schedule,
    pub(super) tenants: Vec<Tenant>,
    pub(super) begin: Instant,
    pub(super) deadline: Option<Instant>,
    /// Samples per second, 0 for no limit.
    pub(super) rate: u64,
    pub(super) retries_max: u32,
    pub(super) ack_log: Option<Mutex<File>>,
    /// Samples whose turn has come, for the rate.
    pub(super) issued: AtomicU64,
    /// Samples acknowledged, to show progress.
    pub(super) acked: AtomicU64,
    pub(super) pace: Pace,
}

/// Keeps connections near each other in sample time.
#[derive(Debug)]
pub(super) struct Pace {
    /// The scrape each connection is at; the greatest number for one that has ended.
    scrapes: Mutex<Vec<u64>>,
    moved: Notify,
}

impl Pace {
    pub(super) fn new(worker_count: usize) -> Self {
        Self { scrapes: Mutex::new(vec![0; worker_count]), moved: Notify::new() }
    }

    fn advance(&self, worker: usize, scrape: u64) {
        self.lock()[worker] = scrape;
        self.moved.notify_waiters();
    }

    /// Waits until the slowest connection is near `scrape`.
    async fn wait(&self, scrape: u64) {
        loop {
            let moved = self.moved.notified();
            let slowest = self.lock().iter().copied().min().unwrap_or(scrape);
            if scrape <= slowest.saturating_add(SCRAPES_AHEAD_MAX) {
                return;
            }
            moved.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        // Nobody panics while holding it.
        self.scrapes.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Marks a connection's end, also if it ends by an error, so that no other waits for it.
struct Ended<'a>(&'a Pace, usize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.advance(self.1, u64::MAX);
    }
}

/// A connection, its share of the series, and what it has counted.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) batches: Vec<Batch>,
    pub(super) table: SeriesTable,
    pub(super) client: Client,
    pub(super) tally: Tally,
}

impl Worker {
    /// Sends until the schedule or the time ends.
    pub(super) async fn run(mut self) -> anyhow::Result<Tally> {
        let shared = Arc::clone(&self.shared);
        let _ended = Ended(&shared.pace, self.index);
        let mut body = Vec::new();
        let mut compressor = snap::raw::Encoder::new();
        if self.batches.is_empty() {
            return Ok(self.tally);
        }
        'scrapes: for scrape in 0.. {
            let series_end = shared.schedule.series_in(scrape);
            if series_end == 0 {
                break;
            }
            shared.pace.advance(self.index, scrape);
            let t = shared.schedule.time(scrape);
            tokio::select! {
                () = shared.pace.wait(scrape) => {}
                () = sleep_until(shared.deadline) => break,
            }
            let encoder = SampleEncoder::new(t);
            let batches = std::mem::take(&mut self.batches);
            for batch in &batches {
                let series = batch.series.start..batch.series.end.min(series_end);
                if series.is_empty() {
                    break;
                }
                let due = self.turn(series.end - series.start, t).await;
                if shared.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break 'scrapes;
                }
                body.clear();
                encoder.append(&self.table, series.clone(), &mut body);
                let compressed = Bytes::from(compressor.compress_vec(&body).context("compress")?);
                self.tally.requests += 1;
                self.tally.samples_sent += series.end - series.start;
                self.tally.bytes_raw += body.len() as u64;
                self.tally.bytes_compressed += compressed.len() as u64;
                let batch = Batch { tenant: batch.tenant, series };
                self.send(&batch, scrape, t, due, compressed).await?;
            }
            self.batches = batches;
        }
        Ok(self.tally)
    }

    /// Waits for the turn of `count` samples of time `t`: as the rate says, and not before their
    /// time. Returns when the turn was, which is in the past if the run is late; `None` if there
    /// is no rate.
    async fn turn(&self, count: u64, t: i64) -> Option<Instant> {
        let shared = &self.shared;
        let before = shared.issued.fetch_add(count, Ordering::Relaxed);
        let due = (shared.rate > 0)
            .then(|| shared.begin + Duration::from_secs_f64(before as f64 / shared.rate as f64));
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let early = u64::try_from(t - now_ms).map(Duration::from_millis).unwrap_or_default();
        let wait_for_time =
            Instant::now() + if shared.schedule.follows_clock() { early } else { Duration::ZERO };
        let until = due.map_or(wait_for_time, |due| due.max(wait_for_time));
        if until > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = sleep_until(shared.deadline) => {}
            }
        }
        due
    }

    /// Sends one request until it has a final answer.
    async fn send(
        &mut self,
        batch: &Batch,
        scrape: u64,
        t: i64,
        due: Option<Instant>,
        body: Bytes,
    ) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let tenant = &shared.tenants[batch.tenant];
        let count = batch.series.end - batch.series.start;
        let mut attempt = 0;
        loop {
            let sent_at = Instant::now();
            let outcome = self.client.post(tenant.headers.clone(), body.clone()).await;
            self.tally.latency.record(sent_at.elapsed());
            let (code, text, retry_after, may_pass) = match outcome {
                Outcome::Answer { status, text, retry_after } => {
                    let may_pass = status.is_server_error() || status.as_u16() == 429;
                    (status.as_str().to_owned(), text, retry_after, may_pass)
                }
                Outcome::Timeout => ("timeout".to_owned(), String::new(), None, true),
                Outcome::Broken(text) => ("broken".to_owned(), text, None, true),
            };
            *self.tally.codes.entry(code.clone()).or_default() += 1;
            if code.starts_with('2') {
                self.tally.samples_acked += count;
                shared.acked.fetch_add(count, Ordering::Relaxed);
                if let Some(due) = due {
                    self.tally.latency_since_due.record(due.elapsed());
                }
                return shared.log_ack(&tenant.name, scrape, batch, t);
            }
            self.tally.note(&code, &text);
            if !may_pass {
                self.tally.samples_dropped += count;
                return Ok(());
            }
            let too_late = shared.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if attempt == shared.retries_max || too_late {
                self.tally.samples_given_up += count;
                return Ok(());
            }
            let backoff = (BACKOFF_FIRST * 2u32.saturating_pow(attempt)).min(BACKOFF_MAX);
            tokio::time::sleep(retry_after.unwrap_or(backoff).clamp(backoff, BACKOFF_MAX)).await;
            attempt += 1;
            self.tally.retries += 1;
        }
    }
}

impl Shared {
    fn log_ack(&self, tenant: &str, scrape: u64, batch: &Batch, t: i64) -> anyhow::Result<()> {
        let Some(log) = &self.ack_log else {
            return Ok(());
        };
        let last = batch.series.end - 1;
        let line = format!("{tenant}\t{scrape}\t{}\t{last}\t{t}\n", batch.series.start);
        // One write per line, at once: what stands in the file was acknowledged, even if this
        // process is killed, and a line is never torn by another.
        let mut file = log.lock().unwrap_or_else(|e| e.into_inner());
        file.write_all(line.as_bytes()).context("write the log of acknowledgements")
    }
}

/// Sleeps until the deadline, for ever if there is none.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
