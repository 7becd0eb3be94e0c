//! Another node, and the stream to it that is kept up.
//!
//! A peer is connected to as soon as a ring names it, not when it is needed. It is alive as long as
//! it answers pings, which go over a connection of their own so that they never wait behind data. A
//! peer that does not answer for [`PeerOptions::failure_timeout`] loses its stream: batches without
//! an answer are missed at once, and no batch waits for it again until it is back. So a node that
//! died costs a request that long at most, once.
//!
//! Pings say nothing of the connection that carries the data, which may be lost alone: by a firewall
//! that forgets it, or one of several paths that is broken. So it is probed too, below HTTP, where a
//! probe is answered however slowly the peer stores what it gets. A peer that is slow keeps its stream;
//! a connection that carries nothing any more loses it after [`PeerOptions::probe_interval`] and
//! [`PeerOptions::probe_timeout`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use weir_proto::{
    replication::FRAME_VERSION,
    weir_replication::{
        Hello, PingRequest, ReplicateRequest, ReplicateResponse, Welcome,
        replicate_request::Message as Request, replicate_response::Message as Response,
        replication_client::ReplicationClient,
    },
};

use super::{PeerIdentity, connection::Connection};
use crate::grpc::MESSAGE_BYTES_MAX;

/// Frames that are handed to the network before it takes them.
const FRAMES_QUEUED: usize = 1;
/// Bytes of a frame that may be under way before the receiver has read them.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// How peers are treated.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// What this node calls itself, as others call it in [`PeerIdentity::target`].
    pub sender: String,
    /// Most bytes without an answer per peer.
    pub window_bytes: usize,
    /// Time between two pings.
    pub ping_interval: Duration,
    /// How long a peer may be silent before it counts as down.
    pub failure_timeout: Duration,
    /// Time between two probes of the connection that carries the data.
    pub probe_interval: Duration,
    /// How long a probe may be without an answer; if less than `failure_timeout`, that counts. Longer
    /// than for pings: a probe waits behind what was sent before it.
    pub probe_timeout: Duration,
    /// Pause before a peer is connected to again; doubled with each failure.
    pub backoff_min: Duration,
    /// The longest such pause (`--receive-forward-max-backoff`).
    pub backoff_max: Duration,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            sender: String::new(),
            window_bytes: 32 << 20,
            ping_interval: Duration::from_millis(200),
            failure_timeout: Duration::from_millis(700),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// One peer.
pub struct Peer {
    identity: PeerIdentity,
    options: PeerOptions,
    current: ArcSwapOption<Connection>,
    /// Ends the pause before the next attempt to connect.
    wake: Notify,
    /// Has the peer told that this node takes batches from now on.
    announce: Notify,
    metrics: PeerMetrics,
    is_let_go: AtomicBool,
}

/// Figures of what is sent to one peer.
pub struct PeerMetrics {
    /// Samples sent to it.
    pub samples: Counter,
    /// Bytes of batches sent to it.
    pub bytes: Counter,
    /// Samples it should have and was not sent, or did not acknowledge: its debt.
    pub missed: Counter,
    up: Gauge,
    unanswered: Gauge,
    connects: Counter,
}

impl PeerMetrics {
    fn new(peer: &str) -> Self {
        let labels = [("peer", peer.to_owned())];
        Self {
            samples: counter!("weir_replication_sent_samples_total", &labels),
            bytes: counter!("weir_replication_sent_bytes_total", &labels),
            missed: counter!("weir_replication_missed_samples_total", &labels),
            up: gauge!("weir_replication_peer_up", &labels),
            unanswered: gauge!("weir_replication_unanswered_bytes", &labels),
            connects: counter!("weir_replication_connects_total", &labels),
        }
    }
}

/// Why a stream ended or did not come about.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{0}")]
    Refused(#[from] Box<Status>),
    #[error("it was silent for {0:?}")]
    Silent(Duration),
    #[error("it ended the stream")]
    Closed,
    #[error("it answered with something else than a welcome")]
    NoWelcome,
    #[error("it reads frames of version {0}, not {FRAME_VERSION}")]
    Version(u32),
}

impl Peer {
    /// A peer. Nothing is connected before [`Self::run`].
    pub fn new(identity: PeerIdentity, options: PeerOptions) -> Arc<Self> {
        let metrics = PeerMetrics::new(&identity.name);
        metrics.up.set(0.0);
        metrics.missed.increment(0);
        let (current, wake, announce) = (ArcSwapOption::empty(), Notify::new(), Notify::new());
        Arc::new(Self {
            identity,
            options,
            current,
            wake,
            announce,
            metrics,
            is_let_go: AtomicBool::new(false),
        })
    }

