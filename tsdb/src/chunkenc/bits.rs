//! Reads a bit stream, the most significant bit of each byte first.

use crate::varint::{DecodeError, MAX_VARINT_LEN, unzigzag};

/// Fewest bits that are at hand after a refill, unless the data ends before.
const REFILL_BITS: u32 = 56;

/// Reads bits from a byte slice. Never panics: each read checks what is left.
///
/// Up to 63 bits are held ready in a word, left-aligned; below them the word may hold bits of the
/// byte that comes next, which a later refill sets again to the same values.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    word: u64,
    ready: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data, word: 0, ready: 0 }
    }

    /// Number of bits not yet read.
    pub(super) fn remaining_bits(&self) -> usize {
        self.rest.len() * 8 + self.ready as usize
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.rest.first_chunk() {
            self.word |= u64::from_be_bytes(*next) >> self.ready;
            let taken = (63 - self.ready) / 8;
            self.rest = self.rest.get(taken as usize..).unwrap_or_default();
            self.ready += 8 * taken;
        } else {
            self.refill_near_end();
        }
    }

    #[cold]
    fn refill_near_end(&mut self) {
        while self.ready < REFILL_BITS {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return;
            };
            self.word |= u64::from(byte) << (56 - self.ready);
            self.rest = rest;
            self.ready += 8;
        }
    }

    /// Makes `count` bits ready, at most 56.
    #[inline]
    fn need(&mut self, count: u32) -> Result<(), DecodeError> {
        if self.ready < count {
            self.refill();
            if self.ready < count {
                return Err(DecodeError::UnexpectedEnd);
            }
        }
        Ok(())
    }

    /// Passes over `count` bits that are ready, fewer than 64.
    #[inline]
    fn skip(&mut self, count: u32) {
        self.word <<= count;
        self.ready -= count;
    }

    /// Reads `count` bits, at most 64, as an unsigned number.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, DecodeError> {
        if count > REFILL_BITS {
            let high = self.bits(count - 32)?;
            return Ok(high << 32 | self.bits(32)?);
        }
        if count == 0 {
            return Ok(0);
        }
        self.need(count)?;
        let value = self.word >> (64 - count);
        self.skip(count);
        Ok(value)
    }

    /// Reads one bit.
    #[inline]
    pub(super) fn bit(&mut self) -> Result<bool, DecodeError> {
        Ok(self.bits(1)? == 1)
    }

    /// Reads ones up to and with the zero behind them, or `most` ones (at most 8), and returns the
    /// number of ones.
    #[inline]
    pub(super) fn ones(&mut self, most: u32) -> Result<u32, DecodeError> {
        if self.ready < most {
            self.refill();
        }
        let ones = (!self.word).leading_zeros().min(most);
        let len = (ones + 1).min(most);
        if self.ready < len {
            return Err(DecodeError::UnexpectedEnd);
        }
        self.skip(len);
        Ok(ones)
    }

    /// Reads a number of `count` bits (1 to 64) from −(2^(count−1) − 1) to 2^(count−1): the range
    /// of delta fields, which is not that of two's complement.
    #[inline]
    pub(super) fn delta(&mut self, count: u32) -> Result<i64, DecodeError> {
        let raw = self.bits(count)?;
        if count < 64 && raw > 1 << (count - 1) {
            return Ok(raw.wrapping_sub(1 << count) as i64);
        }
        Ok(raw as i64)
    }

    /// Reads a LEB128 number, whose bytes may begin at any bit.
    pub(super) fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for index in 0..MAX_VARINT_LEN {
            let byte = self.bits(8)?;
            if index == MAX_VARINT_LEN - 1 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Overflow)
    }

    /// Reads a zigzag number, whose bytes may begin at any bit.
    pub(super) fn varint(&mut self) -> Result<i64, DecodeError> {
        self.uvarint().map(unzigzag)
    }

    /// Reads a signed number in the varbit code of histograms and of [`super::Encoding::Xor2`].
    pub(super) fn varbit_signed(&mut self) -> Result<i64, DecodeError> {
        const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];
        let ones = self.ones(8)?;
        match WIDTHS.get(ones as usize).copied().unwrap_or(64) {
            0 => Ok(0),
            width => self.delta(width),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as slowly and plainly as can be.
    fn bits_by_hand(data: &[u8], from: usize, count: u32) -> Option<u64> {
        (from..from + count as usize).try_fold(0, |value, index| {
            let bit = data.get(index / 8)? >> (7 - index % 8) & 1;
            Some(value << 1 | u64::from(bit))
        })
    }

    proptest! {
        #[test]
        fn reads_what_is_there(data: Vec<u8>, widths in prop::collection::vec(0u32..=64, 0..40)) {
            let mut reader = BitReader::new(&data);
            let mut position = 0;
            for width in widths {
                let expected = bits_by_hand(&data, position, width);
                prop_assert_eq!(reader.bits(width).ok(), expected);
                if expected.is_none() {
                    break;
                }
                position += width as usize;
                prop_assert_eq!(reader.remaining_bits(), data.len() * 8 - position);
            }
        }
    }

    #[test]
    fn ones_stop_at_the_zero_or_at_the_most() {
        let mut reader = BitReader::new(&[0b0101_1011, 0b1111_1111]);
        for expected in [0, 1, 2, 4, 4] {
            assert_eq!(reader.ones(4), Ok(expected));
        }
        assert_eq!(reader.remaining_bits(), 2);
        assert_eq!(reader.ones(4), Err(DecodeError::UnexpectedEnd));
    }

    #[test]
    fn delta_range_is_asymmetric() {
        // Three bits: -3 to 4.
        let read = |raw: u8| BitReader::new(&[raw << 5]).delta(3).expect("three bits are there");
        assert_eq!((0..8).map(read).collect::<Vec<_>>(), [0, 1, 2, 3, 4, -3, -2, -1]);
        assert_eq!(BitReader::new(&[0xff; 8]).delta(64), Ok(-1));
    }
}
