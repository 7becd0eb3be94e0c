//! The decoder of the write path: known bytes, faults and where they are, and agreement with the
//! generated decoder.

use proptest::prelude::*;
use prost::Message as _;
use weir_proto::prometheus::{Exemplar, Histogram, Label, MetricMetadata, Sample, TimeSeries, WriteRequest};
use weir_proto::remote_write::{WireError, WireErrorKind, WriteRequestWalker};

#[path = "support/differential.rs"]
mod differential;
#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "support/generate.rs"]
mod generate;

use differential::{Outcome, Seen, SeenSeries, compare, seen, walk};

/// A stale marker of Prometheus: this very NaN.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// `{a="b"} STALE @1700000000000`, written out by hand.
const PLAIN: &[u8] = b"\x0a\x1a\
    \x0a\x06\x0a\x01a\x12\x01b\
    \x12\x10\x09\x02\x00\x00\x00\x00\x00\xf0\x7f\x10\x80\xd0\x95\xff\xbc\x31";

fn series(labels: &[(&[u8], &[u8])], samples: &[(i64, u64)]) -> SeenSeries {
    let labels = labels.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    SeenSeries { labels, samples: samples.to_vec(), histograms: 0, exemplars: 0 }
}

/// A body with one series of these fields.
fn body(fields: &[u8]) -> Vec<u8> {
    [&[0x0a, u8::try_from(fields.len()).unwrap()], fields].concat()
}

#[test]
fn reads_known_bytes() {
    let check = |fields: &[u8], wanted: SeenSeries| {
        let body = body(fields);
        assert_eq!(walk(&body), Ok(Seen { series: vec![wanted], metadata: 0 }), "{fields:02x?}");
        assert_eq!(compare(&body), Outcome::Accepted);
    };

    assert_eq!(body(&PLAIN[2..]), PLAIN);
    check(&PLAIN[2..], series(&[(b"a", b"b")], &[(1_700_000_000_000, STALE)]));
    check(b"", series(&[], &[]));
    // Empty messages are the defaults; a value of 0.0 is left out by encoders.
    check(b"\x0a\0\x12\0", series(&[(b"", b"")], &[(0, 0)]));
    check(b"\x12\x07\x10\x80\xd0\x95\xff\xbc\x31", series(&[], &[(1_700_000_000_000, 0)]));
    check(b"\x12\x09\x09\0\0\0\0\0\0\xf0\x3f", series(&[], &[(0, 1.0_f64.to_bits())]));
    // Before 1970, and long before 1971.
    check(b"\x12\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", series(&[], &[(-1, 0)]));
    check(b"\x12\x02\x10\x7f", series(&[], &[(127, 0)]));
    // A six-byte number in front of which the same field stands already: the last one counts.
    check(b"\x12\x08\x10\xff\xff\xff\xff\x01\x10\x05", series(&[], &[(5, 0)]));
    check(b"\x0a\x09\x0a\x01a\x12\x01b\x0a\x01c", series(&[(b"c", b"b")], &[]));
    // Value before name, an unknown field in between, and bytes that are no text.
    check(b"\x0a\x08\x12\x01v\x18\x07\x0a\x01n", series(&[(b"n", b"v")], &[]));
    // Keys and lengths with needless bytes.
    check(b"\x8a\x00\x85\x00\x8a\x80\x00\x01a", series(&[(b"a", b"")], &[]));
    // Samples first, labels in two parts, unknown fields of all types.
    check(
        b"\x12\x02\x10\x01\x0a\x03\x0a\x01a\x28\x01\x31abcdefgh\x3a\x01x\x45abcd\x0a\x03\x0a\x01b\x12\x02\x10\x02",
        series(&[(b"a", b""), (b"b", b"")], &[(1, 0), (2, 0)]),
    );

    let not_text = body(b"\x0a\x03\x0a\x01\xff");
    assert_eq!(walk(&not_text), Ok(Seen { series: vec![series(&[(b"\xff", b"")], &[])], metadata: 0 }));
    assert_eq!(compare(&not_text), Outcome::NotUtf8);
}

