use proptest::prelude::*;

use super::*;
use crate::{
    labels::Labels,
    types::{HeadChunkRef, Sample, SeriesRef},
    varint::DecodeError,
};

/// Series m{a="1"} as 1 and m{a="2"} as 2, written by Prometheus 2.42 and decompressed.
const GOLDEN_SERIES: &[u8] = b"\x01\
    \0\0\0\0\0\0\0\x01\x02\x08__name__\x01m\x01a\x011\
    \0\0\0\0\0\0\0\x02\x02\x08__name__\x01m\x01a\x012";

fn samples(record: &[u8]) -> Result<Vec<(SeriesRef, Sample)>, DecodeError> {
    SamplesIter::new(record)?.collect()
}

fn encode(input: &[(u64, i64, u64)]) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut encoder = SamplesEncoder::begin(&mut buf);
    for &(series, t, bits) in input {
        encoder.push(SeriesRef(series), t, bits);
    }
    assert_eq!(encoder.count(), input.len());
    buf
}

#[test]
fn series_match_golden_bytes() {
    let first = Labels::from_pairs([("__name__", "m"), ("a", "1")]);
    let second = Labels::from_pairs([("__name__", "m"), ("a", "2")]);
    let mut buf = Vec::new();
    encode_series(&mut buf, [(SeriesRef(1), &first), (SeriesRef(2), &second)]);
    assert_eq!(buf, GOLDEN_SERIES);

    let entries: Vec<_> = SeriesIter::new(&buf).collect::<Result<_, _>>().unwrap();
    let read: Vec<_> =
        entries.iter().map(|entry| (entry.series, Labels::from_pairs(entry.labels.clone()))).collect();
    assert_eq!(read, [(SeriesRef(1), first), (SeriesRef(2), second)]);

    // Copied entries keep their bytes.
    let mut copy = Vec::new();
    let mut encoder = SeriesEncoder::begin(&mut copy);
    entries.iter().for_each(|entry| encoder.push_entry(entry));
    assert_eq!(copy, GOLDEN_SERIES);
}

#[test]
fn unsorted_labels_are_returned_as_they_stand() {
    let mut buf = Vec::new();
    SeriesEncoder::begin(&mut buf).push_pairs(SeriesRef(7), [("z", "1"), ("a", ""), ("z", "2")].into_iter());
    let entry = SeriesIter::new(&buf).next().unwrap().unwrap();
    assert_eq!(entry.labels.len(), 3);
    assert_eq!(entry.labels.collect::<Vec<_>>(), [("z", "1"), ("a", ""), ("z", "2")]);
}

