//! A whole directory with one bit flipped, or a log cut off, at many places: nothing panics, no value is
//! served that was not stored, and what is missing was told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use weir_tsdb::{
    Error, Labels, Sample,
    append::AppendBatch,
    chunkenc::decode_floats,
    db::{Db, DbOptions},
    fs::{Fs, MemFs, read_file},
    query::Query,
};

const RANGE_MS: i64 = 60_000;
const SERIES: i64 = 20;
/// A prime, so that all kinds of fields are hit.
const STRIDE: usize = 997;

type Content = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn options() -> DbOptions {
    DbOptions {
        block_range_ms: RANGE_MS,
        retention_ms: None,
        wal_segment_bytes: 32 * 1024,
        out_of_order_window_ms: RANGE_MS / 2,
        out_of_order_cap: 8,
        ..DbOptions::default()
    }
}

fn dir() -> PathBuf {
    PathBuf::from("/db")
}

fn open(fs: &MemFs) -> Result<Db, Error> {
    Db::open(Arc::new(fs.clone()), dir(), options())
}

fn labels(series: i64) -> Labels {
    Labels::from_pairs([("__name__", "damage"), ("series", &format!("{series:03}")), ("job", "sweep")])
}

/// A directory with blocks, a checkpoint, full chunks, both logs; and what is in it.
fn directory() -> (MemFs, Content) {
    let fs = MemFs::default();
    let db = open(&fs).unwrap();
    let mut content = Content::new();
    let mut send = |db: &Db, t: i64, series: &mut dyn Iterator<Item = i64>| {
        let mut batch = AppendBatch::default();
        for series in series {
            let sample = Sample::new(t, (t as f64 / 777.0).sin() + series as f64);
            batch.push_labels(labels(series));
            batch.push_sample(sample);
            content.entry(labels(series)).or_default().insert(t, sample.bits);
        }
        let ticket = db.append(&mut batch).unwrap();
        db.wait_durable(ticket).unwrap();
        assert_eq!(batch.refused(), []);
    };
    for step in 0..1500 {
        let t = 1_000_000 + step * 150;
        send(&db, t, &mut (0..SERIES));
        if step % 3 == 2 {
            // A third of the series gets a sample from ten steps ago, between two others.
            send(&db, t - 1525, &mut (0..SERIES).filter(|series| series % 3 == step / 3 % 3));
        }
        if step % 100 == 0 {
            db.compact_head().unwrap();
        }
    }
    assert!(db.stats().blocks >= 2 && db.stats().late_appended > 2000 && db.stats().checkpoints > 0);
    db.close().unwrap();
    let found = read_all(&open(&fs.clone_now()).unwrap()).unwrap();
    assert!(found == content, "the directory is read as it was written");
    (fs, content)
}

/// All that is served; an error if a part cannot be read.
fn read_all(db: &Db) -> Result<Content, Error> {
    let query = Query { mint: i64::MIN, maxt: i64::MAX, matchers: Vec::new(), series_limit: None };
    let selection = db.select(&query)?;
    let mut content = Content::new();
    for index in 0..selection.len() {
        let samples = content.entry(selection.labels(index).clone()).or_default();
        for chunk in selection.chunks(index)? {
            let decoded = decode_floats(chunk.encoding, &chunk.data).expect("what is served is whole");
            for sample in decoded {
                let sample = sample.expect("what is served is whole");
                assert_eq!(samples.insert(sample.t, sample.bits), None, "each time once");
            }
        }
    }
    content.retain(|_, samples| !samples.is_empty());
    Ok(content)
}

/// Files below `dir`, with their lengths.
fn files(fs: &MemFs, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs.read_dir(dir).unwrap() {
        let path = dir.join(entry.name);
        if entry.is_dir { found.extend(files(fs, &path)) } else { found.push(path) }
    }
    found
}

fn replace(fs: &MemFs, path: &Path, data: &[u8]) {
    let mut file = fs.create(path).unwrap();
    file.write_all(data).unwrap();
    file.sync().unwrap();
}

/// What became of a damaged directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Outcome {
    /// All is there.
    Whole,
    /// Something is missing, and a counter says that there is damage.
    Counted,
    /// It does not open, or not all can be read; the error names file and place.
    Refused,
}

