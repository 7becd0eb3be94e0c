//! The primitives of protobuf, read from a slice that knows where in the body it lies.

use super::{WireError, WireErrorKind};

/// Wire types that may occur.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const DELIMITED: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// The rest of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// What has not been read yet.
    pub rest: &'a [u8],
    /// Offset in the body of the first byte after `rest`. It stays as it is while reading, so
    /// knowing the offset costs nothing until there is an error to report.
    end: usize,
}

/// The key in front of each field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Number of the field, not 0.
    pub field: u32,
    /// Wire type, 0 to 7.
    pub wire_type: u8,
    /// Where the key begins in the body.
    pub offset: usize,
}

impl Key {
    /// An error unless the wire type is `wanted`.
    #[inline]
    pub fn expect(self, wanted: u8) -> Result<(), WireError> {
        if self.wire_type == wanted { Ok(()) } else { Err(self.unexpected()) }
    }

    #[cold]
    fn unexpected(self) -> WireError {
        let Self { field, wire_type, offset } = self;
        let kind = match wire_type {
            GROUP_START | GROUP_END => WireErrorKind::Group { field },
            _ => WireErrorKind::WireType { field, wire_type },
        };
        WireError { kind, offset }
    }
}

impl<'a> Cursor<'a> {
    #[inline]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body, end: body.len() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Where `rest` begins in the body.
    #[inline]
    pub fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// The part from `start` to `end`, both offsets in the body and inside of `rest`.
    #[inline]
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let base = self.offset();
        match self.rest.get(start.wrapping_sub(base)..end.wrapping_sub(base)) {
            Some(rest) => Self { rest, end },
            None => {
                debug_assert!(false, "{start}..{end} is outside of {base}..{}", self.end);
                Self { rest: &[], end: self.end }
            }
        }
    }

    /// Leaves nothing to read.
    #[inline]
    pub fn finish(&mut self) {
        self.rest = &[];
    }

    /// A number in base 128, low digits first.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.varint_long(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                // Nine bytes hold 63 bits, which leaves one for the tenth.
                if index == 9 && *byte > 1 {
                    break;
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        let too_long = self.rest.len() >= 10;
        Err(self.error(if too_long { WireErrorKind::VarintTooLong } else { WireErrorKind::Truncated }))
    }

    /// The key of the next field.
    #[inline]
    pub fn key(&mut self) -> Result<Key, WireError> {
        let offset = self.offset();
        let key = self.varint()?;
        match u32::try_from(key) {
            Ok(key) if key >= 8 => Ok(Key { field: key >> 3, wire_type: (key & 7) as u8, offset }),
            _ => Err(WireError { kind: WireErrorKind::InvalidField, offset }),
        }
    }

    /// The content of a length-delimited field; `key` must be of that type.
    #[inline]
    pub fn delimited(&mut self, key: Key) -> Result<Self, WireError> {
        key.expect(DELIMITED)?;
        let length = self.varint()?;
        let parts = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((content, rest)) = parts else {
            let left = self.rest.len();
            let kind = WireErrorKind::LengthBeyondEnd { length, left };
            return Err(WireError { kind, offset: key.offset });
        };
        self.rest = rest;
        Ok(Self { rest: content, end: self.offset() })
    }

    /// Eight bytes, low byte first, after `key`, which must be of that type.
    #[inline]
    pub fn fixed64(&mut self, key: Key) -> Result<u64, WireError> {
        key.expect(FIXED64)?;
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(WireErrorKind::Truncated));
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// The varint after `key`, which must be of that type.
    #[inline]
    pub fn varint_field(&mut self, key: Key) -> Result<u64, WireError> {
        key.expect(VARINT)?;
        self.varint()
    }

    /// Passes over the field after `key`, of whatever type.
    pub fn skip(&mut self, key: Key) -> Result<(), WireError> {
        match key.wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64(key).map(drop),
            DELIMITED => self.delimited(key).map(drop),
            FIXED32 => {
                self.rest = self.rest.get(4..).ok_or_else(|| self.error(WireErrorKind::Truncated))?;
                Ok(())
            }
            _ => Err(key.unexpected()),
        }
    }

    /// An error at the present offset.
    #[cold]
    pub fn error(&self, kind: WireErrorKind) -> WireError {
        WireError { kind, offset: self.offset() }
    }
}
