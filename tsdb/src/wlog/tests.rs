//! Helpers of the tests below, and tests of the files of a log.

mod crashes;
mod cuts_and_flips;
mod golden;
mod pages;

use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    error::{Error, Result},
    fs::{Fs, MemFs, read_file},
    types::SegmentIndex,
};

const DIR: &str = "/wal";

fn dir() -> &'static Path {
    Path::new(DIR)
}

/// What a reader made of a log.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    records: Vec<Vec<u8>>,
    damage: Option<Damage>,
}

fn read_segments(fs: &Arc<dyn Fs>, dir: &Path, segments: Vec<SegmentIndex>) -> Reading {
    let mut reader = LogReader::new(fs.clone(), dir, segments);
    let mut records = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push(record.to_vec()),
            Ok(None) => return Reading { records, damage: None },
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                assert!(reader.next().unwrap_err().is_corruption());
                return Reading { records, damage: Some(reader.classify().unwrap().unwrap()) };
            }
        }
    }
}

fn read_log(fs: &Arc<dyn Fs>) -> Reading {
    read_segments(fs, dir(), list_segments(fs.as_ref(), dir()).unwrap())
}

fn options(segment_pages: u64, compression: Compression) -> WriterOptions {
    WriterOptions { segment_bytes: segment_pages * PAGE_BYTES as u64, compression }
}

fn create(fs: &Arc<dyn Fs>, options: WriterOptions) -> Result<Writer> {
    Writer::create(fs.clone(), dir(), SegmentIndex(0), options)
}

fn log_all(writer: &mut Writer, records: &[Vec<u8>]) -> Result<()> {
    writer.log(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn mem() -> Arc<dyn Fs> {
    Arc::new(MemFs::new())
}

fn put(fs: &Arc<dyn Fs>, segment: u32, data: &[u8]) {
    fs.create_dir_all(dir()).unwrap();
    fs.create(&segment_path(dir(), SegmentIndex(segment))).unwrap().write_all(data).unwrap();
}

fn get(fs: &Arc<dyn Fs>, segment: u32) -> Vec<u8> {
    read_file(fs.as_ref(), &segment_path(dir(), SegmentIndex(segment))).unwrap()
}

/// A record of `len` bytes of type 200: half of it shrinks.
fn record(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    (0..len)
        .map(|at| {
            if at == 0 {
                200
            } else if at < len / 2 {
                7
            } else {
                next()
            }
        })
        .collect()
}

#[test]
fn names_decide_what_is_a_segment() {
    let fs = mem();
    assert_eq!(list_segments(fs.as_ref(), dir()).unwrap(), []);
    put(&fs, 3, b"");
    put(&fs, 4, b"");
    fs.create(&dir().join("notes.txt")).unwrap();
    fs.create(&dir().join("series_state.json")).unwrap();
    fs.create_dir_all(&dir().join("00000009")).unwrap();
    fs.create_dir_all(&dir().join("checkpoint.00000002")).unwrap();
    assert_eq!(list_segments(fs.as_ref(), dir()).unwrap(), [3, 4].map(SegmentIndex));

    put(&fs, 6, b"");
    let gap = list_segments(fs.as_ref(), dir()).unwrap_err();
    assert!(gap.to_string().contains("segment missing before 6"), "{gap}");
    let after = |checkpoint| list_segments_after(fs.as_ref(), dir(), Some(SegmentIndex(checkpoint)));
    assert_eq!(after(5).unwrap(), [SegmentIndex(6)]);
    assert_eq!(after(6).unwrap(), []);
    assert!(after(4).is_err());
    assert_eq!(last_segment(fs.as_ref(), dir()).unwrap(), Some(SegmentIndex(6)));

    assert_eq!(truncate_before(fs.as_ref(), dir(), SegmentIndex(6)).unwrap(), 2);
    assert_eq!(list_segments(fs.as_ref(), dir()).unwrap(), [SegmentIndex(6)]);

    fs.create(&dir().join("000007")).unwrap();
    assert!(list_segments(fs.as_ref(), dir()).unwrap_err().is_corruption());
}

#[test]
fn writers_never_append_to_a_segment() {
    let fs = mem();
    let options = options(2, Compression::Snappy);
    for expected in 0..3 {
        let mut writer = create(&fs, options).unwrap();
        assert_eq!(writer.segment_index(), SegmentIndex(expected));
        log_all(&mut writer, &[record(50, expected.into())]).unwrap();
    }
    let later = Writer::create(fs.clone(), dir(), SegmentIndex(2), options).unwrap();
    assert_eq!(later.segment_index(), SegmentIndex(3));
    let reading = read_log(&fs);
    assert_eq!(reading, Reading { records: (0..3).map(|seed| record(50, seed)).collect(), damage: None });
    let beyond = Writer::create(fs, dir(), SegmentIndex(9), options).unwrap();
    assert_eq!(beyond.segment_index(), SegmentIndex(9));
}

#[test]
fn positions_are_starts_of_records() {
    let fs = mem();
    let mut writer = create(&fs, options(2, Compression::None)).unwrap();
    log_all(&mut writer, &[record(10, 0), record(PAGE_BYTES, 1), record(5, 2)]).unwrap();
    writer.next_segment().unwrap();
    log_all(&mut writer, &[record(5, 3)]).unwrap();
    let mut reader = LogReader::new(fs.clone(), dir(), list_segments(fs.as_ref(), dir()).unwrap());
    let mut seen = Vec::new();
    while reader.next().unwrap().is_some() {
        seen.push((reader.position().segment.0, reader.position().offset));
    }
    assert_eq!(seen, [(0, 0), (0, 17), (0, 17 + PAGE_BYTES as u64 + 14), (1, 0)]);
}

#[test]
fn closed_logs_take_nothing() {
    let fs = mem();
    let mut writer = create(&fs, options(2, Compression::None)).unwrap();
    log_all(&mut writer, &[record(10, 0)]).unwrap();
    writer.close().unwrap();
    writer.close().unwrap();
    assert_eq!(writer.bytes_written(), PAGE_BYTES as u64);
    assert!(matches!(writer.log(&[b"x"]), Err(Error::LogDead { .. })));
    assert!(matches!(writer.sync(), Err(Error::LogDead { .. })));
    assert_eq!(get(&fs, 0).len(), PAGE_BYTES);
    assert_eq!(read_log(&fs).records.len(), 1);
}

#[test]
fn interrupted_upstream_repairs_are_undone_or_ended() {
    // Segments that are there, and which `.repair` beside them; what segment 1 holds afterwards.
    let check = |segments: &[u32], expected: &[u8]| {
        let fs = mem();
        fs.create_dir_all(dir()).unwrap();
        segments.iter().for_each(|&segment| put(&fs, segment, b"new"));
        fs.create(&dir().join("00000001.repair")).unwrap().write_all(b"old").unwrap();
        fs.create(&dir().join("00000001.repair-copy")).unwrap().write_all(b"half").unwrap();
        fs.create(&dir().join("notes.repair")).unwrap();
        recover_repairs(fs.as_ref(), dir()).unwrap();
        assert_eq!(get(&fs, 1), expected, "{segments:?}");
        let names: Vec<_> = fs.read_dir(dir()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert!(names.iter().all(|name| !name.starts_with("00000001.")), "{names:?}");
        assert!(names.contains(&"notes.repair".to_owned()));
    };
    check(&[0], b"old");
    check(&[0, 1], b"old");
    check(&[0, 1, 2], b"new");
    check(&[0, 2], b"old");
    recover_repairs(&MemFs::new(), dir()).unwrap();
}
