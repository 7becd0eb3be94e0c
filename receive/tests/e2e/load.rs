//! Series whose samples are a function of their number and time, written to nodes and read back.

use std::collections::{BTreeMap, BTreeSet};

use weir_tsdb::{Labels, Sample};

use super::harness::{Content, NodeSite, post, write_request};

pub const TENANT: &str = "team-a";

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
