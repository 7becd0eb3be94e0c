//! Starts nodes and other programs, writes to them, reads back through StoreAPI.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use weir_proto::{
    prometheus,
    thanos::{
        LabelMatcher, SeriesRequest,
        info::{InfoRequest, info_client::InfoClient},
        label_matcher,
        series_response::Result as Frame,
        store_client::StoreClient,
    },
};
use weir_tsdb::{
    Labels, Sample,
    chunkenc::{Encoding, decode_floats},
};

/// Samples by series.
pub type Content = BTreeMap<Labels, Vec<Sample>>;

/// How long anything may take that is waited for. Nothing here depends on how fast it is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that is ended when the test ends.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap_or_else(
                |error| panic!("cannot start {name}: {error}; ./test.sh installs what is missing"),
            );
        Self { child, name: name.to_owned(), log }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends SIGTERM and waits for a good end.
    pub fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{} ended with {status}; its log: {}", self.name, self.log());
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.wait();
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "{} does not end; its log: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A port that was free a moment ago and that nobody else gets: below those from which the system takes ports
/// for connections, above those of playgrounds, and never twice in this process.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 22_500..32_500;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        let count = TAKEN.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id().wrapping_mul(97) + count) % (PORTS.end - PORTS.start);
        let port = (PORTS.start + offset) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Polls until `state` gives a value.
pub async fn wait_for<T>(what: &str, mut state: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} did not come about in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where a node listens and keeps its data; outlives the process.
#[derive(Clone)]
pub struct NodeSite {
    pub dir: PathBuf,
    pub write_port: u16,
    pub grpc_port: u16,
    pub http_port: u16,
    pub extra_flags: Vec<String>,
}

