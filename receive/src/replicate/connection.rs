//! The sending end of one stream to a peer, while it lasts.
//!
//! Requests write their batches straight into the frame that is sent next, so batches of concurrent
//! requests travel together and nothing is copied. One lock guards the frame and the dictionary: a
//! series must be defined on the stream before it is named by its number, and batches leave in the
//! order in which they were written.
//!
//! What was written and not answered yet is bounded by a window of bytes. A peer that does not keep
//! up fills its window; then batches for it are refused at once, and the copy is missed.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc::UnboundedSender};
use weir_proto::{
    replication::{BatchWriter, SeriesName},
    weir_replication::{Outcome, Verdict},
};

/// The ring that a batch was split by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStamp {
    /// Its epoch.
    pub epoch: u64,
    /// Its digest.
    pub digest: u64,
}

/// What became of a batch that was sent, to whoever sent it.
#[derive(Debug)]
pub struct BatchAnswer {
    /// The mark that the sender gave the batch.
    pub mark: usize,
    /// The receiver's verdict; `None` if the connection ended before it came.
    pub verdict: Option<Verdict>,
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The connection has ended.
    Closed,
    /// As many bytes are unanswered as may be.
    WindowFull,
}

/// Takes labels, ascending by name.
pub type LabelSink<'s> = dyn FnMut(&[(&str, &str)]) + 's;

/// The series of a batch, in the order they are sent.
pub trait BatchSource {
    /// Number of series.
    fn series_count(&self) -> usize;

    /// The node-wide number of series `index`; `None` if it has none.
    fn number(&self, index: usize) -> Option<u32>;

    /// Hands `sink` the labels of series `index`, ascending by name. Asked only where they must be
    /// sent.
    fn with_labels(&self, index: usize, sink: &mut LabelSink<'_>);

    /// The samples of series `index`: times in milliseconds and bits of values.
    fn samples(&self, index: usize) -> impl ExactSizeIterator<Item = (i64, u64)>;
}

/// What a batch says beside its series.
#[derive(Debug)]
pub struct BatchTerms<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// The ring that chose this peer.
    pub ring: RingStamp,
    /// A time near those of the samples.
    pub base_ms: i64,
    /// Number of its samples.
    pub samples: u64,
    /// Comes back with the answer.
    pub mark: usize,
    /// Where the answer goes.
    pub answers: &'a UnboundedSender<BatchAnswer>,
}

/// A batch without an answer.
#[derive(Debug)]
struct Unanswered {
    mark: usize,
    bytes: usize,
    samples: u64,
    answers: UnboundedSender<BatchAnswer>,
}

#[derive(Debug, Default)]
struct State {
    /// Batches that are not on their way yet.
    frame: Vec<u8>,
    next_sequence: u64,
    /// One bit per series number: it is defined on this stream.
    defined: Vec<u64>,
    tenants: HashMap<Box<str>, u32, RandomState>,
    unanswered: HashMap<u64, Unanswered, RandomState>,
    unanswered_bytes: usize,
    closed: bool,
}

/// The sending end of a stream.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    /// Woken when there is something to send, or the connection was closed.
    changed: Notify,
    window_bytes: usize,
    /// Numbers from here on are not defined on this stream.
    dictionary_max: u32,
    /// Samples that were sent and are not stored by the peer, whoever still asks for them.
    missed: Counter,
}

