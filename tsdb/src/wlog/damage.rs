//! Telling a torn tail from damage under records that were good once.
//!
//! The log is written front to back, and a batch in one write. A write that was cut short therefore
//! leaves a prefix of valid fragments, then at most one that is not, then nothing or zeros; behind it
//! nothing can be valid. So if the damage is in the last segment and no valid fragment stands
//! anywhere behind it, it is taken for a torn tail. If one does, bytes before it were lost after they
//! had been written: that is damage in the middle, and what stands behind it may have been
//! acknowledged.
//!
//! Details:
//! - Lengths cannot be trusted any more, so the search tries every offset, not only where the next
//!   fragment should begin. It wants a known kind, a length that stays in the page and is not zero (the
//!   start of a plain Series record looks like an empty fragment), and the checksum over it.
//! - Kinds are not covered by checksums. The damaged fragment itself counts as valid if its length and
//!   checksum hold, whatever its kind says: no torn write leaves a wrong first byte before right ones.
//! - A record whose checksums hold and that cannot be decompressed was never torn.
//! - In a segment that is not the last nothing is torn: it was synced before the next was begun.
//! - A damaged last record of all, with nothing behind it, cannot be told from a torn one, and is cut.
//! - The data of a torn record may hold bytes that look like a fragment. Then a torn tail is taken for
//!   damage, which is the safe mistake: nothing is cut.
//! - After a power cut a file system may have brought later pages to the disk and an earlier one
//!   not. That counts as damage in the middle too: whether the records behind the hole were acknowledged
//!   cannot be seen from here.

use std::io;

use super::{
    PAGE_BYTES,
    fragment::{FragmentHead, HEAD_BYTES, parse_len_and_crc},
};
use crate::{crc::crc32c, fs::ReadFile, types::SegmentIndex};

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last write was cut short. Nothing behind `offset` was ever synced or is readable, so it is
    /// to be cut off there.
    TornTail {
        /// The last segment.
        segment: SegmentIndex,
        /// Start of the damaged record in bytes.
        offset: u64,
    },
    /// Bytes that were good once are not any more, and acknowledged records may stand behind them.
    /// Nothing is to be cut.
    Middle {
        /// The segment.
        segment: SegmentIndex,
        /// Start of the damaged record in bytes.
        offset: u64,
    },
}

/// Searches `file` from the damaged fragment at offset `damaged` on for a valid fragment.
pub(super) fn anything_valid_from(file: &dyn ReadFile, damaged: u64) -> io::Result<bool> {
    let mut page = vec![0; PAGE_BYTES];
    let mut page_start = damaged - damaged % PAGE_BYTES as u64;
    let mut at = (damaged - page_start) as usize;
    if fragment_with_any_kind(file, damaged, PAGE_BYTES - at)? {
        return Ok(true);
    }
    at += 1;
    loop {
        let len = file.read_at(&mut page, page_start)?;
        let content = page.get(..len).unwrap_or_default();
        let mut rest = content.get(at..).unwrap_or_default();
        while rest.len() > HEAD_BYTES {
            if is_valid_fragment(rest) {
                return Ok(true);
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        if len < PAGE_BYTES {
            return Ok(false);
        }
        page_start += PAGE_BYTES as u64;
        at = 0;
    }
}

fn fragment_with_any_kind(file: &dyn ReadFile, at: u64, page_left: usize) -> io::Result<bool> {
    let mut rest = vec![0; page_left];
    let len = file.read_at(&mut rest, at)?;
    let rest = rest.get(..len).unwrap_or_default();
    let Some((head, behind)) = rest.split_first_chunk() else { return Ok(false) };
    let (len, crc) = parse_len_and_crc(head);
    Ok(has_checksum(behind, len, crc))
}

fn is_valid_fragment(rest: &[u8]) -> bool {
    let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() else { return false };
    FragmentHead::parse(head).is_some_and(|head| has_checksum(behind, head.len, head.crc))
}

fn has_checksum(behind: &[u8], len: usize, crc: u32) -> bool {
    len > 0 && behind.get(..len).is_some_and(|data| crc32c(data) == crc)
}
