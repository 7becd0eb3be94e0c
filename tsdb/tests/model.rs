//! The database against a model: a map from series and time to value. Histories of appends, cuts,
//! clean and unclean restarts, on a file system in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use proptest::prelude::*;
use weir_tsdb::{
    Labels, Sample,
    append::{AppendBatch, RefuseReason, SeriesHandle},
    chunkenc::decode_floats,
    db::{Db, DbOptions},
    fs::{Fs as _, MemFs},
    query::Query,
};

/// Short, so that a history of a few hundred samples sees many blocks.
const RANGE_MS: i64 = 60_000;

type Content = BTreeMap<usize, BTreeMap<i64, u64>>;

#[derive(Clone, Debug)]
enum Step {
    /// Moves the clock on, then appends one sample of each series in the set, at the clock plus the
    /// offset.
    Append {
        clock_ms: i64,
        series: Vec<(usize, i64, u64)>,
        /// Late samples of the batch are taken so far back from the clock, whatever the window.
        late_from: Option<i64>,
    },
    Cut,
    /// Cuts all that is in the head.
    CutAll,
    /// Closes and opens again.
    Restart,
    /// Opens what a killed process leaves behind.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![Just(0u64), Just(1.5f64.to_bits()), any::<u64>()];
    let offset = prop_oneof![6 => Just(0i64), 2 => -40_000i64..0, 1 => 0i64..5_000, 1 => -250_000i64..0];
    let series = proptest::collection::vec((0..6usize, offset, value), 1..8);
    let late_from = prop_oneof![9 => Just(None), 1 => (0i64..200_000).prop_map(Some)];
    let append = (0i64..20_000, series, late_from).prop_map(|(clock_ms, series, late_from)| Step::Append {
        clock_ms,
        series,
        late_from,
    });
    let step = prop_oneof![20 => append, 2 => Just(Step::Cut), 1 => Just(Step::CutAll), 1 => Just(Step::Restart), 1 => Just(Step::Kill)];
    proptest::collection::vec(step, 1..120)
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "metric"),
        ("series", &series.to_string()),
        ("parity", ["even", "odd"][series % 2]),
    ])
}

fn options(window_ms: i64) -> DbOptions {
    DbOptions {
        out_of_order_window_ms: window_ms,
        // Few, so that there are chunks of late samples.
        out_of_order_cap: 3,
        block_range_ms: RANGE_MS,
        retention_ms: None,
        wal_segment_bytes: 32 * 1024,
        ..DbOptions::default()
    }
}

fn open(fs: &MemFs) -> Db {
    open_with(fs, 0)
}

fn open_with(fs: &MemFs, window_ms: i64) -> Db {
    Db::open(Arc::new(fs.clone()), PathBuf::from("/db"), options(window_ms)).unwrap()
}

fn read_all(db: &Db) -> Content {
    let query = Query { mint: i64::MIN, maxt: i64::MAX, matchers: Vec::new(), series_limit: None };
    let selection = db.select(&query).unwrap();
    let mut content = Content::new();
    for index in 0..selection.len() {
        let series: usize = selection.labels(index).get("series").unwrap().parse().unwrap();
        assert_eq!(*selection.labels(index), labels(series));
        let mut samples = BTreeMap::new();
        for chunk in selection.chunks(index).unwrap() {
            for sample in decode_floats(chunk.encoding, &chunk.data).unwrap() {
                let sample = sample.unwrap();
                assert!(chunk.mint <= sample.t && sample.t <= chunk.maxt);
                assert_eq!(samples.insert(sample.t, sample.bits), None, "sample at {} comes twice", sample.t);
            }
        }
        assert!(content.insert(series, samples).is_none());
    }
    content
}

/// What the database must hold, and how it must judge.
#[derive(Default)]
struct Model {
    content: Content,
    /// Newest sample of each series that came in order.
    newest_in_order: BTreeMap<usize, i64>,
    /// Late samples that are older than what was cut, since then.
    late: Content,
    max_time: Option<i64>,
    /// End of the newest block.
    cut_to: i64,
    window_ms: i64,
}

/// From when on samples are taken in order, and late.
#[derive(Clone, Copy)]
struct Bounds {
    in_order: i64,
    late: Option<i64>,
}

