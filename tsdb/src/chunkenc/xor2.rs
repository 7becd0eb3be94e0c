//! The XOR2 encoding of floats, read only. Newer Prometheus versions write it behind a flag; it can
//! also hold start timestamps, which are passed over here.
//!
//! Behind the sample count comes a header byte: bit 7 says that sample 0 has a start timestamp, the
//! low 7 bits are the index of the first sample whose start timestamp changes (0: none does); from
//! that sample on each one has a field of its own. Sample 0 and the time of sample 1 are as in XOR.
//! The value is the xor with the last value that was not stale, or a code of its own for the stale
//! marker. From sample 2 on, one prefix tells about time and value together:
//!
//! | prefix | time | value |
//! |---|---|---|
//! | `0` | regular | unchanged |
//! | `10` | regular | `0` known window, `1` new window |
//! | `110`, `1110`, `11110` | delta of delta of 13, 20, 64 bits, two's complement | value code |
//! | `11111` | regular | stale |
//!
//! Value code: `0` unchanged, `10` known window, `110` new window, `111` stale.

use super::{ChunkError, Encoding, bits::BitReader, in_sample, sample_count, xor::read_window};
use crate::types::{STALE_NAN_BITS, Sample};

/// Bytes before the first sample: count and start timestamp header.
const HEADER_LEN: usize = 3;

/// Iterates over the samples of an XOR2 chunk. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Xor2Iter<'a> {
    reader: BitReader<'a>,
    count: u16,
    read: u16,
    /// Sample 0 has a start timestamp.
    first_start_known: bool,
    /// First sample with a start timestamp field; 0 if there is none.
    starts_from: u16,
    t: i64,
    delta: u64,
    /// The last value that was not stale.
    base: u64,
    leading: u8,
    trailing: u8,
}

/// What is told of a value.
enum Value {
    Unchanged,
    KnownWindow,
    NewWindow,
    Stale,
}

impl<'a> Xor2Iter<'a> {
    /// Reads the header. `data` begins with the sample count.
    pub fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let count = sample_count(Encoding::Xor2, data)?;
        let starts = match data.get(2) {
            Some(&starts) => starts,
            None if count == 0 => 0,
            None => return Err(ChunkError::Truncated { sample: 0, count }),
        };
        Ok(Self {
            reader: BitReader::new(data.get(HEADER_LEN..).unwrap_or_default()),
            count,
            read: 0,
            first_start_known: starts & 0x80 != 0,
            starts_from: u16::from(starts & 0x7f),
            t: 0,
            delta: 0,
            base: 0,
            leading: 0,
            trailing: 0,
        })
    }

    /// Number of samples according to the header, read or not.
    pub fn sample_count(&self) -> u16 {
        self.count
    }

    fn read(&mut self) -> Result<Sample, ChunkError> {
        let in_sample = in_sample(self.read, self.count);
        let bits = match self.read {
            0 => {
                self.t = self.reader.varint().map_err(&in_sample)?;
                let bits = self.reader.bits(64).map_err(&in_sample)?;
                if bits != STALE_NAN_BITS {
                    self.base = bits;
                }
                if self.first_start_known {
                    self.reader.varint().map_err(&in_sample)?;
                }
                bits
            }
            1 => {
                self.delta = self.reader.uvarint().map_err(&in_sample)?;
                let value = self.value_code()?;
                self.value(value)?
            }
            _ => {
                let prefix = self.reader.ones(5).map_err(&in_sample)?;
                let value = match prefix {
                    0 => Value::Unchanged,
                    1 if self.reader.bit().map_err(&in_sample)? => Value::NewWindow,
                    1 => Value::KnownWindow,
                    5 => Value::Stale,
                    _ => {
                        let width = [13, 20, 64].get(prefix as usize - 2).copied().unwrap_or(64);
                        let raw = self.reader.bits(width).map_err(&in_sample)?;
                        let dod = (raw << (64 - width)) as i64 >> (64 - width);
                        self.delta = self.delta.wrapping_add_signed(dod);
                        self.value_code()?
                    }
                };
                self.value(value)?
            }
        };
        self.t = self.t.wrapping_add_unsigned(self.delta);
        if self.starts_from > 0 && self.read >= self.starts_from {
            self.reader.varbit_signed().map_err(&in_sample)?;
        }
        self.read += 1;
        Ok(Sample { t: self.t, bits })
    }

    fn value_code(&mut self) -> Result<Value, ChunkError> {
        Ok(match self.reader.ones(3).map_err(in_sample(self.read, self.count))? {
            0 => Value::Unchanged,
            1 => Value::KnownWindow,
            2 => Value::NewWindow,
            _ => Value::Stale,
        })
    }

    fn value(&mut self, value: Value) -> Result<u64, ChunkError> {
        let in_sample = in_sample(self.read, self.count);
        match value {
            Value::Unchanged => return Ok(self.base),
            Value::Stale => return Ok(STALE_NAN_BITS),
            Value::KnownWindow => {}
            Value::NewWindow => {
                (self.leading, self.trailing) = read_window(&mut self.reader)
                    .map_err(&in_sample)?
                    .ok_or(ChunkError::Invalid { what: "window", sample: self.read })?;
            }
        }
        let len = 64 - self.leading - self.trailing;
        let xor = self.reader.bits(len.into()).map_err(&in_sample)?;
        self.base ^= xor << self.trailing;
        Ok(self.base)
    }
}