impl Connection {
    /// A stream on which nothing was sent. At most `window_bytes` are unanswered before batches are
    /// refused; series with numbers of `dictionary_max` and more travel without their number.
    ///
    /// `missed` counts samples of batches that the peer did not store.
    pub fn new(window_bytes: usize, dictionary_max: u32, missed: Counter) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { state, changed, window_bytes, dictionary_max, missed })
    }

    /// Writes a batch into the frame that goes next. Its answer comes through `terms.answers`, also
    /// if the connection ends. Returns the bytes written.
    pub fn send(&self, terms: &BatchTerms<'_>, source: &impl BatchSource) -> Result<usize, NotTaken> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if state.unanswered_bytes >= self.window_bytes {
            return Err(NotTaken::WindowFull);
        }
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let (tenant, is_new) = match state.tenants.get(terms.tenant) {
            Some(&tenant) => (tenant, false),
            None => {
                let tenant = state.tenants.len() as u32;
                state.tenants.insert(terms.tenant.into(), tenant);
                (tenant, true)
            }
        };
        let ring = (terms.ring.epoch, terms.ring.digest);
        let tenant = (tenant, is_new.then_some(terms.tenant));
        let mut batch = BatchWriter::begin(&mut state.frame, sequence, ring, tenant, terms.base_ms);
        for index in 0..source.series_count() {
            let number = source.number(index).filter(|number| *number < self.dictionary_max);
            match number {
                Some(number) if is_defined(&state.defined, number) => {
                    batch.series(SeriesName::Known(number), source.samples(index));
                }
                Some(number) => {
                    define(&mut state.defined, number);
                    source.with_labels(index, &mut |labels| {
                        batch.series(SeriesName::Define(number, labels), source.samples(index));
                    });
                }
                None => source.with_labels(index, &mut |labels| {
                    batch.series(SeriesName::Anonymous(labels), source.samples(index));
                }),
            }
        }
        let bytes = batch.finish();
        debug_assert!(bytes > 0, "a batch has series");
        let (samples, answers) = (terms.samples, terms.answers.clone());
        state.unanswered.insert(sequence, Unanswered { mark: terms.mark, bytes, samples, answers });
        state.unanswered_bytes += bytes;
        self.changed.notify_one();
        Ok(bytes)
    }

    /// Waits for batches and takes them all; `None` once the connection is closed.
    pub async fn next_frame(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                if !state.frame.is_empty() {
                    // About as much will come again.
                    let capacity = state.frame.len().min(1 << 20);
                    return Some(std::mem::replace(&mut state.frame, Vec::with_capacity(capacity)));
                }
            }
            self.changed.notified().await;
        }
    }

    /// Passes the receiver's verdicts on to those who sent the batches. Series whose numbers the
    /// receiver cannot use any more are defined anew when they come again, whether somebody still
    /// waits for this answer or not.
    pub fn settle(&self, verdicts: Vec<Verdict>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for verdict in verdicts {
            let Some(batch) = state.unanswered.remove(&verdict.sequence) else { continue };
            state.unanswered_bytes -= batch.bytes;
            undefine(&mut state.defined, verdict.unknown_numbers.iter().copied());
            let unknown = verdict.unknown.len() as u64;
            if !is_stored(&verdict) {
                self.missed.increment(batch.samples);
                tracing::debug!(cause = verdict.cause, "a peer did not store a batch");
            }
            let answer = BatchAnswer { mark: batch.mark, verdict: Some(verdict) };
            // Whoever sent it may have been decided without this answer; then nobody sends what was
            // unknown again. Most series have one sample in a batch.
            if batch.answers.send(answer).is_err() {
                self.missed.increment(unknown);
            }
        }
    }

    /// These numbers are for other series from now on: they are defined anew when they come again.
    pub fn forget(&self, numbers: impl IntoIterator<Item = u32>) {
        undefine(&mut self.state.lock().defined, numbers);
    }

    /// Ends the connection. All batches without an answer are answered with none.
    pub fn close(&self) {
        let unanswered = {
            let mut state = self.state.lock();
            state.closed = true;
            state.frame = Vec::new();
            state.unanswered_bytes = 0;
            std::mem::take(&mut state.unanswered)
        };
        for batch in unanswered.into_values() {
            self.missed.increment(batch.samples);
            let _ = batch.answers.send(BatchAnswer { mark: batch.mark, verdict: None });
        }
        self.changed.notify_one();
    }

    /// Bytes without an answer.
    pub fn unanswered_bytes(&self) -> usize {
        self.state.lock().unanswered_bytes
    }
}

#[inline]
fn is_defined(defined: &[u64], number: u32) -> bool {
    defined.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
}

fn define(defined: &mut Vec<u64>, number: u32) {
    let word = number as usize / 64;
    if word >= defined.len() {
        defined.resize(word + 1, 0);
    }
    defined[word] |= 1 << (number % 64);
}

/// True if the receiver says so in words that this version knows.
pub fn is_stored(verdict: &Verdict) -> bool {
    Outcome::try_from(verdict.outcome) == Ok(Outcome::Stored)
}

