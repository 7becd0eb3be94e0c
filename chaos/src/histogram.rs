//! Latencies in bounded memory.

use std::time::Duration;

/// Buckets per power of two: a reading is at most 1/128 above the truth.
const SUB_BITS: u32 = 7;
/// Values of 2^40 µs (13 days) and more share the last bucket.
const VALUE_BITS_MAX: u32 = 40;
const BUCKET_COUNT: usize = ((VALUE_BITS_MAX - SUB_BITS + 1) << SUB_BITS) as usize;

/// Counts durations, in microseconds, in buckets whose width grows with the value. Its size is
/// fixed (34 KiB), however long it counts.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total_count: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKET_COUNT], total_count: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket_of(us)) {
            *count += 1;
        }
        self.total_count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.total_count += other.total_count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total_count
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// The least duration that at least the share `quantile` (0 to 1) of all did not exceed, by
    /// nearest rank, rounded up to its bucket's end but not above the longest. Zero if there is
    /// none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        // Nearest rank: of 1000 durations the 0.99 quantile is the 990th.
        let rank = ((self.total_count as f64 * quantile).ceil() as u64).clamp(1, self.total_count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(bucket_end(bucket).min(self.max_us));
            }
        }
        self.max()
    }
}

fn bucket_of(us: u64) -> usize {
    let us = us.min((1 << VALUE_BITS_MAX) - 1);
    // Below 2^(SUB_BITS + 1) each value has a bucket of its own.
    let shift = us.max(1).ilog2().saturating_sub(SUB_BITS);
    ((u64::from(shift) << SUB_BITS) + (us >> shift)) as usize
}

/// The greatest value of a bucket.
fn bucket_end(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let first = (bucket - (shift << SUB_BITS)) as u64;
    ((first + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values_us: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for us in values_us {
            histogram.record(Duration::from_micros(us));
        }
        histogram
    }

    fn quantile_us(histogram: &Histogram, quantile: f64) -> u64 {
        histogram.quantile(quantile).as_micros() as u64
    }

    #[test]
    fn buckets_tile_all_values() {
        assert_eq!(bucket_of(0), 0);
        let mut next = 0;
        for bucket in 0..BUCKET_COUNT {
            let end = bucket_end(bucket);
            assert_eq!((bucket_of(next), bucket_of(end)), (bucket, bucket), "bucket {bucket}");
            assert!((end - next) as f64 <= next as f64 / 128.0, "bucket {bucket} is {next}..={end}");
            next = end + 1;
        }
        assert_eq!(next, 1 << VALUE_BITS_MAX);
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let histogram = of(1..=100);
        let quantiles = [0.0, 0.01, 0.5, 0.505, 0.9, 0.99, 0.999, 1.0];
        assert_eq!(quantiles.map(|q| quantile_us(&histogram, q)), [1, 1, 50, 51, 90, 99, 100, 100]);
        assert_eq!(quantile_us(&of([7]), 0.5), 7);
        assert_eq!(quantile_us(&of([]), 0.99), 0);
        assert_eq!(quantile_us(&of([1, 1, 1, 1_000_000]), 0.75), 1);
    }

    #[test]
    fn large_values_are_rounded_up_by_less_than_a_hundredth() {
        let histogram = of((1..=10_000).map(|ms| ms * 1000));
        for (quantile, exact_us) in [(0.5, 5_000_000), (0.9, 9_000_000), (0.99, 9_900_000)] {
            let us = quantile_us(&histogram, quantile);
            assert!(us >= exact_us && us - exact_us <= exact_us / 128, "{quantile}: {us}");
        }
        assert_eq!(quantile_us(&histogram, 1.0), 10_000_000);
        assert_eq!(histogram.max(), Duration::from_secs(10));
    }

    #[test]
    fn merging_is_counting_together() {
        let mut merged = of(1..=60);
        merged.merge(&of(61..=100));
        assert_eq!(merged.count(), 100);
        assert_eq!(quantile_us(&merged, 0.9), 90);
        assert_eq!(merged.max(), Duration::from_micros(100));
    }
}
