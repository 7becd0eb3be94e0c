//! Reads samples back from a database, with a chunk decoder of its own: written from the format's
//! description, as simple as can be, so that an error in the real one does not hide here too.

use std::collections::BTreeMap;

use weir_tsdb::{chunkenc::Encoding, db::Db, query::Query};

/// All samples by series, as times and bits.
pub fn all(db: &Db) -> BTreeMap<String, Vec<(i64, u64)>> {
    let query = Query { mint: i64::MIN, maxt: i64::MAX, matchers: Vec::new(), series_limit: None };
    let selection = db.select(&query).unwrap();
    let samples_of = |index: usize| {
        let chunks = selection.chunks(index).unwrap();
        let decoded = chunks.iter().flat_map(|chunk| {
            assert_eq!(chunk.encoding, Encoding::Xor);
            xor_samples(&chunk.data)
        });
        (selection.labels(index).to_string(), decoded.collect())
    };
    (0..selection.len()).map(samples_of).collect()
}

/// Bits, the most significant of each byte first.
struct Bits<'a> {
    data: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> u64 {
        let byte = self.data[self.position / 8];
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        u64::from(bit)
    }

    fn bits(&mut self, count: u32) -> u64 {
        (0..count).fold(0, |number, _| number << 1 | self.bit())
    }

    fn uvarint(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.bits(8);
            number |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    fn varint(&mut self) -> i64 {
        let number = self.uvarint();
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    /// How many one bits come before a zero bit, at most `max`.
    fn ones(&mut self, max: u32) -> u32 {
        (0..max).find(|_| self.bit() == 0).unwrap_or(max)
    }
}

/// The samples of a chunk of floats, from the sample count on.
pub fn xor_samples(data: &[u8]) -> Vec<(i64, u64)> {
    let mut bits = Bits { data, position: 0 };
    let count = bits.bits(16);
    let (mut t, mut delta, mut value) = (0i64, 0i64, 0u64);
    let (mut leading, mut trailing) = (0u32, 0u32);
    let mut samples = Vec::new();
    for index in 0..count {
        match index {
            0 => {
                t = bits.varint();
                value = bits.bits(64);
                samples.push((t, value));
                continue;
            }
            1 => delta = bits.uvarint() as i64,
            _ => {
                let width = [0, 14, 17, 20, 64][bits.ones(4) as usize];
                let raw = bits.bits(width);
                let change = match width {
                    0 => 0,
                    64 => raw as i64,
                    _ if raw > 1 << (width - 1) => raw as i64 - (1 << width),
                    _ => raw as i64,
                };
                delta = delta.wrapping_add(change);
            }
        }
        t = t.wrapping_add(delta);
        match bits.ones(2) {
            0 => {}
            control => {
                if control == 2 {
                    leading = bits.bits(5) as u32;
                    let length = match bits.bits(6) as u32 {
                        0 => 64,
                        length => length,
                    };
                    trailing = 64 - leading - length;
                }
                value ^= bits.bits(64 - leading - trailing) << trailing;
            }
        }
        samples.push((t, value));
    }
    samples
}

#[test]
fn decodes_a_golden_chunk() {
    let data = [
        0x00, 0x04, 0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0xc2, 0x5f,
        0xff, 0x20, 0xfa, 0x36, 0x05, 0x80,
    ];
    let expected = [(0, 1.0f64), (15_000, 2.0), (30_000, 2.0), (46_000, 3.5)]
        .map(|(t, value)| (1_700_000_000_000 + t, value.to_bits()));
    assert_eq!(xor_samples(&data), expected);
}
