//! The one thread that writes.

use std::sync::{
    Arc, OnceLock,
    mpsc::{Receiver, TryRecvError},
};

use tracing::error;

use super::{
    Done,
    database::{Change, Disk},
    error::StoreError,
};

/// Writes that wait are put into one batch until it is this large.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// A write on its way to the disk.
pub(super) struct Write {
    pub(super) changes: Vec<Change>,
    /// Told when the write is durable or failed; none if nobody waits.
    pub(super) done: Option<Done>,
}

/// Writes until the queue is closed or a write fails. One sync serves all who wait. After a failure
/// the disk is not touched again and everybody is told the cause, until the queue is closed.
pub(super) fn run(mut disk: impl Disk, queue: &Receiver<Write>, failure: &Arc<OnceLock<StoreError>>) {
    while let Ok(first) = queue.recv() {
        let (changes, waiting) = take_group(first, queue);
        let result = disk.write(changes);
        if let Err(cause) = &result {
            error!(%cause, "the store of Raft cannot be written; the process has to end");
            let _ = failure.set(cause.clone());
        }
        for done in waiting {
            done(result.clone());
        }
        if let Err(cause) = result {
            // Closing the database would write again.
            std::mem::forget(disk);
            for write in queue {
                let dead = StoreError::Dead { cause: cause.to_string() };
                write.done.into_iter().for_each(|done| done(Err(dead.clone())));
            }
            return;
        }
    }
}

fn take_group(first: Write, queue: &Receiver<Write>) -> (Vec<Change>, Vec<Done>) {
    let mut changes = first.changes;
    let mut waiting = Vec::from_iter(first.done);
    let mut bytes: usize = changes.iter().map(Change::bytes).sum();
    while bytes < GROUP_BYTES_MAX {
        match queue.try_recv() {
            Ok(next) => {
                bytes += next.changes.iter().map(Change::bytes).sum::<usize>();
                changes.extend(next.changes);
                waiting.extend(next.done);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (changes, waiting)
}