impl Iterator for Xor2Iter<'_> {
    type Item = Result<Sample, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.count {
            return None;
        }
        let sample = self.read();
        if sample.is_err() {
            self.count = self.read;
        }
        Some(sample)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count > self.read), Some(usize::from(self.count - self.read)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte of start timestamp header, then sample 0 at time 0 with a value of these bits, then
    /// what comes behind it.
    fn chunk(count: u8, starts: u8, bits: u64, behind: &[u8]) -> Vec<u8> {
        [&[0, count, starts, 0][..], &bits.to_be_bytes(), behind].concat()
    }

    fn read(data: &[u8]) -> Result<Vec<(i64, u64)>, ChunkError> {
        Xor2Iter::new(data)?.map(|sample| sample.map(|sample| (sample.t, sample.bits))).collect()
    }

    #[test]
    fn values_compare_with_the_last_that_was_not_stale() {
        // Unchanged, in time too from sample 2 on. Before the first value it is as if there was a 0.
        let data = chunk(3, 0, STALE_NAN_BITS, &[5, 0b0000_0000]);
        assert_eq!(read(&data), Ok(vec![(0, STALE_NAN_BITS), (5, 0), (10, 0)]));
        // Stale with the time of sample 1, stale at a regular time, unchanged.
        let data = chunk(4, 0, 7, &[5, 0b1111_1111, 0b0000_0000]);
        assert_eq!(read(&data), Ok(vec![(0, 7), (5, STALE_NAN_BITS), (10, STALE_NAN_BITS), (15, 7)]));
    }

    #[test]
    fn deltas_of_deltas_are_twos_complement() {
        // 13 bits, all ones: -1; unchanged value. 20 bits, only the highest: -2^19.
        let data = chunk(3, 0, 7, &[5, 0b0110_1111, 0b1111_1111, 0b1000_0000]);
        assert_eq!(read(&data), Ok(vec![(0, 7), (5, 7), (9, 7)]));
        let data = chunk(3, 0, 7, &[5, 0b0111_0100, 0, 0, 0]);
        assert_eq!(read(&data), Ok(vec![(0, 7), (5, 7), (10 - (1 << 19), 7)]));
    }

    #[test]
    fn start_timestamps_are_passed_over() {
        // Sample 0 has one, and each from sample 1 on: 0 as `0`, 4 as `10 100`.
        let data = chunk(3, 0x81, 7, &[9, 5, 0b0001_0100]);
        assert_eq!(read(&data), Ok(vec![(0, 7), (5, 7), (10, 7)]));
    }

    #[test]
    fn damage_is_told() {
        let data = chunk(3, 0x81, 7, &[9, 5, 0b0001_0100]);
        for len in 0..data.len() {
            let error = read(&data[..len]).expect_err("a sample is missing");
            match len {
                0 | 1 => assert_eq!(error, ChunkError::NoHeader),
                _ => assert!(matches!(error, ChunkError::Truncated { count: 3, .. }), "{error}"),
            }
        }
        assert_eq!(read(&[0, 0]), Ok(Vec::new()));
        // A new window of 31 leading zeros and 34 bits.
        let data = chunk(2, 0, 7, &[5, 0b1101_1111, 0b1000_1000]);
        assert_eq!(read(&data), Err(ChunkError::Invalid { what: "window", sample: 1 }));
    }
}