impl Model {
    /// Verdict on a sample: `Ok(true)` stored, `Ok(false)` a repeat.
    fn append(&mut self, series: usize, sample: Sample, bounds: Bounds) -> Result<bool, RefuseReason> {
        // What is in blocks is not looked at.
        let in_head = if sample.t >= self.cut_to { &self.content } else { &self.late };
        match in_head.get(&series).and_then(|samples| samples.get(&sample.t)) {
            Some(&bits) if bits == sample.bits => return Ok(false),
            Some(_) => return Err(RefuseReason::DuplicateTimestamp),
            None => {}
        }
        let is_newer = self.newest_in_order.get(&series).is_none_or(|&newest| newest < sample.t);
        if is_newer && sample.t >= bounds.in_order {
            self.newest_in_order.insert(series, sample.t);
        } else {
            match bounds.late {
                None if sample.t < bounds.in_order => return Err(RefuseReason::OutOfBounds),
                None => return Err(RefuseReason::OutOfOrder),
                Some(from) if sample.t < from => return Err(RefuseReason::TooOld),
                Some(_) if sample.t < self.cut_to => {
                    self.late.entry(series).or_default().insert(sample.t, sample.bits);
                }
                Some(_) => {}
            }
        }
        let stored = self.content.entry(series).or_default().entry(sample.t).or_insert(sample.bits);
        *stored = sample.bits.max(*stored);
        self.max_time = self.max_time.max(Some(sample.t));
        Ok(true)
    }

    /// Ends of the blocks that late samples from before the newest block need.
    fn late_blocks(&mut self) -> usize {
        let late = std::mem::take(&mut self.late);
        let times = late.values().flat_map(BTreeMap::keys);
        times.map(|&t| range_end(t).min(self.cut_to)).collect::<BTreeSet<_>>().len()
    }

    /// Cuts as the database must, and returns the number of blocks.
    fn cut(&mut self) -> usize {
        for blocks in 0.. {
            let in_head = self.content.values().flat_map(|samples| samples.range(self.cut_to..).next());
            let Some(min) = in_head.map(|(&t, _)| t).min() else { return blocks };
            if self.max_time.is_none_or(|max| max - min <= RANGE_MS / 2 * 3) {
                return blocks;
            }
            let late = self.late_blocks();
            self.cut_to = range_end(min);
            if late > 0 {
                return late + 1 + self.cut();
            }
        }
        unreachable!("the loop has no end")
    }

    fn bounds(&self, late_from: Option<i64>) -> Bounds {
        let newest = self.max_time.map_or(self.cut_to, |max| max.max(self.cut_to));
        Bounds {
            in_order: self.max_time.map_or(i64::MIN, |max| max - RANGE_MS / 2).max(self.cut_to),
            late: late_from.or((self.window_ms > 0).then(|| newest.saturating_sub(self.window_ms))),
        }
    }
}

fn range_end(t: i64) -> i64 {
    t.div_euclid(RANGE_MS) * RANGE_MS + RANGE_MS
}

