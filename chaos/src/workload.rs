//! What is written: series as a Kubernetes cluster has them, and values that can be known again.
//!
//! A series is a number. Its labels and each of its values follow from that number, the time and
//! the seed, by integer arithmetic and single IEEE operations alone, so they are the same on every
//! machine. Whoever reads a sample back can say whether it is the right one without having kept
//! what was sent: one that was altered, invented or filed under another series shows.
//!
//! Series come in pods of 64: counters, gauges, two histograms with their buckets, and constants,
//! in about the mix that kube-prometheus scrapes. All have nine labels.

mod template;

use template::{APPS, BUCKET_LES, BUCKET_SHARES, Kind, NAMESPACES, SERIES_PER_POD, TEMPLATES};

/// Series of a pod.
pub const POD_SERIES_COUNT: u64 = SERIES_PER_POD as u64;

/// Most series there are names for.
pub const SERIES_COUNT_MAX: u64 = POD_SERIES_COUNT * (POD_LETTERS.len() as u64).pow(POD_SUFFIX_LEN);

/// Letters of the random-looking end of a pod's name.
const POD_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const POD_SUFFIX_LEN: u32 = 5;

/// Counters start again from zero once in so many seconds, each at its own time: a week.
const COUNTER_LIFE_SECONDS: u64 = 604_800;

/// The series and values of one seed. Pure: two of the same seed are equal in all they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    seed: u64,
}

impl Workload {
    /// The workload of `seed`. Different seeds give different labels and values.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The labels of series `series`, sorted by name, `__name__` among them (and first). No two
    /// series below [`SERIES_COUNT_MAX`] have the same.
    pub fn series_labels(&self, series: u64) -> Vec<(&'static str, String)> {
        let (pod, template) = split(series);
        let (app, component) = pick(APPS, self.hash(pod / 8, 1));
        let namespace = pick(NAMESPACES, self.hash(pod / 8, 2));
        let replica_set = self.hash(pod / 8, 3) & 0xFF_FFFF_FFFF;
        let node = self.hash(pod / 16, 4) as u32;
        let [_, a, b, c] = node.to_be_bytes();
        let d = 1 + pod % 250;
        let cluster = if self.seed == 0 { "prod".to_owned() } else { format!("prod-{}", self.seed) };

        let mut labels = vec![
            ("__name__", template.name.to_owned()),
            ("cluster", cluster),
            ("container", (*component).to_owned()),
            ("instance", format!("10.{a}.{b}.{d}:8080")),
            ("job", (*app).to_owned()),
            ("namespace", (*namespace).to_owned()),
            ("node", format!("ip-10-{a}-{b}-{c}")),
            ("pod", format!("{app}-{replica_set:010x}-{}", pod_suffix(pod))),
        ];
        labels.push(match template.kind {
            Kind::Bucket { bucket, .. } => ("le", BUCKET_LES[bucket].to_owned()),
            _ => ("endpoint", "metrics".to_owned()),
        });
        labels.sort_unstable_by_key(|&(name, _)| name);
        labels
    }

    /// The value of series `series` at `t` (milliseconds since 1970), as the bits of an `f64`.
    /// Never NaN, never negative zero. A counter does not fall between two times a second or more
    /// apart, except when it starts again, once a week.
    pub fn value_bits(&self, series: u64, t: i64) -> u64 {
        self.value(series, t).to_bits()
    }

    /// The value behind [`value_bits`](Self::value_bits).
    pub fn value(&self, series: u64, t: i64) -> f64 {
        let (pod, template) = split(series);
        match template.kind {
            Kind::Counter { per_second } => {
                let rate = 1 + self.hash(series, 10) % per_second;
                self.count_at(series, rate, t) as f64
            }
            Kind::Gauge { mean, step } => {
                let own = self.hash(series, 11);
                // A triangle wave of 30 to 60 minutes and half the mean in height, with noise of
                // 1/32 of the mean, in steps of `step`.
                let period = 1_800_000 + own % 1_800_000;
                let phase = (t.rem_euclid(period as i64) as u64 + (own >> 32)) % period;
                let wave = phase.min(period - phase) * mean / period;
                let noise = self.hash(series ^ (t as u64).rotate_left(20), 12) % (mean / 32).max(1);
                let steps = mean / 2 + own % (mean / 2).max(1) + wave + noise;
                steps as f64 * step
            }
            Kind::Constant { value } => value * (1 + self.hash(series, 13) % 4) as f64,
            Kind::Info => 1.0,
            Kind::Bucket { histogram, bucket } => {
                let observations = self.observations_at(pod, histogram, t);
                // Rounding down keeps the order of the buckets and of time.
                (observations * BUCKET_SHARES[bucket] / 1000) as f64
            }
            Kind::Count { histogram } => self.observations_at(pod, histogram, t) as f64,
            Kind::Sum { histogram } => self.observations_at(pod, histogram, t) as f64 * 0.037_5,
        }
    }

    /// How many observations a pod's histogram has made by `t`.
    fn observations_at(&self, pod: u64, histogram: u64, t: i64) -> u64 {
        let id = (pod << 1 | histogram) ^ 0x5EED << 40;
        let rate = 1 + self.hash(id, 14) % 200;
        self.count_at(id, rate, t)
    }

    /// A count that grows by about `rate` a second, unevenly, from a start of its own.
    fn count_at(&self, id: u64, rate: u64, t: i64) -> u64 {
        let seconds = t.div_euclid(1000) as u64;
        let age = seconds.wrapping_add(self.hash(id, 15) % COUNTER_LIFE_SECONDS) % COUNTER_LIFE_SECONDS;
        // Less than a second's growth, so that the sum never falls.
        age * rate + self.hash(id ^ seconds.rotate_left(24), 16) % rate
    }

    fn hash(&self, id: u64, purpose: u64) -> u64 {
        mix(mix(self.seed ^ purpose << 56) ^ id)
    }
}

fn split(series: u64) -> (u64, &'static template::Template) {
    (series / POD_SERIES_COUNT, &TEMPLATES[(series % POD_SERIES_COUNT) as usize])
}

fn pick<T>(list: &[T], hash: u64) -> &T {
    &list[(hash % list.len() as u64) as usize]
}

/// The number of a pod in letters, scrambled so that neighbours do not look alike.
fn pod_suffix(pod: u64) -> String {
    let base = POD_LETTERS.len() as u64;
    let count = base.pow(POD_SUFFIX_LEN);
    // 27^5 has the one prime factor 3, which does not divide the factor: a permutation.
    let mut rest = pod % count * 7_368_787 % count;
    (0..POD_SUFFIX_LEN)
        .map(|_| {
            let letter = POD_LETTERS[(rest % base) as usize];
            rest /= base;
            char::from(letter)
        })
        .collect()
}

/// The finalizer of SplitMix64: a permutation of all 64-bit numbers that looks random.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

#[cfg(test)]
mod tests;
