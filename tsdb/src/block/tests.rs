use std::collections::BTreeMap;

use super::*;
use crate::{
    block::golden::Case,
    chunkenc::{Encoding, decode_floats, sample_count},
    fs::StdFs,
    labels::Labels,
    tombstones::delete_from_chunk,
    types::Sample,
};

fn open(dir: &Path) -> BlockReader {
    BlockReader::open(&StdFs, dir).expect("a sound block")
}

/// Compares all blocks of a golden directory with what is said of them, and returns the float
/// samples of all of them that are not deleted.
fn read_case(name: &str) -> BTreeMap<Labels, Vec<Sample>> {
    let case = Case::open(name);
    let sizes = case.file_sizes();
    let mut samples: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for (ulid, series) in case.layout() {
        let block = open(&case.block_dir(&ulid));
        let size: u64 = sizes.iter().filter(|(path, _)| path.starts_with(&ulid)).map(|(_, size)| size).sum();
        assert_eq!(block.size_bytes(), size, "{name}");
        assert_eq!(block.meta().ulid.to_string(), ulid);
        assert_eq!(block.meta().stats.num_series, series.len() as u64, "{name}");
        check_index(block.index(), &series.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());

        let ids = block.index().all_postings().expect("postings");
        let mut cursors = (SeriesCursor::default(), ChunkCursor::default());
        let mut chunks = Vec::new();
        let (mut chunk_max, mut sample_sum, mut chunk_sum) = (0, 0, 0);
        for (id, (expected_labels, layout)) in ids.into_iter().zip(series) {
            let labels = block.index().series_with(&mut cursors.0, id, &mut chunks).expect("a series");
            assert_eq!(labels, expected_labels, "{name}");
            assert_eq!(chunks.len(), layout.len(), "{name} {labels}");
            for (meta, [file, offset, mint, maxt, encoding, count, bytes]) in chunks.iter().zip(layout) {
                assert_eq!((meta.mint, meta.maxt), (mint, maxt), "{name} {labels}");
                assert_eq!(meta.reference, BlockChunkRef((file << 32 | offset) as u64));
                let chunk = block.chunks().chunk_with(&mut cursors.1, meta).expect("a chunk");
                assert_eq!(chunk.encoding as i64, encoding, "{name} {labels}");
                assert_eq!(chunk.data.len() as i64, bytes, "{name} {labels}");
                assert_eq!(sample_count(chunk.encoding, &chunk.data).map(i64::from), Ok(count & 0x3fff));
                let field = crate::varint::uvarint_len(bytes as u64) as u64;
                chunk_max = chunk_max.max(field + 1 + bytes as u64 + 4);
                chunk_sum += 1;
                sample_sum += (count & 0x3fff) as u64;
                if !chunk.encoding.is_float() {
                    continue;
                }
                let whole = decode_floats(chunk.encoding, &chunk.data).expect("floats");
                let times: Vec<_> = whole.map(|sample| sample.expect("a sample").t).collect();
                assert_eq!((times[0], times[times.len() - 1]), (mint, maxt), "{name} {labels}");
                let nothing = crate::tombstones::Intervals::new();
                let deleted = block.tombstones().get(id).unwrap_or(&nothing);
                if let Some(chunk) = delete_from_chunk(chunk, deleted).expect("floats") {
                    let rest = decode_floats(chunk.encoding, &chunk.data).expect("floats");
                    samples
                        .entry(labels.clone())
                        .or_default()
                        .extend(rest.map(|sample| sample.expect("one")));
                }
            }
        }
        let stats = block.meta().stats;
        assert_eq!((stats.num_samples, stats.num_chunks), (sample_sum, chunk_sum), "{name}");
        assert_eq!(stats.num_tombstones, block.tombstones().interval_count() as u64, "{name}");
        assert_eq!(block.index_stats().expect("stats").chunk_max_size, chunk_max, "{name}");
    }
    samples
}