#[test]
fn samples_are_relative_to_the_first() {
    let record = encode(&[(2, 1000, 1f64.to_bits()), (1, 1001, (-0.0f64).to_bits()), (66, 744, 0)]);
    #[rustfmt::skip]
    assert_eq!(record, [
        2,
        0, 0, 0, 0, 0, 0, 0, 2,
        0, 0, 0, 0, 0, 0, 0x03, 0xe8,
        0, 0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0,
        1, 2, 0x80, 0, 0, 0, 0, 0, 0, 0,
        0x80, 0x01, 0xff, 0x03, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
}

#[test]
fn empty_encoders_write_nothing() {
    let mut buf = Vec::new();
    SamplesEncoder::begin(&mut buf);
    SeriesEncoder::begin(&mut buf);
    encode_tombstones(&mut buf, []);
    encode_mmap_markers(&mut buf, []);
    assert!(buf.is_empty());
}

#[test]
fn first_marker_matches_golden_bytes() {
    let marker = MmapMarker { series: SeriesRef(5), chunk: HeadChunkRef(0) };
    let mut buf = Vec::new();
    encode_mmap_markers(&mut buf, [marker]);
    assert_eq!(buf, b"\x05\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0");
    assert_eq!(MmapMarkersIter::new(&buf).collect::<Result<Vec<_>, _>>(), Ok(vec![marker]));
}

#[test]
fn samples_v2_drop_start_timestamps() {
    let bits = 2f64.to_bits().to_be_bytes();
    let mut record = vec![11];
    // ref 3, t 100, st -1; then ref 2, t 101, same st; ref 4, t 99, st given; ref 4, t 100, none.
    for head in [&[6, 200, 1, 1][..], &[1, 2, 1], &[4, 1, 2, 0x80, 0x01], &[0, 0, 0]] {
        record.extend_from_slice(head);
        record.extend_from_slice(&bits);
    }
    let read: Vec<_> = SamplesV2Iter::new(&record).collect::<Result<_, _>>().unwrap();
    let expected = [(3, 100), (2, 101), (4, 99), (4, 100)];
    assert_eq!(read, expected.map(|(series, t)| (SeriesRef(series), Sample::new(t, 2.0))));

    let bad_marker = [&[11, 6, 2, 0][..], &bits, &[0, 0, 3], &bits].concat();
    let mut iter = SamplesV2Iter::new(&bad_marker);
    assert!(iter.next().unwrap().is_ok());
    assert!(iter.next().unwrap().is_err());
    assert!(iter.next().is_none());
}

#[test]
fn types_survive() {
    for byte in 0..=255 {
        assert_eq!(RecordType::from_byte(byte).byte(), byte);
    }
    assert_eq!(record_type(&[]), RecordType::Unknown(0));
    assert_eq!(record_type(&[2, 3]), RecordType::Samples);
}

#[test]
fn cut_records_are_errors_or_shorter() {
    let record = encode(&[(2, 1000, 7), (1 << 39, -5, u64::MAX), (3, i64::MAX, 9)]);
    let whole = samples(&record).unwrap();
    // Type alone, with its base, with the first sample, with the second.
    let good_cuts = [1, 17, 27, 43];
    for cut in 1..record.len() {
        match samples(&record[..cut]) {
            Ok(read) => assert!(whole.starts_with(&read) && good_cuts.contains(&cut), "cut {cut}"),
            Err(error) => {
                assert_eq!(error, DecodeError::UnexpectedEnd, "cut {cut}");
                assert!(!good_cuts.contains(&cut), "cut {cut}");
            }
        }
    }
    for cut in 1..GOLDEN_SERIES.len() {
        let read: Result<Vec<_>, _> = SeriesIter::new(&GOLDEN_SERIES[..cut]).collect();
        assert_eq!(read.is_ok(), cut == 1 || cut == 25, "cut {cut}");
    }
}

#[test]
fn absurd_counts_are_errors() {
    let mut record = vec![1, 0, 0, 0, 0, 0, 0, 0, 1];
    crate::varint::put_uvarint(&mut record, u64::MAX);
    assert!(SeriesIter::new(&record).next().unwrap().is_err());
}

proptest! {
    #[test]
    fn samples_survive(input: Vec<(u64, i64, u64)>) {
        let record = encode(&input);
        let expected: Vec<_> =
            input.iter().map(|&(series, t, bits)| (SeriesRef(series), Sample { t, bits })).collect();
        prop_assert_eq!(samples(&record), Ok(expected));
    }

    #[test]
    fn close_samples_survive(input: Vec<(u16, i16, u64)>) {
        let input: Vec<_> = input.into_iter().map(|(s, t, bits)| (u64::from(s), i64::from(t), bits)).collect();
        let expected: Vec<_> =
            input.iter().map(|&(series, t, bits)| (SeriesRef(series), Sample { t, bits })).collect();
        prop_assert_eq!(samples(&encode(&input)), Ok(expected));
    }

    #[test]
    fn tombstones_and_markers_survive(input: Vec<(u64, i64, i64)>) {
        let tombstones: Vec<_> = input
            .iter()
            .map(|&(series, mint, maxt)| Tombstone { series: SeriesRef(series), mint, maxt })
            .collect();
        let mut buf = Vec::new();
        encode_tombstones(&mut buf, tombstones.iter().copied());
        prop_assert_eq!(TombstonesIter::new(&buf).collect::<Result<Vec<_>, _>>(), Ok(tombstones));

        let markers: Vec<_> = input
            .iter()
            .map(|&(series, chunk, _)| MmapMarker { series: SeriesRef(series), chunk: HeadChunkRef(chunk as u64) })
            .collect();
        buf.clear();
        encode_mmap_markers(&mut buf, markers.iter().copied());
        prop_assert_eq!(MmapMarkersIter::new(&buf).collect::<Result<Vec<_>, _>>(), Ok(markers));
    }

    #[test]
    fn garbage_does_not_panic(record: Vec<u8>) {
        if let Ok(iter) = SamplesIter::new(&record) {
            prop_assert!(iter.count() <= record.len());
        }
        prop_assert!(SamplesV2Iter::new(&record).count() <= record.len());
        prop_assert!(TombstonesIter::new(&record).count() <= record.len());
        prop_assert!(MmapMarkersIter::new(&record).count() <= record.len());
        for entry in SeriesIter::new(&record).flatten() {
            prop_assert_eq!(entry.labels.len(), entry.labels.count());
        }
    }
}
