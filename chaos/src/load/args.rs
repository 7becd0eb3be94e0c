//! Arguments of `load`.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;

use crate::workload::SERIES_COUNT_MAX;

/// Samples that are sent if neither a number nor a time is given.
const SAMPLES_DEFAULT: u64 = 5_000_000;

/// What to send, where to, and what to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to send to (http only)
    #[arg(long, default_value = "http://127.0.0.1:19291/api/v1/receive")]
    pub url: String,
    /// Series of all tenants together
    #[arg(long, default_value_t = 100_000)]
    pub series: u64,
    /// Tenants, named tenant-0 and so on, each with an equal share of the series
    #[arg(long, default_value_t = 1)]
    pub tenants: u64,
    /// Name of the only tenant; without it no tenant header is sent
    #[arg(long, conflicts_with = "tenants")]
    pub tenant: Option<String>,
    /// Header that names the tenant
    #[arg(long, default_value = "THANOS-TENANT")]
    pub tenant_header: String,
    /// Most samples in a request
    #[arg(long, default_value_t = 2000)]
    pub samples_per_request: u64,
    /// Connections, each with one request on its way
    #[arg(long, default_value_t = 4)]
    pub concurrency: u64,
    /// Stop after so many samples (default 5000000, unless --duration is given)
    #[arg(long)]
    pub samples: Option<u64>,
    /// Stop after so long: a number with ms, s, m or h
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Samples per second; 0 is as fast as it goes
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Milliseconds between two samples of a series
    #[arg(long, default_value_t = 15_000)]
    pub interval: u64,
    /// Time of the first scrape in milliseconds since 1970 (default: as late as it can be with
    /// nothing in the future)
    #[arg(long)]
    pub start: Option<i64>,
    /// Process to watch (CPU time and memory); may be repeated
    #[arg(long = "pid")]
    pub pids: Vec<u32>,
    /// Seed of labels and values
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the report as JSON to this file, or with - to the standard output
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a line for each acknowledged request: tenant, scrape, first and last series, time,
    /// with tabs between
    #[arg(long)]
    pub ack_log: Option<PathBuf>,
    /// How often a request is sent again after a 5xx, a 429 or a failed connection
    #[arg(long, default_value_t = 10)]
    pub retries: u32,
    /// How long to wait for an answer
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl Args {
    /// Refuses what cannot be done.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.series > 0, "--series must be positive");
        ensure!(self.series <= SERIES_COUNT_MAX, "--series must be at most {SERIES_COUNT_MAX}");
        ensure!((1..=self.series).contains(&self.tenants), "--tenants must be positive and at most --series");
        ensure!(self.samples_per_request > 0, "--samples-per-request must be positive");
        ensure!(self.concurrency > 0, "--concurrency must be positive");
        ensure!(self.interval > 0, "--interval must be positive");
        ensure!(self.samples != Some(0), "--samples must be positive");
        Ok(())
    }

    /// How many samples to send at most, if that is fixed.
    pub(super) fn samples_limit(&self) -> Option<u64> {
        match (self.samples, self.duration) {
            (None, None) => Some(SAMPLES_DEFAULT),
            (samples, _) => samples,
        }
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h` or a number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit {unit:?}")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let check = |text, ms| assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("500ms", 500);
        check("1.5s", 1500);
        check("2m", 120_000);
        check("1h", 3_600_000);
        check("10", 10_000);
        for bad in ["", "s", "1d", "-1s", "1 s x"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
