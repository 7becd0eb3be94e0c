//! How records lie in pages and segments.

use proptest::prelude::*;

use super::*;
use crate::{
    fs::{FaultyFs, Op},
    wlog::fragment::{FRAGMENT_BYTES_MAX, HEAD_BYTES},
};

/// Series record of m{a="1"} and m{a="2"} as Prometheus 2.42 stores it, in a snappy fragment.
const GOLDEN_FRAGMENT: &[u8] = b"\x09\x00\x2d\x21\x68\x76\x01\
    \x31\x04\x01\x00\x09\x01\x40\x01\x02\x08__name__\x01m\x01a\x011\
    \x09\x17\x44\x00\x02\x02\x08__name__\x01m\x01a\x012";

const GOLDEN_RECORD: &[u8] = b"\x01\
    \0\0\0\0\0\0\0\x01\x02\x08__name__\x01m\x01a\x011\
    \0\0\0\0\0\0\0\x02\x02\x08__name__\x01m\x01a\x012";

#[test]
fn fragments_match_golden_bytes() {
    let fs = mem();
    put(&fs, 0, GOLDEN_FRAGMENT);
    assert_eq!(read_log(&fs), Reading { records: vec![GOLDEN_RECORD.to_vec()], damage: None });

    let fs = mem();
    create(&fs, WriterOptions::default()).unwrap().log(&[GOLDEN_RECORD]).unwrap();
    assert_eq!(get(&fs, 0), GOLDEN_FRAGMENT);
}

#[test]
fn a_batch_is_one_write_per_segment() {
    let faulty = FaultyFs::new(mem());
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut writer = create(&fs, options(2, Compression::None)).unwrap();
    log_all(&mut writer, &vec![record(100, 0); 50]).unwrap();
    assert_eq!([Op::Write, Op::Sync].map(|op| faulty.count(op)), [1, 0]);
    writer.sync().unwrap();
    writer.sync().unwrap();
    assert_eq!(faulty.count(Op::Sync), 1);
    // 60 of 1,000 bytes do not fit behind 50 of 100 bytes in two pages.
    log_all(&mut writer, &vec![record(1000, 0); 60]).unwrap();
    assert_eq!([Op::Write, Op::Sync].map(|op| faulty.count(op)), [3, 2]);
    assert_eq!(writer.segment_index(), SegmentIndex(1));
    assert_eq!(get(&fs, 0).len(), 2 * PAGE_BYTES);
    assert_eq!(writer.bytes_written(), (2 * PAGE_BYTES + get(&fs, 1).len()) as u64);
    assert_eq!(read_log(&fs).records.len(), 110);
    writer.log(&[]).unwrap();
    assert_eq!(faulty.count(Op::Write), 3);
}

/// Writes a record that leaves `left` bytes of the first page, then one of `len` bytes, then a short
/// one, and compares with what is read.
fn check_at_page_end(left: usize, len: usize, compression: Compression) -> Vec<u8> {
    let fs = mem();
    let mut writer = create(&fs, options(8, compression)).unwrap();
    // Random bytes are stored plain in either mode, so lengths are as wanted.
    let filler = record(2 * PAGE_BYTES, 9)[PAGE_BYTES + left + HEAD_BYTES..].to_vec();
    let records = [filler, record(len, 1), record(3, 2)];
    for record in &records {
        log_all(&mut writer, std::slice::from_ref(record)).unwrap();
    }
    assert_eq!(read_log(&fs), Reading { records: records.to_vec(), damage: None }, "{left} left, {len} long");
    get(&fs, 0)
}

#[test]
fn records_at_the_end_of_a_page() {
    let lens =
        [0, 1, 2, 7, FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX + 1, 3 * PAGE_BYTES];
    for left in (0..10).chain([500]) {
        for len in lens {
            check_at_page_end(left, len, Compression::None);
            check_at_page_end(left, len, Compression::Snappy);
        }
    }
}

#[test]
fn heads_at_the_end_of_a_page_are_as_upstream_writes_them() {
    let at_end = |left: usize, len| {
        let segment = check_at_page_end(left, len, Compression::None);
        (segment[PAGE_BYTES - left..PAGE_BYTES].to_vec(), segment[PAGE_BYTES])
    };
    // Exactly a head: an empty first fragment. Of an empty record: all of it.
    assert_eq!(at_end(7, 5), (vec![2, 0, 0, 0, 0, 0, 0], 4));
    assert_eq!(at_end(7, 0), (vec![1, 0, 0, 0, 0, 0, 0], 1));
    assert_eq!(at_end(6, 5), (vec![0; 6], 1));
    assert_eq!(at_end(1, 5), (vec![0; 1], 1));
    assert_eq!(at_end(0, 5), (vec![], 1));
}

#[test]
fn records_do_not_cross_segments() {
    // What fits exactly stays, one byte more begins a segment.
    let check = |before: usize, len: usize, segments: &[usize]| {
        let fs = mem();
        let mut writer = create(&fs, options(2, Compression::None)).unwrap();
        log_all(&mut writer, &[record(before, 0), record(len, 1)]).unwrap();
        let lens: Vec<_> = (0..=writer.segment_index().0).map(|segment| get(&fs, segment).len()).collect();
        assert_eq!(lens, segments, "{before}, {len}");
        assert_eq!(read_log(&fs).records, [record(before, 0), record(len, 1)]);
    };
    let segment = 2 * PAGE_BYTES;
    let room = segment - 3 * HEAD_BYTES - 10;
    check(10, room, &[segment]);
    check(10, room + 1, &[PAGE_BYTES, room + 1 + 2 * HEAD_BYTES]);
    // 7, 6 and no bytes left in the segment, and an empty record.
    let filler = segment - 2 * HEAD_BYTES;
    check(filler - 7, 0, &[segment]);
    check(filler - 7, 1, &[segment, 8]);
    check(filler - 6, 0, &[segment, 7]);
    check(filler, 0, &[segment, 7]);
    // Longer than a segment: in an oversized one.
    check(10, 3 * PAGE_BYTES, &[PAGE_BYTES, 3 * PAGE_BYTES + 4 * HEAD_BYTES]);
    check(3 * PAGE_BYTES, 1, &[4 * PAGE_BYTES, 8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn logs_survive(
        batches in prop::collection::vec(prop::collection::vec((0usize..40_000, any::<bool>()), 0..6), 0..8),
        snappy: bool,
        segment_pages in 1u64..5,
    ) {
        let fs = mem();
        let compression = if snappy { Compression::Snappy } else { Compression::None };
        let mut writer = create(&fs, options(segment_pages, compression)).unwrap();
        let mut expected = Vec::new();
        for batch in batches {
            let records: Vec<_> =
                batch.into_iter().map(|(len, short)| record(if short { len % 50 } else { len }, len as u64)).collect();
            log_all(&mut writer, &records).unwrap();
            expected.extend(records);
        }
        prop_assert_eq!(read_log(&fs), Reading { records: expected.clone(), damage: None });
        writer.close().unwrap();
        prop_assert_eq!(read_log(&fs), Reading { records: expected, damage: None });
        for segment in list_segments(fs.as_ref(), dir()).unwrap() {
            prop_assert!(get(&fs, segment.0).len().is_multiple_of(PAGE_BYTES));
        }
    }
}
