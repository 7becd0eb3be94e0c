//! `thanos.Store/Series`.

use std::sync::{Arc, atomic::Ordering};

use prost::Message;
use tonic::Code;
use weir::{
    grpc::GrpcConfig,
    store_api::{FRAME_BYTES, StoreLimits},
};
use weir_proto::thanos::{self as pb, series_response::Result as Frame};
use weir_tsdb::{chunkenc::Encoding, query::Chunk};

use crate::store_api::{
    harness::{Server, metric, request, start, start_with, text},
    memory::{MemoryDb, MemorySource, chunk, series, tenant},
};

fn one_chunk(labels: &[(&str, &str)]) -> crate::store_api::memory::Series {
    series(labels, vec![chunk(10, 20, 3)])
}

async fn label_sets(server: &Server, request: pb::SeriesRequest) -> Vec<String> {
    let (series, warnings) = server.series(request).await.unwrap();
    assert_eq!(warnings, [""; 0]);
    series.iter().map(|series| text(&series.labels)).collect()
}

#[tokio::test]
async fn matchers_on_external_labels() {
    let source = MemorySource::new(vec![
        tenant("a", &[("zone", "east")], MemoryDb::new(vec![one_chunk(&[("job", "x"), ("zone", "hidden")])])),
        tenant("b", &[], MemoryDb::new(vec![one_chunk(&[("job", "x"), ("zone", "west")])])),
    ]);
    let server = start(&source).await;
    let a = "job=x,tenant_id=a,zone=east";
    let b = "job=x,tenant_id=b,zone=west";
    let table: &[(&[&str], &[&str])] = &[
        (&["job=x"], &[a, b]),
        (&["job=x", "tenant_id=a"], &[a]),
        (&["job=x", "tenant_id!=a"], &[b]),
        (&["job=x", "tenant_id=~a|b"], &[a, b]),
        (&["job=x", "tenant_id=~a|c"], &[a]),
        (&["job=x", "tenant_id!~a|c"], &[b]),
        (&["job=x", "tenant_id=c"], &[]),
        (&["tenant_id=c"], &[]),
        // External in one tenant, stored in the other.
        (&["job=x", "zone=east"], &[a]),
        (&["job=x", "zone=west"], &[b]),
        (&["job=x", "zone=hidden"], &[]),
        (&["job=x", "zone=~.+"], &[a, b]),
        // A matcher of the empty value selects series without the label.
        (&["job=x", "absent="], &[a, b]),
        (&["absent="], &[a, b]),
        (&["absent!="], &[]),
    ];
    for (matchers, want) in table {
        assert_eq!(label_sets(&server, request(matchers)).await, *want, "{matchers:?}");
    }
    for matchers in [&[][..], &["tenant_id=a"], &["tenant_id=~a|b"], &["tenant_id!=c"], &["zone=east"]] {
        let status = server.series(request(matchers)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{matchers:?}");
        assert!(status.message().starts_with("matchers: "), "{}", status.message());
    }
}

#[tokio::test]
async fn refuses_bad_fields_by_name() {
    let server = start(&MemorySource::new(Vec::new())).await;
    let refused = async |change: &dyn Fn(&mut pb::SeriesRequest)| {
        let mut request = request(&["a=b"]);
        change(&mut request);
        let status = server.series(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().split(':').next().unwrap().to_owned()
    };
    assert_eq!(refused(&|request| request.matchers[0].r#type = 9).await, "matchers[0].type");
    let regex = crate::store_api::harness::parse_matchers(&["a=b", "c=~("]);
    assert_eq!(refused(&|request| request.matchers = regex.clone()).await, "matchers[1].value");
    assert_eq!(refused(&|request| request.limit = -3).await, "limit");
}

#[tokio::test]
async fn sorts_after_adding_and_removing_labels() {
    let stored = || {
        vec![
            one_chunk(&[("a", "1")]),
            one_chunk(&[("a", "1"), ("b", "2")]),
            one_chunk(&[("a", "1"), ("b", "2"), ("z", "1")]),
            one_chunk(&[("a", "1"), ("b", "2"), ("z", "2")]),
            one_chunk(&[("a", "1"), ("d", "1")]),
        ]
    };
    let source = MemorySource::new(vec![tenant("t", &[("c", "x")], MemoryDb::new(stored()))]);
    let server = start(&source).await;
    assert_eq!(
        label_sets(&server, request(&["a=1"])).await,
        [
            "a=1,b=2,c=x,tenant_id=t",
            "a=1,b=2,c=x,tenant_id=t,z=1",
            "a=1,b=2,c=x,tenant_id=t,z=2",
            "a=1,c=x,d=1,tenant_id=t",
            "a=1,c=x,tenant_id=t",
        ]
    );
    // Stored and external labels are taken off alike; equal sets are neighbours.
    let without = ["z", "c", "tenant_id"].map(str::to_owned).to_vec();
    let request = pb::SeriesRequest { without_replica_labels: without, ..request(&["a=1"]) };
    assert_eq!(label_sets(&server, request).await, ["a=1", "a=1,b=2", "a=1,b=2", "a=1,b=2", "a=1,d=1"]);
}

#[tokio::test]
async fn merges_tenants() {
    let db = || MemoryDb::new(["1", "2", "3"].map(|value| one_chunk(&[("a", value)])).to_vec());
    let source = MemorySource::new(vec![
        tenant("y", &[], db()),
        tenant("x", &[], db()),
        tenant("z", &[], MemoryDb::new(Vec::new())),
    ]);
    let server = start(&source).await;
    let want = ["1", "2", "3"].map(|value| ["x", "y"].map(|tenant| format!("a={value},tenant_id={tenant}")));
    assert_eq!(label_sets(&server, request(&["a=~.+"])).await, want.concat());

    let limited = |limit| pb::SeriesRequest { limit, ..request(&["a=~.+"]) };
    assert_eq!(label_sets(&server, limited(3)).await, want.concat()[..3]);
    assert_eq!(label_sets(&server, limited(6)).await.len(), 6);
    assert_eq!(label_sets(&server, limited(0)).await.len(), 6);
    // The limit counts label sets as they are sent.
    let request = pb::SeriesRequest { without_replica_labels: vec!["tenant_id".to_owned()], ..limited(2) };
    assert_eq!(label_sets(&server, request).await, ["a=1", "a=1", "a=2", "a=2"]);
}

#[tokio::test]
async fn chunks_are_whole_and_in_range() {
    let chunks = vec![chunk(0, 9, 1), chunk(10, 19, 2), chunk(20, 29, 3)];
    let source =
        MemorySource::new(vec![tenant("t", &[], MemoryDb::new(vec![series(&[("a", "1")], chunks)]))]);
    let server = start(&source).await;
    let check = async |min_time, max_time, want: &[(i64, i64)]| {
        let request = pb::SeriesRequest { min_time, max_time, ..request(&["a=1"]) };
        let (series, _) = server.series(request.clone()).await.unwrap();
        let got =
            series.iter().flat_map(|series| &series.chunks).map(|chunk| (chunk.min_time, chunk.max_time));
        assert_eq!(got.collect::<Vec<_>>(), want, "{min_time} to {max_time}");

        let labels_only = pb::SeriesRequest { skip_chunks: true, ..request };
        let (series, _) = server.series(labels_only).await.unwrap();
        assert_eq!(series.len(), usize::from(!want.is_empty()));
        assert!(series.iter().all(|series| series.chunks.is_empty()));
    };
    check(i64::MIN, i64::MAX, &[(0, 9), (10, 19), (20, 29)]).await;
    check(9, 9, &[(0, 9)]).await;
    check(9, 10, &[(0, 9), (10, 19)]).await;
    check(30, 40, &[]).await;
    // A range that ends before it begins holds nothing.
    check(10, 9, &[]).await;
}

/// Fields that must not change the answer.
#[tokio::test]
async fn hints_are_ignored() {
    let source = MemorySource::new(vec![tenant("t", &[], MemoryDb::new(vec![one_chunk(&[("a", "1")])]))]);
    let server = start(&source).await;
    let plain = server.frames(request(&["a=1"])).await.unwrap();
    let request = pb::SeriesRequest {
        max_resolution_window: 3_600_000,
        aggregates: vec![pb::Aggr::Count.into(), 77],
        hints: Some(prost_types::Any { type_url: "x/y".to_owned(), value: vec![1] }),
        step: 5,
        range: 6,
        query_hints: Some(pb::QueryHints { step_millis: 5, ..Default::default() }),
        ..request(&["a=1"])
    };
    assert_eq!(server.frames(request).await.unwrap(), plain);
}

#[tokio::test]
async fn chunk_on_the_wire() {
    let golden = [
        0x00, 0x04, 0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0xc2, 0x5f,
        0xff, 0x20, 0xfa, 0x36, 0x05, 0x80,
    ];
    let stored = [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram].map(|encoding| Chunk {
        mint: 1_700_000_000_000,
        maxt: 1_700_000_046_000,
        encoding,
        data: golden.to_vec(),
    });
    let source = MemorySource::new(vec![tenant(
        "t",
        &[],
        MemoryDb::new(vec![series(&[("a", "1")], stored.to_vec())]),
    )]);
    let server = start(&source).await;
    let (series, _) = server.series(request(&["a=1"])).await.unwrap();
    let want: Vec<pb::AggrChunk> = [0, 1, 2]
        .map(|number| pb::AggrChunk {
            min_time: 1_700_000_000_000,
            max_time: 1_700_000_046_000,
            raw: Some(pb::Chunk {
                r#type: number,
                data: golden.to_vec().into(),
                hash: 0xe902_6f49_f2f9_9b68,
            }),
            ..Default::default()
        })
        .to_vec();
    assert_eq!(series[0].chunks, want);
}

#[tokio::test]
async fn large_series_take_several_frames() {
    let big = |mint: i64, bytes: usize| Chunk { data: vec![1; bytes], ..chunk(mint, mint, 0) };
    let chunks = |count: i64| (0..count).map(|time| big(time, 300_000)).collect::<Vec<_>>();
    let source = MemorySource::new(vec![tenant(
        "t",
        &[],
        MemoryDb::new(vec![
            series(&[("a", "1")], chunks(2)),
            series(&[("a", "2")], chunks(10)),
            series(&[("a", "3")], vec![big(0, 2 * FRAME_BYTES)]),
            series(&[("a", "4")], chunks(1)),
        ]),
    )]);
    let server = start(&source).await;
    for batch_size in [0, 64] {
        let request = pb::SeriesRequest { response_batch_size: batch_size, ..request(&["a=~.+"]) };
        let frames = server.frames(request).await.unwrap();
        let mut pieces = Vec::new();
        for frame in frames {
            let bytes = pb::SeriesResponse { result: Some(frame.clone()) }.encoded_len();
            let series = match frame {
                Frame::Series(series) => vec![series],
                Frame::Batch(batch) => batch.series,
                other => panic!("{other:?}"),
            };
            let is_one_chunk = series.len() == 1 && series[0].chunks.len() == 1;
            assert!(bytes <= FRAME_BYTES || is_one_chunk, "{bytes} bytes");
            pieces.extend(series);
        }
        let times = |value: &str| -> Vec<i64> {
            let own = pieces.iter().filter(|piece| piece.labels[0].value == value);
            own.flat_map(|piece| &piece.chunks).map(|chunk| chunk.min_time).collect()
        };
        assert_eq!(times("1"), [0, 1]);
        assert_eq!(times("2"), (0..10).collect::<Vec<_>>());
        assert_eq!(times("3"), [0]);
        assert_eq!(times("4"), [0]);
        assert!(pieces.is_sorted_by_key(|piece| piece.labels[0].value.clone()));
        assert!(pieces.len() > 4);
    }
}

#[tokio::test]
async fn limits_of_series_and_samples() {
    let db = |count: usize| {
        let value = |index: usize| format!("{index:03}");
        let stored = |index| series(&[("a", &value(index))], vec![chunk(0, 9, 100), chunk(10, 19, 20)]);
        MemoryDb::new((0..count).map(stored).collect())
    };
    let source = MemorySource::new(vec![tenant("t", &[], db(3)), tenant("u", &[], db(2))]);
    let limited = async |request_series, request_samples| {
        let limits = StoreLimits { request_series, request_samples };
        start_with(&source, limits, GrpcConfig::default()).await
    };
    let exhausted = async |server: &Server, request| {
        let status = server.series(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        status.message().to_owned()
    };
    let all = || request(&["a=~.+"]);
    let series_dropped = || metric("thanos_store_selects_dropped_total{reason=\"series\"}");
    let chunks_dropped = || metric("thanos_store_selects_dropped_total{reason=\"chunks\"}");

    let exact = limited(5, 600).await;
    assert_eq!(exact.series(all()).await.unwrap().0.len(), 5);
    let before = (series_dropped(), chunks_dropped());

    let few_series = limited(4, 600).await;
    let text = exhausted(&few_series, all()).await;
    assert_eq!(text, "the request selects more than 4 series (--store.limits.request-series)");
    // Also where the database cannot stop at the limit by itself.
    let shard = pb::ShardInfo { shard_index: 0, total_shards: 1, by: true, labels: Vec::new() };
    exhausted(&few_series, pb::SeriesRequest { shard_info: Some(shard), ..all() }).await;
    let with_limit = |limit| pb::SeriesRequest { limit, ..all() };
    exhausted(&few_series, with_limit(5)).await;
    assert_eq!(few_series.series(with_limit(4)).await.unwrap().0.len(), 4);
    assert_eq!((series_dropped(), chunks_dropped()), (before.0 + 3.0, before.1));

    let few_samples = limited(5, 599).await;
    let text = exhausted(&few_samples, all()).await;
    assert_eq!(text, "the request selects more than 599 samples (--store.limits.request-samples)");
    let labels_only = pb::SeriesRequest { skip_chunks: true, ..all() };
    assert_eq!(few_samples.series(labels_only).await.unwrap().0.len(), 5);
    assert_eq!((series_dropped(), chunks_dropped()), (before.0 + 3.0, before.1 + 1.0));
}

/// The ways a request can say that it would rather fail than miss something.
fn aborting(request: &pb::SeriesRequest) -> [pb::SeriesRequest; 2] {
    [
        pb::SeriesRequest { partial_response_disabled: true, ..request.clone() },
        pb::SeriesRequest { partial_response_strategy: 1, ..request.clone() },
    ]
}

#[tokio::test]
async fn a_failing_tenant_is_a_warning_or_the_end() {
    let good = MemoryDb::new(vec![one_chunk(&[("a", "1")])]);
    let broken = MemoryDb { broken: true, ..MemoryDb::default() };
    let source = MemorySource::new(vec![tenant("bad", &[], broken), tenant("good", &[], good)]);
    let server = start(&source).await;
    let want = "tenant bad: index is damaged at offset 7: no such thing";

    let (series, warnings) = server.series(request(&["a=1"])).await.unwrap();
    assert_eq!(series.len(), 1);
    assert_eq!(warnings, [want]);
    for request in aborting(&request(&["a=1"])) {
        let status = server.series(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Internal, want));
    }
    // A tenant that is not asked cannot fail.
    let (series, warnings) = server.series(request(&["a=1", "tenant_id=good"])).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (1, 0));
}

#[tokio::test]
async fn unreadable_series_are_a_warning_or_the_end() {
    let damaged =
        |value: &str| crate::store_api::memory::Series { damaged: true, ..one_chunk(&[("a", value)]) };
    let new = Chunk { encoding: Encoding::HistogramSt, ..chunk(10, 20, 1) };
    let stored = vec![
        one_chunk(&[("a", "1")]),
        damaged("2"),
        damaged("3"),
        series(&[("a", "4")], vec![chunk(0, 9, 1), new]),
        one_chunk(&[("a", "5")]),
    ];
    let source = MemorySource::new(vec![tenant("t", &[], MemoryDb::new(stored))]);
    let server = start(&source).await;

    let (series, warnings) = server.series(request(&["a=~.+"])).await.unwrap();
    let sets: Vec<String> = series.iter().map(|series| text(&series.labels)).collect();
    assert_eq!(sets, ["a=1,tenant_id=t", "a=5,tenant_id=t"]);
    assert_eq!(
        warnings,
        [
            r#"tenant t: {a="2"}: chunks/000001 is damaged at offset 8: bad checksum"#,
            "tenant t: 2 more series could not be read",
        ]
    );
    let (_, warnings) = server.series(request(&["a=4"])).await.unwrap();
    assert_eq!(warnings, [r#"tenant t: {a="4"}: chunk encoding HistogramSt has no number in StoreAPI"#]);
    for request in aborting(&request(&["a=~.+"])) {
        let status = server.series(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
    // Labels can be read all the same.
    let labels_only = pb::SeriesRequest { skip_chunks: true, ..request(&["a=~.+"]) };
    assert_eq!(server.series(labels_only).await.unwrap().0.len(), 5);
}

/// The client takes one frame of a large answer and goes away; the selection is dropped before all
/// was read.
#[tokio::test]
async fn a_client_that_is_gone_stops_the_work() {
    const SERIES: usize = 2000;
    let big = Chunk { data: vec![1; 200_000], ..chunk(0, 9, 0) };
    let stored = |index: usize| series(&[("a", &format!("{index:04}"))], vec![big.clone()]);
    let db = MemoryDb::new((0..SERIES).map(stored).collect());
    let (reads, dropped) = (Arc::clone(&db.reads), db.dropped.clone());
    let source = MemorySource::new(vec![tenant("t", &[], db)]);
    let server = start(&source).await;

    let canceled = || {
        metric(
            r#"grpc_server_handled_total{grpc_type="server_stream",grpc_service="thanos.Store",grpc_method="Series",grpc_code="Canceled"}"#,
        )
    };
    let canceled_before = canceled();
    let mut stream = server.store().series(request(&["a=~.+"])).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    dropped.cancelled().await;
    let reads = reads.load(Ordering::Relaxed);
    assert!((1..SERIES as u64 / 2).contains(&reads), "{reads} of {SERIES} series were read");
    assert!(canceled() >= canceled_before + 1.0);
}
