//! What a run counted, and how it is told.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::histogram::Histogram;

/// Counts of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) retries: u64,
    pub(super) samples_sent: u64,
    pub(super) samples_acked: u64,
    pub(super) samples_dropped: u64,
    pub(super) samples_given_up: u64,
    pub(super) bytes_raw: u64,
    pub(super) bytes_compressed: u64,
    pub(super) codes: BTreeMap<String, u64>,
    pub(super) first_failures: BTreeMap<String, String>,
    pub(super) latency: Histogram,
    pub(super) latency_since_due: Histogram,
}

impl Tally {
    /// Keeps the first words of each kind of failure.
    pub(super) fn note(&mut self, code: &str, text: &str) {
        if !self.first_failures.contains_key(code) {
            self.first_failures.insert(code.to_owned(), text.to_owned());
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.retries += other.retries;
        self.samples_sent += other.samples_sent;
        self.samples_acked += other.samples_acked;
        self.samples_dropped += other.samples_dropped;
        self.samples_given_up += other.samples_given_up;
        self.bytes_raw += other.bytes_raw;
        self.bytes_compressed += other.bytes_compressed;
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        for (code, text) in other.first_failures {
            self.note(&code, &text);
        }
        self.latency.merge(&other.latency);
        self.latency_since_due.merge(&other.latency_since_due);
    }
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "quantiles are what they are called")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// The quantiles of a histogram.
    pub fn of(histogram: &Histogram) -> Self {
        let quantile = |q| histogram.quantile(q).as_secs_f64() * 1000.0;
        let max = histogram.max().as_secs_f64() * 1000.0;
        Self { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), p999: quantile(0.999), max }
    }
}

/// What a watched process used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// CPU time, user and system, during the run. This and what follows is absent if the process
    /// was gone at the end.
    pub cpu_seconds: Option<f64>,
    /// Resident memory before the run.
    pub rss_before_bytes: u64,
    /// Resident memory after it.
    pub rss_after_bytes: Option<u64>,
    /// The greatest resident memory since the process started.
    pub rss_peak_bytes: Option<u64>,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where to.
    pub url: String,
    /// Series of all tenants together.
    pub series: u64,
    /// Tenants.
    pub tenants: u64,
    /// Time of the first scrape.
    pub start_ms: i64,
    /// Time between scrapes.
    pub interval_ms: u64,
    /// Seed of labels and values.
    pub seed: u64,
    /// Samples in requests, each counted once however often it was sent.
    pub samples_sent: u64,
    /// Samples in requests that were answered by 2xx.
    pub samples_acked: u64,
    /// Samples in requests that were refused for good (4xx and the like).
    pub samples_dropped: u64,
    /// Samples in requests that were given up after retries; they may have been stored.
    pub samples_given_up: u64,
    /// From the first request to the last answer.
    pub wall_seconds: f64,
    /// Samples acknowledged per second.
    pub samples_per_second: f64,
    /// CPU time of all watched processes together; absent without any, or if one has died.
    pub cpu_seconds: Option<f64>,
    /// Samples acknowledged per second of it.
    pub samples_per_cpu_second: Option<f64>,
    /// CPU time of the generator itself.
    pub generator_cpu_seconds: f64,
    /// Requests, without retries.
    pub requests: u64,
    /// Attempts beyond the first of each request.
    pub retries: u64,
    /// Attempts by status, or `timeout`, or `broken` for a failed connection.
    pub codes: BTreeMap<String, u64>,
    /// What the first failure of each kind said.
    pub first_failures: BTreeMap<String, String>,
    /// From sending a request to its answer; each attempt counts.
    pub latency_ms: Latency,
    /// From when a request was due by the rate to its acknowledgement, retries and all; absent
    /// without a rate.
    pub latency_since_due_ms: Option<Latency>,
    /// Bytes of requests before compression, without headers and retries.
    pub bytes_raw: u64,
    /// Bytes of requests after compression.
    pub bytes_compressed: u64,
    /// `bytes_raw` by `samples_sent`.
    pub raw_bytes_per_sample: f64,
    /// The watched processes.
    pub processes: Vec<Process>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{} of {} samples acknowledged in {:.2} s: {:.0} samples/s",
            self.samples_acked, self.samples_sent, self.wall_seconds, self.samples_per_second
        )?;
        if let (Some(cpu), Some(per_cpu)) = (self.cpu_seconds, self.samples_per_cpu_second) {
            writeln!(f, "{per_cpu:.0} samples per CPU-second ({cpu:.2} s)")?;
        }
        writeln!(f, "generator: {:.2} CPU-seconds", self.generator_cpu_seconds)?;
        let l = self.latency_ms;
        writeln!(
            f,
            "latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            l.p50, l.p90, l.p99, l.p999, l.max
        )?;
        writeln!(
            f,
            "{} requests, {} retries, codes {:?}, {} samples dropped, {} given up",
            self.requests, self.retries, self.codes, self.samples_dropped, self.samples_given_up
        )?;
        for (code, text) in &self.first_failures {
            writeln!(f, "first {code}: {text}")?;
        }
        write!(
            f,
            "{:.1} MiB raw ({:.1} bytes a sample), {:.1} MiB compressed",
            mib(self.bytes_raw),
            self.raw_bytes_per_sample,
            mib(self.bytes_compressed)
        )?;
        for p in &self.processes {
            let before = mib(p.rss_before_bytes);
            match (p.cpu_seconds, p.rss_after_bytes, p.rss_peak_bytes) {
                (Some(cpu), Some(after), Some(peak)) => write!(
                    f,
                    "\nprocess {}: {cpu:.2} CPU-seconds, resident MiB {before:.1} before, {:.1} after, {:.1} at most",
                    p.pid,
                    mib(after),
                    mib(peak)
                )?,
                _ => write!(f, "\nprocess {}: gone", p.pid)?,
            }
        }
        Ok(())
    }
}
