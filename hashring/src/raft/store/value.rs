//! Keys and values of the store.
//!
//! ```text
//! m/vote  m/committed  m/purged      one value each
//! m/writes                           how many batches were written
//! l/<index, u64 big-endian>          an entry of the log, or its first piece
//! l/<index, u64 big-endian><n, u8>   its n-th piece
//!
//! value   := version u8 (1) | crc32c u32 little-endian of key and payload | payload
//! payload := of l/: pieces that follow, u8 | bytes of the entry
//!            of m/purged: index, u64 big-endian | bytes
//!            of m/writes: count, u64 big-endian
//!            of the others: bytes
//! ```
//!
//! The key is under the checksum too: a good value in the wrong place is damage.
//!
//! Entries are cut into pieces because of how the database below keeps them: up to 17 neighbours in
//! one page, and a page of more than 128 KiB goes to a file of its own, which is not synced.

use std::path::Path;

use super::error::StoreError;

/// Version of a value.
pub(super) const VERSION: u8 = 1;
/// Bytes before the payload.
const HEADER_BYTES: usize = 5;
/// Bytes of an entry in one value. 17 of them are far below a page of 128 KiB.
pub(super) const PIECE_BYTES_MAX: usize = 4096;
/// Pieces of an entry: the number of a piece is one byte.
pub(super) const PIECES_MAX: usize = 256;

pub(super) const VOTE: &[u8] = b"m/vote";
pub(super) const COMMITTED: &[u8] = b"m/committed";
pub(super) const PURGED: &[u8] = b"m/purged";
pub(super) const WRITES: &[u8] = b"m/writes";
pub(super) const LOG_PREFIX: &[u8] = b"l/";

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Of a version not known here.
    Version(u8),
    /// Not what was written.
    Broken(String),
}

impl Damage {
    fn broken(what: impl Into<String>) -> Damage {
        Damage::Broken(what.into())
    }

    /// The damage of the store in a directory.
    pub(super) fn of(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Damage::Version(version) => StoreError::Version { path, version },
            Damage::Broken(what) => StoreError::Corrupt { path, what },
        }
    }
}

/// The value that keeps `payload` under `key`.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    value.push(VERSION);
    value.extend_from_slice(&checksum(key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// The payload of a value found under `key`.
pub(super) fn unseal<'value>(key: &[u8], value: &'value [u8]) -> Result<&'value [u8], Damage> {
    let Some((&[version, a, b, c, d], payload)) = value.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Damage::broken(format!("the value of {} is cut short", key.escape_ascii())));
    };
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    if checksum(key, payload) != u32::from_le_bytes([a, b, c, d]) {
        return Err(Damage::broken(format!("the checksum of {} is wrong", key.escape_ascii())));
    }
    Ok(payload)
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

fn entry_key(index: u64, piece: u8) -> Vec<u8> {
    let mut key = [LOG_PREFIX, &index.to_be_bytes()].concat();
    if piece > 0 {
        key.push(piece);
    }
    key
}

fn piece_count(entry_bytes: usize) -> usize {
    entry_bytes.div_ceil(PIECE_BYTES_MAX).max(1)
}

/// Keys and values that keep an entry. The entry is at most [`PIECES_MAX`] pieces long, which the store
/// ensures.
pub(super) fn seal_entry(index: u64, entry: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let count = piece_count(entry.len());
    (0..count)
        .map(|piece| {
            let start = piece * PIECE_BYTES_MAX;
            let end = entry.len().min(start + PIECE_BYTES_MAX);
            let following = u8::try_from(count - 1 - piece).expect("an entry of at most 256 pieces");
            let key = entry_key(index, piece as u8);
            let value = seal(&key, &[&[following], &entry[start..end]].concat());
            (key, value)
        })
        .collect()
}

/// Keys that keep an entry of this size.
pub(super) fn entry_keys(index: u64, entry_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..piece_count(entry_bytes)).map(move |piece| entry_key(index, piece as u8))
}

/// Puts entries together again from their pieces, which come ascending by key.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// The entry at work: its index, the number of the next piece, how many are to come, the bytes.
    open: Option<(u64, u8, u8, Vec<u8>)>,
}

