use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::Value;

use super::{files::file_path, *};
use crate::{
    error::{Error, Result},
    fs::{FaultyFs, Fs, MemFs, Op, StdFs, read_file},
    types::HeadChunkRef,
};

fn dir() -> &'static Path {
    Path::new("/chunks_head")
}

fn meta(series: u64, mint: i64) -> HeadChunkMeta {
    HeadChunkMeta { series: SeriesRef(series), mint, maxt: mint + 9, encoding: 1 }
}

/// Data that begins with a sample count.
fn data(samples: u16, len: usize) -> Vec<u8> {
    samples.to_be_bytes().into_iter().chain((0..len).map(|at| (at * 7) as u8)).collect()
}

fn write(writer: &mut HeadChunkWriter, chunks: &[(HeadChunkMeta, Vec<u8>)]) -> Result<Vec<HeadChunkRef>> {
    let mut refs = Vec::new();
    let chunks = chunks.iter().map(|(meta, data)| HeadChunk { meta: *meta, data });
    writer.write(chunks, &mut refs).map(|()| refs)
}

fn open(fs: &Arc<dyn Fs>) -> (HeadChunkWriter, HeadChunkReader) {
    let reader = HeadChunkReader::open(fs.clone(), dir());
    let next = reader.next_file().unwrap();
    (HeadChunkWriter::open(fs.clone(), dir(), next, HEAD_CHUNK_FILE_BYTES_MAX).unwrap(), reader)
}

