use std::{collections::BTreeMap, io, sync::Mutex};

use proptest::prelude::*;

use super::*;
use crate::{
    block::{BlockReader, HINT_OUT_OF_ORDER, block_dirs, parse_ulid},
    chunkenc::{decode_floats, encode_xor},
    fs::{DirEntry, DirLock, ReadFile, StdFs, WriteFile},
};

const RANGE: i64 = BLOCK_RANGE_MS;

fn std_fs() -> Arc<dyn Fs> {
    Arc::new(StdFs)
}

fn ulid() -> Ulid {
    parse_ulid("01M7VZGC0014FJ1NHY383WMJ24").expect("a name")
}

fn write(
    parent: &Path,
    spec: &BlockSpec,
    series: impl IntoIterator<Item = (Labels, Vec<Sample>, Vec<Chunk>)>,
) -> Result<Option<BlockMeta>> {
    let mut series = series.into_iter();
    write_block(&std_fs(), parent, spec, |next| {
        let Some((labels, samples, chunks)) = series.next() else { return Ok(false) };
        assert!(next.samples.is_empty() && next.chunks.is_empty());
        (next.labels, next.samples, next.chunks) = (labels, samples, chunks);
        Ok(true)
    })
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("name", name), ("common", "value")])
}

fn sample(t: i64) -> Sample {
    Sample { t, bits: t as u64 }
}

fn names(parent: &Path) -> Vec<String> {
    StdFs.read_dir(parent).expect("listed").into_iter().map(|entry| entry.name).collect()
}

fn open(parent: &Path) -> BlockReader {
    BlockReader::open(&StdFs, &parent.join(ulid().to_string())).expect("a sound block")
}

/// All float samples of a block.
fn read(block: &BlockReader) -> BTreeMap<Labels, Vec<Sample>> {
    let ids = block.index().all_postings().expect("postings");
    let series = ids.into_iter().map(|id| {
        let (labels, chunks) = block.index().series(id).expect("a series");
        let mut samples = Vec::new();
        for meta in chunks {
            let chunk = block.chunk(&meta).expect("a chunk");
            let floats = decode_floats(chunk.encoding, &chunk.data).expect("floats");
            samples.extend(floats.map(|sample| sample.expect("a sample")));
        }
        (labels, samples)
    });
    series.collect()
}

#[test]
fn a_block_comes_whole() {
    let parent = tempfile::tempdir().expect("a directory");
    let spec = BlockSpec {
        hints: vec![HINT_OUT_OF_ORDER.to_owned()],
        chunk_file_bytes_max: 40,
        ..BlockSpec::new(ulid(), 0, RANGE)
    };
    let series = [
        (labels("a"), vec![sample(0), sample(RANGE - 1)], Vec::new()),
        (labels("b"), Vec::new(), Vec::new()),
        (labels("c"), vec![sample(5)], Vec::new()),
    ];
    // A leftover of an attempt with the same name does no harm.
    let leftover = parent.path().join(format!("{}.tmp-for-creation/chunks", ulid()));
    std::fs::create_dir_all(&leftover).expect("created");
    std::fs::write(leftover.join("000007"), "old").expect("written");
    let meta = write(parent.path(), &spec, series.clone()).expect("written").expect("samples");
    let stats = BlockStats {
        num_samples: 3,
        num_float_samples: 3,
        num_series: 2,
        num_chunks: 2,
        ..BlockStats::default()
    };
    assert_eq!(meta.stats, stats);
    assert_eq!((meta.min_time, meta.max_time), (0, RANGE));
    assert_eq!(meta.compaction.sources, [ulid()]);
    assert!(meta.has_hint(HINT_OUT_OF_ORDER));
    assert_eq!(names(parent.path()), [ulid().to_string()]);
    assert_eq!(
        names(&parent.path().join(ulid().to_string())),
        ["chunks", "index", "meta.json", "tombstones"]
    );

    let block = open(parent.path());
    assert_eq!(block.meta(), &meta);
    assert_eq!(block.chunks().file_count(), 2);
    let expected: BTreeMap<_, _> =
        series.into_iter().filter(|one| !one.1.is_empty()).map(|one| (one.0, one.1)).collect();
    assert_eq!(read(&block), expected);
    assert_eq!(block.index().symbol_count(), 6, "the empty one, 2 names, 3 values, none of series b");
}

#[test]
fn without_samples_there_is_no_block() {
    let parent = tempfile::tempdir().expect("a directory");
    let spec = BlockSpec::new(ulid(), 0, RANGE);
    let check = |series: Vec<(Labels, Vec<Sample>, Vec<Chunk>)>| {
        assert_eq!(write(parent.path(), &spec, series).expect("no error"), None);
        assert!(names(parent.path()).is_empty());
    };
    check(Vec::new());
    check(vec![(labels("a"), Vec::new(), Vec::new())]);
}

