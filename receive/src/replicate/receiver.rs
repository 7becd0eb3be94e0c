//! The receiving end: takes batches of other nodes and stores them.
//!
//! A stream has a thread of its own, which decodes and appends in the order of arrival: that is what
//! the dictionary of the stream relies on, and an append blocks. Between network and thread a few
//! frames wait; when they are more, the stream is not read, and the sender's window fills.
//!
//! What a batch holds was judged by the node that took it from the client: limits and the future
//! are not looked at again.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::Stream;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, UnboundedSender},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weir_proto::{
    replication::FRAME_VERSION,
    weir_replication::{
        PingRequest, PingResponse, ReplicateRequest, ReplicateResponse, Verdicts, Welcome,
        replicate_request::Message as Incoming, replicate_response::Message as Outgoing,
        replication_server::Replication,
    },
};

use super::{
    Peers,
    fence::WriteFence,
    stream::{StreamError, StreamState},
};
use crate::tenants::Tenants;

/// Frames that wait between network and thread.
const FRAMES_QUEUED: usize = 4;

/// Series that a stream may number: 24 bytes for each number up to the greatest in use.
const DICTIONARY_MAX: u32 = 16 << 20;

/// The service that other nodes send their copies to.
pub struct Receiver {
    tenants: Arc<dyn Fn() -> Option<Arc<Tenants>> + Send + Sync>,
    fence: Arc<WriteFence>,
    /// Other nodes, if this one sends to them too.
    peers: Option<Arc<Peers>>,
    senders: Senders,
    stop: CancellationToken,
    refused: Counter,
}

/// Nodes that have a stream to this one, by name, with the number of their streams.
#[derive(Clone, Debug, Default)]
pub struct Senders(Arc<Mutex<HashMap<String, usize>>>);

impl Senders {
    /// True if `sender` has a stream to this node.
    pub fn has(&self, sender: &str) -> bool {
        self.0.lock().contains_key(sender)
    }

    fn enter(&self, sender: String) -> Sender {
        *self.0.lock().entry(sender.clone()).or_default() += 1;
        Sender { name: sender, senders: self.clone() }
    }
}

/// One stream of a node, counted until dropped.
struct Sender {
    name: String,
    senders: Senders,
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut senders = self.senders.0.lock();
        if let Some(count) = senders.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                senders.remove(&self.name);
            }
        }
    }
}

impl Receiver {
    /// A receiver that stores into the tenants that `tenants` gives, `None` while they are not open,
    /// what `fence` lets through. Streams end when `stop` is cancelled.
    pub fn new(
        tenants: impl Fn() -> Option<Arc<Tenants>> + Send + Sync + 'static,
        fence: Arc<WriteFence>,
        peers: Option<Arc<Peers>>,
        senders: Senders,
        stop: CancellationToken,
    ) -> Self {
        let refused = counter!("weir_replication_streams_refused_total");
        Self { tenants: Arc::new(tenants), fence, peers, senders, stop, refused }
    }

    /// `sender` lives: what waits before connecting to it need not wait.
    fn wake(&self, sender: &str) {
        if let Some(peers) = &self.peers {
            peers.wake(sender);
        }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<ReplicateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for Receiver {
    type ReplicateStream = Answers;

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let Some(tenants) = (self.tenants)() else {
            return Err(Status::unavailable("the node is not ready"));
        };
        let mut incoming = request.into_inner();
        let hello = match incoming.message().await? {
            Some(ReplicateRequest { message: Some(Incoming::Hello(hello)) }) => hello,
            _ => return Err(Status::invalid_argument("a stream begins with a greeting")),
        };
        if let Err(status) = self.fence.check_hello(&hello) {
            tracing::warn!(sender = hello.sender, %status, "refused a peer's stream");
            self.refused.increment(1);
            return Err(status);
        }
        self.wake(&hello.sender);
        let sender = self.senders.enter(hello.sender);
        let (answers, outgoing) = mpsc::unbounded_channel();
        let welcome = Welcome { version: FRAME_VERSION, dictionary_max: DICTIONARY_MAX };
        let _ = answers.send(Ok(ReplicateResponse { message: Some(Outgoing::Welcome(welcome)) }));
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED);
        let state = StreamState::new(tenants, self.fence.clone(), Handle::current(), DICTIONARY_MAX);
        std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn({
                let answers = answers.clone();
                move || store_all(state, queue, &answers)
            })
            .map_err(|error| Status::resource_exhausted(format!("cannot start a thread: {error}")))?;
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _sender = sender;
            read_all(incoming, frames, answers, stop).await;
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(outgoing))))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        if request.get_ref().opened {
            self.wake(&request.get_ref().sender);
        }
        Ok(Response::new(PingResponse { ready: (self.tenants)().is_some() }))
    }
}

type Answer = Result<ReplicateResponse, Status>;

/// Hands frames to the thread until the stream ends.
async fn read_all(
    mut incoming: Streaming<ReplicateRequest>,
    frames: mpsc::Sender<Bytes>,
    answers: UnboundedSender<Answer>,
    stop: CancellationToken,
) {
    let refuse = |status: Status| {
        let _ = answers.send(Err(status));
    };
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return refuse(Status::unavailable("the node stops")),
            message = incoming.message() => message,
        };
        match message {
            Ok(Some(ReplicateRequest { message: Some(Incoming::Frame(frame)) })) => {
                let handed_on = tokio::select! {
                    () = stop.cancelled() => return refuse(Status::unavailable("the node stops")),
                    handed_on = frames.send(frame) => handed_on,
                };
                if handed_on.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => return refuse(Status::invalid_argument("only frames follow the greeting")),
            // The sender went away, or its connection broke.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Stores frame after frame; runs on a thread of its own.
fn store_all(mut state: StreamState, mut queue: mpsc::Receiver<Bytes>, answers: &UnboundedSender<Answer>) {
    while let Some(frame) = queue.blocking_recv() {
        let mut verdicts = Vec::new();
        let outcome = state.store(&frame, &mut verdicts);
        let message = ReplicateResponse { message: Some(Outgoing::Verdicts(Verdicts { verdicts })) };
        if answers.send(Ok(message)).is_err() {
            return;
        }
        if let Err(error) = outcome {
            tracing::error!(%error, "a peer sends what cannot be read; its stream is ended");
            let status = match error {
                StreamError::Frame(_) => Status::invalid_argument(error.to_string()),
            };
            let _ = answers.send(Err(status));
            return;
        }
    }
}
