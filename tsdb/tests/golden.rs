//! Directories written by Prometheus, Thanos and promtool, read as their `expected.jsonl` says.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use weir_tsdb::{
    Labels, Sample,
    chunkenc::decode_floats,
    db::{Db, DbOptions},
    fs::StdFs,
    query::Query,
};

/// Samples by series.
type Content = BTreeMap<Labels, Vec<Sample>>;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The float samples that `expected.jsonl` promises. Series of other types are left out.
fn expected(case: &str) -> Content {
    let text = fs::read_to_string(golden_dir().join(case).join("expected.jsonl")).unwrap();
    let mut content = Content::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["type"] != "float" {
            continue;
        }
        let labels = line["labels"].as_object().unwrap().iter();
        let labels = Labels::from_pairs(labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let samples = line["samples"].as_array().unwrap().iter().map(|sample| Sample {
            t: sample[0].as_i64().unwrap(),
            bits: u64::from_str_radix(sample[1].as_str().unwrap(), 16).unwrap(),
        });
        content.insert(labels, samples.collect());
    }
    content
}

fn options() -> DbOptions {
    DbOptions { retention_ms: None, ..DbOptions::default() }
}

/// All float samples of `db`, each time once.
fn read_all(db: &Db) -> Content {
    let query = Query { mint: i64::MIN, maxt: i64::MAX, matchers: Vec::new(), series_limit: None };
    let selection = db.select(&query).unwrap();
    let mut content = Content::new();
    for index in 0..selection.len() {
        let mut samples: Vec<Sample> = Vec::new();
        for chunk in selection.chunks(index).unwrap() {
            if chunk.encoding.is_float() {
                samples.extend(decode_floats(chunk.encoding, &chunk.data).unwrap().map(Result::unwrap));
            }
        }
        samples.sort_by_key(|sample| sample.t);
        samples.dedup_by_key(|sample| sample.t);
        if !samples.is_empty() {
            content.insert(selection.labels(index).clone(), samples);
        }
    }
    content
}

fn assert_same(found: &Content, wanted: &Content, what: &str) {
    let names = |content: &Content| content.keys().map(Labels::to_string).collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted), "{what}: series");
    for (labels, samples) in wanted {
        let found = &found[labels];
        let first = samples.iter().zip(found).position(|(wanted, found)| wanted != found);
        assert!(
            found == samples,
            "{what}: {labels} has {} samples instead of {}, first difference at {first:?}: {:?} instead of {:?}",
            found.len(),
            samples.len(),
            first.map(|index| found[index]),
            first.map(|index| samples[index]),
        );
    }
}

/// Opens a copy of the case, compares, closes, opens again, compares; then cuts all blocks that can
/// be cut and compares again.
fn check(case: &str) {
    let wanted = expected(case);
    assert!(!wanted.is_empty(), "{case} has float series");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("db");
    copy_dir(&golden_dir().join(case).join("data"), &dir).unwrap();
    for opening in ["first opening", "second opening"] {
        let db = Db::open(Arc::new(StdFs), dir.clone(), options()).unwrap();
        assert_same(&float_series_of(read_all(&db), &wanted, case), &wanted, &format!("{case}, {opening}"));
        db.close().unwrap();
    }
    let db = Db::open(Arc::new(StdFs), dir.clone(), options()).unwrap();
    db.compact_head().unwrap();
    assert_same(&float_series_of(read_all(&db), &wanted, case), &wanted, &format!("{case}, blocks cut"));
    drop(db);
    let db = Db::open(Arc::new(StdFs), dir, options()).unwrap();
    assert_same(
        &float_series_of(read_all(&db), &wanted, case),
        &wanted,
        &format!("{case}, blocks cut, opened again"),
    );
}

/// In cases that hold histograms too, only series that are floats from first to last are compared.
fn float_series_of(mut found: Content, wanted: &Content, case: &str) -> Content {
    if MIXED_CASES.contains(&case) {
        found.retain(|labels, _| wanted.contains_key(labels));
    }
    found
}

const FLOAT_CASES: [&str; 25] = [
    "block-2.42",
    "block-level2",
    "chunks-head-damaged",
    "float-blocks",
    "float-checkpoint",
    "float-chunks-head",
    "float-values",
    "float-values-block",
    "float-wal-only",
    "float-wal-torn-tail",
    "leftovers",
    "metadata",
    "ooo-block",
    "ooo-floats",
    "stale-series-eviction",
    "tombstones",
    "wal-bad-crc",
    "wal-duplicate-refs",
    "wal-fragments",
    "wal-mixed-compression",
    "wal-torn-page",
    "wal-uncompressed",
    "wal-zstd",
    "new-record-types",
    "new-chunk-encodings",
];

const MIXED_CASES: [&str; 7] = [
    "exemplars",
    "hist-block",
    "new-chunk-encodings",
    "new-record-types",
    "thanos-tenant",
    "thanos-tenant-stopped",
    "wal-replay-corners",
];

#[test]
fn float_cases_are_read_as_expected() {
    for case in FLOAT_CASES {
        check(case);
    }
}

#[test]
fn float_series_beside_histograms_are_read_as_expected() {
    for case in MIXED_CASES {
        check(case);
    }
}