/// Every way to ask the index for postings, names and values, against the series in order.
fn check_index(index: &IndexReader, series: &[Labels]) {
    let ids = index.all_postings().expect("postings");
    assert_eq!(ids.len(), series.len());
    let mut values: BTreeMap<&str, BTreeMap<&str, Vec<IndexSeriesId>>> = BTreeMap::new();
    for (id, labels) in ids.iter().zip(series) {
        assert_eq!(&index.series(*id).expect("a series").0, labels);
        for (name, value) in labels.iter() {
            values.entry(name).or_default().entry(value).or_default().push(*id);
        }
    }
    assert_eq!(index.label_names(), values.keys().copied().collect::<Vec<_>>());
    for (name, values) in &values {
        let expected: Vec<_> = values.keys().copied().collect();
        assert_eq!(index.label_values(name).expect("values"), expected);
        for (value, ids) in values {
            assert_eq!(&index.postings(name, value).expect("postings"), ids, "{name} {value}");
            assert!(index.postings(name, &format!("{value}\0")).expect("none").is_empty());
        }
        let mut is_odd = false;
        let odd = index.postings_for_values(name, &mut |_| {
            is_odd = !is_odd;
            is_odd
        });
        let mut expected: Vec<_> = values.values().step_by(2).flatten().copied().collect();
        expected.sort_unstable();
        assert_eq!(odd.expect("postings"), expected, "{name}");
        assert!(index.postings_for_values(name, &mut |_| false).expect("none").is_empty());
    }
    for (name, value) in [("nothing", "x"), ("", "x"), ("\u{10ffff}", ""), ("__name__", "")] {
        assert!(index.postings(name, value).expect("none").is_empty());
    }
    assert!(index.label_values("nothing").expect("none").is_empty());
    assert!(index.label_values("").expect("none").is_empty());
    let symbols: Vec<_> =
        (0..index.symbol_count()).map(|number| index.symbol(number).expect("one")).collect();
    assert!(symbols.is_sorted());
    assert!(index.symbol(index.symbol_count()).is_err());
}

