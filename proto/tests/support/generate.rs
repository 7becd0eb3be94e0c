//! Bodies to try the decoder with: usual ones, odd but valid ones, broken ones, and noise.
//!
//! Everything follows from one number, so that a failure can be repeated.

use prost::Message as _;
use weir_proto::prometheus::{Exemplar, Histogram, Label, MetricMetadata, Sample, TimeSeries, WriteRequest};

/// SplitMix64: small, and any seed will do.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1; `bound` must not be 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Numbers of all magnitudes, and often those at the edges.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[0, 1, 127, 128, u64::from(u32::MAX), 1 << 63, u64::MAX, u64::MAX - 1]),
            1 => 1_700_000_000_000 + self.next() % 1_000_000_000,
            _ => self.next() >> self.below(64),
        }
    }
}

/// A body of one of the four sorts.
pub fn body(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => usual(rng).encode_to_vec(),
        1 => noise(rng),
        2..4 => Writer { rng, broken: false }.request(),
        4 => Writer { rng, broken: true }.request(),
        5 => {
            let body = usual(rng).encode_to_vec();
            mutated(rng, body)
        }
        _ => {
            let body = Writer { rng, broken: false }.request();
            mutated(rng, body)
        }
    }
}

/// What an ordinary sender sends.
fn usual(rng: &mut Rng) -> WriteRequest {
    let label = |rng: &mut Rng| Label {
        name: rng.pick(&["__name__", "job", "instance", "le", ""]).into(),
        value: "v".repeat(rng.pick(&[0, 1, 5, 20, 120, 127, 128, 300])),
    };
    let labels = |rng: &mut Rng, most| (0..rng.below(most)).map(|_| label(rng)).collect();
    let timeseries = (0..rng.below(4))
        .map(|_| TimeSeries {
            labels: labels(rng, 8),
            samples: (0..rng.below(4))
                .map(|_| Sample { value: f64::from_bits(rng.number()), timestamp: rng.number() as i64 })
                .collect(),
            exemplars: (0..rng.below(3) / 2)
                .map(|_| Exemplar { labels: labels(rng, 2), value: 1.0, timestamp: rng.number() as i64 })
                .collect(),
            histograms: (0..rng.below(3) / 2)
                .map(|_| Histogram {
                    sum: f64::from_bits(rng.number()),
                    positive_deltas: vec![1, -1, rng.number() as i64],
                    custom_values: vec![0.5; rng.below(3)],
                    ..Histogram::default()
                })
                .collect(),
        })
        .collect();
    let metadata = (0..rng.below(3) / 2)
        .map(|_| MetricMetadata { r#type: 1, help: "help".into(), ..MetricMetadata::default() })
        .collect();
    WriteRequest { timeseries, metadata }
}

/// Random bytes, in the half of cases only such as are common in bodies.
fn noise(rng: &mut Rng) -> Vec<u8> {
    let length = rng.below(40);
    let common = rng.one_in(2);
    let byte = |rng: &mut Rng| match common {
        true => rng.pick(&[0x0a, 0x12, 0x1a, 0x22, 0x09, 0x10, 0, 1, 2, 3, 4, 6, 8, 11, 17, 0x80, 0xff]),
        false => rng.next() as u8,
    };
    (0..length).map(|_| byte(rng)).collect()
}

/// A few bytes flipped, replaced, inserted, removed, repeated, or the end cut off.
fn mutated(rng: &mut Rng, mut body: Vec<u8>) -> Vec<u8> {
    for _ in 0..=rng.below(4) {
        let at = rng.below(body.len() + 1);
        let byte = rng.pick(&[0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xff, rng.0 as u8]);
        match rng.below(6) {
            0 if at < body.len() => body[at] ^= 1 << rng.below(8),
            1 if at < body.len() => body[at] = byte,
            2 if at < body.len() => drop(body.remove(at)),
            3 => body.insert(at, byte),
            4 => body.truncate(at),
            _ => {
                let from = rng.below(at + 1);
                let piece = body[from..at].to_vec();
                body.splice(at..at, piece);
            }
        }
    }
    body
}

/// Writes requests in every way the format allows: fields in any order and repeated, unknown fields,
/// numbers with needless bytes. If `broken`, also with rare faults deep inside, while the lengths
/// around them stay right.
struct Writer<'a> {
    rng: &'a mut Rng,
    broken: bool,
}

impl Writer<'_> {
    fn request(&mut self) -> Vec<u8> {
        let series: Vec<u8> = (0..self.rng.below(4)).flat_map(|_| self.series()).collect();
        let other = self.parts(2, |writer, out| match writer.rng.below(2) {
            0 => {
                let metadata = writer.parts(4, Self::metadata_field);
                writer.delimited(out, 3, &metadata);
            }
            _ => writer.unknown(out, 4),
        });
        if self.rng.one_in(2) { [series, other].concat() } else { [other, series].concat() }
    }

    fn series(&mut self) -> Vec<u8> {
        let shuffled = self.rng.one_in(2);
        let mut fields = Vec::new();
        for (number, most) in [(1, 6), (2, 4), (3, 2), (4, 2), (5, 2)] {
            for _ in 0..self.rng.below(most) {
                let mut field = Vec::new();
                let content = match number {
                    1 => self.parts(3, Self::label_field),
                    2 => self.parts(3, Self::sample_field),
                    3 => self.parts(4, Self::exemplar_field),
                    _ => self.parts(6, Self::histogram_field),
                };
                match number {
                    5 => self.unknown(&mut field, 5),
                    _ => self.delimited(&mut field, number, &content),
                }
                fields.push(field);
            }
        }
        if shuffled {
            for index in (1..fields.len()).rev() {
                fields.swap(index, self.rng.below(index + 1));
            }
        }
        let mut out = Vec::new();
        self.delimited(&mut out, 1, &fields.concat());
        out
    }

    fn parts(&mut self, most: usize, mut part: impl FnMut(&mut Self, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..self.rng.below(most + 1) {
            part(self, &mut out);
        }
        out
    }

    fn label_field(&mut self, out: &mut Vec<u8>) {
        match self.rng.below(8) {
            0 => self.unknown(out, 3),
            number => self.string(out, 1 + number as u64 % 2),
        }
    }

    fn sample_field(&mut self, out: &mut Vec<u8>) {
        match self.rng.below(8) {
            0 => self.unknown(out, 3),
            1..5 => self.fixed64(out, 1),
            _ => self.number(out, 2),
        }
    }

    fn exemplar_field(&mut self, out: &mut Vec<u8>) {
        match self.rng.below(6) {
            0 => self.unknown(out, 4),
            1 | 2 => {
                let label = self.parts(2, Self::label_field);
                self.delimited(out, 1, &label);
            }
            3 => self.fixed64(out, 2),
            _ => self.number(out, 3),
        }
    }

    fn metadata_field(&mut self, out: &mut Vec<u8>) {
        match self.rng.below(5) {
            0 => self.unknown(out, 6),
            1 => self.number(out, 1),
            number => self.string(out, [2, 4, 5][number - 2]),
        }
    }

    fn histogram_field(&mut self, out: &mut Vec<u8>) {
        let field = self.rng.below(18) as u64;
        match field {
            1 | 4 | 6 | 14 | 15 => self.number(out, field),
            2 | 3 | 5 | 7 => self.fixed64(out, field),
            8 | 11 => {
                let span = self.parts(3, |writer, out| match writer.rng.below(3) {
                    0 => writer.unknown(out, 3),
                    number => writer.number(out, number as u64),
                });
                self.delimited(out, field, &span);
            }
            9 | 12 if self.rng.one_in(2) => self.number(out, field),
            9 | 12 => {
                let packed = self.parts(4, |writer, out| {
                    let value = writer.rng.number();
                    writer.varint(out, value);
                });
                self.delimited(out, field, &packed);
            }
            10 | 13 | 16 if self.rng.one_in(2) => self.fixed64(out, field),
            10 | 13 | 16 => {
                let short = usize::from(self.broken && self.rng.one_in(8));
                let packed = vec![0x3f; (8 * self.rng.below(4)).saturating_sub(short)];
                self.delimited(out, field, &packed);
            }
            _ => self.unknown(out, 17),
        }
    }

    fn string(&mut self, out: &mut Vec<u8>, field: u64) {
        let mut content = "name_é".repeat(self.rng.pick(&[0, 1, 1, 1, 2, 18, 30])).into_bytes();
        if self.rng.one_in(20) {
            content.push(0xff);
        }
        self.delimited(out, field, &content);
    }

    fn number(&mut self, out: &mut Vec<u8>, field: u64) {
        self.key(out, field, 0);
        let value = self.rng.number();
        self.varint(out, value);
    }

    fn fixed64(&mut self, out: &mut Vec<u8>, field: u64) {
        self.key(out, field, 1);
        let value = self.rng.number();
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn delimited(&mut self, out: &mut Vec<u8>, field: u64, content: &[u8]) {
        self.key(out, field, 2);
        let mut length = content.len() as u64;
        if self.fault() {
            length = self.rng.pick(&[length + 1, length.wrapping_sub(1), length + 256, 1 << 40]);
        }
        self.varint(out, length);
        out.extend_from_slice(content);
    }

    /// A field no decoder knows, numbered `first` or above.
    fn unknown(&mut self, out: &mut Vec<u8>, first: u64) {
        let field = match self.rng.below(3) {
            0 => first,
            1 => first + self.rng.below(40) as u64,
            _ => first.max(self.rng.next() % (1 << 29)),
        };
        match self.rng.below(4) {
            0 => self.number(out, field),
            1 => self.fixed64(out, field),
            2 => self.delimited(out, field, b"unknown"),
            _ => {
                self.key(out, field, 5);
                out.extend_from_slice(b"four");
            }
        }
    }

    fn key(&mut self, out: &mut Vec<u8>, mut field: u64, mut wire_type: u64) {
        if self.fault() {
            match self.rng.below(4) {
                0 => field = self.rng.pick(&[0, 1 << 29, 1 << 40]),
                _ => wire_type = self.rng.below(8) as u64,
            }
        }
        self.varint(out, field << 3 | wire_type);
    }

    fn varint(&mut self, out: &mut Vec<u8>, mut value: u64) {
        let start = out.len();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        let last = value as u8;
        if self.rng.one_in(30) {
            // Zeros in front, so to say; ten bytes at most unless there is to be a fault.
            let length = if self.fault() { 11 } else { self.rng.below(10) };
            out.push(last | 0x80);
            while out.len() < start + length {
                out.push(0x80);
            }
            let digits = out.len() - start;
            if digits < 10 || self.broken {
                out.push(0);
            } else if let Some(byte) = out.last_mut() {
                *byte &= 0x7f;
            }
        } else {
            out.push(last);
        }
    }

    /// Whether a fault is due here.
    fn fault(&mut self) -> bool {
        self.broken && self.rng.one_in(25)
    }
}
