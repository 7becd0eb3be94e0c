//! The last known ring on disk: the file `ring.bin`.
//!
//! A node writes it before it uses a newer ring, and reads it when it starts, so it serves though
//! nobody else can be reached. It is a copy: a damaged one is refused, and the node waits for the
//! others as a new one does.
//!
//! ```text
//! version u8 (1) │ crc32c u32 little-endian of the rest │ record, JSON
//! ```

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{raft::files, ring::RingState};

const FILE: &str = "ring.bin";
const VERSION: u8 = 1;

/// A state of the ring and how new it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRecord {
    /// The generation of the cluster.
    pub generation: u64,
    /// How many entries of the log are in the state.
    pub entries_applied: u64,
    /// The state.
    pub state: RingState,
}

impl RingRecord {
    /// True if this is later than another of the same cluster.
    pub fn is_newer_than(&self, generation: u64, entries_applied: u64) -> bool {
        (self.generation, self.entries_applied) > (generation, entries_applied)
    }
}

/// Why the file was not read.
#[derive(Debug, thiserror::Error)]
pub enum RingFileError {
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{FILE} is damaged: {0}")]
    Damaged(String),
}

/// What the file has of a record.
pub fn encode(record: &RingRecord) -> Vec<u8> {
    let rest = serde_json::to_vec(record).expect("a record has only keys that are text or numbers");
    let checksum = crc32c::crc32c(&rest).to_le_bytes();
    [&[VERSION], checksum.as_slice(), &rest].concat()
}

/// The record that the file has, or a backup.
pub fn decode(bytes: &[u8]) -> Result<RingRecord, RingFileError> {
    let damaged = |what: &str| RingFileError::Damaged(what.to_owned());
    let (&[version, a, b, c, d], rest) =
        bytes.split_first_chunk::<5>().ok_or_else(|| damaged("it is cut short"))?;
    if version != VERSION {
        return Err(damaged(&format!("version {version} is not known")));
    }
    if crc32c::crc32c(rest) != u32::from_le_bytes([a, b, c, d]) {
        return Err(damaged("its checksum is wrong"));
    }
    let record: RingRecord = serde_json::from_slice(rest).map_err(|error| damaged(&error.to_string()))?;
    record.state.check().map_err(|error| damaged(&error.to_string()))?;
    Ok(record)
}

/// Writes the file in `dir`. Blocks until it is durable.
pub fn write(dir: &Path, record: &RingRecord) -> io::Result<()> {
    files::write_atomically(dir, FILE, &[&encode(record)])
}

/// Reads the file in `dir`; none if there is none yet.
pub fn read(dir: &Path) -> Result<Option<RingRecord>, RingFileError> {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::PoolName, ring::tests::cluster_of};

    #[test]
    fn it_comes_back_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let record = RingRecord { generation: 2, entries_applied: 9, state: cluster_of(3) };
        write(dir.path(), &record).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(record));
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for at in (0..64).chain([good.len() / 2, good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 2;
            fs::write(&path, bad).unwrap();
            assert!(matches!(read(dir.path()), Err(RingFileError::Damaged(_))), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(read(dir.path()), Err(RingFileError::Damaged(_))), "cut at {at}");
        }
    }

    /// A file that is whole, of a ring that can be none.
    #[test]
    fn a_ring_whose_owners_are_no_nodes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let record = RingRecord { generation: 0, entries_applied: 9, state: cluster_of(3) };
        let text = serde_json::to_string(&record.state).unwrap();
        let owner = record.state.mapping().pools[&PoolName::from(PoolName::DEFAULT)].table.cells()[0].0;
        let broken = text.replacen(&format!("\"cells\":[{owner},"), "\"cells\":[9,", 1);
        assert_ne!(broken, text);
        let broken = RingRecord { state: serde_json::from_str(&broken).unwrap(), ..record };
        write(dir.path(), &broken).unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("which is no node of the pool"), "{error}");
    }

    #[test]
    fn later_is_by_generation_and_then_by_entries() {
        let check = |generation, entries_applied, expected| {
            let record = RingRecord { generation: 1, entries_applied: 5, ..RingRecord::default() };
            assert_eq!(record.is_newer_than(generation, entries_applied), expected);
        };
        check(1, 4, true);
        check(1, 5, false);
        check(1, 6, false);
        check(0, 9, true);
        check(2, 1, false);
    }
}
