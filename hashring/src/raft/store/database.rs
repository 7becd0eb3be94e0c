//! What a store writes to.

use std::collections::BTreeMap;

use super::{Done, error::StoreError};

/// One key gets a value, or loses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Put(Vec<u8>, Vec<u8>),
    /// The key is gone.
    Delete(Vec<u8>),
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Put(key, value) => key.len() + value.len(),
            Change::Delete(key) => key.len(),
        }
    }
}

/// Where the thread of a store writes to.
pub(super) trait Disk {
    /// Does all changes or none, in order, and returns when they would survive a power cut. After
    /// an error nothing is known about any of them, and nothing more may be written.
    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// A database that has its own time for what it is asked, like the one of a simulation. A store on it
/// has no thread.
pub trait Database: Send + 'static {
    /// All keys and values that survived until now.
    fn load(&mut self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError>;

    /// Does all changes or none, after those of earlier calls. `done` is told when they would survive a
    /// power cut, not before this has returned.
    fn write(&mut self, changes: Vec<Change>, done: Done);
}
