//! Series whose samples are a function of their number and time, written to nodes and read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use weir_tsdb::{Labels, Sample};

use super::harness::{Content, NodeSite, Process, now_ms, post, wait_for, write_request};

pub const TENANT: &str = "team-a";

/// For tests that want every copy, not only enough: no node is taken for dead because the machine is busy.
pub const PATIENT: &str = "--replication.failure-timeout=30s";

/// The value of a series is a function of its number and time: a sample that was altered, invented or
/// put under another series is seen.
pub fn value(series: usize, t: i64) -> f64 {
    (series as f64 + 1.0) * ((t % 1_000_003) as f64).sqrt()
}

pub fn labels(series: usize) -> Vec<(String, String)> {
    vec![("__name__".to_owned(), format!("m{}", series % 5)), ("series".to_owned(), series.to_string())]
}

/// A request with a sample at `t` of each of `series`.
pub fn request(series: impl Iterator<Item = usize>, t: i64) -> bytes::Bytes {
    let series: Vec<usize> = series.collect();
    let labels: Vec<_> = series.iter().map(|series| labels(*series)).collect();
    let labels: Vec<Vec<(&str, &str)>> = labels
        .iter()
        .map(|labels| labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
        .collect();
    let samples: Vec<Sample> = series.iter().map(|series| Sample::new(t, value(*series, t))).collect();
    write_request(
        labels.iter().zip(&samples).map(|(labels, sample)| (&labels[..], std::slice::from_ref(sample))),
    )
}

/// Samples by series number, each checked against the function.
pub fn by_series(content: &Content) -> Times {
    let mut found = Times::new();
    for (found_labels, samples) in content {
        let series: usize = found_labels.get("series").unwrap().parse().unwrap();
        let own = labels(series);
        assert_eq!(*found_labels, Labels::from_pairs(own.iter().map(|(name, value)| (name, value))));
        for sample in samples {
            assert_eq!(sample.bits, value(series, sample.t).to_bits(), "{found_labels} at {}", sample.t);
            found.entry(series).or_default().insert(sample.t);
        }
    }
    found
}

/// Times of samples by series number.
pub type Times = BTreeMap<usize, BTreeSet<i64>>;

/// Writes a sample at `t` of each of `series`; what is answered instead of 200 is the error.
pub async fn write(site: &NodeSite, series: impl Iterator<Item = usize>, t: i64) -> Result<(), String> {
    let answer = post(&site.write_url(), Some(TENANT.as_bytes()), request(series, t)).await?;
    if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
}

/// What a node has, each sample checked.
pub async fn read(site: &NodeSite) -> Times {
    by_series(&site.read(TENANT, i64::MIN, i64::MAX).await)
}

/// A sample of `series` at `t` was acknowledged.
pub fn note(acknowledged: &mut Times, series: usize, t: i64) {
    acknowledged.entry(series).or_default().insert(t);
}

/// Panics unless each acknowledged sample is on `copies` of the nodes at least.
pub fn assert_copies(acknowledged: &Times, found: &[Times], copies: usize) {
    for (series, times) in acknowledged {
        for t in times {
            let has = |found: &&Times| found.get(series).is_some_and(|times| times.contains(t));
            let count = found.iter().filter(has).count();
            assert!(count >= copies, "series {series} at {t} has {count} copies");
        }
    }
}

/// Restarts all nodes twice, one after the other, each as soon as the one before is ready, while a client
/// writes that goes to the next node when it cannot connect, as Prometheus does. Panics at any answer but 200.
/// Returns what was acknowledged.
pub async fn restart_one_by_one(sites: &[NodeSite], processes: &mut [Option<Process>]) -> Times {
    let (restarted, mut end) = tokio::sync::watch::channel(false);
    let urls: Vec<String> = sites.iter().map(NodeSite::write_url).collect();
    let requests = Arc::new(AtomicUsize::new(0));
    let written = requests.clone();
    let writer = tokio::spawn(async move {
        let mut acknowledged = Times::new();
        let (mut t, mut node) = (now_ms() - 3_000_000, 0);
        while !*end.borrow_and_update() {
            t += 1000;
            let mut attempts = 0;
            loop {
                match post(&urls[node], Some(TENANT.as_bytes()), request(0..50, t)).await {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => panic!("at {t}: {} {}", answer.status, answer.text()),
                    Err(_) => attempts += 1,
                }
                assert!(attempts < 100, "no node takes the request at {t}");
                node = (node + 1) % urls.len();
            }
            (0..50).for_each(|series| note(&mut acknowledged, series, t));
            written.fetch_add(1, Ordering::Relaxed);
            node = (node + 1) % urls.len();
        }
        acknowledged
    });
    for _ in 0..2 {
        for (site, process) in sites.iter().zip(&mut *processes) {
            process.take().unwrap().stop();
            *process = Some(site.start().await);
            // Nothing waits for the nodes to settle, only for the client to have seen this state.
            let before = requests.load(Ordering::Relaxed);
            wait_for("requests", async || (requests.load(Ordering::Relaxed) >= before + 10).then_some(()))
                .await;
        }
    }
    restarted.send(true).unwrap();
    writer.await.unwrap()
}
