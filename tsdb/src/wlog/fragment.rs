//! The head of a fragment.

use super::PAGE_BYTES;

/// Bytes of a fragment before its data.
pub(super) const HEAD_BYTES: usize = 7;

/// Most data that one fragment holds.
pub(super) const FRAGMENT_BYTES_MAX: usize = PAGE_BYTES - HEAD_BYTES;

const KIND_MASK: u8 = 0b111;
const SNAPPY_FLAG: u8 = 0b0_1000;
const ZSTD_FLAG: u8 = 0b1_0000;

/// Which part of its record a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Full,
    First,
    Middle,
    Last,
}

/// How the record of a fragment is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Snappy,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentHead {
    pub part: Part,
    pub packing: Packing,
    pub len: usize,
    pub crc: u32,
}

/// First byte of a fragment. `None` if no writer writes this; 0, the mark of padding, is no
/// fragment either.
pub(super) fn parse_kind(byte: u8) -> Option<(Part, Packing)> {
    let part = match byte & KIND_MASK {
        1 => Part::Full,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        _ => return None,
    };
    let packing = match byte & !KIND_MASK {
        0 => Packing::Plain,
        SNAPPY_FLAG => Packing::Snappy,
        ZSTD_FLAG => Packing::Zstd,
        _ => return None,
    };
    Some((part, packing))
}

/// Length and checksum behind the kind byte.
pub(super) fn parse_len_and_crc(head: &[u8; HEAD_BYTES]) -> (usize, u32) {
    let [_, len_high, len_low, crc @ ..] = *head;
    (usize::from(u16::from_be_bytes([len_high, len_low])), u32::from_be_bytes(crc))
}

impl FragmentHead {
    pub fn parse(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (part, packing) = parse_kind(head[0])?;
        let (len, crc) = parse_len_and_crc(head);
        Some(Self { part, packing, len, crc })
    }

    /// # Panics
    /// If the length does not fit in a page.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        assert!(self.len <= FRAGMENT_BYTES_MAX, "a fragment fits in its page");
        let part = match self.part {
            Part::Full => 1,
            Part::First => 2,
            Part::Middle => 3,
            Part::Last => 4,
        };
        let flag = match self.packing {
            Packing::Plain => 0,
            Packing::Snappy => SNAPPY_FLAG,
            Packing::Zstd => ZSTD_FLAG,
        };
        let [len_high, len_low] = (self.len as u16).to_be_bytes();
        let [crc0, crc1, crc2, crc3] = self.crc.to_be_bytes();
        [part | flag, len_high, len_low, crc0, crc1, crc2, crc3]
    }
}
