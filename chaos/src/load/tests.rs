//! Runs against a server in the same process.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use prost::Message;

use super::{encode::tests::WriteRequest, *};
use crate::workload::Workload;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// Answers with a status.
    Status(u16),
    /// Stores and closes the connection without a word.
    Hang,
}

/// Labels and tenant of a series, and its samples in the order of arrival.
type Stored = BTreeMap<(String, Vec<(String, String)>), Vec<(i64, u64)>>;

#[derive(Default)]
struct State {
    request_count: u64,
    connection_count: u64,
    stored: Stored,
    header_names: BTreeSet<String>,
}

/// A receiver that answers its n-th request as `script` says and stores what it accepts.
struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(script: fn(u64) -> Answer) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    shared.lock().unwrap().connection_count += 1;
                    let state = Arc::clone(&shared);
                    let service = service_fn(move |request| receive(Arc::clone(&state), script, request));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        Self { address, state }
    }

    fn run(&self, arguments: &str) -> Report {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let url = format!("http://{}/api/v1/receive", self.address);
        let arguments = ["load", "--url", &url].into_iter().chain(arguments.split_whitespace());
        run(Cli::parse_from(arguments).args).unwrap()
    }
}

async fn receive(
    state: Arc<Mutex<State>>,
    script: fn(u64) -> Answer,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let message = WriteRequest::decode(raw.as_slice()).unwrap();
    let mut state = state.lock().unwrap();
    let answer = script(state.request_count);
    state.request_count += 1;
    state.header_names.extend(head.headers.keys().map(|name| name.as_str().to_owned()));
    let tenant = head.headers.get("x-tenant").map_or("none", |name| name.to_str().unwrap()).to_owned();
    assert_eq!(head.uri, "/api/v1/receive");
    if matches!(answer, Answer::Hang | Answer::Status(200)) {
        for series in message.timeseries {
            let labels = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
            let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits()));
            state.stored.entry((tenant.clone(), labels)).or_default().extend(samples);
        }
    }
    match answer {
        Answer::Hang => Err(std::io::Error::other("as the script says")),
        Answer::Status(status) => {
            let body = Full::new(Bytes::from(format!("status {status}")));
            Ok(Response::builder().status(status).body(body).unwrap())
        }
    }
}

/// What must be stored after `scrape_count` full scrapes and `rest` series of one more.
fn expected(
    seed: u64,
    tenant: impl Fn(u64) -> String,
    series_count: u64,
    times: &[i64],
    rest: u64,
) -> Stored {
    let workload = Workload::new(seed);
    let mut stored = Stored::new();
    for series in 0..series_count {
        let labels = workload.series_labels(series).into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        let full = times.len() - usize::from(series >= rest);
        let samples = times[..full].iter().map(|&t| (t, workload.value_bits(series, t))).collect();
        stored.insert((tenant(series), labels), samples);
    }
    stored
}

#[test]
fn every_sample_arrives_once_in_order_and_under_its_tenant() {
    let server = Server::start(|_| Answer::Status(200));
    let report = server.run(
        "--series 1000 --tenants 3 --tenant-header X-Tenant --samples 3300 --samples-per-request 70 \
         --concurrency 4 --start 1700000000000 --interval 1000 --seed 9",
    );
    // 1000 series are cut by 4 connections at 250, 500, 750 and by 3 tenants at 333 and 666.
    let tenant = |series| {
        format!(
            "tenant-{}",
            if series < 333 {
                0
            } else if series < 666 {
                1
            } else {
                2
            }
        )
    };
    let times = [0, 1, 2, 3].map(|scrape| 1_700_000_000_000 + scrape * 1000);
    let state = server.state.lock().unwrap();
    assert_eq!(state.stored, expected(9, tenant, 1000, &times, 300));
    assert_eq!((report.samples_sent, report.samples_acked), (3300, 3300));
    assert_eq!((report.samples_dropped, report.samples_given_up, report.retries), (0, 0, 0));
    assert_eq!(report.codes, BTreeMap::from([("200".to_owned(), report.requests)]));
    assert_eq!(state.request_count, report.requests);
    // Kept alive.
    assert_eq!(state.connection_count, 4);
    assert_eq!(report.latency_since_due_ms, None);
    assert!(report.latency_ms.p50 > 0.0 && report.latency_ms.max >= report.latency_ms.p999);
    assert!((240.0..280.0).contains(&report.raw_bytes_per_sample));
    assert!(report.bytes_compressed < report.bytes_raw);
    for name in ["content-encoding", "content-type", "x-prometheus-remote-write-version", "host"] {
        assert!(state.header_names.contains(name), "{name}");
    }
}

