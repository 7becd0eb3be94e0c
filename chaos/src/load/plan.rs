//! Who sends what, and when.

use std::ops::Range;

use super::Args;

/// The part of a request that is the same in every scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Index of the tenant, whose series all of these are.
    pub(super) tenant: usize,
    /// The series.
    pub(super) series: Range<u64>,
}

/// Cuts all series into shares, one for each connection, and the shares into batches of one tenant
/// each. The tenant of index `n` owns the series from `n * series / tenants` on.
pub(super) fn shares(args: &Args) -> Vec<Vec<Batch>> {
    let cut =
        |index: u64, parts: u64| (u128::from(args.series) * u128::from(index) / u128::from(parts)) as u64;
    (0..args.concurrency)
        .map(|worker| {
            let end = cut(worker + 1, args.concurrency);
            let mut next = cut(worker, args.concurrency);
            // The last tenant that begins at or before `next`.
            let mut tenant = 0;
            let mut batches = Vec::new();
            while next < end {
                while cut(tenant + 1, args.tenants) <= next {
                    tenant += 1;
                }
                let tenant_end = cut(tenant + 1, args.tenants);
                let batch_end = end.min(tenant_end).min(next + args.samples_per_request);
                batches.push(Batch { tenant: tenant as usize, series: next..batch_end });
                next = batch_end;
            }
            batches
        })
        .collect()
}

/// When scrapes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    start_ms: i64,
    interval_ms: i64,
    series: u64,
    samples_limit: Option<u64>,
    follows_clock: bool,
}

/// Flat out for a given time, the number of scrapes is not known beforehand. This many samples a
/// second are allowed for; a generator that is faster runs into the present and then follows it.
const FLAT_OUT_RATE_GUESS: u64 = 3_000_000;

impl Schedule {
    /// The schedule for a run that begins at `now_ms`.
    ///
    /// Without a given start the first scrape lies back just so far that the last one, at the time
    /// when it is sent, is not in the future.
    pub(super) fn new(args: &Args, now_ms: i64) -> Self {
        let rate = if args.rate == 0 { FLAT_OUT_RATE_GUESS } else { args.rate };
        let by_duration = args.duration.map(|d| (d.as_secs_f64() * rate as f64) as u64);
        let samples_limit = args.samples_limit();
        let samples = match (samples_limit, by_duration) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(0),
        };
        let scrape_count = samples.div_ceil(args.series).max(1);
        // While a scrape is sent the clock goes on by so much, at a given rate.
        let sending_ms = (args.series * 1000).checked_div(args.rate).unwrap_or(0);
        let back_ms = (scrape_count - 1).saturating_mul(args.interval.saturating_sub(sending_ms));
        let start_ms = args.start.unwrap_or(now_ms - back_ms as i64);
        Self {
            start_ms,
            interval_ms: args.interval as i64,
            series: args.series,
            samples_limit,
            follows_clock: args.start.is_none(),
        }
    }

    /// True if no sample may be sent before its time. A start that was given is taken as it is.
    pub(super) fn follows_clock(&self) -> bool {
        self.follows_clock
    }

    /// The time of a scrape.
    pub(super) fn time(&self, scrape: u64) -> i64 {
        self.start_ms + scrape as i64 * self.interval_ms
    }

    /// How many series take part in a scrape: all, but fewer in the last one if the number of
    /// samples is given and not a multiple. 0 after the end. So the set of samples is always the
    /// same, however connections race.
    pub(super) fn series_in(&self, scrape: u64) -> u64 {
        match self.samples_limit {
            Some(limit) => limit.saturating_sub(scrape.saturating_mul(self.series)).min(self.series),
            None => self.series,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(text: &str) -> Args {
        Cli::parse_from(std::iter::once("load").chain(text.split_whitespace())).args
    }

    #[test]
    fn shares_tile_the_series_within_tenants() {
        let check = |text: &str| {
            let args = args(text);
            let shares = shares(&args);
            assert_eq!(shares.len() as u64, args.concurrency);
            let mut next = 0;
            for batch in shares.iter().flatten() {
                assert_eq!(batch.series.start, next);
                assert!(!batch.series.is_empty());
                assert!(batch.series.end - batch.series.start <= args.samples_per_request);
                let tenant = batch.tenant as u64;
                assert!(batch.series.start >= tenant * args.series / args.tenants);
                assert!(batch.series.end <= (tenant + 1) * args.series / args.tenants);
                next = batch.series.end;
            }
            assert_eq!(next, args.series, "{text}");
            shares.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(check("--series 10000 --samples-per-request 2000 --concurrency 2"), [3, 3]);
        assert_eq!(check("--series 1000 --tenants 10 --concurrency 3"), [4, 4, 4]);
        assert_eq!(check("--series 7 --tenants 7 --concurrency 2"), [3, 4]);
        assert_eq!(check("--series 2 --concurrency 4"), [0, 1, 0, 1]);
        check("--series 1001 --tenants 3 --concurrency 5 --samples-per-request 13");
    }

    #[test]
    fn the_last_scrape_is_not_in_the_future() {
        let now = 1_700_000_000_000;
        let start = |text: &str| now - Schedule::new(&args(text), now).time(0);
        // 50 scrapes, flat out: 49 intervals back.
        assert_eq!(start("--samples 5000000"), 49 * 15_000);
        assert_eq!(start(""), 49 * 15_000);
        assert_eq!(start("--samples 1"), 0);
        // In real time: a scrape takes as long to send as it covers.
        assert_eq!(start("--series 15000 --rate 1000 --duration 1h"), 0);
        // Twice as fast: half of each interval.
        assert_eq!(start("--series 15000 --rate 2000 --samples 150000"), 9 * 7500);
        // Slower than real time.
        assert_eq!(start("--series 15000 --rate 100 --samples 150000"), 0);
        assert_eq!(Schedule::new(&args("--start 5 --interval 10"), now).time(3), 35);
    }

    #[test]
    fn the_number_of_samples_is_exact() {
        let schedule = Schedule::new(&args("--series 100 --samples 250"), 0);
        assert_eq!([0, 1, 2, 3, 4].map(|scrape| schedule.series_in(scrape)), [100, 100, 50, 0, 0]);
        let schedule = Schedule::new(&args("--series 100 --duration 1s"), 0);
        assert_eq!(schedule.series_in(1 << 40), 100);
    }
}
