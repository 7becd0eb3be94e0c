use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use prost::Message as _;
use weir_proto::prometheus::{Exemplar, Histogram, Label, Sample as ProtoSample, TimeSeries, WriteRequest};

use weir_tsdb::{
    db::{Db, DbOptions},
    fs::StdFs,
};

use super::{
    super::test_message::{Message, put_bytes, series_fields},
    *,
};
use crate::tenants::{KnownSeries, SeriesTable};

const LIMITS: LabelLimits = LabelLimits { count_max: 4, name_bytes_max: 8, value_bytes_max: 4 };
const NOW_MS: i64 = 1000;

fn judge(keys: &SeriesKeys) -> Judge<'_> {
    Judge { keys, limits: &LIMITS, latest_ms: NOW_MS, series_max: 100, samples_max: 1000, ring: None }
}

/// Reads `message` with nothing known.
fn read_with(message: &[u8], judge: &Judge<'_>) -> Result<Plan, WriteError> {
    let table = SeriesTable::new(0);
    let mut plan = Plan::default();
    plan.read(message, judge, &Known { lookup: table.lookup(0), labels_of: &|_| None })?;
    Ok(plan)
}

fn read(message: &Message) -> Plan {
    let keys = SeriesKeys::new();
    read_with(&message.encode(), &judge(&keys)).unwrap()
}

fn batch(plan: &Plan) -> Vec<(String, Vec<(i64, f64)>)> {
    let entry = |index| {
        let samples = plan.batch.samples(index).iter().map(|sample| (sample.t, sample.value())).collect();
        (plan.batch.labels(index).unwrap().to_string(), samples)
    };
    (0..plan.batch.series_count()).map(entry).collect()
}

