//! Second half of a Series request: chunks, frames, stream.
//!
//! A request runs in steps on threads that may block. A step fills about one frame's worth of bytes
//! and gives its thread back; the next one starts when the client has taken enough. So a slow client
//! holds memory for a few frames but no thread, and a client that is gone costs at most the rest of
//! one step.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use weir_proto::thanos as pb;

use super::{
    TenantSource, chunks,
    frames::FramePacker,
    limits::Budget,
    request::SeriesCall,
    select::{Selected, TenantSelection, select, warn_or_abort},
};

/// Steps that may be ready before the client takes them.
const STEPS_BUFFERED: usize = 2;

/// A Series request under way.
pub struct SeriesRun {
    source: Arc<dyn TenantSource>,
    call: SeriesCall,
    budget: Budget,
    packer: FramePacker,
    stop: CancellationToken,
    phase: Phase,
    /// Tenants with series that could not be read, with the number of those after the first.
    unreadable: Vec<(String, u64)>,
}

enum Phase {
    Select,
    Send { selected: Selected, next: usize },
    Done,
}

impl SeriesRun {
    /// A run that has not begun. It ends early once `stop` is cancelled.
    pub fn new(
        source: Arc<dyn TenantSource>,
        call: SeriesCall,
        budget: Budget,
        stop: CancellationToken,
    ) -> Self {
        let packer = FramePacker::new(call.batch_size);
        Self { source, call, budget, packer, stop, phase: Phase::Select, unreadable: Vec::new() }
    }

    /// True when there will be no more frames.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Makes the next frames, at least one unless that was all. Blocks on the disk.
    ///
    /// # Errors
    /// The status the call ends with.
    pub fn step(&mut self) -> Result<Vec<pb::SeriesResponse>, Status> {
        if let Phase::Select = self.phase {
            let (selected, warnings) =
                select(self.source.tenants(), &mut self.call, &mut self.budget, &self.stop)?;
            warnings.into_iter().for_each(|text| self.packer.push_warning(text));
            self.phase = Phase::Send { selected, next: 0 };
        }
        while let Phase::Send { selected, next } = &mut self.phase
            && !self.packer.is_full()
            && !self.stop.is_cancelled()
        {
            let Some((tenant, index)) = selected.get(*next) else {
                self.finish();
                break;
            };
            *next += 1;
            let labels = tenant.composition.to_wire(tenant.set.labels(index));
            if self.call.skip_chunks {
                self.packer.push_series(labels, Vec::new());
                continue;
            }
            match read_chunks(tenant, index, &mut self.budget)? {
                Ok(chunks) if chunks.is_empty() => {}
                Ok(chunks) => self.packer.push_series(labels, chunks),
                Err(cause) => {
                    if let Some(entry) = self.unreadable.iter_mut().find(|entry| entry.0 == tenant.tenant) {
                        entry.1 += 1;
                        continue;
                    }
                    let text = format!("tenant {}: {}: {cause}", tenant.tenant, tenant.set.labels(index));
                    self.packer.push_warning(warn_or_abort(self.call.scope.on_failure, text)?);
                    self.unreadable.push((tenant.tenant.clone(), 0));
                }
            }
        }
        if self.stop.is_cancelled() {
            self.phase = Phase::Done;
        }
        Ok(self.packer.take())
    }

    fn finish(&mut self) {
        self.packer.flush();
        for (tenant, more) in self.unreadable.drain(..).filter(|entry| entry.1 > 0) {
            self.packer.push_warning(format!("tenant {tenant}: {more} more series could not be read"));
        }
        self.phase = Phase::Done;
    }
}