fn undefine(defined: &mut [u64], numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        if let Some(word) = defined.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use weir_proto::replication::FrameReader;

    use super::*;

    struct Some3(Vec<(Option<u32>, &'static str)>);

    impl BatchSource for Some3 {
        fn series_count(&self) -> usize {
            self.0.len()
        }

        fn number(&self, index: usize) -> Option<u32> {
            self.0[index].0
        }

        fn with_labels(&self, index: usize, sink: &mut LabelSink<'_>) {
            sink(&[("s", self.0[index].1)]);
        }

        fn samples(&self, _: usize) -> impl ExactSizeIterator<Item = (i64, u64)> {
            [(1000, 7)].into_iter()
        }
    }

    struct Sender {
        connection: Arc<Connection>,
        answers: UnboundedSender<BatchAnswer>,
        answered: UnboundedReceiver<BatchAnswer>,
    }

    impl Sender {
        fn new(window_bytes: usize) -> Self {
            let (answers, answered) = unbounded_channel();
            Self { connection: Connection::new(window_bytes, 100, Counter::noop()), answers, answered }
        }

        fn send(
            &self,
            mark: usize,
            tenant: &str,
            series: &[(Option<u32>, &'static str)],
        ) -> Result<usize, NotTaken> {
            let ring = RingStamp { epoch: 3, digest: 4 };
            let samples = series.len() as u64;
            let terms = BatchTerms { tenant, ring, base_ms: 1000, samples, mark, answers: &self.answers };
            self.connection.send(&terms, &Some3(series.to_vec()))
        }

        /// What is in the next frame: sequence, tenant with name if given, number and label of series.
        async fn next(&self) -> Vec<String> {
            let frame = self.connection.next_frame().await.unwrap();
            let mut reader = FrameReader::new(&frame);
            let mut found = Vec::new();
            while let Some(mut batch) = reader.next_batch().unwrap() {
                let head = *batch.head();
                let mut text =
                    format!("{} {}{}:", head.sequence, head.tenant, head.tenant_name.unwrap_or(""));
                while let Some(series) = batch.next_series().unwrap() {
                    let number = series.number.map_or("-".to_owned(), |number| number.to_string());
                    let labels: Vec<_> =
                        series.labels.into_iter().flatten().map(|(_, value)| value).collect();
                    text += &format!(" {number}{}", labels.concat());
                }
                found.push(text);
            }
            found
        }
    }

    fn verdict(sequence: u64) -> Verdict {
        Verdict { sequence, ..Verdict::default() }
    }

    #[tokio::test]
    async fn series_are_defined_once_and_batches_travel_together() {
        let sender = Sender::new(1 << 20);
        sender.send(0, "t", &[(Some(5), "a"), (None, "b"), (Some(100), "c")]).unwrap();
        sender.send(1, "t", &[(Some(5), "a"), (Some(99), "d")]).unwrap();
        sender.send(2, "u", &[(Some(5), "a")]).unwrap();
        assert_eq!(sender.next().await, ["0 0t: 5a -b -c", "1 0: 5 99d", "2 1u: 5"]);
        sender.connection.forget([5, 7, 5000]);
        sender.send(3, "t", &[(Some(5), "e"), (Some(99), "d")]).unwrap();
        assert_eq!(sender.next().await, ["3 0: 5e 99"]);
    }

    /// Also when the request was decided by others and nobody reads the answer.
    #[tokio::test]
    async fn what_the_receiver_does_not_know_is_defined_anew() {
        let mut sender = Sender::new(1 << 20);
        sender.send(0, "t", &[(Some(5), "a"), (Some(6), "b")]).unwrap();
        sender.next().await;
        sender.send(1, "t", &[(Some(5), "a"), (Some(6), "b")]).unwrap();
        assert_eq!(sender.next().await, ["1 0: 5 6"]);
        (sender.answers, sender.answered) = unbounded_channel();
        sender.connection.settle(vec![Verdict { unknown: vec![1], unknown_numbers: vec![6], ..verdict(1) }]);
        sender.send(2, "t", &[(Some(5), "a"), (Some(6), "b")]).unwrap();
        assert_eq!(sender.next().await, ["2 0: 5 6b"]);
    }

    #[test]
    fn only_a_known_word_means_stored() {
        let of = |outcome: i32| is_stored(&Verdict { outcome, ..Verdict::default() });
        assert!(of(Outcome::Stored.into()));
        assert!(!of(0) && !of(Outcome::Unavailable.into()) && !of(99));
    }

    #[tokio::test]
    async fn the_window_is_exact_and_answers_open_it() {
        let mut sender = Sender::new(1);
        let bytes = sender.send(0, "t", &[(Some(1), "a")]).unwrap();
        assert_eq!(sender.connection.unanswered_bytes(), bytes);
        assert_eq!(sender.send(1, "t", &[(Some(1), "a")]), Err(NotTaken::WindowFull));
        sender.connection.settle(vec![verdict(9), verdict(0)]);
        let answer = sender.answered.recv().await.unwrap();
        assert_eq!((answer.mark, answer.verdict), (0, Some(verdict(0))));
        assert_eq!(sender.connection.unanswered_bytes(), 0);
        sender.send(2, "t", &[(Some(1), "a")]).unwrap();
        assert_eq!(sender.next().await, ["0 0t: 1a", "1 0: 1"], "what was refused is not sent");

        let mut sender = Sender::new(bytes + 1);
        sender.send(0, "t", &[(Some(1), "a")]).unwrap();
        assert!(sender.send(1, "t", &[(Some(1), "a")]).is_ok(), "one byte is left");
        assert_eq!(sender.send(2, "t", &[(Some(1), "a")]), Err(NotTaken::WindowFull));
        sender.connection.close();
        sender.connection.close();
        let marks = [sender.answered.recv().await.unwrap(), sender.answered.recv().await.unwrap()];
        assert!(marks.iter().all(|answer| answer.verdict.is_none()));
        assert_eq!(marks[0].mark + marks[1].mark, 1);
        assert_eq!(sender.send(3, "t", &[(Some(1), "a")]), Err(NotTaken::Closed));
        assert!(sender.connection.next_frame().await.is_none());
    }
}
