//! A request of remote write from its bytes to its answer, without a network: `cargo bench -p weir`.
//!
//! Series and values are those of the load generator: 100,000 series, 2,000 samples a request.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir_chaos::{
    load::encode::{SampleEncoder, SeriesTable},
    workload::Workload,
};
use weir_proto::remote_write::WriteRequestWalker;

#[path = "../tests/common/mod.rs"]
mod common;

const SERIES: u64 = 100_000;
const SAMPLES_PER_REQUEST: u64 = 2_000;
const STEP_MS: i64 = 15_000;

/// The decoded body with a sample at `t` of request number `number`'s share of the series.
fn message(table: &SeriesTable, number: u64, t: i64) -> Vec<u8> {
    let first = number * SAMPLES_PER_REQUEST % SERIES;
    let mut body = Vec::new();
    SampleEncoder::new(t).append(table, first..first + SAMPLES_PER_REQUEST, &mut body);
    body
}

fn walk(criterion: &mut Criterion) {
    let body = message(&SeriesTable::new(Workload::new(1), 0..SERIES), 0, common::START_MS);
    let mut group = criterion.benchmark_group("message of 2,000 series");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("walk", |bencher| {
        bencher.iter(|| {
            let series = WriteRequestWalker::new(black_box(&body)).map(|series| series.expect("is sound"));
            series.map(|series| series.samples().filter(Result::is_ok).count()).sum::<usize>()
        });
    });
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    let table = SeriesTable::new(Workload::new(1), 0..SERIES);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let node = runtime.block_on(common::Node::start());
    let mut number = 0;
    let mut next = || {
        let t = common::START_MS + (number * SAMPLES_PER_REQUEST / SERIES) as i64 * STEP_MS;
        let compressed = snap::raw::Encoder::new().compress_vec(&message(&table, number, t));
        number += 1;
        common::request(compressed.expect("fits"))
    };
    for _ in 0..2 * SERIES / SAMPLES_PER_REQUEST {
        assert!(runtime.block_on(node.call(next())).status.is_success());
    }
    let mut group = criterion.benchmark_group("request of 2,000 samples");
    group.throughput(Throughput::Elements(SAMPLES_PER_REQUEST));
    group.bench_function("to the answer, all series known", |bencher| {
        bencher.iter_batched(
            &mut next,
            |request| assert!(runtime.block_on(node.call(request)).status.is_success()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, walk, requests);
criterion_main!(benches);
