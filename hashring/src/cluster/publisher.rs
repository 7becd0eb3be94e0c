//! The ring of a node, on disk first and then for all to see: the whole ring a moment before its view,
//! so that a node never writes by a ring that it would not yet take writes by.

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::ring_file::{self, RingRecord};
use crate::{aside::aside, view::RingView};

/// What [`super::ClusterNode::view`] gives: none until the node knows a ring.
pub type ViewReceiver = watch::Receiver<Option<Arc<RingView>>>;

/// Makes rings known. One task publishes, any number look.
#[derive(Debug)]
pub struct Publisher {
    dir: PathBuf,
    record: watch::Sender<Arc<RingRecord>>,
    view: watch::Sender<Option<Arc<RingView>>>,
}

impl Publisher {
    /// Begins with what was found in `dir`.
    pub fn new(dir: PathBuf, found: Option<RingRecord>) -> Publisher {
        let record = Arc::new(found.unwrap_or_default());
        let view = RingView::new(&record.state).map(Arc::new);
        Publisher { dir, record: watch::Sender::new(record), view: watch::Sender::new(view) }
    }

    /// The ring as last published.
    pub fn record(&self) -> Arc<RingRecord> {
        Arc::clone(&self.record.borrow())
    }

    /// The ring, and each that is published after.
    pub fn watch_record(&self) -> watch::Receiver<Arc<RingRecord>> {
        self.record.subscribe()
    }

    /// The view of the ring, and each that is published after.
    pub fn watch_view(&self) -> ViewReceiver {
        self.view.subscribe()
    }

    /// Makes a ring known once it is on disk; nothing happens if it is not newer or says the same.
    pub async fn publish(&self, record: RingRecord) -> io::Result<()> {
        let current = self.record();
        let is_founded = record.state.cluster().is_some();
        if !is_founded || !record.is_newer_than(current.generation, current.entries_applied) {
            return Ok(());
        }
        let dir = self.dir.clone();
        let work = move || -> io::Result<_> {
            if record.generation == current.generation && record.state == current.state {
                return Ok(None);
            }
            ring_file::write(&dir, &record)?;
            let view = RingView::new(&record.state).map(Arc::new);
            Ok(Some((Arc::new(record), view)))
        };
        if let Some((record, view)) = aside(work).await.map_err(io::Error::other)?? {
            self.record.send_replace(record);
            self.view.send_replace(view);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{RingState, tests::cluster_of};

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

        publisher.publish(record(4, cluster_of(4))).await.unwrap();
        publisher.publish(record(6, cluster_of(3))).await.unwrap();
        assert!(!view.has_changed().unwrap(), "it is older, or says the same");

        std::fs::remove_dir_all(&path).unwrap();
        publisher.publish(record(7, cluster_of(4))).await.unwrap_err();
        assert!(!view.has_changed().unwrap(), "what is not on disk is not seen");
    }
}
