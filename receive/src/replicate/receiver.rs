//! The receiving end: takes batches of other nodes and stores them.
//!
//! A stream has a thread of its own, which decodes and appends in the order of arrival: that is what
//! the dictionary of the stream relies on, and an append blocks. Between network and thread a few
//! frames wait; when they are more, the stream is not read, and the sender's window fills. So it is
//! with answers: a sender that does not read them is not read from either.
//!
//! A stream costs a thread, and greetings are waited for: both are bounded, for each sender and in
//! all. A sender that loses streams faster than this node notices has a few too many for a while.
//!
//! What a batch holds was judged by the node that took it from the client: limits and the future
//! are not looked at again.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_proto::{
    replication::{FRAME_VERSION, FrameReader},
    weir_replication::{
        Hello, PingRequest, PingResponse, ReplicateRequest, ReplicateResponse, Verdicts, Welcome,
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

/// Answers that wait between thread and network.
const ANSWERS_QUEUED: usize = 4;

/// Series that a stream may number.
const DICTIONARY_MAX: u32 = 16 << 20;

/// How long a stream may be open without a greeting. Senders greet with the call itself.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams at once that have not greeted yet.
const GREETINGS_MAX: usize = 1024;
/// Streams at once of one sender: one that lives, those whose end is not noticed yet, and routers of a
/// ring file, which all have one name.
const STREAMS_PER_SENDER_MAX: usize = 128;
/// Streams at once, each with a thread.
const STREAMS_MAX: usize = 2048;

/// How long the last word to a sender waits for it to read those before.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// The service that other nodes send their copies to.
pub struct Receiver {
    tenants: Arc<dyn Fn() -> Option<Arc<Tenants>> + Send + Sync>,
    fence: Arc<WriteFence>,
    /// Other nodes, if this one sends to them too.
    peers: Option<Arc<Peers>>,
    senders: Senders,
    greetings: Semaphore,
    stop: CancellationToken,
    refused: Counter,
    /// Streams that were ended because what came could not be read.
    broken: Counter,
}

/// Nodes that have a stream to this one, by name, with the number of their streams.
#[derive(Clone, Debug, Default)]
pub struct Senders(Arc<Mutex<HashMap<String, usize>>>);

impl Senders {
    /// True if `sender` has a stream to this node.
    pub fn has(&self, sender: &str) -> bool {
        self.0.lock().contains_key(sender)
    }

    /// Counts a stream.
    ///
    /// # Errors
    /// If there are too many, of this sender or in all; the text is for the sender.
    fn enter(&self, sender: String) -> Result<Sender, String> {
        let mut senders = self.0.lock();
        if senders.values().sum::<usize>() >= STREAMS_MAX {
            return Err(format!("this node has {STREAMS_MAX} streams already"));
        }
        let count = senders.entry(sender.clone()).or_default();
        if *count >= STREAMS_PER_SENDER_MAX {
            return Err(format!("{sender} has {STREAMS_PER_SENDER_MAX} streams to this node already"));
        }
        *count += 1;
        Ok(Sender { name: sender, senders: self.clone() })
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
        let counter = |name: &'static str| {
            let counter = counter!(name);
            counter.increment(0);
            counter
        };
        Self {
            tenants: Arc::new(tenants),
            fence,
            peers,
            senders,
            greetings: Semaphore::new(GREETINGS_MAX),
            stop,
            refused: counter("weir_replication_streams_refused_total"),
            broken: counter("weir_replication_streams_broken_total"),
        }
    }

    /// Waits for the greeting of a stream and judges it.
    async fn greeting(&self, incoming: &mut Streaming<ReplicateRequest>) -> Result<Hello, Status> {
        let Ok(_waiting) = self.greetings.try_acquire() else {
            return Err(Status::resource_exhausted(format!("{GREETINGS_MAX} streams have not greeted yet")));
        };
        let Ok(first) = timeout(GREETING_TIMEOUT, incoming.message()).await else {
            return Err(Status::deadline_exceeded(format!("no greeting came in {GREETING_TIMEOUT:?}")));
        };
        let Some(ReplicateRequest { message: Some(Incoming::Hello(hello)) }) = first? else {
            return Err(Status::invalid_argument("a stream begins with a greeting"));
        };
        Ok(hello)
    }

    /// Judges a greeting, and counts the stream.
    fn admit(&self, hello: &Hello) -> Result<Sender, Status> {
        self.fence.check_hello(hello)?;
        self.senders.enter(hello.sender.clone()).map_err(Status::resource_exhausted)
    }

    fn refuse(&self, sender: &str, status: Status) -> Status {
        tracing::warn!(sender, %status, "refused a peer's stream");
        self.refused.increment(1);
        status
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
        let hello = self.greeting(&mut incoming).await;
        let hello = hello.map_err(|status| self.refuse("unknown", status))?;
        let sender = self.admit(&hello).map_err(|status| self.refuse(&hello.sender, status))?;
        self.wake(&hello.sender);
        let (answers, outgoing) = mpsc::channel(ANSWERS_QUEUED);
        let welcome = Welcome { version: FRAME_VERSION, dictionary_max: DICTIONARY_MAX };
        let _ = answers.try_send(Ok(ReplicateResponse { message: Some(Outgoing::Welcome(welcome)) }));
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED);
        let state = StreamState::new(tenants, self.fence.clone(), Handle::current(), DICTIONARY_MAX);
        std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn({
                let (answers, broken) = (answers.clone(), self.broken.clone());
                move || {
                    let _sender = sender;
                    store_all(state, queue, &answers, &broken);
                }
            })
            .map_err(|error| Status::resource_exhausted(format!("cannot start a thread: {error}")))?;
        let (stop, broken) = (self.stop.clone(), self.broken.clone());
        tokio::spawn(async move {
            let last_word = read_all(incoming, frames, &answers, stop, broken).await;
            if let Some(status) = last_word {
                let _ = timeout(LAST_WORD_TIMEOUT, answers.send(Err(status))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        if request.get_ref().opened {
            self.wake(&request.get_ref().sender);
        }
        Ok(Response::new(PingResponse { ready: (self.tenants)().is_some() }))
    }
}

type Answer = Result<ReplicateResponse, Status>;

/// Hands frames to the thread until the stream ends. Returns what is left to tell the sender.
async fn read_all(
    mut incoming: Streaming<ReplicateRequest>,
    frames: mpsc::Sender<Bytes>,
    answers: &mpsc::Sender<Answer>,
    stop: CancellationToken,
    broken: Counter,
) -> Option<Status> {
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return Some(Status::unavailable("the node stops")),
            // Nobody reads answers any more.
            () = answers.closed() => return None,
            message = incoming.message() => message,
        };
        match message {
            Ok(Some(ReplicateRequest { message: Some(Incoming::Frame(frame)) })) => {
                let handed_on = tokio::select! {
                    () = stop.cancelled() => return Some(Status::unavailable("the node stops")),
                    handed_on = frames.send(frame) => handed_on,
                };
                if handed_on.is_err() {
                    return None;
                }
            }
            Ok(Some(_)) => {
                tracing::warn!("a peer sends something else than frames; its stream is ended");
                broken.increment(1);
                return Some(Status::invalid_argument("only frames follow the greeting"));
            }
            // A message that is none, or is too large.
            Err(status)
                if matches!(status.code(), Code::Internal | Code::OutOfRange | Code::Unimplemented) =>
            {
                tracing::warn!(%status, "a peer sends what cannot be read; its stream is ended");
                broken.increment(1);
                return Some(status);
            }
            // The sender went away, or its connection broke.
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Stores frame after frame; runs on a thread of its own. Ends when there will be no frames any more,
/// or nobody reads the answers.
fn store_all(
    mut state: StreamState,
    mut queue: mpsc::Receiver<Bytes>,
    answers: &mpsc::Sender<Answer>,
    broken: &Counter,
) {
    while let Some(frame) = queue.blocking_recv() {
        let mut frame = FrameReader::new(&frame);
        let mut has_more = true;
        while has_more {
            let mut verdicts = Vec::new();
            let outcome = state.store(&mut frame, &mut verdicts);
            let message = ReplicateResponse { message: Some(Outgoing::Verdicts(Verdicts { verdicts })) };
            if answers.blocking_send(Ok(message)).is_err() {
                return;
            }
            has_more = match outcome {
                Ok(has_more) => has_more,
                Err(error) => {
                    tracing::error!(%error, "a peer sends what cannot be read; its stream is ended");
                    broken.increment(1);
                    let status = match error {
                        StreamError::Frame(_) => Status::invalid_argument(error.to_string()),
                    };
                    let _ = answers.blocking_send(Err(status));
                    return;
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enters as often as it is let, and tells why it was not let any more.
    fn enter_all(senders: &Senders, name: impl Fn(usize) -> String) -> (Vec<Sender>, String) {
        let mut entered = Vec::new();
        loop {
            match senders.enter(name(entered.len())) {
                Ok(sender) => entered.push(sender),
                Err(cause) => return (entered, cause),
            }
        }
    }

    #[test]
    fn streams_are_bounded_for_each_sender() {
        let senders = Senders::default();
        let (mut entered, cause) = enter_all(&senders, |_| "a".to_owned());
        assert_eq!(entered.len(), STREAMS_PER_SENDER_MAX);
        assert_eq!(cause, "a has 128 streams to this node already");
        let other = senders.enter("b".to_owned()).expect("another sender");
        entered.pop();
        let again = senders.enter("a".to_owned()).expect("one has ended");
        assert!(senders.enter("a".to_owned()).is_err());
        drop((entered, again));
        assert!(!senders.has("a") && senders.has("b"));
        drop(other);
        assert!(!senders.has("b"));
    }

    #[test]
    fn streams_are_bounded_in_all() {
        let senders = Senders::default();
        let (mut entered, cause) = enter_all(&senders, |index| (index % 100).to_string());
        assert_eq!(entered.len(), STREAMS_MAX);
        assert_eq!(cause, "this node has 2048 streams already");
        assert!(
            senders.enter("new".to_owned()).is_err() && !senders.has("new"),
            "who is refused leaves no trace"
        );
        entered.pop();
        senders.enter("new".to_owned()).expect("one has ended");
    }
}
