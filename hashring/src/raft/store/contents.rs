//! All that the store holds, in memory.

use std::collections::BTreeMap;

use super::{
    Payload,
    value::{Assembly, COMMITTED, Damage, LOG_PREFIX, PURGED, VOTE, unseal},
};

/// Everything up to this index was purged from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The last index that is gone.
    pub index: u64,
    /// What the caller keeps with it.
    pub payload: Payload,
}

impl Purged {
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.index.to_be_bytes(), self.payload.as_ref()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Purged> {
        let (index, payload) = bytes.split_first_chunk::<8>()?;
        Some(Purged { index: u64::from_be_bytes(*index), payload: payload.into() })
    }
}

/// Vote, log and marks: what lies on disk, or will with the writes under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) vote: Option<Payload>,
    pub(super) committed: Option<Payload>,
    pub(super) purged: Option<Purged>,
    /// By index. The log is short: a snapshot is taken every few hundred entries.
    pub(super) log: BTreeMap<u64, Payload>,
}

impl Contents {
    /// Puts together what lies under the keys of the store, and checks it.
    pub(super) fn read(values: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Contents, Damage> {
        let value =
            |key: &[u8]| values.get(key).map(|value| Ok(Payload::from(unseal(key, value)?))).transpose();
        let (vote, committed) = (value(VOTE)?, value(COMMITTED)?);
        let cut_short = || Damage::Broken("the mark of what was purged is cut short".to_owned());
        let purged = value(PURGED)?.map(|mark| Purged::decode(&mark).ok_or_else(cut_short)).transpose()?;
        let mut log = BTreeMap::new();
        let mut assembly = Assembly::default();
        for (key, value) in
            values.range(LOG_PREFIX.to_vec()..).take_while(|(key, _)| key.starts_with(LOG_PREFIX))
        {
            log.extend(assembly.take(key, value)?.map(|(index, entry)| (index, entry.into())));
        }
        assembly.finish()?;
        let contents = Contents { vote, committed, purged, log };
        contents.check().map_err(Damage::Broken)?;
        Ok(contents)
    }

    /// The log begins behind what was purged and has no hole; otherwise what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut expected = self.purged.as_ref().map_or(0, |purged| purged.index.saturating_add(1));
        for &index in self.log.keys() {
            if index != expected {
                return Err(format!("the log has entry {index} where {expected} belongs"));
            }
            expected = expected.saturating_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found() {
        let check = |purged: Option<u64>, log: &[u64], expected: &str| {
            let contents = Contents {
                purged: purged.map(|index| Purged { index, payload: b"".as_slice().into() }),
                log: log.iter().map(|&index| (index, b"".as_slice().into())).collect(),
                ..Contents::default()
            };
            assert_eq!(contents.check().err().unwrap_or_default(), expected, "{purged:?} {log:?}");
        };
        check(None, &[], "");
        check(None, &[0, 1, 2], "");
        check(Some(4), &[], "");
        check(Some(4), &[5, 6], "");
        check(None, &[1], "the log has entry 1 where 0 belongs");
        check(None, &[0, 2], "the log has entry 2 where 1 belongs");
        check(Some(4), &[4, 5], "the log has entry 4 where 5 belongs");
        check(Some(4), &[6], "the log has entry 6 where 5 belongs");
    }
}
