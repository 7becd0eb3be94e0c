//! Appending to chunks and heads, and replaying a log: `cargo bench -p weir-tsdb`.

use std::{hint::black_box, path::Path, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir_tsdb::{
    Labels, Sample,
    append::{AppendBatch, SeriesHandle},
    chunkenc::{XorIter, encode_xor},
    db::{Db, DbOptions},
    fs::StdFs,
};

const SERIES: usize = 100_000;
const SAMPLES_PER_BATCH: usize = 2_000;
const START_MS: i64 = 1_700_000_000_000;
const STEP_MS: i64 = 15_000;

/// A counter of which each series has its own speed, scraped with some jitter.
fn sample(series: usize, step: i64) -> Sample {
    let jitter = (step * 7 + series as i64) % 3;
    Sample::new(START_MS + step * STEP_MS + jitter, (step * (series as i64 % 17)) as f64)
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "http_requests_total"),
        ("instance", &format!("10.0.{}.{}:9100", series / 250 % 250, series % 250)),
        ("job", "node"),
        ("series", &series.to_string()),
    ])
}

fn open(dir: &Path) -> Db {
    Db::open(Arc::new(StdFs), dir.to_owned(), DbOptions::default()).expect("the directory is ours")
}

/// Appends one sample of all series, in batches. `handles` is empty at first, and filled.
fn append_step(db: &Db, handles: &mut Vec<SeriesHandle>, batch: &mut AppendBatch, step: i64) {
    let known = !handles.is_empty();
    for first in (0..SERIES).step_by(SAMPLES_PER_BATCH) {
        fill(batch, handles, first, step);
        let _ticket = db.append(batch).expect("the disk has room");
        assert!(batch.refused().is_empty() && batch.outdated().is_empty());
        if !known {
            handles.extend((0..SAMPLES_PER_BATCH).filter_map(|index| batch.handle(index)));
        }
    }
}

fn fill(batch: &mut AppendBatch, handles: &[SeriesHandle], first: usize, step: i64) {
    batch.clear();
    for series in first..first + SAMPLES_PER_BATCH {
        match handles.get(series) {
            Some(handle) => batch.push_known(*handle),
            None => batch.push_labels(labels(series)),
        }
        batch.push_sample(sample(series, step));
    }
}

fn chunks(criterion: &mut Criterion) {
    let samples: Vec<Sample> = (0..120).map(|step| sample(5, step)).collect();
    let mut group = criterion.benchmark_group("chunk of 120 samples");
    group.throughput(Throughput::Elements(120));
    let mut data = Vec::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encode_xor(black_box(&samples).iter().copied(), &mut data));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| XorIter::new(black_box(&data)).expect("is whole").filter(Result::is_ok).count());
    });
    group.finish();
}

fn appends(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path());
    let (mut handles, mut batch, mut step) = (Vec::new(), AppendBatch::default(), 0);
    append_step(&db, &mut handles, &mut batch, step);
    let mut group = criterion.benchmark_group("head of 100,000 series");
    group.throughput(Throughput::Elements(SERIES as u64)).sample_size(20);
    group.bench_function("append one sample of each", |bencher| {
        bencher.iter(|| {
            step += 1;
            append_step(&db, &mut handles, &mut batch, step);
        });
    });
    group.finish();
}

fn replay(criterion: &mut Criterion) {
    const STEPS: i64 = 20;
    let mut group = criterion.benchmark_group("log of 2,000,000 samples");
    group.throughput(Throughput::Elements(SERIES as u64 * STEPS as u64)).sample_size(10);
    group.bench_function("replay", |bencher| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut handles, mut batch) = (Vec::new(), AppendBatch::default());
        let db = open(dir.path());
        (0..STEPS).for_each(|step| append_step(&db, &mut handles, &mut batch, step));
        db.close().expect("the disk has room");
        bencher.iter_batched(|| (), |()| open(dir.path()), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, chunks, appends, replay);
criterion_main!(benches);