/// Chunks of one series as they are sent. The outer error ends the call, the inner one concerns the
/// series.
fn read_chunks(
    tenant: &TenantSelection,
    index: usize,
    budget: &mut Budget,
) -> Result<Result<Vec<pb::AggrChunk>, String>, Status> {
    let stored = match tenant.set.chunks(index) {
        Ok(stored) => stored,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut wire = Vec::with_capacity(stored.len());
    for chunk in stored {
        match chunks::to_wire(chunk) {
            Ok((chunk, samples)) => {
                budget.take_samples(samples)?;
                wire.push(chunk);
            }
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(wire))
}

/// The answer to a Series request. Dropping it stops the run.
pub struct SeriesStream {
    steps: mpsc::Receiver<Result<Vec<pb::SeriesResponse>, Status>>,
    ready: vec::IntoIter<pb::SeriesResponse>,
    _stop: DropGuard,
}

impl SeriesStream {
    /// Starts `run`, which must have been made with `stop`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(run: SeriesRun, stop: CancellationToken) -> Self {
        let (sender, steps) = mpsc::channel(STEPS_BUFFERED);
        tokio::spawn(drive(run, sender));
        Self { steps, ready: Vec::new().into_iter(), _stop: stop.drop_guard() }
    }
}

impl Stream for SeriesStream {
    type Item = Result<pb::SeriesResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(frame) = self.ready.next() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match std::task::ready!(self.steps.poll_recv(context)) {
                Some(Ok(frames)) => self.ready = frames.into_iter(),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

async fn drive(mut run: SeriesRun, sender: mpsc::Sender<Result<Vec<pb::SeriesResponse>, Status>>) {
    // Room first, work second. No room means that the client is gone.
    while let Ok(room) = sender.reserve().await {
        let step = tokio::task::spawn_blocking(move || {
            let frames = run.step();
            (run, frames)
        });
        match step.await {
            Ok((next, Ok(frames))) => {
                run = next;
                room.send(Ok(frames));
                if run.is_done() {
                    return;
                }
            }
            Ok((_, Err(status))) => return room.send(Err(status)),
            Err(panic) => return room.send(Err(super::broke_off("Series", &panic))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use weir_tsdb::{
        Result,
        labels::Labels,
        query::{Chunk, Query},
    };

    use super::*;
    use crate::store_api::{SelectedSet, SeriesSource, StoreLimits, TenantView, limits::Dropped};

    /// A tenant with many series and no chunks, whose client goes away while the third is read.
    #[derive(Clone)]
    struct Endless {
        labels: Labels,
        reads: Arc<AtomicUsize>,
        stop: CancellationToken,
    }

    impl SelectedSet for Endless {
        fn len(&self) -> usize {
            1_000_000
        }

        fn labels(&self, _index: usize) -> &Labels {
            &self.labels
        }

        fn chunks(&self, _index: usize) -> Result<Vec<Chunk>> {
            if self.reads.fetch_add(1, Ordering::Relaxed) == 2 {
                self.stop.cancel();
            }
            Ok(Vec::new())
        }
    }

    impl SeriesSource for Endless {
        fn select(&self, _query: &Query) -> Result<Box<dyn SelectedSet>> {
            Ok(Box::new(self.clone()))
        }

        fn label_names(&self, _query: &Query) -> Result<Vec<String>> {
            Ok(Vec::new())
        }

        fn label_values(&self, _name: &str, _query: &Query) -> Result<Vec<String>> {
            Ok(Vec::new())
        }

        fn time_range(&self) -> Option<(i64, i64)> {
            None
        }
    }

    impl TenantSource for Endless {
        fn ready(&self) -> bool {
            true
        }

        fn tenants(&self) -> Vec<TenantView> {
            let db = Arc::new(self.clone());
            vec![TenantView { tenant: "t".to_owned(), external_labels: Labels::empty(), db }]
        }
    }

    #[test]
    fn stops_within_a_step() {
        let stop = CancellationToken::new();
        let reads = Arc::new(AtomicUsize::new(0));
        let labels = Labels::from_pairs([("a", "1")]);
        let source = Endless { labels, reads: Arc::clone(&reads), stop: stop.clone() };
        let matcher = pb::LabelMatcher { r#type: 0, name: "a".to_owned(), value: "1".to_owned() };
        let request = pb::SeriesRequest { matchers: vec![matcher], max_time: 1, ..Default::default() };
        let call = SeriesCall::from_wire(&request).unwrap();
        let budget = Budget::new(StoreLimits::default(), Dropped::new());
        let mut run = SeriesRun::new(Arc::new(source), call, budget, stop);
        assert_eq!(run.step().unwrap(), []);
        assert!(run.is_done());
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }
}