fn xor_chunk(times: &[i64]) -> Chunk {
    let mut data = Vec::new();
    encode_xor(times.iter().map(|&t| sample(t)), &mut data);
    Chunk { mint: times[0], maxt: times[times.len() - 1], encoding: Encoding::Xor, data }
}

#[test]
fn given_chunks_are_stored_as_they_are() {
    let parent = tempfile::tempdir().expect("a directory");
    let spec = BlockSpec::new(ulid(), 0, RANGE);
    let histogram = Chunk { mint: 10, maxt: 20, encoding: Encoding::Histogram, data: vec![0, 7, 1, 2, 3] };
    let chunks = vec![histogram.clone(), xor_chunk(&[25, 26, 27])];
    let floats = [1, 2, 30, 31].map(sample).to_vec();
    let meta =
        write(parent.path(), &spec, [(labels("a"), floats, chunks)]).expect("written").expect("samples");
    let stats = BlockStats {
        num_samples: 14,
        num_float_samples: 7,
        num_histogram_samples: 7,
        num_series: 1,
        num_chunks: 4,
        ..BlockStats::default()
    };
    assert_eq!(meta.stats, stats);
    let block = open(parent.path());
    let ids = block.index().all_postings().expect("postings");
    let (_, metas) = block.index().series(ids[0]).expect("a series");
    let chunks: Vec<_> = metas.iter().map(|meta| block.chunk(meta).expect("a chunk")).collect();
    assert_eq!(chunks, [xor_chunk(&[1, 2]), histogram, xor_chunk(&[25, 26, 27]), xor_chunk(&[30, 31])]);
}

#[test]
fn what_would_be_no_sound_block_is_refused() {
    let spec = BlockSpec::new(ulid(), 0, RANGE);
    let check = |series: Vec<(Labels, Vec<i64>, Vec<Chunk>)>, says: &str| {
        let parent = tempfile::tempdir().expect("a directory");
        let series = series
            .into_iter()
            .map(|(labels, times, chunks)| (labels, times.into_iter().map(sample).collect(), chunks));
        let error = write(parent.path(), &spec, series).expect_err("no sound block");
        assert!(error.to_string().contains(says), "{error}");
        assert!(names(parent.path()).is_empty());
    };
    check(vec![(labels("b"), vec![1], vec![]), (labels("a"), vec![1], vec![])], "does not come after");
    check(vec![(labels("a"), vec![1], vec![]), (labels("a"), vec![1], vec![])], "does not come after");
    check(vec![(Labels::empty(), vec![1], vec![])], "does not come after");
    check(vec![(labels("a"), vec![2, 1], vec![])], "out of order");
    check(vec![(labels("a"), vec![2, 2], vec![])], "out of order");
    check(vec![(labels("a"), vec![-1, 2], vec![])], "outside of");
    check(vec![(labels("a"), vec![2, RANGE], vec![])], "outside of");
    check(vec![(labels("a"), vec![], vec![xor_chunk(&[2, RANGE])])], "out of place");
    check(vec![(labels("a"), vec![], vec![xor_chunk(&[2, 4]), xor_chunk(&[4, 5])])], "out of place");
    check(vec![(labels("a"), vec![1, 3], vec![xor_chunk(&[2, 4])])], "out of place");
    check(vec![(labels("a"), vec![1, 4], vec![xor_chunk(&[2, 4])])], "out of place");
}

/// Passes everything on and notes it; the operation of a certain number fails.
#[derive(Debug)]
struct NotingFs {
    notes: Arc<Mutex<Vec<String>>>,
    fail_at: usize,
}

impl NotingFs {
    fn note(notes: &Mutex<Vec<String>>, fail_at: usize, what: &str, path: &Path) -> io::Result<()> {
        let mut notes = notes.lock().expect("not poisoned");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        notes.push(format!("{what} {name}"));
        if notes.len() - 1 == fail_at { Err(io::Error::other("on purpose")) } else { Ok(()) }
    }

    fn own(&self, what: &str, path: &Path) -> io::Result<()> {
        Self::note(&self.notes, self.fail_at, what, path)
    }
}

#[derive(Debug)]
struct NotingFile {
    notes: Arc<Mutex<Vec<String>>>,
    fail_at: usize,
    path: PathBuf,
    inner: Box<dyn WriteFile>,
}

impl WriteFile for NotingFile {
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        NotingFs::note(&self.notes, self.fail_at, "write", &self.path)?;
        self.inner.write_all(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        NotingFs::note(&self.notes, self.fail_at, "sync", &self.path)?;
        self.inner.sync()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }
}