    /// Who and where it is.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &PeerMetrics {
        &self.metrics
    }

    /// The stream to it, if it is up.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.current.load_full()
    }

    /// The peer has given a sign of life: connects to it at once if that is being waited for.
    pub fn wake(&self) {
        if self.current.load().is_none() {
            self.wake.notify_one();
        }
    }

    /// Tells the peer that this node takes batches from now on. If there is no stream to it, its
    /// greeting will tell.
    pub fn announce(&self) {
        self.announce.notify_one();
    }

    /// Keeps a stream to the peer up until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = self.options.backoff_min;
        // What was said last, so that a peer that is down for long is told of once, or when the reason changes.
        let mut said = None;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => {
                    self.down();
                    return;
                }
                ended = self.connect_and_serve() => ended,
            };
            let was_up = self.down();
            let (peer, error) = (&self.identity.name, ended.to_string());
            if was_up || said.as_ref() != Some(&error) {
                tracing::warn!(peer, %error, "a peer is down, its copies are missed");
                said = Some(error);
            } else {
                tracing::debug!(peer, %error, "a peer is still down");
            }
            if was_up {
                backoff = self.options.backoff_min;
            }
            // Nodes that lost the same peer do not come back to it all at once.
            let pause = backoff.mul_f64(rand::random_range(0.7..1.3));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => backoff = self.options.backoff_min,
                () = sleep(pause) => {}
            }
            backoff = (backoff * 2).min(self.options.backoff_max);
        }
    }

    /// The peer is none of the ring's nodes any more, or has moved. What is shown of it under its name is
    /// another one's matter from now on.
    pub fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Release);
        self.down();
    }

    /// Nobody has this peer's name any more: it is neither up nor down.
    pub fn show_as_gone(&self) {
        self.metrics.up.set(f64::NAN);
    }

    fn show_up(&self, is_up: bool) {
        if !self.is_let_go.load(Ordering::Acquire) {
            self.metrics.up.set(f64::from(u8::from(is_up)));
        }
    }

    /// Takes the stream down: nothing is sent on it any more. True if it was up.
    pub fn down(&self) -> bool {
        let connection = self.current.swap(None);
        self.show_up(false);
        self.metrics.unanswered.set(0.0);
        if let Some(connection) = &connection {
            connection.close();
        }
        connection.is_some()
    }

    async fn connect_and_serve(&self) -> Ended {
        match self.try_connect_and_serve().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_connect_and_serve(&self) -> Result<std::convert::Infallible, Ended> {
        let patience = self.options.failure_timeout;
        let mut pings = ReplicationClient::new(self.endpoint()?.connect().await?);
        let data = self.data_endpoint()?.connect().await?;
        let (frames, mut answers, welcome) =
            timeout(patience, self.greet(data)).await.map_err(|_| Ended::Silent(patience))??;
        if welcome.version != FRAME_VERSION {
            return Err(Ended::Version(welcome.version));
        }
        let connection =
            Connection::new(self.options.window_bytes, welcome.dictionary_max, self.metrics.missed.clone());
        self.current.store(Some(connection.clone()));
        self.show_up(true);
        self.metrics.connects.increment(1);
        tracing::info!(peer = self.identity.name, "a peer is up");

        let send = async {
            while let Some(frame) = connection.next_frame().await {
                let message = ReplicateRequest { message: Some(Request::Frame(frame.into())) };
                if frames.send(message).await.is_err() {
                    break;
                }
            }
        };
        let receive = async {
            loop {
                match answers.message().await {
                    Ok(Some(ReplicateResponse { message: Some(Response::Verdicts(verdicts)) })) => {
                        connection.settle(verdicts.verdicts);
                    }
                    Ok(Some(_)) => return Ended::NoWelcome,
                    Ok(None) => return Ended::Closed,
                    Err(status) => return Ended::Refused(Box::new(status)),
                }
            }
        };
        let watch = async {
            let mut ticks = interval(self.options.ping_interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let opened = tokio::select! {
                    _ = ticks.tick() => false,
                    () = self.announce.notified() => true,
                };
                self.metrics.unanswered.set(connection.unanswered_bytes() as f64);
                let ping = PingRequest { sender: self.options.sender.clone(), opened };
                match timeout(patience, pings.ping(ping)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(status)) => return Ended::Refused(Box::new(status)),
                    Err(_) => return Ended::Silent(patience),
                }
            }
        };
        Err(tokio::select! {
            () = send => Ended::Closed,
            ended = receive => ended,
            ended = watch => ended,
        })
    }

    fn endpoint(&self) -> Result<Endpoint, Ended> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.identity.address))?
            .connect_timeout(self.options.failure_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(2 * STREAM_WINDOW_BYTES);
        Ok(endpoint)
    }

    /// The same, probed.
    fn data_endpoint(&self) -> Result<Endpoint, Ended> {
        let options = &self.options;
        let endpoint = self
            .endpoint()?
            .http2_keep_alive_interval(options.probe_interval)
            .keep_alive_timeout(options.probe_timeout.max(options.failure_timeout))
            .keep_alive_while_idle(true);
        Ok(endpoint)
    }

    /// Opens the stream and exchanges greetings.
    async fn greet(
        &self,
        channel: Channel,
    ) -> Result<(mpsc::Sender<ReplicateRequest>, Streaming<ReplicateResponse>, Welcome), Ended> {
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED);
        let hello = Hello {
            version: FRAME_VERSION,
            cluster_id: self.identity.cluster.to_vec(),
            sender: self.options.sender.clone(),
            target: self.identity.target.clone(),
        };
        let hello = ReplicateRequest { message: Some(Request::Hello(hello)) };
        frames.send(hello).await.map_err(|_| Ended::Closed)?;
        let mut client = ReplicationClient::new(channel)
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answers = client.replicate(ReceiverStream::new(queue)).await.map_err(Box::new)?;
        let mut answers = answers.into_inner();
        match answers.message().await.map_err(Box::new)? {
            Some(ReplicateResponse { message: Some(Response::Welcome(welcome)) }) => {
                Ok((frames, answers, welcome))
            }
            Some(_) => Err(Ended::NoWelcome),
            None => Err(Ended::Closed),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Peer").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
