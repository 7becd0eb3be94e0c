//! Damaged input for every decoder: the bodies, shared by a short test and by the example that runs
//! them for as long as one likes.
//!
//! A body makes one case from the generator it is given, so a seed names a case. It fails by a
//! panic: its own, or that of a decoder that does not bear its input. Damage is made in two depths:
//! anywhere, which a checksum mostly finds, and below a checksum that is then made right again.

mod files;

use std::path::{Path, PathBuf};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use weir_tsdb::{
    Sample,
    block::{BlockMeta, BlockReader, ChunkCursor, SeriesCursor},
    chunkenc::{Encoding, XorIter, XorState, decode_floats, encode_xor},
    crc::crc32c,
    fuzz_wal,
    tombstones::{Interval, Tombstones, delete_from_chunk},
    types::IndexSeriesId,
};

use files::MemoryFs;

/// A decoder's name and its body.
pub type Body = (&'static str, fn(&mut StdRng));

/// All bodies.
pub const BODIES: &[Body] = &[
    ("xor", xor),
    ("xor-resume", xor_resume),
    ("xor2", xor2),
    ("block", block),
    ("index-below-crc", index_below_crc),
    ("chunks-below-crc", chunks_below_crc),
    ("tombstones", tombstones),
    ("meta", meta),
    ("log-record", |rng| on_bytes(rng, fuzz_wal::record)),
    ("log", |rng| on_bytes(rng, fuzz_wal::log)),
    ("log-round-trip", |rng| on_bytes(rng, fuzz_wal::log_round_trip)),
    ("chunks-head", |rng| on_bytes(rng, fuzz_wal::head_chunks)),
];

/// A body that takes bytes, on a damaged log of a real program or on bytes of no meaning.
fn on_bytes(rng: &mut StdRng, body: fn(&[u8])) {
    let mut data = if rng.random_bool(0.7) {
        const LOGS: [&str; 4] = [
            "float-wal-only/data/wal/00000000",
            "wal-fragments/data/wal/00000000",
            "wal-zstd/data/wal/00000000",
            "float-chunks-head/data/chunks_head/000001",
        ];
        let log = LOGS[rng.random_range(0..LOGS.len())];
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(log);
        let mut data = std::fs::read(path).unwrap();
        let start = rng.random_range(0..data.len().min(200));
        data.drain(..if rng.random_bool(0.5) { 0 } else { start });
        data
    } else {
        let mut data = vec![0; rng.random_range(0..300)];
        rng.fill_bytes(&mut data);
        if let Some(kind) = data.first_mut() {
            *kind %= 14;
        }
        data
    };
    damage(rng, &mut data);
    body(&data);
}

/// Runs case `seed` of a body.
pub fn run(body: &Body, seed: u64) {
    body.1(&mut StdRng::seed_from_u64(seed));
}

/// Changes some bytes or bits, or cuts off the end. May leave the data as it was.
fn damage(rng: &mut StdRng, data: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..5) {
        if data.is_empty() {
            return;
        }
        let at = rng.random_range(0..data.len());
        match rng.random_range(0..8) {
            0 => data.truncate(at),
            1 => data[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            2 => data.insert(at, rng.random()),
            3 => {
                data.remove(at);
            }
            4 => {
                let end = data.len().min(at + 12);
                rng.fill_bytes(&mut data[at..end]);
            }
            _ => data[at] ^= 1 << rng.random_range(0..8),
        }
    }
}

fn samples(rng: &mut StdRng) -> Vec<Sample> {
    let mut t = rng.random_range(-1_000..2_000_000_000_000);
    let is_wild = rng.random_bool(0.2);
    (0..rng.random_range(0..150))
        .map(|_| {
            t += if is_wild { rng.random_range(1..1 << 40) } else { 15_000 + rng.random_range(-3..4) };
            let bits = if is_wild { rng.random() } else { f64::from(rng.random_range(0..5)).to_bits() };
            Sample { t, bits }
        })
        .collect()
}

fn xor_chunk(rng: &mut StdRng) -> Vec<u8> {
    let mut data = Vec::new();
    encode_xor(samples(rng), &mut data);
    data
}

/// No more samples than the header says, and nothing after an error.
fn check_floats(encoding: Encoding, data: &[u8]) -> Option<Vec<Sample>> {
    let mut iter = decode_floats(encoding, data).ok()?;
    let mut read = Vec::new();
    for sample in &mut iter {
        let Ok(sample) = sample else {
            assert!(iter.next().is_none(), "nothing comes after an error");
            return None;
        };
        read.push(sample);
    }
    assert_eq!(read.len(), usize::from(u16::from_be_bytes([data[0], data[1]])));
    Some(read)
}

fn xor(rng: &mut StdRng) {
    let mut data = xor_chunk(rng);
    damage(rng, &mut data);
    if let Some(read) = check_floats(Encoding::Xor, &data) {
        // What can be read can be written.
        let mut again = Vec::new();
        encode_xor(read.iter().copied(), &mut again);
        assert_eq!(check_floats(Encoding::Xor, &again), Some(read));
    }
}

fn xor_resume(rng: &mut StdRng) {
    let mut data = xor_chunk(rng);
    match rng.random_range(0..4) {
        0 | 1 => damage(rng, &mut data),
        // As old writers did.
        2 => data.push(0),
        _ => {}
    }
    let Ok(mut state) = XorState::resume(&data) else { return };
    let mut expected: Vec<_> =
        XorIter::new(&data).expect("resumed").map(|sample| sample.expect("one")).collect();
    for sample in samples(rng) {
        if state.count() == u16::MAX {
            break;
        }
        state.append(&mut data, sample.t, sample.bits);
        expected.push(sample);
    }
    assert_eq!(check_floats(Encoding::Xor, &data).expect("a sound chunk"), expected);
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(case)
}

/// Blocks of all kinds.
fn golden_block(rng: &mut StdRng) -> MemoryFs {
    let blocks = [
        "float-blocks/data/01M7VZGC0014FJ1NHY383WMJ24",
        "float-values-block/data/01M7VZGC0014FJ1NHY383WMJ24",
        "block-2.42/data/01M7VZGC0014FJ1NHY383WMJ24",
        "block-level2/data/01M7VZGFX0GJ3947W2F4A63VRD",
        "new-chunk-encodings/data/01M7VZGC0014FJ1NHY383WMJ24",
        "hist-block/data/01M7VZGC0014FJ1NHY383WMJ24",
        "tombstones/data/01M7VZGC0014FJ1NHY383WMJ24",
    ];
    MemoryFs::load(&golden(blocks[rng.random_range(0..blocks.len())]))
}

fn xor2(rng: &mut StdRng) {
    let fs = MemoryFs::load(&golden("new-chunk-encodings/data/01M7VZGC0014FJ1NHY383WMJ24"));
    let block = BlockReader::open(&fs, MemoryFs::dir()).expect("a sound block");
    let ids = block.index().all_postings().expect("postings");
    let (_, chunks) = block.index().series(ids[rng.random_range(0..ids.len())]).expect("a series");
    let chunk = block.chunk(&chunks[rng.random_range(0..chunks.len())]).expect("a chunk");
    // Chunks of histograms do as well: as damage beyond measure.
    let mut data = chunk.data;
    damage(rng, &mut data);
    check_floats(Encoding::Xor2, &data);
}

/// Reads all there is in a block.
fn read_block(fs: &MemoryFs) {
    let Ok(block) = BlockReader::open(fs, MemoryFs::dir()) else { return };
    let index = block.index();
    for name in index.label_names() {
        let Ok(values) = index.label_values(&name) else { continue };
        for value in values.iter().take(3) {
            let _ = index.postings(&name, value);
        }
        let _ = index.postings_for_values(&name, &mut |value| value.len() % 2 == 0);
    }
    let _ = index.symbol(index.symbol_count() / 2);
    let _ = block.index_stats();
    let mut cursors = (SeriesCursor::default(), ChunkCursor::default());
    let mut chunks = Vec::new();
    for id in index.all_postings().unwrap_or_default() {
        if index.series_with(&mut cursors.0, id, &mut chunks).is_err() {
            continue;
        }
        for meta in &chunks {
            let Ok(chunk) = block.chunks().chunk_with(&mut cursors.1, meta) else { continue };
            check_floats(chunk.encoding, &chunk.data);
            if let Some(deleted) = block.tombstones().get(id) {
                let _ = delete_from_chunk(chunk, deleted);
            }
        }
    }
}

fn block(rng: &mut StdRng) {
    let mut fs = golden_block(rng);
    let file = fs.any_file(rng);
    damage(rng, file);
    read_block(&fs);
}

/// Damages the content of one thing that is `length field | content | crc` and makes the crc right.
fn damage_below_crc(rng: &mut StdRng, data: &mut [u8], content: std::ops::Range<usize>) {
    if content.is_empty() || content.end + 4 > data.len() {
        return;
    }
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(content.clone());
        data[at] = match rng.random_range(0..3) {
            0 => rng.random(),
            1 => [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            _ => data[at] ^ 1 << rng.random_range(0..8),
        };
    }
    let crc = crc32c(&data[content.clone()]).to_be_bytes();
    data[content.end..content.end + 4].copy_from_slice(&crc);
}

fn index_below_crc(rng: &mut StdRng) {
    let mut fs = golden_block(rng);
    let series = {
        let block = BlockReader::open(&fs, MemoryFs::dir()).expect("a sound block");
        block.index().all_postings().expect("postings")
    };
    let data = fs.file("index");
    let toc = data.len() - 52;
    let field = |at: usize| u64::from_be_bytes(data[at..at + 8].try_into().expect("eight bytes")) as usize;
    let section = |at: usize| {
        let len = u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes")) as usize;
        at + 4..at + 4 + len
    };
    let content = match rng.random_range(0..5) {
        0 => toc..data.len() - 4,
        1 => section(field(toc)),
        2 => section(field(toc + 40)),
        // The list of all series.
        3 => section(field(toc + 32).next_multiple_of(4)),
        _ => {
            let at = series[rng.random_range(0..series.len())].0 as usize * 16;
            let mut decoder = weir_tsdb::varint::Decoder::new(&data[at..]);
            let len = decoder.uvarint().expect("a length") as usize;
            let start = data.len() - decoder.remaining();
            start..start + len
        }
    };
    damage_below_crc(rng, fs.file("index"), content);
    read_block(&fs);
}

fn chunks_below_crc(rng: &mut StdRng) {
    let mut fs = golden_block(rng);
    let places: Vec<_> = {
        let block = BlockReader::open(&fs, MemoryFs::dir()).expect("a sound block");
        let index = block.index();
        let ids = index.all_postings().expect("postings");
        ids.into_iter().flat_map(|id| index.series(id).expect("a series").1).collect()
    };
    let place = places[rng.random_range(0..places.len())].reference;
    let data = fs.file(&format!("chunks/{:06}", place.file_index() + 1));
    let at = place.offset() as usize;
    let mut decoder = weir_tsdb::varint::Decoder::new(&data[at..]);
    let len = decoder.uvarint().expect("a length") as usize;
    let start = data.len() - decoder.remaining();
    damage_below_crc(rng, data, start..start + 1 + len);
    read_block(&fs);
}

fn tombstones(rng: &mut StdRng) {
    let mut tombstones = Tombstones::default();
    for _ in 0..rng.random_range(0..20) {
        let interval = Interval { mint: rng.random(), maxt: rng.random() };
        tombstones.add(IndexSeriesId(rng.random_range(0..5)), interval);
    }
    let path = Path::new("tombstones");
    let mut data = tombstones.encode();
    if rng.random_bool(0.5) {
        let end = data.len() - 4;
        damage_below_crc(rng, &mut data, 5..end);
    } else {
        damage(rng, &mut data);
    }
    if let Ok(read) = Tombstones::decode(&data, path) {
        assert_eq!(Tombstones::decode(&read.encode(), path).expect("what can be read can be written"), read);
    }
}

fn meta(rng: &mut StdRng) {
    let mut fs = golden_block(rng);
    let path = Path::new("meta.json");
    damage(rng, fs.file("meta.json"));
    if let Ok(read) = BlockMeta::parse(fs.file("meta.json"), path) {
        assert_eq!(BlockMeta::parse(&read.to_json(), path).expect("what can be read can be written"), read);
    }
}
