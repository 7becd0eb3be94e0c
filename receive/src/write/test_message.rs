//! Messages of remote write 1.0 for tests, written field by field, so that they can also be what no
//! proper encoder makes.

#![allow(dead_code)]

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

/// Appends a base 128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The fields of a series: labels, then samples of milliseconds and value.
pub fn series_fields(labels: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, name);
        put_bytes(&mut label, 2, value);
        put_bytes(&mut series, 1, &label);
    }
    for (t, value) in samples {
        let mut sample = Vec::new();
        put_varint(&mut sample, 1 << 3 | 1);
        sample.extend_from_slice(&value.to_bits().to_le_bytes());
        put_varint(&mut sample, 2 << 3);
        put_varint(&mut sample, *t as u64);
        put_bytes(&mut series, 2, &sample);
    }
    series
}

impl Message {
    /// Adds a series.
    pub fn series(self, labels: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> Self {
        self.raw_series(&series_fields(labels, samples))
    }

    /// Adds a series of one label `s`, and one sample.
    pub fn sample(self, value_of_s: &str, t: i64, value: f64) -> Self {
        self.series(&[(b"__name__", b"m"), (b"s", value_of_s.as_bytes())], &[(t, value)])
    }

    /// Adds a series given by its fields.
    pub fn raw_series(mut self, fields: &[u8]) -> Self {
        put_bytes(&mut self.0, 1, fields);
        self
    }

    /// Adds metadata of a metric family.
    pub fn metadata(mut self) -> Self {
        put_bytes(&mut self.0, 3, &[0x08, 0x01, 0x12, 0x01, b'm']);
        self
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }

    /// The message as a snappy block.
    pub fn compress(&self) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(&self.0).unwrap()
    }
}