#[test]
fn label_bytes_are_the_labels_as_sent() {
    let check = |fields: &[u8], wanted: Option<&[u8]>| {
        let body = body(fields);
        let series = WriteRequestWalker::new(&body).next().unwrap().unwrap();
        assert_eq!(series.label_bytes(), wanted, "{fields:02x?}");
    };

    let label = b"\x0a\x06\x0a\x01a\x12\x01b";
    let sample = b"\x12\x02\x10\x01";
    let exemplar = b"\x1a\x00";
    let unknown = b"\x28\x01";
    let labels = [label.as_slice(), label].concat();
    check(b"", Some(b""));
    check(sample, Some(b""));
    check(&[labels.as_slice(), sample].concat(), Some(&labels));
    check(&[sample.as_slice(), &labels].concat(), Some(&labels));
    check(&[exemplar.as_slice(), &labels, sample, unknown].concat(), Some(&labels));
    check(&[label.as_slice(), sample, label].concat(), None);
    check(&[label.as_slice(), unknown, label].concat(), None);
    // Written otherwise, and longer than a one-byte length can say.
    let long = [b"\x0a\x84\x01\x0a\x81\x01".as_slice(), &[b'n'; 129]].concat();
    assert_eq!(long.len() - 3, 132);
    let body = [b"\x0a\x8f\x01".as_slice(), label, &long].concat();
    let series = WriteRequestWalker::new(&body).next().unwrap().unwrap();
    assert_eq!(series.label_bytes(), Some(&body[3..]));
    check(b"\x8a\x00\x00\x0a\x00", Some(b"\x8a\x00\x00\x0a\x00"));
}

#[test]
fn counts_what_is_not_read() {
    let request = WriteRequest {
        timeseries: vec![TimeSeries {
            exemplars: vec![Exemplar::default(), Exemplar { value: 1.0, ..Exemplar::default() }],
            histograms: vec![Histogram { sum: 1.5, positive_deltas: vec![1, -1], ..Histogram::default() }; 3],
            ..TimeSeries::default()
        }],
        metadata: vec![MetricMetadata { help: "text".into(), ..MetricMetadata::default() }; 4],
    };
    let body = request.encode_to_vec();
    let mut walker = WriteRequestWalker::new(&body);
    let series = walker.next().unwrap().unwrap();
    assert_eq!((series.exemplar_count(), series.histogram_count()), (2, 3));
    assert_eq!(walker.metadata_count(), 0);
    assert!(walker.next().is_none());
    assert_eq!(walker.metadata_count(), 4);
}

#[test]
fn says_what_is_wrong_and_where() {
    use WireErrorKind::*;
    let check = |body: &[u8], kind: WireErrorKind, offset: usize| {
        assert_eq!(walk(body), Err(WireError { kind, offset }), "{body:02x?}");
        assert!(matches!(compare(body), Outcome::Refused | Outcome::Group));
    };

    // In the request.
    check(b"\x0a", Truncated, 1);
    check(b"\x0a\x80", Truncated, 1);
    check(b"\x0a\x02\x12", LengthBeyondEnd { length: 2, left: 1 }, 0);
    check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", LengthBeyondEnd { length: u64::MAX, left: 0 }, 0);
    check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", VarintTooLong, 1);
    check(b"\x28\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", VarintTooLong, 1);
    check(b"\x00\x00", InvalidField, 0);
    check(b"\x02\x00", InvalidField, 0);
    check(b"\x80\x80\x80\x80\x10\x00", InvalidField, 0);
    check(b"\x08\x01", WireType { field: 1, wire_type: 0 }, 0);
    check(b"\x1d\x01\0\0\0", WireType { field: 3, wire_type: 5 }, 0);
    check(b"\x2e", WireType { field: 5, wire_type: 6 }, 0);
    check(b"\x2b\x2c", Group { field: 5 }, 0);
    check(b"\x0a\x00\x29\0\0\0\0\0\0\0", Truncated, 3);
    check(b"\x0a\x00\x2d\0\0\0", Truncated, 3);

    // In a series, behind one that is good.
    let second = |fields: &[u8]| [PLAIN, &body(fields)].concat();
    let at = PLAIN.len() + 2;
    check(&second(b"\x0a\x01"), LengthBeyondEnd { length: 1, left: 0 }, at);
    check(&second(b"\x10\x01"), WireType { field: 2, wire_type: 0 }, at);
    check(&second(b"\x28"), Truncated, at + 1);
    check(&second(b"\x2c"), Group { field: 5 }, at);
    // In a label, in a sample.
    check(&second(b"\x0a\x00\x0a\x02\x0a\x01"), LengthBeyondEnd { length: 1, left: 0 }, at + 4);
    check(&second(b"\x0a\x02\x08\x01"), WireType { field: 1, wire_type: 0 }, at + 2);
    check(&second(b"\x12\x08\x09\0\0\0\0\0\0\0"), Truncated, at + 3);
    check(&second(b"\x12\x02\x08\x01"), WireType { field: 1, wire_type: 0 }, at + 2);
    check(&second(b"\x12\x07\x10\x80\x80\x80\x80\x80\x80\x0a\x00"), Truncated, at + 3);
    check(&second(b"\x12\x01\x10\x0a\x00"), Truncated, at + 3);
    // In front of others that are good.
    check(&[&body(b"\x0a\x02\x0a\x01"), PLAIN].concat(), LengthBeyondEnd { length: 1, left: 0 }, 4);
    check(&second(b"\x0a\x02\x0a\x01\x0a\x00\x12\x00"), LengthBeyondEnd { length: 1, left: 0 }, at + 2);
    // In what is only counted.
    check(&second(b"\x1a\x04\x0a\x02\x0a\x01"), LengthBeyondEnd { length: 1, left: 0 }, at + 4);
    check(&second(b"\x1a\x02\x10\x01"), WireType { field: 2, wire_type: 0 }, at + 2);
    check(&second(b"\x22\x06\x52\x04\0\0\0\0"), Truncated, at + 4);
    check(&second(b"\x22\x03\x4a\x01\x80"), Truncated, at + 4);
    check(&second(b"\x22\x02\x18\x01"), WireType { field: 3, wire_type: 0 }, at + 2);
    check(&[PLAIN, b"\x1a\x02\x10\x01"].concat(), WireType { field: 2, wire_type: 0 }, at);

    let error = WireError { kind: LengthBeyondEnd { length: 9, left: 2 }, offset: 17 };
    assert_eq!(
        error.to_string(),
        "malformed write request at byte 17: a field of 9 bytes where only 2 are left"
    );
}