/// Opens the directory and compares. Panics if a value is wrong, or if something is missing in silence.
fn judge(fs: &MemFs, wanted: &Content, what: &str) -> Outcome {
    let named = |error: &Error| match error {
        Error::Corrupt { path, .. } => assert!(path.starts_with(dir()), "{what}: {error}"),
        other => panic!("{what}: not told as damage: {other}"),
    };
    let db = match open(fs) {
        Ok(db) => db,
        Err(error) => {
            named(&error);
            return Outcome::Refused;
        }
    };
    let found = match read_all(&db) {
        Ok(found) => found,
        Err(error) => {
            named(&error);
            return Outcome::Refused;
        }
    };
    let mut missing = 0;
    for (labels, samples) in &found {
        let stored = wanted.get(labels).unwrap_or_else(|| panic!("{what}: {labels} was never stored"));
        for (t, bits) in samples {
            assert_eq!(stored.get(t), Some(bits), "{what}: {labels} at {t}");
        }
    }
    for (labels, samples) in wanted {
        missing += samples.len() - found.get(labels).map_or(0, BTreeMap::len);
    }
    if missing == 0 {
        return Outcome::Whole;
    }
    let stats = db.stats();
    let told = stats.wal_corruptions + stats.corrupt_blocks + stats.mmap_chunk_corruptions;
    assert!(told > 0, "{what}: {missing} samples are missing and nobody says so");
    Outcome::Counted
}

/// Flips bits of every file whose path contains `part`; says how often each outcome was seen.
fn sweep(part: &str, allowed: &[Outcome]) -> BTreeMap<Outcome, usize> {
    let (fs, content) = directory();
    let paths: Vec<PathBuf> =
        files(&fs, &dir()).into_iter().filter(|path| path.to_str().unwrap().contains(part)).collect();
    assert!(!paths.is_empty(), "there is {part}");
    let mut outcomes = BTreeMap::new();
    for path in paths {
        let whole = read_file(&fs, &path).unwrap();
        if whole.is_empty() {
            continue;
        }
        // Small files are hit, too, and each end of each file.
        let places = (0..whole.len()).step_by(STRIDE.min(whole.len() / 8 + 1)).chain([whole.len() - 1]);
        for at in places {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            let copy = fs.clone_now();
            replace(&copy, &path, &damaged);
            let what = format!("bit {} of byte {at} of {}", at % 8, path.display());
            let outcome = judge(&copy, &content, &what);
            assert!(allowed.contains(&outcome), "{what}: {outcome:?}");
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    outcomes
}

#[test]
fn a_bit_flipped_in_the_log() {
    let outcomes = sweep("/wal/0", &[Outcome::Whole, Outcome::Counted, Outcome::Refused]);
    assert!(outcomes[&Outcome::Refused] > 10, "{outcomes:?}");
    sweep("/wal/checkpoint", &[Outcome::Whole, Outcome::Refused]);
}

#[test]
fn a_bit_flipped_in_the_log_of_late_samples() {
    let outcomes = sweep("/wbl/", &[Outcome::Whole, Outcome::Counted, Outcome::Refused]);
    assert!(outcomes[&Outcome::Refused] > 0, "{outcomes:?}");
}

/// The logs have all of it.
#[test]
fn a_bit_flipped_in_chunks_of_the_head_loses_nothing() {
    let outcomes = sweep("/chunks_head/", &[Outcome::Whole]);
    assert!(outcomes[&Outcome::Whole] > 10, "{outcomes:?}");
}

#[test]
fn a_bit_flipped_in_a_block() {
    let refused = |outcomes: BTreeMap<Outcome, usize>| {
        outcomes.get(&Outcome::Refused).copied().unwrap_or(0)
            + outcomes.get(&Outcome::Counted).copied().unwrap_or(0)
    };
    let all = [Outcome::Whole, Outcome::Counted, Outcome::Refused];
    assert!(refused(sweep("/index", &all)) > 10);
    assert!(refused(sweep("/chunks/0", &all)) > 10);
    sweep("/tombstones", &all);
    sweep("/meta.json", &all);
}

/// What is left of a log is a part of what was there, from the beginning on.
#[test]
fn a_log_cut_off_anywhere() {
    let (fs, content) = directory();
    for part in ["/wal/0", "/wbl/0"] {
        let mut paths = files(&fs, &dir());
        paths.retain(|path| path.to_str().unwrap().contains(part));
        let last = paths.last().expect("there is a log");
        let whole = read_file(&fs, last).unwrap();
        // The end is zeros up to the end of its page.
        let end = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut served = 0;
        for len in (0..end).step_by(1 + end / 400) {
            let copy = fs.clone_now();
            replace(&copy, last, &whole[..len]);
            let db = open(&copy).unwrap_or_else(|error| panic!("{part} cut to {len} bytes: {error}"));
            let found = read_all(&db).unwrap();
            let count = found.values().map(BTreeMap::len).sum::<usize>();
            for (labels, samples) in &found {
                let stored = &content[labels];
                assert!(samples.iter().all(|(t, bits)| stored.get(t) == Some(bits)), "{part} cut to {len}");
            }
            assert!(count >= served, "{part}: {count} samples of {len} bytes, {served} of fewer");
            served = count;
        }
        assert!(served > 0);
    }
}
