//! Number fields on the hot paths of encoding and replay.

use crate::varint::{DecodeError, Decoder, MAX_VARINT_LEN, unzigzag, zigzag};

/// Writes `value` zigzag-encoded to `out` from `at` on and returns the end.
///
/// `out` must have [`MAX_VARINT_LEN`] bytes left.
#[inline]
pub(super) fn write_varint(out: &mut [u8], mut at: usize, value: i64) -> usize {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// Reads a zigzag number off the front of `rest`. Short numbers, the common case, take one branch
/// each; the others go through [`Decoder`], which knows the overflow rule.
#[inline]
pub(super) fn take_varint(rest: &mut &[u8]) -> Result<i64, DecodeError> {
    match **rest {
        [first, ref tail @ ..] if first < 0x80 => {
            *rest = tail;
            Ok(unzigzag(u64::from(first)))
        }
        [first, second, ref tail @ ..] if second < 0x80 => {
            *rest = tail;
            Ok(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7))
        }
        [first, second, third, ref tail @ ..] if third < 0x80 => {
            *rest = tail;
            let low = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
            Ok(unzigzag(low | u64::from(third) << 14))
        }
        _ => take_long_varint(rest),
    }
}

#[cold]
fn take_long_varint(rest: &mut &[u8]) -> Result<i64, DecodeError> {
    let mut decoder = Decoder::new(rest);
    let value = decoder.varint()?;
    *rest = decoder.rest();
    Ok(value)
}

/// Reads eight bytes, big-endian, off the front of `rest`.
#[inline]
pub(super) fn take_u64(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::UnexpectedEnd)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*head))
}

/// Longest encoding of one float sample: two numbers and the value.
pub(super) const SAMPLE_BYTES_MAX: usize = 2 * MAX_VARINT_LEN + 8;
