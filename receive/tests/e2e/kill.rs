//! kill -9 under load, again and again: what was acknowledged is there, and nothing else.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use weir_tsdb::{Labels, Sample};

use super::harness::{Content, NodeSite, now_ms, post, write_request};

const ROUNDS: usize = 20;
const WRITERS: usize = 4;
const SERIES_PER_WRITER: usize = 60;
const STEP_MS: i64 = 30_000;

/// The value of a series is a function of its number and time, so that a sample that was altered or
/// invented is seen.
fn value(series: usize, t: i64) -> f64 {
    (series as f64 + 1.0) * ((t / STEP_MS) as f64 * 0.37).sin()
}

fn labels(series: usize) -> Vec<(String, String)> {
    vec![
        ("__name__".to_owned(), format!("kill_test_{}", series % 7)),
        ("series".to_owned(), series.to_string()),
    ]
}

/// The request of `writer` for time `t`.
fn request(writer: usize, t: i64) -> bytes::Bytes {
    let series = writer * SERIES_PER_WRITER..(writer + 1) * SERIES_PER_WRITER;
    let labels: Vec<_> = series.clone().map(labels).collect();
    let labels: Vec<Vec<(&str, &str)>> = labels
        .iter()
        .map(|labels| labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
        .collect();
    let samples: Vec<Sample> = series.map(|series| Sample::new(t, value(series, t))).collect();
    write_request(
        labels.iter().zip(&samples).map(|(labels, sample)| (&labels[..], std::slice::from_ref(sample))),
    )
}

/// Small and seeded: the seed is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_samples_survive_kill_9() {
    let seed =
        std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now_ms() as u64);
    println!("seed {seed}; repeat with WEIR_TEST_SEED={seed}");
    let mut random = Random(seed);
    let temp = tempfile::tempdir().unwrap();
    // Blocks are cut all the time, so kills hit that too.
    let site = NodeSite::new(temp.path()).with_flag("--tsdb.maintenance-interval=20ms");
    let url = site.write_url();
    let first_t = (now_ms() / STEP_MS - 24 * 120) * STEP_MS;

    let mut t = first_t;
    let mut acknowledged = [first_t - STEP_MS; WRITERS];
    let mut unsure = 0;
    for round in 0..ROUNDS {
        let mut process = Some(site.start().await);
        let kill_at_step = 20 + random.below(30);
        for step in 0.. {
            let writes = (0..WRITERS).filter(|&writer| acknowledged[writer] < t).map(|writer| {
                let (url, body) = (url.clone(), request(writer, t));
                async move { (writer, post(&url, None, body).await) }
            });
            let killed = step == kill_at_step;
            let delay = Duration::from_micros(random.below(3000));
            let doomed = if killed { process.take() } else { None };
            let kill = async {
                if let Some(process) = doomed {
                    tokio::time::sleep(delay).await;
                    process.kill();
                }
            };
            let (answers, ()) = tokio::join!(join_all(writes), kill);
            for (writer, answer) in answers {
                match answer {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
                        acknowledged[writer] = t;
                    }
                    Err(error) => {
                        assert!(killed, "round {round}: a living node does not answer: {error}");
                        unsure += 1;
                    }
                }
            }
            if killed {
                break;
            }
            t += STEP_MS;
        }
    }

    let process = site.start().await;
    let content = site.read("default-tenant", i64::MIN, i64::MAX).await;
    check(&content, first_t, t, &acknowledged);
    let blocks = site.metric("prometheus_tsdb_blocks_loaded{tenant=\"default-tenant\"}").await.unwrap();
    assert!(blocks >= 2.0, "blocks were cut under way, there are {blocks}");
    println!("{} steps, {unsure} requests without an answer, {blocks} blocks", (t - first_t) / STEP_MS);
    process.stop();
}

/// Every acknowledged sample is there with its value; whatever is there was sent.
fn check(content: &Content, first_t: i64, last_t: i64, acknowledged: &[i64; WRITERS]) {
    let mut by_series: BTreeMap<usize, BTreeMap<i64, u64>> = BTreeMap::new();
    for (found, samples) in content {
        let series: usize = found.get("series").unwrap().parse().unwrap();
        let own = labels(series);
        assert_eq!(*found, Labels::from_pairs(own.iter().map(|(name, value)| (name, value))));
        for sample in samples {
            assert_eq!(sample.bits, value(series, sample.t).to_bits(), "{found} at {}", sample.t);
            assert!(first_t <= sample.t && sample.t <= last_t && (sample.t - first_t) % STEP_MS == 0);
            by_series.entry(series).or_default().insert(sample.t, sample.bits);
        }
    }
    for series in 0..WRITERS * SERIES_PER_WRITER {
        let samples = &by_series[&series];
        let mut t = first_t;
        while t <= acknowledged[series / SERIES_PER_WRITER] {
            assert!(samples.contains_key(&t), "series {series} lost its acknowledged sample at {t}");
            t += STEP_MS;
        }
    }
}