impl Fs for NotingFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.own("mkdir", path)?;
        StdFs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        StdFs.read_dir(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        self.own("open", path)?;
        StdFs.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.own("create", path)?;
        let inner = StdFs.create(path)?;
        let (notes, fail_at) = (self.notes.clone(), self.fail_at);
        Ok(Box::new(NotingFile { notes, fail_at, path: path.to_owned(), inner }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.own("rename", to)?;
        StdFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        StdFs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        StdFs.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.own("sync dir", path)?;
        StdFs.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        StdFs.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        StdFs.lock(path)
    }
}

/// Writes one small block whose operation number `fail_at` fails.
fn write_noting(parent: &Path, fail_at: usize) -> (Result<Option<BlockMeta>>, Vec<String>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let fs: Arc<dyn Fs> = Arc::new(NotingFs { notes: notes.clone(), fail_at });
    let mut left = 2;
    let written = write_block(&fs, parent, &BlockSpec::new(ulid(), 0, RANGE), |series| {
        left -= 1;
        series.labels = labels(if left == 1 { "a" } else { "b" });
        series.samples.extend([3, 5, 8].map(sample));
        Ok(left >= 0)
    });
    let notes = notes.lock().expect("not poisoned").clone();
    (written, notes)
}

#[test]
fn everything_is_durable_before_the_block_has_its_name() {
    let parent = tempfile::tempdir().expect("a directory");
    let (written, notes) = write_noting(parent.path(), usize::MAX);
    written.expect("written");
    let place = |what: &str| {
        let found = notes.iter().rposition(|note| note == what);
        found.unwrap_or_else(|| panic!("{what:?} not in {notes:?}"))
    };
    let tmp = format!("{}.tmp-for-creation", ulid());
    for file in ["000001", "index", "tombstones", "meta.json"] {
        assert!(place(&format!("write {file}")) < place(&format!("sync {file}")));
        assert!(place(&format!("sync {file}")) < place(&format!("sync dir {tmp}")));
    }
    assert!(place("create 000001") < place("sync dir chunks"));
    assert!(place("sync dir chunks") < place(&format!("rename {}", ulid())));
    assert!(place(&format!("sync dir {tmp}")) < place(&format!("rename {}", ulid())));
    let parent_name = parent.path().file_name().expect("a name").to_string_lossy();
    assert_eq!(place(&format!("sync dir {parent_name}")), notes.len() - 1);
}

#[test]
fn after_an_error_nothing_is_left() {
    let parent = tempfile::tempdir().expect("a directory");
    for fail_at in 0..100 {
        let (written, notes) = write_noting(parent.path(), fail_at);
        if written.is_ok() {
            assert!(fail_at > 10, "{notes:?}");
            assert_eq!(names(parent.path()), [ulid().to_string()]);
            return;
        }
        assert!(names(parent.path()).is_empty(), "{notes:?}");
        assert!(block_dirs(&StdFs, parent.path()).expect("listed").is_empty());
    }
    panic!("a block takes more than 100 operations");
}

#[test]
fn an_error_of_the_source_is_handed_on() {
    let parent = tempfile::tempdir().expect("a directory");
    let mut calls = 0;
    let written = write_block(&std_fs(), parent.path(), &BlockSpec::new(ulid(), 0, RANGE), |series| {
        calls += 1;
        if calls == 3 {
            return Err(Error::corrupt("somewhere", 7, "on purpose"));
        }
        series.labels = labels(&calls.to_string());
        series.samples.push(sample(1));
        Ok(true)
    });
    assert!(written.is_err_and(|error| error.to_string().contains("on purpose")));
    assert!(names(parent.path()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn series_survive(
        series in prop::collection::btree_map(
            "[a-d]{1,3}",
            prop::collection::btree_map(0i64..RANGE, prop_oneof![any::<u64>(), 0u64..3], 0..300),
            1..12,
        ),
        chunk_file_bytes_max in 100u64..10_000,
    ) {
        let parent = tempfile::tempdir().expect("a directory");
        let spec = BlockSpec { chunk_file_bytes_max, ..BlockSpec::new(ulid(), 0, RANGE) };
        let mut series: Vec<_> = series.into_iter().map(|(name, samples)| {
            let samples: Vec<_> = samples.into_iter().map(|(t, bits)| Sample { t, bits }).collect();
            (labels(&name), samples, Vec::new())
        }).collect();
        series.sort_by(|left, right| left.0.cmp(&right.0));
        let expected: BTreeMap<_, _> =
            series.iter().filter(|one| !one.1.is_empty()).map(|one| (one.0.clone(), one.1.clone())).collect();
        let written = write(parent.path(), &spec, series).expect("written");
        prop_assert_eq!(written.is_some(), !expected.is_empty());
        if let Some(meta) = written {
            prop_assert_eq!(meta.stats.num_samples, expected.values().map(|all| all.len() as u64).sum::<u64>());
            prop_assert_eq!(read(&open(parent.path())), expected);
        }
    }
}
