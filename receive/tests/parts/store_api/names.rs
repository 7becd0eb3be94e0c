//! `thanos.Store/LabelNames` and `LabelValues`.

use tonic::Code;
use weir_proto::thanos as pb;

use crate::store_api::{
    harness::{Server, parse_matchers, start},
    memory::{MemoryDb, MemorySource, chunk, series, tenant},
};

async fn server() -> Server {
    let stored = |labels| series(labels, vec![chunk(10, 20, 1)]);
    let a = MemoryDb::new(vec![
        stored(&[("__name__", "up"), ("job", "x"), ("zone", "hidden")]),
        stored(&[("__name__", "down"), ("pod", "p")]),
    ]);
    let b = MemoryDb::new(vec![stored(&[("__name__", "up"), ("job", "y"), ("zone", "west")])]);
    let source = MemorySource::new(vec![
        tenant("a", &[("zone", "east")], a),
        tenant("b", &[], b),
        tenant("empty", &[("only", "here")], MemoryDb::default()),
    ]);
    start(&source).await
}

fn names_request(matchers: &[&str]) -> pb::LabelNamesRequest {
    pb::LabelNamesRequest {
        start: i64::MIN,
        end: i64::MAX,
        matchers: parse_matchers(matchers),
        ..Default::default()
    }
}

fn values_request(label: &str, matchers: &[&str]) -> pb::LabelValuesRequest {
    pb::LabelValuesRequest {
        label: label.to_owned(),
        start: i64::MIN,
        end: i64::MAX,
        matchers: parse_matchers(matchers),
        ..Default::default()
    }
}

#[tokio::test]
async fn label_names() {
    let server = server().await;
    let check = async |request: pb::LabelNamesRequest, want: &[&str]| {
        let answer = server.store().label_names(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.names, want, "{request:?}");
        assert_eq!(answer.warnings, [""; 0]);
    };
    let all = ["__name__", "job", "pod", "tenant_id", "zone"];
    check(names_request(&[]), &all).await;
    check(names_request(&["__name__=down"]), &["__name__", "pod", "tenant_id", "zone"]).await;
    check(names_request(&["tenant_id=b"]), &["__name__", "job", "tenant_id", "zone"]).await;
    // Nothing matches, so external names are not told either.
    check(names_request(&["__name__=none"]), &[]).await;
    check(names_request(&["tenant_id=none"]), &[]).await;
    check(names_request(&["tenant_id=empty"]), &[]).await;

    let without = vec!["tenant_id".to_owned(), "job".to_owned()];
    check(
        pb::LabelNamesRequest { without_replica_labels: without, ..names_request(&[]) },
        &["__name__", "pod", "zone"],
    )
    .await;
    check(pb::LabelNamesRequest { limit: 2, ..names_request(&[]) }, &all[..2]).await;
    check(pb::LabelNamesRequest { limit: 9, ..names_request(&[]) }, &all).await;
    check(pb::LabelNamesRequest { end: 9, ..names_request(&[]) }, &[]).await;
    check(pb::LabelNamesRequest { end: 10, ..names_request(&[]) }, &all).await;
    check(pb::LabelNamesRequest { start: 15, end: 14, ..names_request(&[]) }, &[]).await;
}

#[tokio::test]
async fn label_values() {
    let server = server().await;
    let check = async |request: pb::LabelValuesRequest, want: &[&str]| {
        let answer = server.store().label_values(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.values, want, "{request:?}");
        assert_eq!(answer.warnings, [""; 0]);
    };
    check(values_request("job", &[]), &["x", "y"]).await;
    check(values_request("job", &["tenant_id=a"]), &["x"]).await;
    check(values_request("job", &["__name__=down"]), &[]).await;
    check(values_request("absent", &[]), &[]).await;
    check(values_request("tenant_id", &[]), &["a", "b", "empty"]).await;
    check(values_request("tenant_id", &["__name__=up"]), &["a", "b"]).await;
    check(values_request("tenant_id", &["__name__=down"]), &["a"]).await;
    check(values_request("tenant_id", &["tenant_id!=a"]), &["b", "empty"]).await;
    // The external value hides the stored one.
    check(values_request("zone", &[]), &["east", "west"]).await;
    check(values_request("zone", &["zone=hidden"]), &[]).await;
    check(values_request("zone", &["job=~x|y"]), &["east", "west"]).await;

    let without = vec!["tenant_id".to_owned()];
    check(
        pb::LabelValuesRequest {
            without_replica_labels: without.clone(),
            ..values_request("tenant_id", &["job=x"])
        },
        &[],
    )
    .await;
    check(
        pb::LabelValuesRequest { without_replica_labels: without, ..values_request("job", &[]) },
        &["x", "y"],
    )
    .await;
    check(pb::LabelValuesRequest { limit: 1, ..values_request("job", &[]) }, &["x"]).await;
    check(pb::LabelValuesRequest { start: 21, ..values_request("job", &[]) }, &[]).await;
    check(pb::LabelValuesRequest { start: 15, end: 14, ..values_request("tenant_id", &[]) }, &[]).await;

    let status = server.store().label_values(values_request("", &[])).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "label: must not be empty"));
}

#[tokio::test]
async fn a_failing_tenant_is_a_warning_or_the_end() {
    let good = MemoryDb::new(vec![series(&[("a", "1")], vec![chunk(10, 20, 1)])]);
    let broken = MemoryDb { broken: true, ..MemoryDb::default() };
    let source = MemorySource::new(vec![tenant("bad", &[], broken), tenant("good", &[], good)]);
    let server = start(&source).await;
    let want = "tenant bad: index is damaged at offset 7: no such thing";

    let names = server.store().label_names(names_request(&[])).await.unwrap().into_inner();
    assert_eq!(names.names, ["a", "tenant_id"]);
    assert_eq!(names.warnings, [want]);
    let values = server.store().label_values(values_request("a", &[])).await.unwrap().into_inner();
    assert_eq!(values.values, ["1"]);
    assert_eq!(values.warnings, [want]);

    let abort = pb::LabelNamesRequest { partial_response_strategy: 1, ..names_request(&[]) };
    let status = server.store().label_names(abort).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, want));
    let abort = pb::LabelValuesRequest { partial_response_disabled: true, ..values_request("a", &[]) };
    let status = server.store().label_values(abort).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, want));
}
