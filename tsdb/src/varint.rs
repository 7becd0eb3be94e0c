//! Variable-length integers as Go's `encoding/binary` writes them, and a bounds-checked reader.
//!
//! `uvarint` is LEB128; `varint` is zigzag and then LEB128. Decoding follows Go's overflow rule:
//! at most 10 bytes, of which the last is at most 1.

/// Longest encoding of a 64-bit number in bytes.
pub const MAX_VARINT_LEN: usize = 10;

/// Appends `value` as LEB128.
#[inline]
pub fn put_uvarint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

/// Appends `value` zigzag-encoded.
#[inline]
pub fn put_varint(buf: &mut Vec<u8>, value: i64) {
    put_uvarint(buf, zigzag(value));
}

/// Appends the length of `text` as uvarint, then its bytes.
pub fn put_str(buf: &mut Vec<u8>, text: &str) {
    put_uvarint(buf, text.len() as u64);
    buf.extend_from_slice(text.as_bytes());
}

/// Zigzag encoding of `value`.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Inverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Number of bytes that [`put_uvarint`] appends for `value`.
#[inline]
pub fn uvarint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Reading ran past the end, or met a number that is no valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes are left than the structure needs.
    #[error("unexpected end of data")]
    UnexpectedEnd,
    /// A variable-length integer is longer than 64 bits.
    #[error("variable-length integer overflows 64 bits")]
    Overflow,
    /// A string is not valid UTF-8.
    #[error("string is not valid UTF-8")]
    InvalidUtf8,
}

/// Reads the structures of the on-disk formats from a byte slice. Never panics: each read checks
/// what is left.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// The bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number of bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, tail) = self.rest.split_first().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(first)
    }

    /// Four bytes, big-endian.
    #[inline]
    pub fn u32_be(&mut self) -> Result<u32, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// Eight bytes, big-endian.
    #[inline]
    pub fn u64_be(&mut self) -> Result<u64, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(u64::from_be_bytes(*head))
    }

    /// Eight bytes, big-endian, signed.
    #[inline]
    pub fn i64_be(&mut self) -> Result<i64, DecodeError> {
        self.u64_be().map(|value| value as i64)
    }

    /// A LEB128 number.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate() {
            if index == MAX_VARINT_LEN - 1 && byte > 1 {
                return Err(DecodeError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(DecodeError::UnexpectedEnd)
    }

    /// A zigzag number.
    #[inline]
    pub fn varint(&mut self) -> Result<i64, DecodeError> {
        self.uvarint().map(unzigzag)
    }

    /// Bytes preceded by their length as uvarint.
    pub fn prefixed_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.uvarint()?;
        let len = usize::try_from(len).map_err(|_| DecodeError::UnexpectedEnd)?;
        self.bytes(len)
    }

    /// A UTF-8 string preceded by its length as uvarint.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.prefixed_bytes()?).map_err(|_| DecodeError::InvalidUtf8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overflow_follows_go() {
        let nine = [0xff; 9];
        let with_last = |last: u8| [&nine[..], &[last]].concat();
        assert_eq!(Decoder::new(&with_last(1)).uvarint(), Ok(u64::MAX));
        assert_eq!(Decoder::new(&with_last(2)).uvarint(), Err(DecodeError::Overflow));
        assert_eq!(Decoder::new(&with_last(0x80)).uvarint(), Err(DecodeError::Overflow));
        assert_eq!(Decoder::new(&nine).uvarint(), Err(DecodeError::UnexpectedEnd));
        assert_eq!(Decoder::new(&[]).uvarint(), Err(DecodeError::UnexpectedEnd));
    }

    proptest! {
        #[test]
        fn numbers_survive(unsigned: u64, signed: i64, text: String) {
            let mut buf = Vec::new();
            put_uvarint(&mut buf, unsigned);
            prop_assert_eq!(buf.len(), uvarint_len(unsigned));
            put_varint(&mut buf, signed);
            put_str(&mut buf, &text);
            let mut decoder = Decoder::new(&buf);
            prop_assert_eq!(decoder.uvarint(), Ok(unsigned));
            prop_assert_eq!(decoder.varint(), Ok(signed));
            prop_assert_eq!(decoder.str(), Ok(text.as_str()));
            prop_assert!(decoder.is_empty());
        }
    }
}
