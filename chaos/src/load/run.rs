//! A run from beginning to end.

use std::{
    fs::File,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tokio::task::JoinSet;

use super::{
    Args,
    client::{Client, Target},
    encode::SeriesTable,
    plan::{self, Schedule},
    report::{Latency, Process, Report, Tally},
    worker::{Pace, Shared, Tenant, Worker},
};
use crate::{procfs::Usage, workload::Workload};

/// How often progress is told.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// Sends the load that `args` describe and reports. Blocks, and makes its own runtime.
///
/// # Errors
/// As [`main`](super::main).
pub fn run(args: Args) -> anyhow::Result<Report> {
    args.check()?;
    let thread_count = std::thread::available_parallelism().map_or(2, |n| n.get());
    let thread_count = thread_count.min(usize::try_from(args.concurrency).unwrap_or(usize::MAX));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(thread_count)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(run_all(args))
}

async fn run_all(args: Args) -> anyhow::Result<Report> {
    let target = Target::parse(&args.url)?;
    let tenant_names: Vec<Option<String>> = match &args.tenant {
        _ if args.tenants > 1 => (0..args.tenants).map(|n| Some(format!("tenant-{n}"))).collect(),
        name => vec![name.clone()],
    };
    let tenants = tenant_names
        .into_iter()
        .map(|name| {
            let headers = target.headers(name.as_deref().map(|name| (args.tenant_header.as_str(), name)))?;
            Ok(Tenant { name: name.unwrap_or_else(|| "-".to_owned()), headers })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let ack_log = match &args.ack_log {
        Some(path) => Some(Mutex::new(File::create(path).with_context(|| path.display().to_string())?)),
        None => None,
    };

    // All that is made once is made before the clock starts.
    let workload = Workload::new(args.seed);
    let shares = plan::shares(&args);
    let tables: Vec<SeriesTable> = shares
        .iter()
        .map(|batches| {
            let first = batches.first().map_or(0, |batch| batch.series.start);
            let end = batches.last().map_or(0, |batch| batch.series.end);
            SeriesTable::new(workload, first..end)
        })
        .collect();

    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let schedule = Schedule::new(&args, now_ms);
    let usage_before = args.pids.iter().map(|&pid| Usage::of(pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let own_before = Usage::of(std::process::id())?;
    let begin = Instant::now();
    let shared = Arc::new(Shared {
        schedule,
        tenants,
        begin,
        deadline: args.duration.map(|duration| begin + duration),
        rate: args.rate,
        retries_max: args.retries,
        ack_log,
        issued: AtomicU64::new(0),
        acked: AtomicU64::new(0),
        pace: Pace::new(shares.len()),
    });
    let mut workers = JoinSet::new();
    for (index, (batches, table)) in shares.into_iter().zip(tables).enumerate() {
        let client = Client::new(target.clone(), args.timeout);
        let shared = Arc::clone(&shared);
        workers.spawn(Worker { index, shared, batches, table, client, tally: Tally::default() }.run());
    }
    let progress = tokio::spawn(tell_progress(Arc::clone(&shared)));
    let mut total = Tally::default();
    while let Some(ended) = workers.join_next().await {
        total.merge(ended.context("a connection panicked")??);
    }
    let wall_seconds = begin.elapsed().as_secs_f64();
    progress.abort();

    let own_after = Usage::of(std::process::id())?;
    let processes: Vec<Process> =
        args.pids.iter().zip(&usage_before).map(|(&pid, before)| watched(pid, before)).collect();
    // What a process that died has used is not known, so neither is the sum.
    let cpu_seconds = match processes.as_slice() {
        [] => None,
        some => some.iter().map(|p| p.cpu_seconds).sum::<Option<f64>>(),
    };
    Ok(Report {
        url: args.url,
        series: args.series,
        tenants: args.tenants,
        start_ms: schedule.time(0),
        interval_ms: args.interval,
        seed: args.seed,
        samples_sent: total.samples_sent,
        samples_acked: total.samples_acked,
        samples_dropped: total.samples_dropped,
        samples_given_up: total.samples_given_up,
        wall_seconds,
        samples_per_second: total.samples_acked as f64 / wall_seconds,
        cpu_seconds,
        // Less than a tick of CPU time says nothing.
        samples_per_cpu_second: cpu_seconds.filter(|&s| s > 0.0).map(|s| total.samples_acked as f64 / s),
        generator_cpu_seconds: ticks(own_after.cpu_seconds - own_before.cpu_seconds),
        requests: total.requests,
        retries: total.retries,
        codes: total.codes,
        first_failures: total.first_failures,
        latency_ms: Latency::of(&total.latency),
        latency_since_due_ms: (args.rate > 0).then(|| Latency::of(&total.latency_since_due)),
        bytes_raw: total.bytes_raw,
        bytes_compressed: total.bytes_compressed,
        raw_bytes_per_sample: total.bytes_raw as f64 / total.samples_sent.max(1) as f64,
        processes,
    })
}

/// What a process used since `before`, as far as it can be known.
fn watched(pid: u32, before: &Usage) -> Process {
    let after = Usage::of(pid).ok();
    Process {
        pid,
        cpu_seconds: after.map(|after| ticks(after.cpu_seconds - before.cpu_seconds)),
        rss_before_bytes: before.rss_bytes,
        rss_after_bytes: after.map(|after| after.rss_bytes),
        rss_peak_bytes: after.map(|after| after.rss_peak_bytes),
    }
}

/// CPU time is counted in hundredths of a second; a difference is rounded to that again.
fn ticks(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

async fn tell_progress(shared: Arc<Shared>) {
    let mut last = 0;
    loop {
        tokio::time::sleep(PROGRESS_PERIOD).await;
        let acked = shared.acked.load(Ordering::Relaxed);
        let per_second = (acked - last) as f64 / PROGRESS_PERIOD.as_secs_f64();
        eprintln!("{:.0} s: {acked} samples, {per_second:.0}/s", shared.begin.elapsed().as_secs_f64());
        last = acked;
    }
}
