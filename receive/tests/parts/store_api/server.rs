//! Info, health, reflection, metrics, compression, shutdown.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Code, body::Body, codec::CompressionEncoding};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::{Service, ServiceExt};
use weir::{
    grpc::{GrpcConfig, ServeEnd},
    store_api::StoreLimits,
};
use weir_proto::{
    info::{self, info_client::InfoClient},
    thanos as pb,
};
use weir_tsdb::query::Chunk;

use crate::store_api::{
    harness::{Server, metric, request, start, start_with, text},
    memory::{MemoryDb, MemorySource, chunk, series, tenant},
};

#[tokio::test]
async fn info() {
    let db = |mint| MemoryDb::new(vec![series(&[("a", "1")], vec![chunk(mint, mint + 5, 1)])]);
    let source = MemorySource::new(vec![tenant("x", &[("replica", "r")], db(70)), tenant("y", &[], db(50))]);
    let server = start(&source).await;
    let ask = async || {
        let answer = InfoClient::new(server.channel.clone()).info(info::InfoRequest {}).await.unwrap();
        answer.into_inner()
    };
    let answer = ask().await;
    assert_eq!(answer.component_type, "receive");
    let sets: Vec<String> = answer.label_sets.iter().map(|set| text(&set.labels)).collect();
    assert_eq!(sets, ["replica=r,tenant_id=x", "tenant_id=y"]);
    assert_eq!((answer.exemplars, answer.rules, answer.status), (None, None, None));
    let store = answer.store.unwrap();
    assert_eq!((store.min_time, store.max_time), (50, i64::MAX));
    assert!(store.supports_sharding && store.supports_without_replica_labels);
    assert!(!store.supports_projections);
    let infos: Vec<_> = store
        .tsdb_infos
        .iter()
        .map(|info| (text(&info.labels.as_ref().unwrap().labels), info.min_time, info.max_time))
        .collect();
    assert_eq!(
        infos,
        [("replica=r,tenant_id=x".to_owned(), 70, i64::MAX), ("tenant_id=y".to_owned(), 50, i64::MAX)]
    );

    // A tenant without samples must not be left out of queries, nor the node for its sake.
    source.set_tenants(vec![tenant("x", &[], db(70)), tenant("new", &[], MemoryDb::default())]);
    let store = ask().await.store.unwrap();
    assert_eq!(store.min_time, i64::MIN);
    assert_eq!(store.tsdb_infos[1].min_time, i64::MIN);
}

#[tokio::test]
async fn every_call_is_unavailable_until_ready() {
    let source = MemorySource::new(Vec::new());
    source.set_ready(false);
    let server = start(&source).await;
    let store = || server.store();
    let values = pb::LabelValuesRequest { label: "a".to_owned(), ..Default::default() };
    let codes = async || {
        [
            store().series(request(&["a=1"])).await.map_or_else(|status| status.code(), |_| Code::Ok),
            store()
                .label_names(pb::LabelNamesRequest::default())
                .await
                .map_or_else(|s| s.code(), |_| Code::Ok),
            store().label_values(values.clone()).await.map_or_else(|status| status.code(), |_| Code::Ok),
            InfoClient::new(server.channel.clone())
                .info(info::InfoRequest {})
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok),
        ]
    };
    assert_eq!(codes().await, [Code::Unavailable; 4]);
    source.set_ready(true);
    assert_eq!(codes().await, [Code::Ok; 4]);
}

#[tokio::test]
async fn health_follows_readiness() {
    let source = MemorySource::new(Vec::new());
    let server = start(&source).await;
    let mut client = HealthClient::new(server.channel.clone());
    let named = |name: &str| HealthCheckRequest { service: name.to_owned() };
    for name in ["", "thanos.Store", "thanos.info.Info"] {
        for (ready, want) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
            source.set_ready(ready);
            let status = client.check(named(name)).await.unwrap().into_inner().status();
            assert_eq!(status, want, "{name:?}");
        }
    }
    assert_eq!(client.check(named("none")).await.unwrap_err().code(), Code::NotFound);

    let mut watch = client.watch(named("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    source.set_ready(true);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    assert_eq!(server.end.await.unwrap(), ServeEnd::Drained);
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let server = start(&MemorySource::new(Vec::new())).await;
    let want = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "thanos.Store",
        "thanos.info.Info",
    ];
    macro_rules! list {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = async |message| {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
                let mut client = ServerReflectionClient::new(server.channel.clone());
                let requests = tokio_stream::iter([request]);
                let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
                answers.message().await.unwrap().unwrap().message_response.unwrap()
            };
            let MessageResponse::ListServicesResponse(list) =
                ask(MessageRequest::ListServices("*".into())).await
            else {
                panic!("not a list");
            };
            let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
            names.sort_unstable();
            assert_eq!(names, want);
            let symbol = MessageRequest::FileContainingSymbol("thanos.Store.Series".into());
            assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));
        }};
    }
    list!(v1);
    list!(v1alpha);
}

