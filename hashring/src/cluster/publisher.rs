//! The ring of a node, on disk first and then for all to see: the whole ring a moment before its view,
//! so that a node never writes by a ring that it would not yet take writes by.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::{
    ring_file::{self, RingRecord},
    wire,
};
use crate::{aside::aside, view::RingView};

/// What [`super::ClusterNode::view`] gives: none until the node knows a ring.
pub type ViewReceiver = watch::Receiver<Option<Arc<RingView>>>;

/// Makes rings known. Any number of tasks publish and look; a publish that was begun is brought to its end
/// though nobody waits for it any more, and one follows the other.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Held while a ring is written and made known, on threads that may wait. True once that is over.
    is_over: Mutex<bool>,
    /// At least as new as the record.
    encoded: Mutex<EncodedRing>,
    record: watch::Sender<Arc<RingRecord>>,
    view: watch::Sender<Option<Arc<RingView>>>,
}

/// A ring as those who watch it get it. Made once for all of them, where nobody else waits for it.
#[derive(Clone, Debug)]
pub struct EncodedRing {
    pub generation: u64,
    pub entries_applied: u64,
    pub state: Arc<[u8]>,
}

impl EncodedRing {
    fn of(record: &RingRecord) -> EncodedRing {
        let RingRecord { generation, entries_applied, ref state } = *record;
        EncodedRing { generation, entries_applied, state: wire::encode(state).into() }
    }
}

impl Publisher {
    /// Begins with what was found in `dir`.
    pub fn new(dir: PathBuf, found: Option<RingRecord>) -> Publisher {
        let record = Arc::new(found.unwrap_or_default());
        let view = RingView::new(&record.state).map(Arc::new);
        let encoded = Mutex::new(EncodedRing::of(&record));
        let (record, view) = (watch::Sender::new(record), watch::Sender::new(view));
        Publisher(Arc::new(Inner { dir, is_over: Mutex::new(false), encoded, record, view }))
    }

    /// The ring as last published.
    pub fn record(&self) -> Arc<RingRecord> {
        Arc::clone(&self.0.record.borrow())
    }

    /// The ring for those who watch it: at least as new as what was seen as the last one before.
    pub fn encoded(&self) -> EncodedRing {
        self.0.encoded.lock().clone()
    }

    /// The ring, and each that is published after.
    pub fn watch_record(&self) -> watch::Receiver<Arc<RingRecord>> {
        self.0.record.subscribe()
    }

    /// The view of the ring, and each that is published after.
    pub fn watch_view(&self) -> ViewReceiver {
        self.0.view.subscribe()
    }

    /// Makes a ring known once it is on disk; nothing happens if it is not newer or says the same.
    pub async fn publish(&self, record: RingRecord) -> io::Result<()> {
        if record.state.cluster().is_none() || !self.0.is_news(&record) {
            return Ok(());
        }
        let inner = Arc::clone(&self.0);
        aside(move || inner.publish(record)).await.map_err(io::Error::other)?
    }

    /// Publishes nothing more: the directory may be somebody else's from now on.
    pub async fn finish(&self) {
        let inner = Arc::clone(&self.0);
        if let Err(error) = aside(move || *inner.is_over.lock() = true).await {
            warn!(%error, "the end of publishing was broken off");
        }
    }
}

impl Inner {
    fn is_news(&self, record: &RingRecord) -> bool {
        let current = self.record.borrow();
        record.is_newer_than(current.generation, current.entries_applied)
    }

    /// Blocks until the ring is durable, and known.
    fn publish(&self, record: RingRecord) -> io::Result<()> {
        let is_over = self.is_over.lock();
        let current = Arc::clone(&self.record.borrow());
        // Another one may have been published since this one was looked at.
        let says_the_same = record.generation == current.generation && record.state == current.state;
        if *is_over || says_the_same || !self.is_news(&record) {
            return Ok(());
        }
        ring_file::write(&self.dir, &record)?;
        let view = RingView::new(&record.state).map(Arc::new);
        let encoded = EncodedRing::of(&record);
        *self.encoded.lock() = encoded;
        self.record.send_replace(Arc::new(record));
        self.view.send_replace(view);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ring::{Command, RingState, tests::cluster_of};

    fn record(entries_applied: u64, state: RingState) -> RingRecord {
        RingRecord { generation: 0, entries_applied, state }
    }

    #[tokio::test]
    async fn newer_rings_are_on_disk_before_they_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::create_dir(&path).unwrap();
        let publisher = Publisher::new(path.clone(), None);
        let mut view = publisher.watch_view();
        assert!(view.borrow_and_update().is_none());

        publisher.publish(record(1, RingState::default())).await.unwrap();
        assert!(!view.has_changed().unwrap(), "a state without a cluster is no ring");
        publisher.publish(record(5, cluster_of(3))).await.unwrap();
        let seen = view.borrow_and_update().clone().unwrap();
        assert_eq!(seen.digest(), cluster_of(3).digest());
        assert_eq!(ring_file::read(&path).unwrap(), Some(record(5, cluster_of(3))));
        let encoded = publisher.encoded();
        assert_eq!((encoded.generation, encoded.entries_applied), (0, 5));
        assert_eq!(wire::decode::<RingState>(&encoded.state).unwrap(), cluster_of(3));

        publisher.publish(record(4, cluster_of(4))).await.unwrap();
        publisher.publish(record(6, cluster_of(3))).await.unwrap();
        assert!(!view.has_changed().unwrap(), "it is older, or says the same");

        std::fs::remove_dir_all(&path).unwrap();
        publisher.publish(record(7, cluster_of(4))).await.unwrap_err();
        assert!(!view.has_changed().unwrap(), "what is not on disk is not seen");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_begun_is_brought_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::new(dir.path().to_owned(), None);
        let mut view = publisher.watch_view();
        let given_up = tokio::time::timeout(Duration::ZERO, publisher.publish(record(5, cluster_of(3))));
        let _ = given_up.await;
        let published = tokio::time::timeout(Duration::from_secs(60), view.wait_for(Option::is_some));
        published.await.expect("it is published soon").expect("the publisher is there");
        assert_eq!(ring_file::read(dir.path()).unwrap(), Some(record(5, cluster_of(3))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_newest_of_many_is_what_stays() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::new(dir.path().to_owned(), None);
        let newest = |entries_applied: u64| {
            let (key, value) = ("entries".to_owned(), Some(entries_applied.to_string()));
            let mut state = cluster_of(3);
            state.apply(&Command::SetConfig { key, value, if_version: None }).expect("it is short");
            record(entries_applied, state)
        };
        let mut publishes = tokio::task::JoinSet::new();
        for entries_applied in (1..=40).rev() {
            let (publisher, record) = (publisher.clone(), newest(entries_applied));
            publishes.spawn(async move { publisher.publish(record).await });
        }
        while let Some(published) = publishes.join_next().await {
            published.unwrap().unwrap();
        }
        assert_eq!(*publisher.record(), newest(40));
        assert_eq!(ring_file::read(dir.path()).unwrap(), Some(newest(40)));
        publisher.finish().await;
        publisher.publish(newest(41)).await.unwrap();
        assert_eq!(ring_file::read(dir.path()).unwrap(), Some(newest(40)));
    }
}