/// Every field number of every message, with every wire type and a content that most types accept.
#[test]
fn every_field_takes_the_same_wire_types_as_generated() {
    let nest = |path: &[u32], content: Vec<u8>| {
        path.iter().rev().fold(content, |inner, number| field(*number)(inner))
    };
    let mut accepted = 0;
    for path in [&[][..], &[1], &[1, 1], &[1, 2], &[1, 3], &[1, 3, 1], &[1, 4], &[1, 4, 8], &[1, 4, 11], &[3]]
    {
        for number in 1..=18_u8 {
            for (wire_type, content) in [
                (0, b"\x05".as_slice()),
                (1, b"8 bytes."),
                (2, b"\x08\x38\x01\x38\x01\x38\x01\x38\x01"),
                (5, b"four"),
            ] {
                let key: &[u8] = match number {
                    ..16 => &[number << 3 | wire_type],
                    _ => &[number << 3 & 0x7f | wire_type | 0x80, 1],
                };
                let body = nest(path, [key, content].concat());
                accepted += usize::from(compare(&body) == Outcome::Accepted);
            }
        }
    }
    // In the order of the paths above: what is left of 72 each, as every known field refuses three
    // types, or two if it can be packed. The fourth field of a series also refuses the content.
    assert_eq!(accepted, 66 + 59 + 66 + 66 + 63 + 66 + 29 + 66 + 66 + 60);
}

/// The short paths look at one byte of a length; a longer length must not fool them.
#[test]
fn a_long_label_is_not_taken_for_a_short_one() {
    // Field of 1308 bytes, length 9c 0a: a name of 25 bytes, then a value. Whoever takes the first
    // byte for the whole length sees a label of 156 bytes that starts with 0a, a name of ten bytes
    // and a value of 142.
    let name = [&[b'n'; 9][..], b"\x12\x8e", &[b'm'; 14]].concat();
    let value = [b'v'; 1278];
    let label = [b"\x0a\x19", &name[..], b"\x12\xfe\x09", &value].concat();
    let body = field(1)(field(1)(label));
    let wanted = series(&[(&name, &value)], &[]);
    assert_eq!(walk(&body), Ok(Seen { series: vec![wanted], metadata: 0 }));
}