fn load(reader: &HeadChunkReader) -> (Vec<LoadedHeadChunk>, Option<HeadChunkDamage>) {
    let mut chunks = Vec::new();
    let damage = reader
        .load_all(&mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .unwrap();
    (chunks, damage)
}

fn put(fs: &Arc<dyn Fs>, file: u32, content: &[u8]) {
    fs.create_dir_all(dir()).unwrap();
    fs.create(&file_path(dir(), file)).unwrap().write_all(content).unwrap();
}

fn get(fs: &Arc<dyn Fs>, file: u32) -> Vec<u8> {
    read_file(fs.as_ref(), &file_path(dir(), file)).unwrap()
}

fn mem() -> Arc<dyn Fs> {
    Arc::new(MemFs::new())
}

#[test]
fn bytes_are_those_of_the_format() {
    let fs = mem();
    let (mut writer, reader) = open(&fs);
    assert_eq!(reader.next_file().unwrap(), 1);
    assert!(!fs.exists(&file_path(dir(), 1)).unwrap());
    let chunk =
        HeadChunkMeta { series: SeriesRef(0x0102), mint: -1, maxt: 2, encoding: 1 | OUT_OF_ORDER_BIT };
    let refs = write(&mut writer, &[(chunk, data(1, 130)), (meta(7, 5), data(3, 0))]).unwrap();
    assert_eq!(refs, [HeadChunkRef::new(1, 8), HeadChunkRef::new(1, 8 + 24 + 1 + 2 + 132 + 4)]);
    let file = get(&fs, 1);
    assert_eq!(file[..8], [0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0]);
    assert_eq!(file[8..16], 0x0102u64.to_be_bytes());
    assert_eq!(file[16..24], [0xff; 8]);
    assert_eq!(file[24..35], [0, 0, 0, 0, 0, 0, 0, 2, 0x81, 0x84, 1]);
    assert_eq!(file[35..167], data(1, 130));
    assert_eq!(file[167..171], crate::crc::crc32c(&file[8..167]).to_be_bytes());
    assert_eq!(reader.next_file().unwrap(), 2);
}

#[test]
fn files_have_a_limit() {
    let fs = mem();
    let mut writer = HeadChunkWriter::open(fs.clone(), dir(), 3, 500).unwrap();
    let chunks: Vec<_> = (0..6).map(|series| (meta(series + 1, 0), data(1, 150))).collect();
    let refs = write(&mut writer, &chunks).unwrap();
    let files: Vec<_> = refs.iter().map(|place| place.file()).collect();
    assert_eq!(files, [3, 3, 4, 4, 5, 5]);
    assert_eq!(writer.current_file(), 5);
    writer.cut_new_file().unwrap();
    writer.cut_new_file().unwrap();
    assert_eq!(writer.current_file(), 6);
    // Longer than a file: in one of its own.
    let long = write(&mut writer, &[(meta(1, 10), data(1, 900)), (meta(2, 10), data(1, 1))]).unwrap();
    assert_eq!(long, [HeadChunkRef::new(6, 8), HeadChunkRef::new(7, 8)]);

    let reader = HeadChunkReader::open(fs.clone(), dir());
    assert_eq!(load(&reader).0.len(), 8);
    let mut read = Vec::new();
    assert_eq!(reader.read(long[0], &mut read).unwrap(), meta(1, 10));
    assert_eq!(read, data(1, 900));
    let bytes = |from: u32| (from..=7).map(|file| get(&fs, file).len() as u64).sum::<u64>();
    assert_eq!(reader.size_bytes().unwrap(), bytes(3));
    assert_eq!(reader.delete_before(5).unwrap(), 2);
    assert_eq!(reader.size_bytes().unwrap(), bytes(5));
    assert!(matches!(reader.read(refs[0], &mut read), Err(Error::Io { .. })));
    assert_eq!(reader.read(refs[4], &mut read).unwrap(), meta(5, 0));
    assert_eq!(reader.remove_from(5).unwrap(), 3);
    assert!(reader.read(refs[4], &mut read).is_err());
    assert_eq!(load(&reader), (vec![], None));
}

#[test]
fn one_write_per_batch_and_a_sync_per_file() {
    let faulty = FaultyFs::new(mem());
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let (mut writer, _) = open(&fs);
    let chunks: Vec<_> = (0..20).map(|series| (meta(series + 1, 0), data(1, 100))).collect();
    write(&mut writer, &chunks).unwrap();
    write(&mut writer, &chunks).unwrap();
    assert_eq!([Op::Create, Op::Write, Op::Sync].map(|op| faulty.count(op)), [1, 2, 0]);
    writer.cut_new_file().unwrap();
    assert_eq!([Op::Sync, Op::SyncDir].map(|op| faulty.count(op)), [1, 1]);
}

#[test]
fn the_end_of_a_file() {
    let content = {
        let fs = mem();
        write(&mut open(&fs).0, &[(meta(1, 0), data(5, 40)), (meta(2, 0), data(6, 40))]).unwrap();
        get(&fs, 1)
    };
    let check = |files: &[&[u8]], chunks: usize, damage: Option<(u32, u64)>, left: usize| {
        let fs = mem();
        files.iter().zip(1..).for_each(|(content, file)| put(&fs, file, content));
        let reader = HeadChunkReader::open(fs.clone(), dir());
        let (found, found_damage) = load(&reader);
        assert_eq!(found.len(), chunks);
        assert_eq!(
            found_damage.as_ref().map(|damage| (damage.file, damage.offset)),
            damage,
            "{found_damage:?}"
        );
        assert_eq!(fs.read_dir(dir()).unwrap().len(), left);
        if let Some(damage) = found_damage {
            reader.remove_from(damage.file).unwrap();
            assert_eq!(load(&reader).1, None);
        }
    };
    let second = 8 + 24 + 2 + 42 + 4;
    let zeros = |count: usize| [&content[..], &vec![0; count]].concat();
    check(&[&content, &content], 4, None, 2);
    [1, 23, 24, 33, 34, 200, 3_000_000].into_iter().for_each(|count| {
        check(&[&zeros(count), &content], 4, None, 2);
    });
    // Empty last files are deleted, others are damage.
    check(&[&content, b""], 2, None, 1);
    check(&[&content, &[0; 3]], 2, None, 1);
    check(&[&content, &[0; 500]], 2, None, 1);
    check(&[b"", &content], 0, Some((1, 0)), 2);
    check(&[&content, &[1, 0x30]], 2, Some((2, 0)), 2);
    check(&[&content, &content[..8]], 2, None, 2);
    check(&[&content, &[0x01, 0x30, 0xbc, 0x91, 2, 0, 0, 0]], 2, Some((2, 0)), 2);
    // A hole before data, and a chunk that is cut.
    let hole = [&zeros(100)[..], &[1]].concat();
    check(&[&hole, &content], 2, Some((1, content.len() as u64)), 2);
    for cut in 9..content.len() {
        let whole = usize::from(cut >= second);
        let damage = if cut == second { None } else { Some((1, if whole == 1 { second as u64 } else { 8 })) };
        // Seven zeros of a series ref are no chunk.
        let only_zeros = content[if whole == 1 { second } else { 8 }..cut].iter().all(|&byte| byte == 0);
        check(&[&content[..cut]], whole, damage.filter(|_| !only_zeros), 1);
    }
}

#[test]
fn a_gap_is_damage() {
    let fs = mem();
    let (mut writer, reader) = open(&fs);
    for mint in [0, 10, 20, 30] {
        write(&mut writer, &[(meta(1, mint), data(1, 4))]).unwrap();
        writer.cut_new_file().unwrap();
    }
    fs.remove_file(&file_path(dir(), 2)).unwrap();
    let (chunks, damage) = load(&reader);
    assert_eq!((chunks.len(), damage.map(|damage| damage.file)), (1, Some(3)));
    assert_eq!(reader.remove_from(3).unwrap(), 2);
    assert_eq!(load(&reader).1, None);
}

#[test]
fn the_caller_may_refuse_a_chunk() {
    let fs = mem();
    let (mut writer, reader) = open(&fs);
    let refs = write(&mut writer, &[(meta(1, 10), data(1, 4)), (meta(1, 5), data(1, 4))]).unwrap();
    let mut newest = i64::MIN;
    let damage = reader
        .load_all(&mut |chunk| {
            if chunk.meta.mint <= newest {
                return Err("not rising".to_owned());
            }
            newest = chunk.meta.maxt;
            Ok(())
        })
        .unwrap();
    let offset = refs[1].offset().into();
    assert_eq!(damage, Some(HeadChunkDamage { file: 1, offset, what: "not rising".to_owned() }));
}

#[test]
fn flipped_bits_are_found() {
    let fs = mem();
    let (mut writer, reader) = open(&fs);
    let chunks = [(meta(1, 0), data(5, 40)), (meta(2, 0), data(6, 1400))];
    let refs = write(&mut writer, &chunks).unwrap();
    let content = get(&fs, 1);
    for at in 8..content.len() {
        let mut flipped = content.clone();
        flipped[at] ^= 1 << (at % 8);
        put(&fs, 1, &flipped);
        let damaged = usize::from(at >= refs[1].offset() as usize);
        let (found, damage) = load(&reader);
        assert_eq!(found.len(), damaged, "{at}");
        assert_eq!(damage.unwrap().offset, u64::from(refs[damaged].offset()), "{at}");
        let mut read = Vec::new();
        assert!(reader.read(refs[damaged], &mut read).unwrap_err().is_corruption(), "{at}");
        assert_eq!(reader.read(refs[1 - damaged], &mut read).unwrap(), chunks[1 - damaged].0, "{at}");
        assert_eq!(read, chunks[1 - damaged].1, "{at}");
    }
    put(&fs, 1, &content);
    let mut read = Vec::new();
    for wrong in [0, 9, content.len() as u32 - 1, content.len() as u32, u32::MAX] {
        assert!(reader.read(HeadChunkRef::new(1, wrong), &mut read).unwrap_err().is_corruption(), "{wrong}");
    }
}

#[test]
fn a_failed_write_begins_another_file() {
    let disk = mem();
    let faulty = FaultyFs::new(disk.clone());
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let (mut writer, reader) = open(&fs);
    let first = [(meta(1, 0), data(5, 40))];
    let second = [(meta(1, 10), data(5, 40)), (meta(2, 0), data(5, 40))];
    write(&mut writer, &first).unwrap();
    faulty.fail_write_after(1, 100, ErrorKind::StorageFull);
    let mut refs = Vec::new();
    let chunks = second.iter().map(|(meta, data)| HeadChunk { meta: *meta, data });
    assert!(writer.write(chunks, &mut refs).is_err());
    assert_eq!(refs, []);
    let refs = write(&mut writer, &second).unwrap();
    assert_eq!(refs[0], HeadChunkRef::new(2, 8));
    let mut read = Vec::new();
    assert_eq!(reader.read(HeadChunkRef::new(1, 8), &mut read).unwrap(), first[0].0);
    assert_eq!(reader.read(refs[1], &mut read).unwrap(), second[1].0);
    // At a start the torn file takes the later one with it.
    let (found, damage) = load(&reader);
    assert_eq!((found.len(), damage.map(|damage| damage.file)), (2, Some(1)));
    assert_eq!(reader.remove_from(1).unwrap(), 2);
}

#[test]
fn crashes_leave_a_prefix_of_each_series() {
    let mut damaged = 0;
    for seed in 0..60 {
        let disk = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        disk.create_dir_all(dir()).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut writer = HeadChunkWriter::open(fs, dir(), 1, 700).unwrap();
        for round in 0..8 {
            let chunks: Vec<_> = (1..4).map(|series| (meta(series, round * 10), data(1, 60))).collect();
            write(&mut writer, &chunks).unwrap();
        }
        let fs: Arc<dyn Fs> = Arc::new(disk.crash(seed));
        let reader = HeadChunkReader::open(fs, dir());
        let mut newest: BTreeMap<SeriesRef, i64> = BTreeMap::new();
        let damage = reader
            .load_all(&mut |chunk| {
                let before = newest.insert(chunk.meta.series, chunk.meta.mint);
                assert_eq!(chunk.meta.mint, before.map_or(0, |mint| mint + 10));
                Ok(())
            })
            .unwrap();
        damaged += usize::from(damage.is_some());
        if let Some(damage) = damage {
            reader.remove_from(damage.file).unwrap();
            assert_eq!(load(&reader).1, None);
        }
    }
    assert!(damaged > 10, "{damaged}");
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

#[test]
fn golden_files_match_their_layout() {
    let mut cases = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let case = entry.unwrap().path();
        let Ok(layout) = std::fs::read(case.join("layout.json")) else { continue };
        let layout: Value = serde_json::from_slice(&layout).unwrap();
        let Some(expected) = layout["chunks_head"].as_array() else { continue };
        // The layout of chunks with start timestamps gives the count with its two flags.
        let mut expected = expected.clone();
        for chunk in expected.iter_mut().filter(|chunk| chunk["encoding"].as_u64() >= Some(5)) {
            chunk["samples"] = (chunk["samples"].as_u64().unwrap() & 0x3fff).into();
        }
        cases += 1;
        // Loading may delete an empty file, so it works on a copy.
        let copy: Arc<dyn Fs> = mem();
        let source = case.join("data/chunks_head");
        for file in StdFs.read_dir(&source).unwrap() {
            put(&copy, file.name.parse().unwrap(), &read_file(&StdFs, &source.join(&file.name)).unwrap());
        }
        let reader = HeadChunkReader::open(copy, dir());
        let (chunks, damage) = load(&reader);
        assert_eq!(damage.is_some(), layout.get("chunks_head_error").is_some(), "{}", case.display());
        let found: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                serde_json::json!({
                    "file": chunk.chunk.file(), "offset": chunk.chunk.offset(),
                    "series_ref": chunk.meta.series.0,
                    "mint": chunk.meta.mint, "maxt": chunk.meta.maxt,
                    "encoding": chunk.meta.encoding & !OUT_OF_ORDER_BIT,
                    "out_of_order": chunk.meta.encoding & OUT_OF_ORDER_BIT != 0,
                    "samples": chunk.samples,
                })
            })
            .collect();
        assert_eq!(found, expected, "{}", case.display());
        let mut data = Vec::new();
        for chunk in chunks {
            assert_eq!(reader.read(chunk.chunk, &mut data).unwrap(), chunk.meta, "{}", case.display());
            assert!(data.len() >= 2);
        }
    }
    assert_eq!(cases, 14);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chunks_survive(
        chunks in prop::collection::vec((1u64.., any::<i64>(), any::<i64>(), any::<u8>(), 0usize..3000), 0..40),
        file_bytes_max in 100u32..20_000,
    ) {
        let fs = mem();
        let chunks: Vec<_> = chunks
            .into_iter()
            .map(|(series, mint, maxt, encoding, len)| {
                (HeadChunkMeta { series: SeriesRef(series), mint, maxt, encoding }, data(len as u16, len))
            })
            .collect();
        let mut writer = HeadChunkWriter::open(fs.clone(), dir(), 1, file_bytes_max).unwrap();
        let refs: Vec<_> = chunks.chunks(7).flat_map(|batch| write(&mut writer, batch).unwrap()).collect();
        prop_assert_eq!(refs.len(), chunks.len());
        let reader = HeadChunkReader::open(fs, dir());
        let (loaded, damage) = load(&reader);
        prop_assert_eq!(damage, None);
        let mut read = Vec::new();
        for ((chunk, (meta, data)), place) in loaded.iter().zip(&chunks).zip(&refs) {
            prop_assert_eq!((&chunk.meta, chunk.chunk), (meta, *place));
            prop_assert_eq!(&reader.read(*place, &mut read).unwrap(), meta);
            prop_assert_eq!(&read, data);
        }
        prop_assert_eq!(loaded.len(), chunks.len());
    }

    #[test]
    fn garbage_does_not_panic(content in prop::collection::vec(any::<u8>(), 0..200), offset: u32) {
        let fs = mem();
        put(&fs, 1, &[&files::FILE_HEADER[..], &content].concat());
        put(&fs, 2, &content);
        let reader = HeadChunkReader::open(fs, dir());
        load(&reader);
        let mut read = Vec::new();
        prop_assert!(reader.read(HeadChunkRef::new(1, offset % 300), &mut read).is_err());
    }
}