fn run(steps: Vec<Step>, window_ms: i64) {
    let mut fs = MemFs::default();
    let open = |fs: &MemFs| open_with(fs, window_ms);
    let mut db = open(&fs);
    let mut model = Model { cut_to: i64::MIN, window_ms, ..Model::default() };
    let mut handles: BTreeMap<usize, SeriesHandle> = BTreeMap::new();
    let mut clock = 1_000_000;
    for step in steps {
        match step {
            Step::Append { clock_ms, series, late_from } => {
                clock += clock_ms;
                let late_from = late_from.map(|back| clock - back);
                let bounds = model.bounds(late_from);
                let new_batch = || {
                    let mut batch = AppendBatch::default();
                    late_from.into_iter().for_each(|t| batch.take_late_from(t));
                    batch
                };
                let mut batch = new_batch();
                let mut wanted = Vec::new();
                let mut sent = Vec::new();
                for (series, offset, bits) in series {
                    let sample = Sample { t: clock + offset, bits };
                    sent.push((series, sample));
                }
                for (series, sample) in &sent {
                    match handles.get(series) {
                        Some(&handle) => batch.push_known(handle),
                        None => batch.push_labels(labels(*series)),
                    }
                    batch.push_sample(*sample);
                }
                let ticket = db.append(&mut batch).unwrap();
                db.wait_durable(ticket).unwrap();
                let outdated: Vec<u32> = batch.outdated().to_vec();
                let mut refused: Vec<_> =
                    batch.refused().iter().map(|one| (one.series, one.reason)).collect();
                for (index, &(series, sample)) in sent.iter().enumerate() {
                    if let Some(handle) = batch.handle(index) {
                        handles.insert(series, handle);
                    }
                    if !outdated.contains(&(index as u32))
                        && let Err(reason) = model.append(series, sample, bounds)
                    {
                        wanted.push((index as u32, reason));
                    }
                }
                for index in outdated {
                    let (series, sample) = sent[index as usize];
                    handles.remove(&series);
                    let mut again = new_batch();
                    again.push_labels(labels(series));
                    again.push_sample(sample);
                    let bounds = model.bounds(late_from);
                    let ticket = db.append(&mut again).unwrap();
                    db.wait_durable(ticket).unwrap();
                    refused.extend(again.refused().iter().map(|one| (index, one.reason)));
                    if let Err(reason) = model.append(series, sample, bounds) {
                        wanted.push((index, reason));
                    }
                    handles.insert(series, again.handle(0).unwrap());
                }
                assert_eq!(refused, wanted);
            }
            Step::Cut => {
                let blocks_before = db.stats().blocks;
                let cut = db.compact_head().unwrap();
                assert_eq!(cut.len(), model.cut());
                assert_eq!(db.stats().blocks, blocks_before + cut.len() as u64);
            }
            Step::CutAll => {
                let cut = db.cut_whole_head().unwrap();
                let in_head: BTreeSet<i64> = model
                    .content
                    .values()
                    .flat_map(|samples| samples.range(model.cut_to..))
                    .map(|(&t, _)| t)
                    .collect();
                let ranges: BTreeSet<i64> = in_head.iter().map(|t| t.div_euclid(RANGE_MS)).collect();
                assert_eq!(cut.len(), ranges.len() + model.late_blocks());
                if let Some(last) = in_head.last() {
                    model.cut_to = last + 1;
                }
                assert_eq!(db.oldest_unsafe(&|_| true), None);
                let oldest =
                    model.content.values().filter_map(|samples| samples.keys().next()).min().copied();
                assert_eq!(db.oldest_unsafe(&|_| false), oldest);
            }
            Step::Restart => {
                db.close().unwrap();
                db = open(&fs);
                handles.clear();
            }
            Step::Kill => {
                fs = fs.clone_now();
                db = open(&fs);
                handles.clear();
            }
        }
    }
    let found = read_all(&db);
    assert_eq!(found, model.content);
    let in_head = model.content.iter().filter(|(_, samples)| samples.range(model.cut_to..).next().is_some());
    let in_head: BTreeSet<usize> =
        in_head.map(|(&series, _)| series).chain(model.late.keys().copied()).collect();
    assert_eq!(db.stats().head_series, in_head.len() as u64);
    db.close().unwrap();
    drop(db);
    assert_eq!(read_all(&open(&fs)), model.content);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn histories_match_the_model(steps in steps(), window_ms in prop_oneof![Just(0), Just(RANGE_MS / 4), Just(3 * RANGE_MS)]) {
        run(steps, window_ms);
    }
}

/// A block is added and then the head drops its part; in between both hold it.
#[test]
fn a_reader_sees_each_sample_once_while_blocks_are_cut() {
    for _ in 0..8 {
        let db = open(&MemFs::default());
        let mut written = Content::new();
        for t in (0..60 * RANGE_MS).step_by(RANGE_MS as usize / 4) {
            let mut batch = AppendBatch::default();
            for series in 0..2 {
                batch.push_labels(labels(series));
                batch.push_sample(Sample { t, bits: t as u64 });
                written.entry(series).or_default().insert(t, t as u64);
            }
            let _ = db.append(&mut batch).unwrap();
        }
        let cutter = {
            let db = db.clone();
            std::thread::spawn(move || db.compact_head().unwrap().len())
        };
        let mut reads = 0;
        while !cutter.is_finished() || reads == 0 {
            assert_eq!(read_all(&db), written);
            reads += 1;
        }
        assert_eq!(cutter.join().unwrap(), 59);
        assert_eq!(read_all(&db), written);
    }
}

/// A head may be cut whole while it is written to: what is taken meanwhile is in the head or in a block.
#[test]
fn nothing_that_is_taken_is_lost_while_the_whole_head_is_cut() {
    let mut taken_below_newest = 0;
    for round in 0..20 {
        let fs = MemFs::default();
        let db = open(&fs);
        let mut written = Content::new();
        let append = |db: &Db, written: &mut Content, series: usize, t: i64| {
            let mut batch = AppendBatch::default();
            batch.push_labels(labels(series));
            batch.push_sample(Sample { t, bits: t as u64 });
            let _ = db.append(&mut batch).unwrap();
            let is_taken = batch.refused().is_empty();
            if is_taken {
                written.entry(series).or_default().insert(t, t as u64);
            }
            is_taken
        };
        for series in 0..200 {
            append(&db, &mut written, series, 10);
        }
        append(&db, &mut written, 200, RANGE_MS / 4);
        let cutter = {
            let db = db.clone();
            std::thread::spawn(move || db.cut_whole_head().unwrap().len())
        };
        // Late ones, that the head takes as long as it is not cut, and new ones.
        for t in 11..60 {
            for series in 0..200 {
                taken_below_newest += usize::from(append(&db, &mut written, series, t));
            }
            append(&db, &mut written, 200, RANGE_MS / 4 + t);
        }
        assert!(cutter.join().unwrap() >= 1, "round {round}");
        assert_eq!(read_all(&db), written);
        db.cut_whole_head().unwrap();
        assert_eq!(read_all(&db), written);
        db.close().unwrap();
        drop(db);
        assert_eq!(read_all(&open(&fs)), written);
    }
    assert!(taken_below_newest > 0);
}