#[test]
fn what_may_pass_is_sent_again_and_what_may_not_is_dropped() {
    let server = Server::start(|request| match request {
        1 => Answer::Status(503),
        2 => Answer::Status(429),
        4 => Answer::Hang,
        6 => Answer::Status(400),
        _ => Answer::Status(200),
    });
    let log = tempfile::NamedTempFile::new().unwrap();
    let report = server.run(&format!(
        "--series 100 --samples 500 --samples-per-request 100 --concurrency 1 --start 1000 --interval 10 \
         --tenant-header x-tenant --tenant one --ack-log {}",
        log.path().display()
    ));
    // Requests: scrape 0; 1 thrice; 2 twice; 3 refused; 4.
    let state = server.state.lock().unwrap();
    let codes = [("200", 4), ("400", 1), ("429", 1), ("503", 1), ("broken", 1)];
    assert_eq!(report.codes, codes.map(|(code, count)| (code.to_owned(), count)).into());
    assert_eq!((report.requests, report.retries), (5, 3));
    assert_eq!((report.samples_sent, report.samples_acked, report.samples_dropped), (500, 400, 100));
    assert_eq!(report.first_failures["400"], "status 400");
    // Scrape 2 was stored before its connection broke, and then once more.
    let mut stored = expected(0, |_| "one".to_owned(), 100, &[1000, 1010, 1020, 1020, 1040], 100);
    assert_eq!(state.stored.len(), 100);
    assert!(state.stored.iter().all(|(key, samples)| stored.remove(key).as_ref() == Some(samples)));
    let lines = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(lines, "one\t0\t0\t99\t1000\none\t1\t0\t99\t1010\none\t2\t0\t99\t1020\none\t4\t0\t99\t1040\n");
}

#[test]
fn a_server_that_stays_away_ends_in_given_up_samples() {
    let server = Server::start(|_| Answer::Status(500));
    let report = server.run("--series 20 --samples 40 --concurrency 1 --retries 2");
    assert_eq!((report.samples_given_up, report.samples_acked, report.retries), (40, 0, 4));
    assert_eq!(report.codes, BTreeMap::from([("500".to_owned(), 6)]));
    assert!(server.state.lock().unwrap().stored.is_empty());
}

#[test]
fn a_rate_holds_and_is_measured_from_when_requests_were_due() {
    let server = Server::start(|_| Answer::Status(200));
    let pid = std::process::id();
    let report =
        server.run(&format!("--series 100 --samples 1000 --samples-per-request 50 --rate 5000 --pid {pid}"));
    // The last request's turn is after 950 samples. There is no upper bound to assert.
    assert!(report.wall_seconds >= 0.19, "{}", report.wall_seconds);
    assert!(report.latency_since_due_ms.unwrap().max > 0.0);
    assert_eq!(report.processes[0].pid, pid);
    assert!(report.cpu_seconds.is_some());
    assert!(report.processes[0].rss_peak_bytes.unwrap() >= report.processes[0].rss_before_bytes);
}

#[test]
fn a_watched_process_may_die() {
    let server = Server::start(|_| Answer::Status(200));
    // Ends when its input does, which is held until the load has begun.
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let stdin = child.stdin.take();
    let state = Arc::clone(&server.state);
    let killer = thread::spawn(move || {
        while state.lock().unwrap().request_count == 0 {
            thread::yield_now();
        }
        drop(stdin);
        child.wait().unwrap()
    });
    let report =
        server.run(&format!("--series 100 --samples 300 --samples-per-request 1 --rate 1000 --pid {pid}"));
    assert!(killer.join().unwrap().success());
    assert_eq!((report.cpu_seconds, report.samples_per_cpu_second), (None, None));
    assert_eq!((report.processes[0].pid, report.processes[0].rss_after_bytes), (pid, None));
    assert!(report.to_string().contains("gone"));
    assert_eq!(report.samples_acked, 300);
}

#[test]
fn a_duration_ends_the_run() {
    let server = Server::start(|_| Answer::Status(200));
    let report = server.run("--series 500 --duration 200ms --concurrency 2 --samples-per-request 100");
    assert!(report.wall_seconds >= 0.2);
    assert!(report.samples_acked > 0);
    assert_eq!(report.samples_acked, report.samples_sent);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["codes"]["200"], report.requests);
    assert_eq!(json["samples_acked"], report.samples_acked);
}

#[test]
fn impossible_arguments_are_refused() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    for bad in [
        "--series 0",
        "--tenants 0",
        "--series 2 --tenants 3",
        "--concurrency 0",
        "--samples 0",
        "--samples-per-request 0",
        "--interval 0",
        "--url https://x/",
        "--url nonsense",
        "--pid 4294967295",
        "--series 1000000000",
    ] {
        let args = Cli::parse_from(["load"].into_iter().chain(bad.split(' '))).args;
        assert!(run(args).is_err(), "{bad}");
    }
}