/// Compares with the samples that a reader of the whole directory must return, as far as they are
/// in the range of the blocks.
fn check_samples(name: &str) {
    let case = Case::open(name);
    let read = read_case(name);
    let range = |ulid: &str| BlockMeta::read(&StdFs, &case.block_dir(ulid)).expect("a meta");
    let metas: Vec<_> = case.layout().keys().map(|ulid| range(ulid)).collect();
    let is_in_a_block = |t: i64| metas.iter().any(|meta| meta.min_time <= t && t < meta.max_time);
    let mut expected = case.expected_floats();
    expected.values_mut().for_each(|samples| samples.retain(|sample| is_in_a_block(sample.t)));
    expected.retain(|_, samples| !samples.is_empty());
    assert!(!expected.is_empty());
    assert_eq!(read.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    for (labels, mut samples) in read {
        // Blocks are read by name here, not by time.
        samples.sort_by_key(|sample| sample.t);
        assert_eq!(samples, expected[&labels], "{name} {labels}");
    }
}

#[test]
fn float_blocks() {
    check_samples("float-blocks");
}

#[test]
fn blocks_of_an_old_version() {
    check_samples("block-2.42");
}

#[test]
fn a_merged_block() {
    check_samples("block-level2");
}

#[test]
fn awkward_values() {
    check_samples("float-values-block");
}

#[test]
fn deletions() {
    check_samples("tombstones");
}

#[test]
fn blocks_beside_a_checkpoint() {
    check_samples("float-checkpoint");
}

#[test]
fn an_evicted_series() {
    read_case("stale-series-eviction");
}

#[test]
fn histograms_are_carried_as_they_are() {
    read_case("hist-block");
}

#[test]
fn new_encodings() {
    let read = read_case("new-chunk-encodings");
    let expected = Case::open("new-chunk-encodings").expected_floats();
    assert!(!read.is_empty());
    for (labels, samples) in read {
        let expected = &expected[&labels];
        assert_eq!(samples, expected[..samples.len()], "{labels}");
    }
}

/// Writes the blocks of newer Prometheus versions again from their samples: the bytes must be the
/// same.
#[test]
fn equal_samples_give_equal_blocks() {
    let check = |name: &str, files: &[&str]| {
        let case = Case::open(name);
        for ulid in case.layout().keys() {
            let golden = open(&case.block_dir(ulid));
            let dir = tempfile::tempdir().expect("a directory");
            let meta = golden.meta();
            let spec = BlockSpec::new(meta.ulid, meta.min_time, meta.max_time);
            let mut ids = golden.index().all_postings().expect("postings").into_iter();
            let next = |series: &mut BlockSeries| {
                let Some(id) = ids.next() else { return Ok(false) };
                let (labels, chunks) = golden.index().series(id)?;
                series.labels = labels;
                for meta in chunks {
                    let chunk = golden.chunk(&meta)?;
                    let floats = decode_floats(chunk.encoding, &chunk.data).expect("floats");
                    series.samples.extend(floats.map(|sample| sample.expect("a sample")));
                }
                Ok(true)
            };
            let fs: std::sync::Arc<dyn Fs> = std::sync::Arc::new(StdFs);
            let written = write_block(&fs, dir.path(), &spec, next).expect("written").expect("samples");
            assert_eq!(written.stats, BlockStats { num_tombstones: 0, ..meta.stats });
            let own = dir.path().join(ulid);
            assert_eq!(BlockMeta::read(&StdFs, &own).expect("a meta"), written);
            for file in files {
                let read = |dir: &Path| std::fs::read(dir.join(file)).expect("a file");
                assert!(read(&own) == read(golden.dir()), "{name} {ulid} {file}");
            }
        }
    };
    let all = ["index", "chunks/000001"];
    check("float-values-block", &[&all[..], &["meta.json", "tombstones"]].concat());
    check("tombstones", &all);
    // Upstream leaves symbols in the index that no series of the block has.
    check("float-checkpoint", &all[1..]);
}

#[test]
fn open_blocks_survive_their_deletion() {
    let parent = tempfile::tempdir().expect("a directory");
    let ulid = parse_ulid("01M7VZGC0014FJ1NHY383WMJ24").expect("a name");
    let fs: std::sync::Arc<dyn Fs> = std::sync::Arc::new(StdFs);
    let mut left = 3;
    write_block(&fs, parent.path(), &BlockSpec::new(ulid, 0, 100), |series| {
        left -= 1;
        series.labels = Labels::from_pairs([("a", format!("{}", 9 - left))]);
        series.samples.push(Sample::new(7, 1.0));
        Ok(left > 0)
    })
    .expect("written");
    let block = open(&parent.path().join(ulid.to_string()));
    assert!(block.overlaps(99, 200) && block.overlaps(-1, 0));
    assert!(!block.overlaps(100, 200) && !block.overlaps(-10, -1));
    delete_block(&StdFs, parent.path(), ulid).expect("deleted");
    let ids = block.index().postings("a", "8").expect("postings");
    let (labels, chunks) = block.index().series(ids[0]).expect("a series");
    assert_eq!(labels, Labels::from_pairs([("a", "8")]));
    assert_eq!(block.chunk(&chunks[0]).expect("a chunk").encoding, Encoding::Xor);
    assert!(BlockReader::open(&StdFs, &parent.path().join(ulid.to_string())).is_err());
}

/// All that can be read from a block: postings of every name and value, series, chunks.
type Content = (Vec<(String, String, Vec<IndexSeriesId>)>, Vec<(Labels, Vec<Chunk>)>);

fn read_all(dir: &Path) -> Result<Content> {
    let block = BlockReader::open(&StdFs, dir)?;
    let mut postings = Vec::new();
    for name in block.index().label_names() {
        for value in block.index().label_values(&name)? {
            let ids = block.index().postings(&name, &value)?;
            postings.push((name.clone(), value, ids));
        }
    }
    let mut series = Vec::new();
    for id in block.index().all_postings()? {
        let (labels, metas) = block.index().series(id)?;
        let chunks: Result<Vec<_>> = metas.iter().map(|meta| block.chunk(meta)).collect();
        series.push((labels, chunks?));
    }
    Ok((postings, series))
}

/// Flips a bit in every byte of the index and of a chunk file: what is read then is an error or the
/// truth.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let parent = tempfile::tempdir().expect("a directory");
    let ulid = parse_ulid("01M7VZGC0014FJ1NHY383WMJ24").expect("a name");
    let fs: std::sync::Arc<dyn Fs> = std::sync::Arc::new(StdFs);
    let mut made = 0;
    write_block(&fs, parent.path(), &BlockSpec::new(ulid, 0, 100), |series| {
        made += 1;
        series.labels = Labels::from_pairs([("a", format!("{made}")), ("b", "c".to_owned())]);
        series.samples.extend([Sample::new(3, 1.0), Sample::new(7, 2.0)]);
        Ok(made < 3)
    })
    .expect("written");
    let dir = parent.path().join(ulid.to_string());
    let truth = read_all(&dir).expect("a sound block");
    let mut unnoticed = Vec::new();
    for file in ["index", "chunks/000001"] {
        let path = dir.join(file);
        let sound = std::fs::read(&path).expect("a file");
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at * 3 % 8);
            std::fs::write(&path, damaged).expect("written");
            if let Ok(read) = read_all(&dir) {
                assert!(read == truth, "{file}, byte {at}");
                unnoticed.push((file, at, sound[at]));
            }
        }
        for len in 0..sound.len() {
            std::fs::write(&path, &sound[..len]).expect("written");
            assert!(read_all(&dir).is_err(), "{file} of {len} bytes");
        }
        std::fs::write(&path, sound).expect("written");
    }
    // Only zeros between things are not looked at.
    assert!(unnoticed.iter().all(|(_, _, byte)| *byte == 0), "{unnoticed:?}");
    assert!(unnoticed.len() < 60, "{unnoticed:?}");
}
