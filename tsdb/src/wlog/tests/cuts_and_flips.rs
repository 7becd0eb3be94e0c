//! Logs cut at every byte, and with every bit flipped.

use super::*;

/// A log of short records.
fn short_records() -> Vec<Vec<u8>> {
    [20, 1, 150, 60, 3, 90].iter().zip(0..).map(|(&len, seed)| record(len, seed)).collect()
}

/// Records that cross the first page border; the first of them can be left alone.
fn long_records() -> Vec<Vec<u8>> {
    [PAGE_BYTES - 200, 100, 150, 40, 3].iter().zip(0..).map(|(&len, seed)| record(len, seed)).collect()
}

/// The segment that holds `records`, and where each of them ends.
fn segment_of(records: &[Vec<u8>], compression: Compression) -> (Vec<u8>, Vec<usize>) {
    let fs = mem();
    let mut writer = create(&fs, options(4, compression)).unwrap();
    let ends = records
        .iter()
        .map(|record| {
            log_all(&mut writer, std::slice::from_ref(record)).unwrap();
            writer.bytes_written() as usize
        })
        .collect();
    (get(&fs, 0), ends)
}

fn logs() -> impl Iterator<Item = (Vec<Vec<u8>>, Compression, usize)> {
    [Compression::None, Compression::Snappy].into_iter().flat_map(|compression| {
        let (segment, ends) = segment_of(&long_records(), compression);
        // Plain, that is around the page border; compressed, there is no border.
        let from = ends[0] - 7.min(segment.len());
        [(short_records(), compression, 0), (long_records(), compression, from)]
    })
}

#[test]
fn a_cut_leaves_exactly_the_records_before_it() {
    for (records, compression, from) in logs() {
        let (segment, ends) = segment_of(&records, compression);
        for cut in from..=segment.len() {
            let fs = mem();
            put(&fs, 0, b"");
            put(&fs, 1, &segment[..cut]);
            let whole = ends.iter().take_while(|&&end| end <= cut).count();
            let kept = &records[..whole];
            let start = whole.checked_sub(1).map_or(0, |last| ends[last]);
            let reading = read_log(&fs);
            assert_eq!(reading.records, kept, "cut at {cut}");

            // Padding before the next record may be cut without harm.
            let torn = segment[start..cut].iter().any(|&byte| byte != 0);
            if !torn {
                assert_eq!(reading.damage, None, "cut at {cut}");
            } else {
                let Some(Damage::TornTail { segment: SegmentIndex(1), offset }) = reading.damage else {
                    panic!("cut at {cut}: {:?}", reading.damage);
                };
                assert!(segment[start..offset as usize].iter().all(|&byte| byte == 0), "cut at {cut}");
                let position = LogPosition { segment: SegmentIndex(1), offset };
                repair_torn_tail(fs.as_ref(), dir(), position).unwrap();
                assert!(get(&fs, 1).len().is_multiple_of(PAGE_BYTES));
                assert_eq!(read_log(&fs), Reading { records: kept.to_vec(), damage: None });
            }
            let mut writer = create(&fs, options(4, compression)).unwrap();
            log_all(&mut writer, &[record(9, 9)]).unwrap();
            let expected = [kept, &[record(9, 9)]].concat();
            assert_eq!(read_log(&fs), Reading { records: expected, damage: None }, "cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_bit_never_gives_another_record() {
    for (records, compression, from) in logs() {
        let (segment, ends) = segment_of(&records, compression);
        for (at, bit) in (from..segment.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = segment.clone();
            flipped[at] ^= 1 << bit;
            let fs = mem();
            put(&fs, 0, &flipped);
            let whole = ends.iter().take_while(|&&end| end <= at).count();
            let reading = read_log(&fs);
            assert_eq!(reading.records, records[..whole], "bit {bit} of byte {at}");
            let is_last = whole + 1 == records.len();
            match reading.damage {
                Some(Damage::Middle { segment: SegmentIndex(0), .. }) => {}
                // Nothing stands behind the last record, so its damage may be taken for a torn tail.
                Some(Damage::TornTail { .. }) if is_last => {}
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_never_cut() {
    let (segment, ends) = segment_of(&short_records(), Compression::None);
    let check = |first: &[u8], records: usize| {
        let fs = mem();
        put(&fs, 0, first);
        put(&fs, 1, &segment);
        let reading = read_log(&fs);
        assert_eq!(reading.records.len(), records);
        assert!(matches!(reading.damage, Some(Damage::Middle { segment: SegmentIndex(0), .. })));
    };
    check(&segment[..segment.len() - 1], 5);
    check(&segment[..ends[0] + 3], 1);
    // A short page alone is no damage.
    let fs = mem();
    put(&fs, 0, &segment[..ends[3]]);
    put(&fs, 1, &segment);
    assert_eq!(
        read_log(&fs),
        Reading { records: [&short_records()[..4], &short_records()].concat(), damage: None }
    );
}

#[test]
fn a_lost_page_is_damage_in_the_middle() {
    let (segment, _) = segment_of(&[record(5, 0), record(4 * PAGE_BYTES - 100, 1)], Compression::None);
    assert_eq!(segment.len(), 4 * PAGE_BYTES - 100 + 12 + 4 * 7);
    for page in [1, 2] {
        let mut holed = segment.clone();
        holed[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0);
        let fs = mem();
        put(&fs, 0, &holed);
        let damage = Some(Damage::Middle { segment: SegmentIndex(0), offset: 12 });
        assert_eq!(read_log(&fs), Reading { records: vec![record(5, 0)], damage });
        // If nothing behind it is left either, it is a torn tail.
        holed[page * PAGE_BYTES..].fill(0);
        put(&fs, 0, &holed);
        let damage = Some(Damage::TornTail { segment: SegmentIndex(0), offset: 12 });
        assert_eq!(read_log(&fs), Reading { records: vec![record(5, 0)], damage });
    }
}

#[test]
fn illegal_sequences_are_damage() {
    let fragment = |kind: u8, data: &[u8]| {
        let mut bytes = vec![kind, 0, data.len() as u8];
        bytes.extend_from_slice(&crate::crc::crc32c(data).to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    };
    let check = |fragments: &[Vec<u8>], offset| {
        let fs = mem();
        put(&fs, 0, &fragments.concat());
        let damage = Some(Damage::Middle { segment: SegmentIndex(0), offset });
        assert_eq!(read_log(&fs).damage, damage, "{fragments:?}");
    };
    check(&[fragment(3, b"ab")], 0);
    check(&[fragment(1, b"ab"), fragment(4, b"ab")], 9);
    check(&[fragment(2, b"ab"), fragment(1, b"ab")], 0);
    check(&[fragment(2, b"ab"), fragment(4, b"ab")], 0);
    check(&[fragment(5, b"ab")], 0);
    check(&[fragment(0x21, b"ab")], 0);
    check(&[fragment(0x19, b"ab")], 0);
    // Checksums hold, decompression fails: claims to be 2^32 - 1 bytes, or ends too early.
    check(&[fragment(9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0])], 0);
    check(&[fragment(9, &[5, 0])], 0);
    check(&[fragment(0x11, b"zstd")], 0);
    // A page that is left before its end within a record.
    let mut early = fragment(2, b"ab");
    early.resize(PAGE_BYTES, 0);
    check(&[early, fragment(4, b"ab")], 0);
}