#[test]
fn a_message_becomes_a_batch() {
    let message = Message::default()
        .series(&[(b"b", b"1"), (b"a", b"2")], &[(1, 1.5), (2, -0.0)])
        .metadata()
        .series(&[(b"a", b"3")], &[(5, f64::INFINITY)]);
    let plan = read(&message);
    assert_eq!(
        batch(&plan),
        [
            (r#"{a="2", b="1"}"#.to_owned(), vec![(1, 1.5), (2, -0.0)]),
            (r#"{a="3"}"#.to_owned(), vec![(5, f64::INFINITY)]),
        ]
    );
    let received = Received { series: 2, samples: 3, misses: 2, ..Received::default() };
    assert_eq!(plan.received, received);
    assert_eq!(plan.misses.iter().map(|miss| miss.series).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(plan.report(&message.encode()), None);
}

#[test]
fn nothing_to_store_is_no_batch() {
    let exemplar = [0x1a, 0x02, 0x18, 0x05];
    let check = |message: Message, series: u64, exemplars: u64| {
        let plan = read(&message);
        assert_eq!(plan.batch.series_count(), 0);
        assert_eq!(plan.received, Received { series, exemplars, ..Received::default() });
        assert_eq!(plan.report(&message.encode()), None);
    };
    check(Message::default(), 0, 0);
    check(Message::default().metadata(), 0, 0);
    check(Message::default().series(&[(b"a", b"1")], &[]), 1, 0);
    // Without samples nothing of a bad series could be refused.
    check(Message::default().series(&[(b"", b"1")], &[]), 1, 0);
    check(
        Message::default().raw_series(&[series_fields(&[(b"a", b"1")], &[]), exemplar.to_vec()].concat()),
        1,
        1,
    );
}

#[test]
fn the_bad_do_not_take_the_good_with_them() {
    let histogram = [0x22, 0x02, 0x08, 0x01];
    let with_histograms = [series_fields(&[(b"h", b"1")], &[(7, 7.0)]), histogram.repeat(2)].concat();
    let message = Message::default()
        .series(&[(b"a", b"1")], &[(NOW_MS, 1.0), (NOW_MS + 1, 2.0), (3, 3.0)])
        .series(&[(b"a", b"1"), (b"a", b"2")], &[(1, 1.0), (2, 2.0)])
        .series(&[(b"b", b"1")], &[(i64::MAX, 1.0)])
        .raw_series(&with_histograms);
    let plan = read(&message);
    assert_eq!(
        batch(&plan),
        [(r#"{a="1"}"#.to_owned(), vec![(NOW_MS, 1.0), (3, 3.0)]), (r#"{h="1"}"#.to_owned(), vec![(7, 7.0)]),]
    );
    assert_eq!(plan.received.samples, 3 + 2 + 1 + 1 + 2);
    let counts: Vec<_> = plan.refusals().iter().collect();
    assert_eq!(
        counts,
        [(Refusal::TooFarInFuture, 2), (Refusal::LabelNameDuplicate, 2), (Refusal::HistogramUnsupported, 2),]
    );
    let report = plan.report(&message.encode()).unwrap();
    assert_eq!(
        report.first(),
        &FirstRefusal {
            reason: Refusal::TooFarInFuture,
            series: r#"{a="1"}"#.to_owned(),
            time_ms: Some(NOW_MS + 1),
        }
    );
    assert_eq!(report.received(), 9);
    assert!(!report.is_conflict());
}

#[test]
fn without_a_window_the_future_is_open() {
    let keys = SeriesKeys::new();
    let judge = Judge { latest_ms: i64::MAX, ..judge(&keys) };
    let message = Message::default().series(&[(b"a", b"1")], &[(i64::MAX, 1.0), (i64::MIN, 1.0)]).encode();
    assert_eq!(read_with(&message, &judge).unwrap().batch.sample_count(), 2);
}

#[test]
fn limits_hold_exactly() {
    let keys = SeriesKeys::new();
    let limited = Judge { series_max: 2, samples_max: 3, ..judge(&keys) };
    let check = |message: &Message| read_with(&message.encode(), &limited);
    let two = Message::default().series(&[(b"a", b"1")], &[(1, 1.0), (2, 1.0)]).sample("b", 1, 1.0);
    assert_eq!(check(&two).unwrap().batch.sample_count(), 3);
    let outcome = check(&two.clone().series(&[], &[]));
    assert!(matches!(outcome, Err(WriteError::TooManySeries { limit: 2 })), "{outcome:?}");
    let four = Message::default().series(&[(b"a", b"1")], &[(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)]);
    let outcome = check(&four);
    assert!(matches!(outcome, Err(WriteError::TooManySamples { limit: 3 })), "{outcome:?}");
    // Histograms and refused samples count as well.
    let histograms = Message::default().raw_series(&[0x22, 0x02, 0x08, 0x01].repeat(4));
    let outcome = check(&histograms);
    assert!(matches!(outcome, Err(WriteError::TooManySamples { limit: 3 })), "{outcome:?}");
    let refused = Message::default().series(&[(b"", b"1")], &[(1, 1.0); 4]);
    let outcome = check(&refused);
    assert!(matches!(outcome, Err(WriteError::TooManySamples { limit: 3 })), "{outcome:?}");
}

#[test]
fn a_second_reading_takes_only_what_is_wanted_and_counts_nothing() {
    let keys = SeriesKeys::new();
    let message = Message::default()
        .sample("0", 1, 1.0)
        .series(&[(b"a", b"1")], &[(2, 2.0), (NOW_MS + 1, 1.0)])
        .sample("2", 3, 3.0)
        .sample("3", 4, 4.0);
    let mut plan = Plan::default();
    plan.read_again(&message.encode(), &judge(&keys), &[1, 3]).unwrap();
    assert_eq!(
        batch(&plan),
        [(r#"{a="1"}"#.to_owned(), vec![(2, 2.0)]), (r#"{__name__="m", s="3"}"#.to_owned(), vec![(4, 4.0)]),]
    );
    assert_eq!(plan.received, Received::default());
    assert_eq!(plan.misses.len(), plan.batch.series_count());
    assert_eq!(plan.refusals().of(Refusal::TooFarInFuture), 0);
}

#[test]
fn scattered_labels_have_no_key_but_are_stored() {
    let mut fields = series_fields(&[(b"a", b"1")], &[(1, 1.0)]);
    fields.extend(series_fields(&[(b"b", b"2")], &[(2, 2.0)]));
    let plan = read(&Message::default().raw_series(&fields));
    assert_eq!(batch(&plan), [(r#"{a="1", b="2"}"#.to_owned(), vec![(1, 1.0), (2, 2.0)])]);
    assert_eq!(plan.misses, []);
}

/// A table that holds another series under a key is found out by the regular comparison.
#[test]
fn a_wrong_entry_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions {
        block_range_ms: 7_200_000,
        retention_ms: None,
        wal_compression: true,
        wal_segment_bytes: 1 << 20,
        lock_file: false,
        ..DbOptions::default()
    };
    let db = Db::open(Arc::new(StdFs), dir.path().to_owned(), options).unwrap();
    let keys = SeriesKeys::new();
    let judge = judge(&keys);
    let table = SeriesTable::new(10);
    let labels_of = |handle| db.labels_of(handle);
    let mut plan = Plan::default();
    let mut read = |message: &Message, entry: Option<(SeriesKey, SeriesHandle)>| {
        let known = |(key, handle)| (key, KnownSeries { handle, slot: 0, number: KnownSeries::NO_NUMBER });
        table.insert(0, entry.map(known));
        plan.clear();
        let known = Known { lookup: table.lookup(0), labels_of: &labels_of };
        plan.read(&message.encode(), &judge, &known).unwrap();
        drop(known);
        let _ = db.append(&mut plan.batch).unwrap();
        (plan.received, plan.learnt().next().map(|(key, handle, _)| (key, handle)))
    };
    let (victim, other) = (Message::default().sample("a", 1, 1.0), Message::default().sample("b", 1, 1.0));
    let (_, learnt) = read(&victim, None);
    let (key, right) = learnt.unwrap();
    let (_, learnt) = read(&other, None);
    let wrong = learnt.unwrap().1;
    assert_ne!(right, wrong);

    // A right entry is hit for ever.
    read(&victim, Some((key, right)));
    for _ in 0..3 * HITS_PER_CHECK {
        let (received, learnt) = read(&victim, None);
        assert_eq!((received.hits, received.mismatches, learnt), (1, 0, None));
    }
    // A wrong one is found after so many hits at the latest, and then mended.
    read(&victim, Some((key, wrong)));
    let found = (0..HITS_PER_CHECK).find_map(|_| {
        let (received, learnt) = read(&victim, None);
        (received.mismatches == 1).then_some(learnt)
    });
    assert_eq!(found, Some(Some((key, right))));
}

/// What any part of a message must do to the whole if it is unsound.
#[test]
fn unsound_messages_are_refused_whole() {
    let good = Message::default().sample("a", 1, 1.0).encode();
    let keys = SeriesKeys::new();
    let check = |message: &[u8]| {
        let outcome = read_with(message, &judge(&keys));
        assert!(matches!(outcome, Err(WriteError::Protobuf(_))), "{outcome:?}");
    };
    check(&good[..good.len() - 1]);
    check(&[good.as_slice(), &[0xff]].concat());
    // A good series, then a label of one that is cut off.
    let mut cut = good.clone();
    put_bytes(&mut cut, 1, &[series_fields(&[], &[(1, 1.0)]), vec![0x0a, 0x02, 0x0a, 0x05]].concat());
    check(&cut);
    // A sample with a timestamp that never ends, after the series was begun.
    let mut endless = good;
    let fields = [series_fields(&[(b"a", b"1")], &[(1, 1.0)]), vec![0x12, 0x02, 0x10, 0x80]].concat();
    put_bytes(&mut endless, 1, &fields);
    check(&endless);
}

/// Labels and verdicts as simply as they can be found, from the generated decoder's message.
fn naive_labels(series: &TimeSeries) -> Result<BTreeMap<String, String>, Refusal> {
    let mut set = BTreeMap::new();
    for (index, label) in series.labels.iter().enumerate() {
        if label.name.is_empty() {
            return Err(Refusal::LabelNameEmpty);
        }
        if label.name.len() > LIMITS.name_bytes_max {
            return Err(Refusal::LabelNameLength);
        }
        if label.value.len() > LIMITS.value_bytes_max {
            return Err(Refusal::LabelValueLength);
        }
        if index >= LIMITS.count_max {
            return Err(Refusal::LabelCount);
        }
        set.insert(label.name.clone(), label.value.clone());
    }
    if set.len() < series.labels.len() {
        return Err(Refusal::LabelNameDuplicate);
    }
    set.retain(|_, value| !value.is_empty());
    if set.is_empty() { Err(Refusal::NoLabels) } else { Ok(set) }
}

#[derive(Debug, Default, PartialEq)]
struct Expected {
    batch: Vec<(String, Vec<(i64, u64)>)>,
    refused: BTreeMap<&'static str, u64>,
}

fn naive(request: &WriteRequest) -> Expected {
    let mut expected = Expected::default();
    for series in &request.timeseries {
        let mut refuse = |reason: Refusal, samples: usize| {
            if samples > 0 {
                *expected.refused.entry(reason.id()).or_default() += samples as u64;
            }
        };
        refuse(Refusal::HistogramUnsupported, series.histograms.len());
        match naive_labels(series) {
            Err(reason) => refuse(reason, series.samples.len()),
            Ok(set) => {
                let (good, late): (Vec<_>, Vec<_>) =
                    series.samples.iter().partition(|sample| sample.timestamp <= NOW_MS);
                refuse(Refusal::TooFarInFuture, late.len());
                let samples: Vec<_> = good
                    .iter()
                    .map(|sample: &&ProtoSample| (sample.timestamp, sample.value.to_bits()))
                    .collect();
                if !samples.is_empty() {
                    expected.batch.push((Labels::from_pairs(set).to_string(), samples));
                }
            }
        }
    }
    expected
}

fn requests() -> impl Strategy<Value = WriteRequest> {
    let label =
        ("[abü]{0,3}|[abü]{4,5}", "[x-zé]{0,3}|12345").prop_map(|(name, value)| Label { name, value });
    let sample = (prop_oneof![0..=NOW_MS + 5, any::<i64>()], any::<u64>())
        .prop_map(|(timestamp, bits)| ProtoSample { timestamp, value: f64::from_bits(bits) });
    let series = (
        prop::collection::vec(label, 0..6),
        prop::collection::vec(sample, 0..4),
        prop_oneof![9 => Just(0usize), 1 => Just(2)],
        0..3usize,
    );
    let series = series.prop_map(|(labels, samples, histograms, exemplars)| TimeSeries {
        labels,
        samples,
        histograms: vec![Histogram::default(); histograms],
        exemplars: vec![Exemplar::default(); exemplars],
    });
    prop::collection::vec(series, 0..6)
        .prop_map(|timeseries| WriteRequest { timeseries, ..WriteRequest::default() })
}

proptest! {
    #[test]
    fn equals_a_naive_reading(request in requests()) {
        let message = request.encode_to_vec();
        let keys = SeriesKeys::new();
        let plan = read_with(&message, &judge(&keys)).unwrap();
        let found = Expected {
            batch: (0..plan.batch.series_count())
                .map(|index| {
                    let samples = plan.batch.samples(index).iter().map(|sample| (sample.t, sample.bits));
                    (plan.batch.labels(index).unwrap().to_string(), samples.collect())
                })
                .collect(),
            refused: plan.refusals().iter().map(|(reason, samples)| (reason.id(), samples)).collect(),
        };
        prop_assert_eq!(found, naive(&request));
        prop_assert_eq!(plan.received.series, request.timeseries.len() as u64);
        let samples: usize = request.timeseries.iter().map(|series| series.samples.len() + series.histograms.len()).sum();
        prop_assert_eq!(plan.received.samples, samples as u64);
        let exemplars: usize = request.timeseries.iter().map(|series| series.exemplars.len()).sum();
        prop_assert_eq!(plan.received.exemplars, exemplars as u64);
        prop_assert_eq!(plan.report(&message).is_some(), plan.refusals().total() > 0);
    }

    #[test]
    fn garbage_never_panics(
        request in requests(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut message = request.encode_to_vec();
        for (index, byte) in flips {
            if !message.is_empty() {
                let index = index.index(message.len());
                message[index] = byte;
            }
        }
        message.truncate(end.index(message.len() + 1));
        let keys = SeriesKeys::new();
        if let Ok(plan) = read_with(&message, &judge(&keys)) {
            plan.report(&message);
        }
    }
}