impl Assembly {
    /// Takes the next value; gives an entry when it is whole.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<Option<(u64, Vec<u8>)>, Damage> {
        let stray = || Damage::broken(format!("{} does not belong there", key.escape_ascii()));
        let (index, piece) = parse_entry_key(key).ok_or_else(stray)?;
        let (&following, bytes) = unseal(key, value)?.split_first().ok_or_else(stray)?;
        let (expected_index, expected_piece, expected_following, mut entry) =
            self.open.take().unwrap_or((index, 0, following, Vec::new()));
        if (expected_index, expected_piece, expected_following) != (index, piece, following) {
            return Err(Damage::broken(format!(
                "piece {expected_piece} of entry {expected_index} is missing"
            )));
        }
        entry.extend_from_slice(bytes);
        if following == 0 {
            return Ok(Some((index, entry)));
        }
        let next = piece.checked_add(1).ok_or_else(stray)?;
        self.open = Some((index, next, following - 1, entry));
        Ok(None)
    }

    /// To be called after the last value.
    pub(super) fn finish(self) -> Result<(), Damage> {
        match self.open {
            None => Ok(()),
            Some((index, piece, ..)) => {
                Err(Damage::broken(format!("piece {piece} of entry {index} is missing")))
            }
        }
    }
}

fn parse_entry_key(key: &[u8]) -> Option<(u64, u8)> {
    let (index, rest) = key.strip_prefix(LOG_PREFIX)?.split_first_chunk::<8>()?;
    let piece = match rest {
        [] => 0,
        [0] => return None,
        [piece] => *piece,
        _ => return None,
    };
    Some((u64::from_be_bytes(*index), piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(values: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<(u64, Vec<u8>)>, Damage> {
        let mut assembly = Assembly::default();
        let mut entries = Vec::new();
        for (key, value) in values {
            entries.extend(assembly.take(key, value)?);
        }
        assembly.finish().map(|()| entries)
    }

    #[test]
    fn entries_of_every_size_come_back() {
        for size in [
            0,
            1,
            PIECE_BYTES_MAX - 1,
            PIECE_BYTES_MAX,
            PIECE_BYTES_MAX + 1,
            3 * PIECE_BYTES_MAX,
            PIECES_MAX * PIECE_BYTES_MAX,
        ] {
            let entry: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
            let mut values = seal_entry(7, &entry);
            assert_eq!(
                values.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
                entry_keys(7, size).collect::<Vec<_>>()
            );
            assert!(values.is_sorted());
            values.extend(seal_entry(8, b"next"));
            assert_eq!(assemble(&values), Ok(vec![(7, entry), (8, b"next".to_vec())]), "{size}");
        }
    }

    #[test]
    fn any_lost_or_changed_byte_is_damage() {
        let values = seal_entry(258, &[9; PIECE_BYTES_MAX + 1]);
        assert_eq!(values.len(), 2);
        for lost in 0..values.len() {
            let mut values = values.clone();
            values.remove(lost);
            assert!(matches!(assemble(&values), Err(Damage::Broken(_))), "piece {lost}");
        }
        let (key, value) = &seal_entry(258, b"entry")[0];
        for at in 0..value.len() {
            let mut value = value.clone();
            value[at] ^= 1;
            assert!(assemble(&[(key.clone(), value.clone())]).is_err(), "byte {at}");
            value.truncate(at);
            assert!(assemble(&[(key.clone(), value)]).is_err(), "cut at {at}");
        }
        let other = entry_key(259, 0);
        assert!(matches!(assemble(&[(other, value.clone())]), Err(Damage::Broken(_))), "under another key");
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut value = seal(VOTE, b"vote");
        value[0] = 2;
        assert_eq!(unseal(VOTE, &value), Err(Damage::Version(2)));
    }

    /// Frozen: stores of earlier builds look like this.
    #[test]
    fn golden_bytes() {
        assert_eq!(seal(VOTE, b"abc").escape_ascii().to_string(), r"\x01\xbf\xf3k\xababc");
        let [(key, value)] = &seal_entry(1, b"abc")[..] else { panic!("one piece") };
        assert_eq!(key.escape_ascii().to_string(), r"l/\x00\x00\x00\x00\x00\x00\x00\x01");
        assert_eq!(value.escape_ascii().to_string(), r"\x01\xc0\xe75\x18\x00abc");
    }
}
