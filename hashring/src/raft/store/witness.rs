//! A file that has seen how many batches were written.
//!
//! ```text
//! witness := a value as the database's, under the key "witness": count, u64 big-endian
//! ```
//!
//! It is written after a batch is durable, and not synced: after a power cut it may know of fewer
//! batches, or of none, and never of one that was not durable. So a database that holds fewer has
//! lost some.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    error::StoreError,
    value::{seal, unseal},
};

const NAME: &str = "witness";

pub(super) struct Witness {
    path: PathBuf,
    file: File,
    seen: u64,
}

impl Witness {
    /// Opens the witness of the database in `dir`. One that is not there, or unreadable, has seen
    /// nothing.
    pub(super) fn open(dir: &Path) -> Result<Witness, StoreError> {
        let path = dir.join(NAME);
        let open = || -> io::Result<(File, Vec<u8>)> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = vec![0; 64];
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(StoreError::io("open", &path))?;
        let count = unseal(NAME.as_bytes(), &bytes).ok().and_then(|count| count.try_into().ok());
        Ok(Witness { path, file, seen: count.map_or(0, u64::from_be_bytes) })
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// `writes` batches are durable now.
    pub(super) fn see(&mut self, writes: u64) -> Result<(), StoreError> {
        self.seen = writes;
        let bytes = seal(NAME.as_bytes(), &writes.to_be_bytes());
        self.file.write_all_at(&bytes, 0).map_err(StoreError::io("write", &self.path))
    }
}
