//! Remote write 1.0 messages, put together from parts that are encoded beforehand.
//!
//! `WriteRequest { repeated TimeSeries timeseries = 1 }`, `TimeSeries { repeated Label labels = 1;
//! repeated Sample samples = 2 }`, `Label { string name = 1; string value = 2 }`, `Sample { double
//! value = 1; int64 timestamp = 2 }`: one sample per series, as Prometheus sends them.

use std::ops::Range;

use crate::workload::Workload;

const TAG_TIMESERIES: u8 = 0x0A;
const TAG_LABEL: u8 = 0x0A;
const TAG_SAMPLE: u8 = 0x12;
const TAG_STRING_1: u8 = 0x0A;
const TAG_STRING_2: u8 = 0x12;
const TAG_DOUBLE_1: u8 = 0x09;
const TAG_VARINT_2: u8 = 0x10;

/// The encoded labels of a range of series, about 240 bytes each.
#[derive(Debug)]
pub struct SeriesTable {
    workload: Workload,
    first_series: u64,
    bytes: Vec<u8>,
    /// Where each series ends in `bytes`; it begins where the one before it ends.
    ends: Vec<usize>,
}

impl SeriesTable {
    /// Encodes the labels of `series`.
    pub fn new(workload: Workload, series: Range<u64>) -> Self {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for id in series.clone() {
            for (name, value) in workload.series_labels(id) {
                let len = string_len(name) + string_len(&value);
                bytes.push(TAG_LABEL);
                push_varint(len as u64, &mut bytes);
                push_string(TAG_STRING_1, name, &mut bytes);
                push_string(TAG_STRING_2, &value, &mut bytes);
            }
            ends.push(bytes.len());
        }
        bytes.shrink_to_fit();
        Self { workload, first_series: series.start, bytes, ends }
    }

    fn labels(&self, series: u64) -> &[u8] {
        let index = (series - self.first_series) as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// Encodes samples of one time.
#[derive(Debug)]
pub struct SampleEncoder {
    t: i64,
    /// The timestamp field.
    time_bytes: Vec<u8>,
}

impl SampleEncoder {
    /// For samples at `t`, in milliseconds.
    pub fn new(t: i64) -> Self {
        let mut time_bytes = Vec::new();
        // A default value is left out, as all encoders of version 3 do.
        if t != 0 {
            time_bytes.push(TAG_VARINT_2);
            push_varint(t as u64, &mut time_bytes);
        }
        Self { t, time_bytes }
    }

    /// Appends a sample of each of `series` to a message.
    ///
    /// # Panics
    /// If the table does not hold a series.
    pub fn append(&self, table: &SeriesTable, series: Range<u64>, body: &mut Vec<u8>) {
        for id in series {
            let value_bits = table.workload.value_bits(id, self.t);
            self.append_one(table.labels(id), value_bits, body);
        }
    }

    fn append_one(&self, labels: &[u8], value_bits: u64, body: &mut Vec<u8>) {
        let value_len = if value_bits == 0 { 0 } else { 9 };
        // Under 128, so its length takes one byte.
        let sample_len = value_len + self.time_bytes.len();
        body.push(TAG_TIMESERIES);
        push_varint((labels.len() + 2 + sample_len) as u64, body);
        body.extend_from_slice(labels);
        body.extend_from_slice(&[TAG_SAMPLE, sample_len as u8]);
        if value_bits != 0 {
            body.push(TAG_DOUBLE_1);
            body.extend_from_slice(&value_bits.to_le_bytes());
        }
        body.extend_from_slice(&self.time_bytes);
    }
}

fn string_len(text: &str) -> usize {
    let mut len_bytes = 1;
    let mut rest = text.len() >> 7;
    while rest > 0 {
        len_bytes += 1;
        rest >>= 7;
    }
    1 + len_bytes + text.len()
}

fn push_string(tag: u8, text: &str, out: &mut Vec<u8>) {
    out.push(tag);
    push_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
pub(crate) mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Label {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
    }

    /// What a request for `series` at `t` should hold, by the other way.
    pub(crate) fn expected(workload: Workload, series: Range<u64>, t: i64) -> WriteRequest {
        let timeseries = series
            .map(|id| TimeSeries {
                labels: workload
                    .series_labels(id)
                    .into_iter()
                    .map(|(name, value)| Label { name: name.to_owned(), value })
                    .collect(),
                samples: vec![Sample { value: f64::from_bits(workload.value_bits(id, t)), timestamp: t }],
            })
            .collect();
        WriteRequest { timeseries }
    }

    #[test]
    fn bytes_are_those_of_an_ordinary_encoder() {
        let workload = Workload::new(5);
        let table = SeriesTable::new(workload, 300..1300);
        for t in [1_700_000_000_000, 0, 1, -1, i64::MAX, i64::MIN] {
            let mut body = b"before".to_vec();
            SampleEncoder::new(t).append(&table, 310..1290, &mut body);
            let expected = expected(workload, 310..1290, t);
            assert_eq!(body[6..], expected.encode_to_vec(), "t {t}");
            assert_eq!(WriteRequest::decode(&body[6..]).unwrap(), expected);
        }
    }

    #[test]
    fn every_value_is_encoded_even_none() {
        let table = SeriesTable::new(Workload::new(0), 0..1);
        let mut expected = expected(Workload::new(0), 0..1, 0);
        for value in [0.0, -0.0, 1.5, f64::NEG_INFINITY, f64::from_bits(0x7FF0_0000_0000_0002)] {
            for t in [0, 1_700_000_000_000] {
                let mut body = Vec::new();
                SampleEncoder::new(t).append_one(table.labels(0), value.to_bits(), &mut body);
                let decoded = WriteRequest::decode(body.as_slice()).unwrap();
                let sample = &decoded.timeseries[0].samples[0];
                assert_eq!((sample.value.to_bits(), sample.timestamp), (value.to_bits(), t));
                expected.timeseries[0].samples = vec![Sample { value, timestamp: t }];
                // Ordinary encoders take minus zero for the default, too, and lose its sign.
                if value.to_bits() != (-0.0f64).to_bits() {
                    assert_eq!(body, expected.encode_to_vec(), "{value} at {t}");
                }
            }
        }
    }

    #[test]
    fn long_strings_have_long_lengths() {
        for len in [0, 127, 128, 16_383, 16_384] {
            let text = "x".repeat(len);
            let mut out = Vec::new();
            push_string(TAG_STRING_1, &text, &mut out);
            assert_eq!(out.len(), string_len(&text));
        }
    }
}
