//! The decoder of the write path against the generated one, over arbitrary bodies.

use prost::Message;
use weir_proto::prometheus::WriteRequest;
use weir_proto::remote_write::{WireError, WireErrorKind, WriteRequestWalker};

/// What came out of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both decoders accept the body and see the same.
    Accepted,
    /// Both refuse it.
    Refused,
    /// Ours alone accepts it: a string is not UTF-8.
    NotUtf8,
    /// Ours alone refuses it, for a group.
    Group,
}

/// Everything the write path can see of a request.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub series: Vec<SeenSeries>,
    pub metadata: usize,
}

/// Everything the write path can see of a series.
#[derive(Debug, PartialEq)]
pub struct SeenSeries {
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    pub samples: Vec<(i64, u64)>,
    pub histograms: usize,
    pub exemplars: usize,
}

/// Decodes `body` in every way and compares.
///
/// # Panics
/// If the decoders disagree other than they may.
pub fn compare(body: &[u8]) -> Outcome {
    let ours = walk(body);
    if let Err(error) = ours {
        assert!(error.offset <= body.len(), "{error}");
        if matches!(error.kind, WireErrorKind::Group { .. }) {
            return Outcome::Group;
        }
    }
    match (ours, BytesRequest::decode(body)) {
        (Err(_), Err(_)) => {
            assert!(WriteRequest::decode(body).is_err(), "the generated decoder accepts {body:02x?}");
            Outcome::Refused
        }
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs.seen(), "{body:02x?}");
            match WriteRequest::decode(body) {
                Ok(request) => {
                    assert_eq!(ours, seen(&request), "{body:02x?}");
                    Outcome::Accepted
                }
                Err(error) => {
                    assert!(error.to_string().contains("UTF-8"), "{error}: {body:02x?}");
                    Outcome::NotUtf8
                }
            }
        }
        (ours, theirs) => panic!("ours: {ours:?}, generated: {theirs:?}, body: {body:02x?}"),
    }
}

/// Walks the whole body with the decoder of the write path.
pub fn walk(body: &[u8]) -> Result<Seen, WireError> {
    let mut walker = WriteRequestWalker::new(body);
    let mut series = Vec::new();
    let mut result = Ok(());
    for item in walker.by_ref() {
        match item {
            Ok(item) => {
                let labels: Result<Vec<_>, _> = collect(item.labels());
                let samples: Result<Vec<_>, _> = collect(item.samples());
                match (labels, samples) {
                    (Ok(labels), Ok(samples)) => {
                        let labels: Vec<_> =
                            labels.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                        if let Some(bytes) = item.label_bytes() {
                            assert_eq!(
                                BytesSeries::decode(bytes).map(|series| series.seen().labels),
                                Ok(labels.clone())
                            );
                        }
                        series.push(SeenSeries {
                            labels,
                            samples,
                            histograms: item.histogram_count(),
                            exemplars: item.exemplar_count(),
                        });
                    }
                    (Err(error), _) | (_, Err(error)) => result = result.and(Err(error)),
                }
            }
            Err(error) => result = result.and(Err(error)),
        }
    }
    assert!(walker.next().is_none(), "the walker goes on after its end");
    result.map(|()| Seen { series, metadata: walker.metadata_count() })
}

/// Like `Iterator::collect`, but makes sure that nothing follows an error.
fn collect<T>(mut items: impl Iterator<Item = Result<T, WireError>>) -> Result<Vec<T>, WireError> {
    let collected = items.by_ref().collect();
    assert!(items.next().is_none(), "an iterator goes on after its end");
    collected
}

/// What the generated decoder saw.
pub fn seen(request: &WriteRequest) -> Seen {
    let series = |series: &weir_proto::prometheus::TimeSeries| SeenSeries {
        labels: series
            .labels
            .iter()
            .map(|label| (label.name.clone().into_bytes(), label.value.clone().into_bytes()))
            .collect(),
        samples: series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect(),
        histograms: series.histograms.len(),
        exemplars: series.exemplars.len(),
    };
    Seen { series: request.timeseries.iter().map(series).collect(), metadata: request.metadata.len() }
}

/// `WriteRequest` with bytes in the place of strings, so that UTF-8 makes no difference.
#[derive(Clone, PartialEq, Message)]
struct BytesRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<BytesSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<BytesMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct BytesSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<BytesLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<weir_proto::prometheus::Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<BytesExemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<weir_proto::prometheus::Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct BytesLabel {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BytesExemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<BytesLabel>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct BytesMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    metric_family_name: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    help: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    unit: Vec<u8>,
}

impl BytesRequest {
    fn seen(self) -> Seen {
        let series = self.timeseries.into_iter().map(BytesSeries::seen).collect();
        Seen { series, metadata: self.metadata.len() }
    }
}

impl BytesSeries {
    fn seen(self) -> SeenSeries {
        SeenSeries {
            labels: self.labels.into_iter().map(|label| (label.name, label.value)).collect(),
            samples: self.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect(),
            histograms: self.histograms.len(),
            exemplars: self.exemplars.len(),
        }
    }
}