/// A sender that got no answer repeats all that it sent: several samples of a series, in chunks that are
/// open, full and on disk.
#[test]
fn repeats_are_no_conflicts_however_old() {
    let db = open(&MemFs::default());
    let times: Vec<i64> = (0..RANGE_MS / 2).step_by(RANGE_MS as usize / 2 / 400).collect();
    let send = |times: &[i64], bits: &dyn Fn(i64) -> u64| {
        let mut batch = AppendBatch::default();
        batch.push_labels(labels(1));
        times.iter().for_each(|&t| batch.push_sample(Sample { t, bits: bits(t) }));
        let _ = db.append(&mut batch).unwrap();
        batch.refused().iter().map(|one| (one.sample.t, one.reason)).collect::<Vec<_>>()
    };
    assert_eq!(send(&times, &|t| t as u64), []);
    let before = db.stats();
    assert!(before.head_chunks >= 3);
    assert_eq!(send(&times, &|t| t as u64), []);
    assert_eq!(db.stats().samples_appended, before.samples_appended);
    let all = |times: &[i64], reason| times.iter().map(|&t| (t, reason)).collect::<Vec<_>>();
    let conflicts = send(&times, &|t| t as u64 + 1);
    assert!(conflicts == all(&times, RefuseReason::DuplicateTimestamp));
    let (_, older) = times.split_last().unwrap();
    let between: Vec<i64> = older.iter().map(|t| t + 1).collect();
    assert!(send(&between, &|t| t as u64) == all(&between, RefuseReason::OutOfOrder));
    assert_eq!(read_all(&db)[&1].len(), times.len());
}

/// A crash after a block was made and before the log of its late samples went.
#[test]
fn late_samples_that_are_in_a_block_are_not_cut_again() {
    let fs = MemFs::default();
    let open = || open_with(&fs, RANGE_MS / 4);
    let db = open();
    let mut written = Content::new();
    let mut send = |db: &Db, t: i64| {
        let mut batch = AppendBatch::default();
        batch.push_labels(labels(1));
        batch.push_sample(Sample { t, bits: t as u64 });
        let _ = db.append(&mut batch).unwrap();
        assert_eq!(batch.refused(), []);
        written.entry(1).or_default().insert(t, t as u64);
    };
    for t in (1000..RANGE_MS * 2).step_by(1000) {
        send(&db, t);
        send(&db, t - 500);
    }
    let before = fs.clone_now();
    assert_eq!(db.compact_head().unwrap().len(), 1);
    db.close().unwrap();
    drop(db);
    // The log of late samples as it was.
    let log = PathBuf::from("/db/wbl");
    fs.remove_dir_all(&log).unwrap();
    fs.create_dir_all(&log).unwrap();
    for entry in before.read_dir(&log).unwrap() {
        let path = log.join(entry.name);
        let data = weir_tsdb::fs::read_file(&before, &path).unwrap();
        fs.create(&path).unwrap().write_all(&data).unwrap();
    }
    for _ in 0..2 {
        let db = open();
        assert_eq!(read_all(&db), written);
        let in_order_in_head = db.stats().head_min_time;
        assert!(in_order_in_head >= Some(RANGE_MS), "{in_order_in_head:?}");
        assert_eq!(db.compact_head().unwrap(), []);
        drop(db);
    }
    let db = open();
    let newest = *written[&1].last_key_value().unwrap().0;
    let mut batch = AppendBatch::default();
    batch.push_labels(labels(1));
    batch.push_sample(Sample { t: newest + 2 * RANGE_MS, bits: 1 });
    let _ = db.append(&mut batch).unwrap();
    written.entry(1).or_default().insert(newest + 2 * RANGE_MS, 1);
    assert_eq!(db.compact_head().unwrap().len(), 1, "no block for what is in one");
    assert_eq!(read_all(&db), written);
}