#[tokio::test]
async fn compressed_requests() {
    let source = MemorySource::new(vec![tenant(
        "t",
        &[],
        MemoryDb::new(vec![series(&[("a", "1")], vec![chunk(0, 9, 1)])]),
    )]);
    let server = start(&source).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = server.store().send_compressed(encoding);
        let mut stream = client.series(request(&["a=1"])).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
    }
    let (code, message) = raw_call(&server, "/thanos.Store/Series", "snappy").await;
    assert_eq!(code, Code::Unimplemented);
    assert!(message.contains("snappy"), "{message}");
}

/// Makes a call by hand, with a message that says to be compressed. Returns status and message.
async fn raw_call(server: &Server, path: &str, encoding: &'static str) -> (Code, String) {
    let mut request = Request::post(format!("http://{}{path}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::from(vec![1, 0, 0, 0, 1, 0]).map_err(|never| match never {})))
        .unwrap();
    request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
    let mut channel = server.channel.clone();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).expect("the call failed at once");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn calls_are_counted() {
    let source = MemorySource::new(Vec::new());
    let server = start(&source).await;
    // LabelValues is called with these outcomes by this test alone: the recorder is shared.
    let labels = r#"grpc_type="unary",grpc_service="thanos.info.Info",grpc_method="Info""#;
    let counts = || {
        let handled = |code| metric(&format!("grpc_server_handled_total{{{labels},grpc_code=\"{code}\"}}"));
        (metric(&format!("grpc_server_started_total{{{labels}}}")), handled("OK"), handled("NotFound"))
    };
    let before = counts();
    InfoClient::new(server.channel.clone()).info(info::InfoRequest {}).await.unwrap();
    let after = counts();
    assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
    // Codes that never occurred are there from the start.
    let text = crate::store_api::harness::metrics().render();
    assert!(
        text.contains(&format!("grpc_server_handled_total{{{labels},grpc_code=\"NotFound\"}} 0\n")),
        "{text}"
    );
    let stream = r#"grpc_type="server_stream",grpc_service="thanos.Store",grpc_method="Series""#;
    assert!(text.contains(&format!("grpc_server_started_total{{{stream}}}")));

    // Methods we do not have share one name.
    let unknown = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="unknown",grpc_method="unknown",grpc_code="Unimplemented"}"#;
    let before = metric(unknown);
    for path in ["/thanos.Store/Nothing", "/no.such/Service", "/"] {
        assert_eq!(raw_call(&server, path, "identity").await.0, Code::Unimplemented);
    }
    assert_eq!(metric(unknown), before + 3.0);
    assert!(!crate::store_api::harness::metrics().render().contains("Nothing"));
}

/// A server with an answer too large to be buffered on the way.
async fn server_with_large_answer(config: GrpcConfig) -> Server {
    let big = Chunk { data: vec![1; 500_000], ..chunk(0, 9, 0) };
    let stored = |index: usize| series(&[("a", &format!("{index:03}"))], vec![big.clone()]);
    let db = MemoryDb::new((0..100).map(stored).collect());
    let source = MemorySource::new(vec![tenant("t", &[], db)]);
    start_with(&source, StoreLimits::default(), config).await
}

#[tokio::test]
async fn shutdown_lets_calls_finish() {
    let server = server_with_large_answer(GrpcConfig::default()).await;
    let mut stream = server.store().series(request(&["a=~.+"])).await.unwrap().into_inner();
    let mut frames = u64::from(stream.message().await.unwrap().is_some());
    server.shutdown.cancel();
    while stream.message().await.unwrap().is_some() {
        frames += 1;
    }
    assert_eq!(frames, 100);
    assert_eq!(server.end.await.unwrap(), ServeEnd::Drained);
}

#[tokio::test]
async fn shutdown_cuts_calls_after_the_grace_period() {
    let config = GrpcConfig { grace_period: Duration::from_millis(1), ..GrpcConfig::default() };
    let server = server_with_large_answer(config).await;
    let mut stream = server.store().series(request(&["a=~.+"])).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    server.shutdown.cancel();
    assert_eq!(server.end.await.unwrap(), ServeEnd::Cut(1));
    let rest = async {
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    rest.await.unwrap_err();
}

#[tokio::test]
async fn old_connections_are_asked_to_leave() {
    let source = MemorySource::new(Vec::new());
    let config = GrpcConfig { max_connection_age: Duration::from_millis(1), ..GrpcConfig::default() };
    let server = start_with(&source, StoreLimits::default(), config).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (_sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<bytes::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    // Ends only because the server says goodbye: the sender is still there.
    connection.await.unwrap();
    assert!(!server.end.is_finished());
    drop(Arc::clone(&source));
}
