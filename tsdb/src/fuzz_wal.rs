//! Bodies of fuzz targets for what is read from a log or from chunks_head. Each takes arbitrary bytes
//! and must neither panic nor take memory out of proportion to them.

use std::{path::Path, sync::Arc};

use crate::{
    fs::{Fs, MemFs},
    head_chunks::HeadChunkReader,
    record::{
        MmapMarkersIter, RecordType, SamplesEncoder, SamplesIter, SamplesV2Iter, SeriesIter, TombstonesIter,
        record_type,
    },
    types::{HeadChunkRef, SegmentIndex},
    wlog::{
        Compression, Damage, LogPosition, LogReader, PAGE_BYTES, Writer, WriterOptions, list_segments,
        repair_torn_tail, segment_path,
    },
};

/// Decodes `data` as a record of its type.
///
/// # Panics
/// If samples that were decoded do not survive another round.
pub fn record(data: &[u8]) {
    match record_type(data) {
        RecordType::Series => {
            for entry in SeriesIter::new(data).flatten() {
                assert_eq!(entry.labels.len(), entry.labels.clone().count(), "all labels are read");
            }
        }
        RecordType::Samples => samples(data),
        RecordType::SamplesV2 => assert!(SamplesV2Iter::new(data).count() <= data.len()),
        RecordType::Tombstones => assert!(TombstonesIter::new(data).count() <= data.len()),
        RecordType::MmapMarkers => assert!(MmapMarkersIter::new(data).count() <= data.len()),
        _ => {}
    }
}

fn samples(data: &[u8]) {
    let Ok(iter) = SamplesIter::new(data) else { return };
    let decoded: Vec<_> = iter.map_while(Result::ok).collect();
    let mut encoded = Vec::new();
    let mut encoder = SamplesEncoder::begin(&mut encoded);
    decoded.iter().for_each(|&(series, sample)| encoder.push(series, sample.t, sample.bits));
    let again: Result<Vec<_>, _> = SamplesIter::new(&encoded).into_iter().flatten().collect();
    assert_eq!(again.as_ref(), Ok(&decoded), "samples survive");
}

/// Reads `data` as the last segment of a log, and every record of it; cuts a torn tail.
///
/// # Panics
/// If a log has not the same records after its repair.
pub fn log(data: &[u8]) {
    let dir = Path::new("/wal");
    let fs = fs_with(dir, &segment_path(dir, SegmentIndex(0)), data);
    let (count, damage) = read_log(&fs, dir);
    if let Some(Damage::TornTail { segment, offset }) = damage {
        repair_torn_tail(fs.as_ref(), dir, LogPosition { segment, offset }).expect("memory does not fail");
        assert_eq!(read_log(&fs, dir), (count, None), "a repaired log has the records before the tear");
    }
}

/// Logs `data` cut into records at each byte 0xff, then reads it back.
///
/// # Panics
/// If other records come back.
pub fn log_round_trip(data: &[u8]) {
    let dir = Path::new("/wal");
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let compression = if data.len().is_multiple_of(2) { Compression::None } else { Compression::Snappy };
    let options = WriterOptions { segment_bytes: 2 * PAGE_BYTES as u64, compression };
    let records: Vec<_> = data.split(|&byte| byte == 0xff).collect();
    let mut writer = Writer::create(fs.clone(), dir, SegmentIndex(0), options).expect("memory does not fail");
    for batch in records.chunks(3) {
        writer.log(batch).expect("memory does not fail");
    }
    let segments = list_segments(fs.as_ref(), dir).expect("memory does not fail");
    let mut reader = LogReader::new(fs, dir, segments);
    for record in records {
        assert_eq!(reader.next().expect("what was written is valid"), Some(record), "records survive");
    }
    assert!(matches!(reader.next(), Ok(None)), "nothing is added");
}

/// Reads `data` as a file of chunks_head.
///
/// # Panics
/// If a chunk that was found at load cannot be read.
pub fn head_chunks(data: &[u8]) {
    let dir = Path::new("/chunks_head");
    let with_header = [&[0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0], data].concat();
    for content in [data, &with_header] {
        let reader = HeadChunkReader::open(fs_with(dir, &dir.join("000001"), content), dir);
        let mut chunks = Vec::new();
        let loaded = reader.load_all(&mut |chunk| {
            chunks.push(chunk);
            Ok(())
        });
        loaded.expect("memory does not fail");
        let mut buf = Vec::new();
        for chunk in chunks {
            let meta = reader.read(chunk.chunk, &mut buf).expect("it was found");
            assert_eq!(meta, chunk.meta, "both readings agree");
        }
        // What is no chunk is an error or, by chance, a chunk.
        let _ = reader.read(HeadChunkRef::new(1, data.len() as u32 / 2), &mut buf);
    }
}

fn fs_with(dir: &Path, path: &Path, content: &[u8]) -> Arc<dyn Fs> {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir_all(dir).expect("memory does not fail");
    let mut file = fs.create(path).expect("memory does not fail");
    file.write_all(content).expect("memory does not fail");
    fs
}

fn read_log(fs: &Arc<dyn Fs>, dir: &Path) -> (usize, Option<Damage>) {
    let mut reader = LogReader::new(fs.clone(), dir, vec![SegmentIndex(0)]);
    let mut count = 0;
    loop {
        match reader.next() {
            Ok(Some(data)) => record(data),
            Ok(None) => return (count, None),
            Err(_) => return (count, reader.classify().expect("memory does not fail")),
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fragments with right checksums around arbitrary data, so that more than the first check runs.
    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop::sample::select(vec![1, 2, 3, 4, 9, 0x11, 0, 5, 0x19]);
        let first = prop::sample::select(vec![1, 2, 3, 5, 7, 11, 0x28]);
        let data = (first, prop::collection::vec(any::<u8>(), 0..60));
        prop::collection::vec((kind, data), 0..8).prop_map(|fragments| {
            let mut segment = Vec::new();
            for (kind, (first, mut data)) in fragments {
                data.insert(0, first);
                segment.push(kind);
                segment.extend_from_slice(&(data.len() as u16).to_be_bytes());
                segment.extend_from_slice(&crate::crc::crc32c(&data).to_be_bytes());
                segment.extend_from_slice(&data);
            }
            segment
        })
    }

    proptest! {
        #[test]
        fn bodies_hold(
            data in prop::collection::vec(any::<u8>(), 0..300),
            first in 0u8..16,
            segment in fragments(),
        ) {
            record(&data);
            record(&[&[first], &data[..]].concat());
            log(&data);
            log(&segment);
            log_round_trip(&data);
            head_chunks(&data);
        }
    }
}