#[test]
fn every_prefix_of_a_body_is_compared() {
    let request = WriteRequest {
        timeseries: vec![
            TimeSeries {
                labels: vec![Label { name: "__name__".into(), value: "x".repeat(200) }],
                samples: vec![Sample { value: -1.5, timestamp: 1_700_000_000_000 }; 2],
                exemplars: vec![Exemplar { timestamp: 1, ..Exemplar::default() }],
                histograms: vec![Histogram { custom_values: vec![1.0], ..Histogram::default() }],
            };
            2
        ],
        metadata: vec![MetricMetadata { unit: "bytes".into(), ..MetricMetadata::default() }],
    };
    let body = request.encode_to_vec();
    let accepted = (0..=body.len()).filter(|length| compare(&body[..*length]) == Outcome::Accepted).count();
    // Nothing, one series, two series, all.
    assert_eq!(accepted, 4);
}

#[test]
fn fuzz_cases_agree() {
    let mut tally = fuzz::Tally::default();
    for seed in 0..6000 {
        tally.run(seed);
    }
    // The cases are worth something only if all outcomes are frequent.
    assert!(
        tally.accepted > 1500 && tally.refused > 1000 && tally.not_utf8 > 100 && tally.group > 20,
        "{tally:?}"
    );
}

fn labels() -> impl Strategy<Value = Vec<Label>> {
    let label = ("[a-z_]{0,12}", "\\PC{0,150}").prop_map(|(name, value)| Label { name, value });
    prop::collection::vec(label, 0..6)
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let timestamp = prop_oneof![3 => 1_600_000_000_000..2_000_000_000_000_i64, 1 => any::<i64>()];
    let value = prop_oneof![1 => Just(0), 4 => any::<u64>()];
    let sample =
        (value, timestamp).prop_map(|(bits, timestamp)| Sample { value: f64::from_bits(bits), timestamp });
    prop::collection::vec(sample, 0..5)
}

fn requests() -> impl Strategy<Value = WriteRequest> {
    let series =
        (labels(), samples(), 0..3_usize, 0..3_usize).prop_map(|(labels, samples, exemplars, histograms)| {
            TimeSeries {
                exemplars: vec![Exemplar { labels: labels.clone(), value: 1.0, timestamp: 2 }; exemplars],
                histograms: vec![
                    Histogram { negative_counts: vec![1.0; 3], ..Histogram::default() };
                    histograms
                ],
                labels,
                samples,
            }
        });
    (prop::collection::vec(series, 0..5), 0..3_usize).prop_map(|(timeseries, metadata)| WriteRequest {
        timeseries,
        metadata: vec![MetricMetadata { help: "help".into(), ..MetricMetadata::default() }; metadata],
    })
}

/// One field of a series, encoded.
fn field(number: u32) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |content| {
        let mut out = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(&content);
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sees_what_was_encoded(request in requests()) {
        let body = request.encode_to_vec();
        prop_assert_eq!(walk(&body), Ok(seen(&request)));
        for (wire, series) in WriteRequestWalker::new(&body).zip(&request.timeseries) {
            let labels = TimeSeries { labels: series.labels.clone(), ..TimeSeries::default() };
            let labels = labels.encode_to_vec();
            prop_assert_eq!(wire.unwrap().label_bytes(), Some(labels.as_slice()));
        }
    }

    #[test]
    fn order_and_unknown_fields_change_nothing(
        labels in labels(),
        samples in samples(),
        unknown in prop::collection::vec((5..1_u32 << 29, prop::collection::vec(any::<u8>(), 0..200)), 0..4),
        order in any::<prop::sample::Index>(),
        keep in any::<u64>(),
    ) {
        // Labels and samples keep their own order, but are dealt out among each other and the rest.
        let mut piles = [
            labels.iter().map(|label| field(1)(label.encode_to_vec())).collect::<Vec<_>>(),
            samples.iter().map(|sample| field(2)(sample.encode_to_vec())).collect(),
            unknown.into_iter().map(|(number, content)| field(number)(content)).collect(),
        ];
        let mut fields = Vec::new();
        let mut turn = order.index(usize::MAX) as u64 ^ keep;
        while piles.iter().any(|pile| !pile.is_empty()) {
            turn = turn.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let pile = &mut piles[(turn >> 33) as usize % 3];
            if !pile.is_empty() {
                fields.push(pile.remove(0));
            }
        }
        let body = field(1)(fields.concat());
        let series = TimeSeries { labels, samples, ..TimeSeries::default() };
        let request = WriteRequest { timeseries: vec![series], metadata: vec![] };
        prop_assert_eq!(walk(&body), Ok(seen(&request)));
        prop_assert_eq!(compare(&body), Outcome::Accepted);
    }

    #[test]
    fn any_bytes_agree(body in prop::collection::vec(any::<u8>(), 0..60)) {
        compare(&body);
    }
}
