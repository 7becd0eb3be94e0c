//! A peer behind a proxy that can lose one connection and keep the others.

use std::{net::SocketAddr, pin::Pin};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use weir_proto::weir_replication::{
    PingResponse,
    replication_server::{Replication, ReplicationServer},
};

use super::*;
use crate::replicate::connection::{BatchSource, BatchTerms, LabelSink, RingStamp};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers pings and welcomes streams, but stores nothing: a peer whose disk hangs.
struct Hangs;

#[tonic::async_trait]
impl Replication for Hangs {
    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<ReplicateResponse, Status>> + Send>>;

    async fn replicate(
        &self,
        request: tonic::Request<Streaming<ReplicateRequest>>,
    ) -> Result<tonic::Response<Self::ReplicateStream>, Status> {
        let welcome = Welcome { version: FRAME_VERSION, dictionary_max: 100 };
        let welcome = ReplicateResponse { message: Some(Response::Welcome(welcome)) };
        let unread = request.into_inner();
        let answers = futures::stream::iter([Ok(welcome)]).chain(futures::stream::once(async move {
            let _unread = unread;
            std::future::pending().await
        }));
        Ok(tonic::Response::new(Box::pin(answers)))
    }

    async fn ping(&self, _: tonic::Request<PingRequest>) -> Result<tonic::Response<PingResponse>, Status> {
        Ok(tonic::Response::new(PingResponse { ready: true }))
    }
}

/// Passes bytes on in both ways, and counts what comes back on each connection.
struct Proxy {
    address: SocketAddr,
    /// Bytes that came back, by connection in the order they were made.
    returned: watch::Receiver<Vec<usize>>,
    /// The connection that is lost: nothing of it passes, and nobody is told.
    lost: watch::Sender<Option<usize>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, returned) = watch::channel(Vec::new());
        let (lost, is_lost) = watch::channel(None);
        let serving = tokio::spawn(async move {
            for index in 0.. {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(to).await.unwrap();
                count.send_modify(|count: &mut Vec<usize>| count.push(0));
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, index, is_lost.clone(), None));
                tokio::spawn(pass(far_in, near_out, index, is_lost.clone(), Some(count.clone())));
            }
        });
        Self { address, returned, lost, serving }
    }

    /// Waits until more than `bytes` came back on a connection, and tells how many did.
    async fn wait_for(&mut self, connection: usize, bytes: usize) -> usize {
        let passed = |counts: &Vec<usize>| counts.get(connection).is_some_and(|count| *count > bytes);
        let waited = timeout(PATIENCE, self.returned.wait_for(passed)).await;
        waited.expect("bytes on the connection").unwrap()[connection]
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    index: usize,
    mut lost: watch::Receiver<Option<usize>>,
    count: Option<watch::Sender<Vec<usize>>>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let is_lost = async { lost.wait_for(|lost| *lost == Some(index)).await.map(drop) };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = is_lost => std::future::pending().await,
        };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if let Some(count) = &count {
            count.send_modify(|counts| counts[index] += read);
        }
    }
}

struct OneSeries;

impl BatchSource for OneSeries {
    fn series_count(&self) -> usize {
        1
    }

    fn number(&self, _: usize) -> Option<u32> {
        None
    }

    fn with_labels(&self, _: usize, sink: &mut LabelSink<'_>) {
        sink(&[("a", "b")]);
    }

    fn samples(&self, _: usize) -> impl ExactSizeIterator<Item = (i64, u64)> {
        [(1, 2)].into_iter()
    }
}

/// Waits until a stream is up, another one than `before`.
async fn up(peer: &Peer, before: Option<&Arc<Connection>>) -> Arc<Connection> {
    let is_new = |found: &Arc<Connection>| before.is_none_or(|before| !Arc::ptr_eq(found, before));
    timeout(PATIENCE, async {
        loop {
            if let Some(found) = peer.connection().filter(is_new) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a stream")
}

#[tokio::test]
async fn a_lost_data_connection_is_noticed_and_a_slow_peer_is_not_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let service = ReplicationServer::new(Hangs);
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let mut proxy = Proxy::new(server).await;
    let options = PeerOptions {
        sender: "a".to_owned(),
        failure_timeout: Duration::from_secs(2),
        probe_interval: Duration::from_millis(20),
        probe_timeout: Duration::ZERO,
        ..PeerOptions::default()
    };
    let peer = Peer::new(PeerIdentity::endpoint(&proxy.address.to_string()), options);
    let stop = CancellationToken::new();
    let running = tokio::spawn(peer.clone().run(stop.clone()));

    // Connections are made in this order: pings, data.
    let connection = up(&peer, None).await;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let ring = RingStamp::default();
    let terms = BatchTerms { tenant: "t", ring, base_ms: 0, samples: 1, mark: 7, answers: &answers };
    connection.send(&terms, &OneSeries).unwrap();
    // The answer to a probe has 17 bytes. After a hundred of them the batch is still not answered.
    let begun = proxy.wait_for(1, 0).await;
    proxy.wait_for(1, begun + 100 * 17).await;
    assert!(Arc::ptr_eq(&up(&peer, None).await, &connection), "a slow peer keeps its stream");
    assert!(answered.try_recv().is_err());

    proxy.lost.send_replace(Some(1));
    let pinged = proxy.wait_for(0, 0).await;
    proxy.wait_for(0, pinged).await;
    let answer = timeout(PATIENCE, answered.recv()).await.expect("the batch is given up").unwrap();
    assert_eq!((answer.mark, answer.verdict), (7, None));
    up(&peer, Some(&connection)).await;
    stop.cancel();
    running.await.unwrap();
    proxy.serving.abort();
    serving.abort();
}
