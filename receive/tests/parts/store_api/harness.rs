//! The real server on a loopback port, and short ways to ask it.

use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use weir::{
    grpc::{GrpcConfig, GrpcServices, ServeEnd, serve},
    store_api::{InfoApi, StoreApi, StoreLimits, TenantSource},
};
use weir_proto::thanos::{
    self as pb, label_matcher::Type, series_response::Result as Frame, store_client::StoreClient,
};

use crate::store_api::memory::MemorySource;

/// A running server; it stops when this is dropped.
pub struct Server {
    pub channel: Channel,
    pub address: std::net::SocketAddr,
    pub shutdown: CancellationToken,
    pub end: JoinHandle<ServeEnd>,
    _stop: DropGuard,
}

/// The recorder of this process, which all tests share.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}

/// Value of the metric whose line starts with `name_and_labels`; 0 if there is none.
pub fn metric(name_and_labels: &str) -> f64 {
    let text = metrics().render();
    let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

pub async fn start(source: &Arc<MemorySource>) -> Server {
    start_with(source, StoreLimits::default(), GrpcConfig::default()).await
}

pub async fn start_with(source: &Arc<MemorySource>, limits: StoreLimits, config: GrpcConfig) -> Server {
    metrics();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let ready = Arc::clone(source);
    let services = GrpcServices::new(move || ready.ready())
        .add_store(StoreApi::new(source.clone(), limits), InfoApi::new(source.clone()));
    let end = tokio::spawn(serve(listener, services, shutdown.clone(), config));
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
    Server { channel, address, shutdown: shutdown.clone(), end, _stop: shutdown.drop_guard() }
}

impl Server {
    pub fn store(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// All frames of a Series call.
    pub async fn frames(&self, request: pb::SeriesRequest) -> Result<Vec<Frame>, Status> {
        let mut stream = self.store().series(request).await?.into_inner();
        let mut frames = Vec::new();
        while let Some(response) = stream.message().await? {
            frames.push(response.result.expect("a frame is not empty"));
        }
        Ok(frames)
    }

    /// All series of a Series call, pieces not joined, and all warnings.
    pub async fn series(&self, request: pb::SeriesRequest) -> Result<(Vec<pb::Series>, Vec<String>), Status> {
        let mut series = Vec::new();
        let mut warnings = Vec::new();
        for frame in self.frames(request).await? {
            match frame {
                Frame::Series(one) => series.push(one),
                Frame::Batch(batch) => series.extend(batch.series),
                Frame::Warning(text) => warnings.push(text),
                Frame::Hints(_) => panic!("no hints were asked for"),
            }
        }
        Ok((series, warnings))
    }
}

pub fn matcher(kind: Type, name: &str, value: &str) -> pb::LabelMatcher {
    pb::LabelMatcher { r#type: kind.into(), name: name.to_owned(), value: value.to_owned() }
}

/// A request over all times. Matchers are given as `name=value`, with `!=`, `=~` and `!~`.
pub fn request(matchers: &[&str]) -> pb::SeriesRequest {
    pb::SeriesRequest {
        min_time: i64::MIN,
        max_time: i64::MAX,
        matchers: parse_matchers(matchers),
        ..Default::default()
    }
}

pub fn parse_matchers(matchers: &[&str]) -> Vec<pb::LabelMatcher> {
    let parse = |text: &&str| {
        for (operator, kind) in [("!=", Type::Neq), ("=~", Type::Re), ("!~", Type::Nre), ("=", Type::Eq)] {
            if let Some((name, value)) = text.split_once(operator) {
                return matcher(kind, name, value);
            }
        }
        panic!("{text} is not a matcher");
    };
    matchers.iter().map(parse).collect()
}

/// Labels as text: `a=1,b=2`.
pub fn text(labels: &[pb::Label]) -> String {
    let pairs: Vec<String> = labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
    pairs.join(",")
}
