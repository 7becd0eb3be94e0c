//! Logs that Prometheus and Thanos Receive wrote.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::*;
use crate::{
    fs::StdFs,
    labels::Labels,
    record::{
        MmapMarkersIter, RecordType, SamplesIter, SamplesV2Iter, SeriesIter, TombstonesIter, record_type,
    },
    types::{Sample, SeriesRef},
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn read_dir(dir: &Path) -> Reading {
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let segments = list_segments(fs.as_ref(), dir).unwrap();
    assert!(!segments.is_empty(), "{}", dir.display());
    read_segments(&fs, dir, segments)
}

/// Names as layout.json has them.
fn count_by_type(records: &[Vec<u8>]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let name = record.first().map_or("empty".to_owned(), u8::to_string);
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn check_decodes(record: &[u8]) {
    match record_type(record) {
        RecordType::Series => assert!(SeriesIter::new(record).all(|series| series.is_ok())),
        RecordType::Samples => assert!(SamplesIter::new(record).unwrap().all(|sample| sample.is_ok())),
        RecordType::SamplesV2 => assert!(SamplesV2Iter::new(record).all(|sample| sample.is_ok())),
        RecordType::Tombstones => assert!(TombstonesIter::new(record).all(|tombstone| tombstone.is_ok())),
        RecordType::MmapMarkers => assert!(MmapMarkersIter::new(record).all(|marker| marker.is_ok())),
        _ => {}
    }
}

#[test]
fn record_counts_match_the_layout() {
    let mut logs_seen = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let case = entry.unwrap().path();
        if !case.is_dir() {
            continue;
        }
        let layout = json(&case.join("layout.json"));
        let Some(logs) = layout["logs"].as_object() else { continue };
        for (name, expected) in logs {
            let reading = read_dir(&case.join("data").join(name));
            let what = format!("{} {name}", case.display());
            let counts = serde_json::to_value(count_by_type(&reading.records)).unwrap();
            assert_eq!(counts, expected["by_type"], "{what}");
            assert_eq!(reading.records.len() as u64, expected["records"], "{what}");
            assert_eq!(reading.damage.is_some(), expected.get("error").is_some(), "{what}");
            reading.records.iter().for_each(|record| check_decodes(record));
            logs_seen += 1;
        }
    }
    assert!(logs_seen >= 36, "{logs_seen}");
}

#[test]
fn damage_is_found_where_it_was_made() {
    let check = |case: &str, offset, records| {
        let reading = read_dir(&golden().join(case).join("data/wal"));
        let damage = Some(Damage::TornTail { segment: SegmentIndex(0), offset });
        assert_eq!((reading.damage, reading.records.len()), (damage, records), "{case}");
    };
    check("wal-bad-crc", 3504, 31);
    check("float-wal-torn-tail", 3502, 31);
}

type Series = BTreeMap<Labels, Vec<Sample>>;

/// Float samples of the records as they stand, without the rules of a replay.
fn plain_samples(records: &[Vec<u8>]) -> Series {
    let mut labels: BTreeMap<SeriesRef, Labels> = BTreeMap::new();
    let mut series = Series::new();
    for record in records {
        let samples: Vec<_> = match record_type(record) {
            RecordType::Series => {
                for entry in SeriesIter::new(record).map(Result::unwrap) {
                    let own = Labels::from_sorted(entry.labels.clone()).expect("labels are sorted");
                    labels.insert(entry.series, own);
                }
                continue;
            }
            RecordType::Samples => SamplesIter::new(record).unwrap().collect(),
            RecordType::SamplesV2 => SamplesV2Iter::new(record).collect(),
            _ => continue,
        };
        for (id, sample) in samples.into_iter().map(Result::unwrap) {
            series.entry(labels[&id].clone()).or_default().push(sample);
        }
    }
    series
}

fn expected_samples(case: &Path) -> Series {
    let text = std::fs::read_to_string(case.join("expected.jsonl")).unwrap();
    let parse = |line: &str| -> Option<(Labels, Vec<Sample>)> {
        let series: Value = serde_json::from_str(line).unwrap();
        if series["type"] != "float" {
            return None;
        }
        let labels = series["labels"].as_object().unwrap();
        let labels = Labels::from_pairs(labels.iter().map(|(name, value)| (name, value.as_str().unwrap())));
        let sample = |sample: &Value| Sample {
            t: sample[0].as_i64().unwrap(),
            bits: u64::from_str_radix(sample[1].as_str().unwrap(), 16).unwrap(),
        };
        Some((labels, series["samples"].as_array().unwrap().iter().map(sample).collect()))
    };
    text.lines().filter_map(parse).collect()
}

#[test]
fn samples_match_what_was_written() {
    // Cases whose logs hold all samples, in order.
    let cases = [
        "exemplars",
        "float-chunks-head",
        "float-values",
        "float-wal-only",
        "float-wal-torn-tail",
        "new-record-types",
        "wal-bad-crc",
        "wal-fragments",
        "wal-mixed-compression",
        "wal-torn-page",
        "wal-uncompressed",
        "wal-zstd",
    ];
    for case in cases {
        let case = golden().join(case);
        let expected = expected_samples(&case);
        assert!(!expected.is_empty());
        let found = plain_samples(&read_dir(&case.join("data/wal")).records);
        for (labels, samples) in &expected {
            assert_eq!(found.get(labels), Some(samples), "{} {labels}", case.display());
        }
        assert_eq!(found.len(), expected.len(), "{}", case.display());
    }
}

#[test]
fn segments_after_a_checkpoint() {
    let dir = golden().join("float-checkpoint/data/wal");
    let after = list_segments_after(&StdFs, &dir, Some(SegmentIndex(10))).unwrap();
    assert_eq!(after, [11, 12, 13, 14, 15].map(SegmentIndex));
    assert!(list_segments_after(&StdFs, &dir, Some(SegmentIndex(9))).is_err());
}
