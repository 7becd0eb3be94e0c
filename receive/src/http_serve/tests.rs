use axum::routing::get;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use tokio::{io::AsyncWriteExt as _, sync::Notify, task::JoinHandle};

use super::*;
use crate::test_http::{self, exchange, read_to_end, read_until};

const REQUEST: &str = "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";

/// A server with a handler that waits, and the means to see and move it.
struct Fixture {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<usize>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

async fn serve(change: impl FnOnce(&mut ServeOptions)) -> Fixture {
    // Grace is only waited out where a test says so.
    let mut options = ServeOptions { grace: Duration::from_secs(600), ..ServeOptions::new("test") };
    change(&mut options);
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (entered, release) = (entered.clone(), release.clone());
        async move || {
            entered.notify_one();
            release.notified().await;
            "slow"
        }
    };
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
    let router = Router::new()
        .route("/fast", get(|| async { "fast" }))
        .route("/peer", get(peer))
        .route("/panic", get(|| async { panic_in_handler() }))
        .route("/slow", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve_http(listener, router, options, stop.clone()));
    Fixture { address, stop, task, entered, release }
}

fn panic_in_handler() -> &'static str {
    panic!("as a test wants it")
}

impl Fixture {
    async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.expect("the accept loop does not panic")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let server = serve(|_| {}).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(REQUEST.as_bytes()).await.expect("takes it");
        let answer = read_until(&mut stream, "fast").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
    }
    assert_eq!(test_http::get(server.address, "/peer").await, (200, "127.0.0.1".to_owned()));
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn http2_is_served_too() {
    let server = serve(|_| {}).await;
    let client: Client<_, Empty<bytes::Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/fast", server.address).parse().expect("a URI");
    let answer = client.get(uri).await.expect("answers");
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "fast");
    // The client keeps its connection; a stop closes it.
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_lets_busy_ones_finish() {
    let server = serve(|_| {}).await;
    let mut fresh = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(REQUEST.as_bytes()).await.expect("takes it");
    read_until(&mut idle, "fast").await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW.as_bytes()).await.expect("takes it");
    server.entered.notified().await;

    server.stop.cancel();
    assert_eq!(read_to_end(&mut fresh).await, "");
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(!server.task.is_finished(), "a request is in flight");
    server.release.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.to_lowercase().contains("connection: close") && answer.ends_with("slow"), "{answer}");
    let address = server.address;
    assert_eq!(server.stop().await, 0);
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn what_is_in_flight_after_the_grace_period_is_cut() {
    let server = serve(|options| options.grace = Duration::from_millis(20)).await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW.as_bytes()).await.expect("takes it");
    server.entered.notified().await;
    assert_eq!(server.stop().await, 1);
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn one_connection_too_many_is_refused_at_once() {
    let server = serve(|options| options.max_connections = 1).await;
    let mut first = server.connect().await;
    first.write_all(REQUEST.as_bytes()).await.expect("takes it");
    read_until(&mut first, "fast").await;
    let answer = exchange(server.address, "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
    // The slot is free again once the first one has gone.
    first.write_all(b"GET /fast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("takes it");
    read_to_end(&mut first).await;
    while test_http::get(server.address, "/fast").await.0 != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = serve(|options| options.first_request_timeout = Duration::from_millis(20)).await;
    for start in ["", "G", "GET /fast HTTP/1.1\r\nHost: x\r\n"] {
        assert_eq!(exchange(server.address, start).await, "", "{start:?}");
    }
    // One that has asked stays, however long ago that was.
    let mut busy = server.connect().await;
    busy.write_all(SLOW.as_bytes()).await.expect("takes it");
    server.entered.notified().await;
    assert_eq!(exchange(server.address, "").await, "");
    server.release.notify_one();
    read_until(&mut busy, "slow").await;
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = serve(|options| options.idle_timeout = Duration::from_millis(20)).await;
    let answer = exchange(server.address, REQUEST).await;
    assert!(answer.ends_with("fast"), "{answer}");
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_go() {
    let server = serve(|options| options.max_connection_age = Some(Duration::from_millis(20))).await;
    assert_eq!(exchange(server.address, "").await, "");
    let mut busy = server.connect().await;
    busy.write_all(SLOW.as_bytes()).await.expect("takes it");
    server.entered.notified().await;
    // Older than its age once another one has come and gone.
    assert_eq!(exchange(server.address, "").await, "");
    assert_eq!(exchange(server.address, "").await, "");
    server.release.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.to_lowercase().contains("connection: close") && answer.ends_with("slow"), "{answer}");
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn a_panic_is_answered_and_the_server_goes_on() {
    let server = serve(|_| {}).await;
    assert_eq!(test_http::get(server.address, "/panic").await.0, 500);
    assert_eq!(test_http::get(server.address, "/fast").await, (200, "fast".to_owned()));
    assert_eq!(server.stop().await, 0);
}
