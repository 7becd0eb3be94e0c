//! Encodes samples as a remote write 1.0 request.

use super::exposition::ParsedSample;

/// `prometheus.WriteRequest`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A request body, snappy-compressed, with `samples` at `now_ms` (those that have no time of their
/// own) and the labels `added`, which win over labels of the same name.
pub fn encode(samples: &[ParsedSample], added: &[(&str, &str)], now_ms: i64) -> Vec<u8> {
    let timeseries = samples.iter().map(|sample| series(sample, added, now_ms)).collect();
    let message = prost::Message::encode_to_vec(&WriteRequest { timeseries });
    // It fails only above 4 GiB, where a scrape never gets.
    snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
}

fn series(sample: &ParsedSample, added: &[(&str, &str)], now_ms: i64) -> TimeSeries {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let own = sample.labels.iter().filter(|(name, value)| {
        let overridden = added.iter().any(|(other, _)| other == name);
        !overridden && !value.is_empty()
    });
    let mut labels: Vec<Label> = own.map(|(name, value)| label(name, value)).collect();
    labels.extend(added.iter().map(|(name, value)| label(name, value)));
    labels.push(label("__name__", &sample.name));
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    let timestamp = sample.timestamp_ms.unwrap_or(now_ms);
    TimeSeries { labels, samples: vec![Sample { value: sample.value, timestamp }] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_prometheus_would_send() {
        let sample = ParsedSample {
            name: "up".to_owned(),
            labels: vec![
                ("z".to_owned(), "1".to_owned()),
                ("e".to_owned(), String::new()),
                ("job".to_owned(), "x".to_owned()),
            ],
            value: 1.0,
            timestamp_ms: None,
        };
        let body = encode(&[sample], &[("job", "weir")], 150);
        let message = snap::raw::Decoder::new().decompress_vec(&body).expect("is snappy");
        let mut expected = vec![0x0a, 57];
        expected.extend(b"\x0a\x0e\x0a\x08__name__\x12\x02up");
        expected.extend(b"\x0a\x0b\x0a\x03job\x12\x04weir");
        expected.extend(b"\x0a\x06\x0a\x01z\x12\x011");
        expected.extend(b"\x12\x0c\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x96\x01");
        expected[1] = u8::try_from(expected.len() - 2).expect("is short");
        assert_eq!(message, expected);
    }

    #[test]
    fn a_time_of_its_own_is_kept() {
        let sample =
            ParsedSample { name: "a".to_owned(), labels: Vec::new(), value: 0.5, timestamp_ms: Some(-7) };
        let one = series(&sample, &[], 150);
        assert_eq!(one.samples, [Sample { value: 0.5, timestamp: -7 }]);
        assert_eq!(one.labels, [Label { name: "__name__".to_owned(), value: "a".to_owned() }]);
    }
}