impl NodeSite {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            write_port: free_port(),
            grpc_port: free_port(),
            http_port: free_port(),
            extra_flags: Vec::new(),
        }
    }

    /// With a flag, in place of an earlier one of the same name.
    pub fn with_flag(mut self, flag: impl Into<String>) -> Self {
        let flag = flag.into();
        let name = |flag: &str| flag.split('=').next().map(str::to_owned);
        self.extra_flags.retain(|known| name(known) != name(&flag));
        self.extra_flags.push(flag);
        self
    }

    pub fn tsdb_path(&self) -> PathBuf {
        self.dir.join("tsdb")
    }

    pub fn tenant_path(&self, tenant: &str) -> PathBuf {
        self.tsdb_path().join(tenant)
    }

    pub fn write_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/receive", self.write_port)
    }

    /// The process, started but maybe not ready.
    pub fn spawn(&self) -> Process {
        fs::create_dir_all(&self.dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .arg("receive")
            .arg(format!("--tsdb.path={}", self.tsdb_path().display()))
            .arg(format!("--remote-write.address=127.0.0.1:{}", self.write_port))
            .arg(format!("--grpc-address=127.0.0.1:{}", self.grpc_port))
            .arg(format!("--http-address=127.0.0.1:{}", self.http_port))
            .args(&self.extra_flags);
        // A node of a cluster is told apart by its name.
        if !self.extra_flags.iter().any(|flag| flag.starts_with("--cluster.")) {
            command.arg("--label=receive_replica=\"a\"");
        }
        Process::start("weir", command, self.dir.join("weir.log"))
    }

    /// A node that is ready.
    pub async fn start(&self) -> Process {
        let mut process = self.spawn();
        self.wait_ready(&mut process).await;
        process
    }

    pub async fn wait_ready(&self, process: &mut Process) {
        wait_for("readiness of the node", async || {
            assert!(!process.has_ended(), "the node ended: {}", process.log());
            let answer = get(&format!("http://127.0.0.1:{}/-/ready", self.http_port)).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The value of a metric, given as it stands before the value in the exposition.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = get(&format!("http://127.0.0.1:{}/metrics", self.http_port)).await.unwrap().body;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line =
            text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// The value of a label that the node adds to all its series, as its Info says.
    pub async fn external_label(&self, name: &str) -> String {
        let url = format!("http://127.0.0.1:{}", self.grpc_port);
        let mut client = InfoClient::connect(url).await.unwrap();
        let info = client.info(InfoRequest {}).await.unwrap().into_inner();
        let mut labels = info.label_sets.iter().flat_map(|set| &set.labels);
        labels.find(|label| label.name == name).map(|label| label.value.clone()).unwrap()
    }

    /// All float samples of a tenant from `mint` to `maxt`, read through StoreAPI, without the
    /// labels that the node adds. Panics if a sample comes twice or out of order.
    pub async fn read(&self, tenant: &str, mint: i64, maxt: i64) -> Content {
        let url = format!("http://127.0.0.1:{}", self.grpc_port);
        let mut client = StoreClient::connect(url).await.unwrap().max_decoding_message_size(256 << 20);
        let matcher = |r#type: label_matcher::Type, name: &str, value: &str| LabelMatcher {
            r#type: r#type.into(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let request = SeriesRequest {
            min_time: mint,
            max_time: maxt,
            matchers: vec![
                matcher(label_matcher::Type::Eq, "tenant_id", tenant),
                matcher(label_matcher::Type::Re, "__name__", ".*"),
            ],
            ..SeriesRequest::default()
        };
        let mut frames = client.series(request).await.unwrap().into_inner();
        let mut content = Content::new();
        while let Some(frame) = frames.message().await.unwrap() {
            let series = match frame.result {
                Some(Frame::Series(series)) => series,
                Some(Frame::Warning(warning)) => panic!("StoreAPI warns: {warning}"),
                other => panic!("unexpected frame {other:?}"),
            };
            let labels = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
            let own = labels.filter(|(name, _)| !["tenant_id", "receive_replica", "region"].contains(name));
            let samples = content.entry(Labels::from_pairs(own)).or_default();
            for chunk in series.chunks {
                let raw = chunk.raw.unwrap();
                assert_eq!(raw.r#type, 0, "all chunks are XOR");
                for sample in decode_floats(Encoding::Xor, &raw.data).unwrap() {
                    let sample = sample.unwrap();
                    assert!(chunk.min_time <= sample.t && sample.t <= chunk.max_time);
                    let last: Option<&Sample> = samples.last();
                    assert!(last.is_none_or(|last| last.t < sample.t), "samples ascend, each time once");
                    samples.push(sample);
                }
            }
        }
        for samples in content.values_mut() {
            samples.retain(|sample| mint <= sample.t && sample.t <= maxt);
        }
        content.retain(|_, samples| !samples.is_empty());
        content
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub async fn get(url: &str) -> Result<Answer, String> {
    send(http::Request::get(url).body(Full::default()).unwrap()).await
}

pub async fn send(request: http::Request<Full<Bytes>>) -> Result<Answer, String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Posts `body` as it is to a write path.
pub async fn post(url: &str, tenant: Option<&[u8]>, body: impl Into<Bytes>) -> Result<Answer, String> {
    let tenant = tenant.map(|tenant| ("thanos-tenant", http::HeaderValue::from_bytes(tenant).unwrap()));
    post_with(url, tenant.as_slice(), body).await
}

/// Posts `body` as it is to a write path, with headers beside those that every request has.
pub async fn post_with<V: Clone + TryInto<http::HeaderValue, Error: Into<http::Error>>>(
    url: &str,
    headers: &[(&str, V)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let mut request = http::Request::post(url)
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0");
    for (name, value) in headers {
        request = request.header(*name, value.clone());
    }
    send(request.body(Full::new(body.into())).unwrap()).await
}

/// A remote write 1.0 body, compressed. Samples are encoded by hand: the library leaves out a value
/// that equals zero, and -0.0 does.
pub fn write_request<'a>(
    series: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], &'a [Sample])>,
) -> Bytes {
    let mut body = Vec::new();
    for (labels, samples) in series {
        let mut message = Vec::new();
        for &(name, value) in labels {
            let label = prometheus::Label { name: name.to_owned(), value: value.to_owned() };
            put_field(&mut message, 1, &label.encode_to_vec());
        }
        for sample in samples {
            let mut field = vec![0x09];
            field.extend(sample.bits.to_le_bytes());
            field.push(0x10);
            prost::encoding::encode_varint(sample.t as u64, &mut field);
            put_field(&mut message, 2, &field);
        }
        put_field(&mut body, 1, &message);
    }
    compress(&body)
}

/// Appends a field of bytes.
fn put_field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    prost::encoding::encode_varint(bytes.len() as u64, message);
    message.extend_from_slice(bytes);
}

pub fn compress(body: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(body).unwrap().into()
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Compares, and tells the first difference instead of printing everything.
pub fn assert_same(found: &Content, wanted: &Content, what: &str) {
    if let Some(difference) = difference(found, wanted) {
        panic!("{what}: {difference}");
    }
}

/// The first difference.
pub fn difference(found: &Content, wanted: &Content) -> Option<String> {
    for (labels, samples) in wanted {
        let Some(found) = found.get(labels) else { return Some(format!("{labels} is missing")) };
        let first = samples.iter().zip(found).position(|(wanted, found)| wanted != found);
        if found != samples {
            return Some(format!(
                "{labels} has {} samples instead of {}, first difference {:?}",
                found.len(),
                samples.len(),
                first.map(|index| (found[index], samples[index])),
            ));
        }
    }
    let invented = found.keys().find(|labels| !wanted.contains_key(*labels));
    invented.map(|labels| format!("{labels} was never sent"))
}
