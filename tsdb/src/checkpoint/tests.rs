use std::{collections::BTreeSet, io::ErrorKind};

use super::*;
use crate::{
    fs::{FaultyFs, MemFs, Op, StdFs, read_file},
    labels::Labels,
    record::{Tombstone, encode_series},
    varint::put_varint,
    wlog::{Compression, PAGE_BYTES},
};

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn options() -> WriterOptions {
    WriterOptions { segment_bytes: PAGE_BYTES as u64, compression: Compression::Snappy }
}

fn series_record(refs: &[u64]) -> Vec<u8> {
    let labels: Vec<_> = refs.iter().map(|series| Labels::from_pairs([("a", series.to_string())])).collect();
    let mut record = Vec::new();
    encode_series(&mut record, refs.iter().map(|&series| SeriesRef(series)).zip(&labels));
    record
}

fn samples_record(samples: &[(u64, i64)]) -> Vec<u8> {
    let mut record = Vec::new();
    let mut encoder = SamplesEncoder::begin(&mut record);
    samples.iter().for_each(|&(series, t)| encoder.push(SeriesRef(series), t, t as u64));
    record
}

fn tombstones_record(tombstones: &[(u64, i64, i64)]) -> Vec<u8> {
    let mut record = Vec::new();
    let tombstones =
        tombstones.iter().map(|&(series, mint, maxt)| Tombstone { series: SeriesRef(series), mint, maxt });
    encode_tombstones(&mut record, tombstones);
    record
}

fn read_records(fs: &Arc<dyn Fs>, dir: &Path, segments: Vec<SegmentIndex>) -> Vec<Vec<u8>> {
    let mut reader = LogReader::new(fs.clone(), dir, segments);
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push(record.to_vec());
    }
    records
}

fn read_checkpoint(fs: &Arc<dyn Fs>, number: u32) -> Vec<Vec<u8>> {
    let dir = checkpoint_dir(dir(), SegmentIndex(number));
    let segments = list_segments(fs.as_ref(), &dir).unwrap();
    read_records(fs, &dir, segments)
}

/// What a replay reads.
fn replay(fs: &Arc<dyn Fs>) -> Vec<Vec<u8>> {
    let checkpoint = find_last_checkpoint(fs.as_ref(), dir()).unwrap();
    let mut records = checkpoint.map_or(Vec::new(), |number| read_checkpoint(fs, number.0));
    let segments = list_segments_after(fs.as_ref(), dir(), checkpoint).unwrap();
    records.extend(read_records(fs, dir(), segments));
    records
}

fn names(fs: &Arc<dyn Fs>) -> Vec<String> {
    fs.read_dir(dir()).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// One segment per batch, and an empty one behind them.
fn write_log(fs: &Arc<dyn Fs>, batches: &[Vec<Vec<u8>>]) {
    let mut writer = Writer::create(fs.clone(), dir(), SegmentIndex(0), options()).unwrap();
    for batch in batches {
        writer.log(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        writer.next_segment().unwrap();
    }
    writer.sync().unwrap();
}

fn write(fs: &Arc<dyn Fs>, upto: u32, mint: i64, dropped: &[u64]) -> Result<CheckpointStats> {
    let mut keep = |series: SeriesRef| !dropped.contains(&series.0);
    write_checkpoint(fs, dir(), SegmentIndex(upto), mint, &mut keep, options())
}

#[test]
fn keeps_what_is_needed() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let new_samples = |t: i64| {
        let mut record = vec![11];
        [1, t, 0].into_iter().for_each(|field| put_varint(&mut record, field));
        record.extend_from_slice(&1f64.to_bits().to_be_bytes());
        record
    };
    let histograms = vec![7, 0, 1, 2, 3];
    write_log(
        &fs,
        &[
            vec![
                series_record(&[1, 2, 3]),
                samples_record(&[(1, 99), (2, 100), (3, 101)]),
                histograms.clone(),
            ],
            vec![
                tombstones_record(&[(1, 0, 99), (2, 0, 100), (3, 0, 200), (1, i64::MIN, i64::MAX)]),
                vec![200, 1],
                vec![],
                vec![5, 0],
                new_samples(99),
                new_samples(100),
                samples_record(&[(1, 5)]),
            ],
            vec![samples_record(&[(1, 7)])],
        ],
    );
    let stats = write(&fs, 1, 100, &[3]).unwrap();
    let expected = [
        series_record(&[1, 2]),
        samples_record(&[(2, 100), (3, 101)]),
        histograms,
        tombstones_record(&[(2, 0, 100), (1, i64::MIN, i64::MAX)]),
        new_samples(100),
    ];
    assert_eq!(read_checkpoint(&fs, 1), expected);
    let expected = CheckpointStats {
        series_kept: 2,
        series_dropped: 1,
        samples_kept: 3,
        samples_dropped: 3,
        tombstones_kept: 2,
        tombstones_dropped: 2,
        records_copied: 2,
        unknown_records_dropped: 3,
    };
    assert_eq!(stats, expected);
}

#[test]
fn the_next_checkpoint_builds_on_the_last() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let batches: Vec<_> =
        (0..8).map(|batch| vec![series_record(&[batch]), samples_record(&[(batch, batch as i64)])]).collect();
    write_log(&fs, &batches);
    assert_eq!(delete_obsolete(fs.as_ref(), dir()).unwrap(), None);
    write(&fs, 3, 2, &[0]).unwrap();
    assert_eq!(delete_obsolete(fs.as_ref(), dir()).unwrap(), Some(SegmentIndex(3)));
    assert_eq!(
        names(&fs),
        ["00000004", "00000005", "00000006", "00000007", "00000008", "checkpoint.00000003"]
    );
    write(&fs, 5, 3, &[0, 2]).unwrap();
    // The same again, or an older one, is no work.
    assert_eq!(write(&fs, 5, 3, &[0, 2]).unwrap(), CheckpointStats::default());
    assert_eq!(write(&fs, 4, 3, &[0, 2]).unwrap(), CheckpointStats::default());
    delete_obsolete(fs.as_ref(), dir()).unwrap();
    assert_eq!(names(&fs), ["00000006", "00000007", "00000008", "checkpoint.00000005"]);
    let expected: Vec<_> = [1, 3, 4, 5]
        .into_iter()
        .flat_map(|batch: u64| {
            let samples = (batch >= 3).then(|| samples_record(&[(batch, batch as i64)]));
            [Some(series_record(&[batch])), samples]
        })
        .flatten()
        .chain(batches[6..].concat())
        .collect();
    assert_eq!(replay(&fs), expected);
}

#[test]
fn long_checkpoints_are_written_in_batches() {
    let faulty = FaultyFs::new(Arc::new(MemFs::new()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let records: Vec<_> = (0..300u64)
        .map(|record| {
            samples_record(&(0..1000).map(|at| (at * 7919, (record * at) as i64)).collect::<Vec<_>>())
        })
        .collect();
    let bytes: usize = records.iter().map(Vec::len).sum();
    let options = WriterOptions { segment_bytes: 64 << 20, compression: Compression::None };
    let mut writer = Writer::create(fs.clone(), dir(), SegmentIndex(0), options).unwrap();
    writer.log(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    writer.next_segment().unwrap();
    let before = faulty.count(Op::Write);
    write_checkpoint(&fs, dir(), SegmentIndex(0), 0, &mut |_| true, options).unwrap();
    let writes = faulty.count(Op::Write) - before;
    assert!(writes > 3 && writes as usize <= bytes / BATCH_BYTES + 2, "{writes} writes for {bytes} bytes");
    assert_eq!(read_checkpoint(&fs, 0), records);
}

#[test]
fn targets_two_thirds_of_the_way() {
    let target = |first, last| checkpoint_target(SegmentIndex(first), SegmentIndex(last)).map(|upto| upto.0);
    assert_eq!(target(0, 0), None);
    assert_eq!(target(0, 1), None);
    assert_eq!(target(0, 2), Some(1));
    assert_eq!(target(0, 3), Some(2));
    assert_eq!(target(5, 15), Some(11));
    assert_eq!(target(5, 4), None);
    assert_eq!(target(0, u32::MAX), Some(2_863_311_530));
}

#[test]
fn names_decide_what_is_a_checkpoint() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    assert_eq!(find_last_checkpoint(fs.as_ref(), dir()).unwrap(), None);
    sweep_tmp(fs.as_ref(), dir()).unwrap();
    for name in
        ["checkpoint.00000002", "checkpoint.00000010", "checkpoint.00000012.tmp", "checkpoint.x", "other.tmp"]
    {
        fs.create_dir_all(&dir().join(name)).unwrap();
    }
    fs.create(&dir().join("checkpoint.00000099")).unwrap();
    assert_eq!(find_last_checkpoint(fs.as_ref(), dir()).unwrap(), Some(SegmentIndex(10)));
    sweep_tmp(fs.as_ref(), dir()).unwrap();
    assert_eq!(
        names(&fs),
        ["checkpoint.00000002", "checkpoint.00000010", "checkpoint.00000099", "checkpoint.x", "other.tmp"]
    );
}

#[test]
fn damage_makes_no_checkpoint() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    write_log(&fs, &vec![vec![samples_record(&[(1, 5)])]; 4]);
    let path = segment_path(dir(), SegmentIndex(1));
    let mut content = read_file(fs.as_ref(), &path).unwrap();
    content[10] ^= 1;
    fs.create(&path).unwrap().write_all(&content).unwrap();
    let error = write(&fs, 2, 0, &[]).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path: found, offset: 0, .. } if *found == path), "{error}");
    assert_eq!(find_last_checkpoint(fs.as_ref(), dir()).unwrap(), None);

    // The same for a record that was written wrongly.
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    write_log(&fs, &[vec![samples_record(&[(1, 5)]), vec![2, 0, 0]], vec![]]);
    let error = write(&fs, 0, 0, &[]).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { offset: 30, .. }), "{error}");
}

#[test]
fn golden_checkpoint_is_rewritten() {
    // Into memory, since the case itself stays as it is.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/float-checkpoint/data/wal");
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir_all(&dir().join("checkpoint.00000010")).unwrap();
    for name in ["checkpoint.00000010/00000000", "00000011", "00000012", "00000013", "00000014", "00000015"] {
        let content = read_file(&StdFs, &source.join(name)).unwrap();
        fs.create(&dir().join(name)).unwrap().write_all(&content).unwrap();
    }
    let before = replay(&fs);
    let samples: u64 = before
        .iter()
        .filter(|record| record_type(record) == RecordType::Samples)
        .map(|record| SamplesIter::new(record).unwrap().count() as u64)
        .sum();
    let stats = write(&fs, 14, i64::MIN, &[]).unwrap();
    delete_obsolete(fs.as_ref(), dir()).unwrap();
    assert_eq!(replay(&fs), before);
    assert_eq!((stats.samples_kept, stats.samples_dropped), (samples, 0));
    assert_eq!(stats.tombstones_dropped + stats.series_dropped + stats.records_copied, 0);
}

#[test]
fn a_checkpoint_is_durable_before_anything_is_deleted() {
    let disk = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    write_log(&fs, &vec![vec![samples_record(&[(1, 5)])]; 4]);
    write(&fs, 2, 0, &[]).unwrap();
    for seed in 0..20 {
        let fs: Arc<dyn Fs> = Arc::new(disk.crash(seed));
        assert_eq!(find_last_checkpoint(fs.as_ref(), dir()).unwrap(), Some(SegmentIndex(2)));
        assert_eq!(read_checkpoint(&fs, 2), vec![samples_record(&[(1, 5)]); 3]);
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    let prepare = || {
        let disk = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let batches: Vec<_> = (0..6u64)
            .map(|batch| {
                vec![series_record(&[batch]), samples_record(&[(batch, batch as i64 - 1), (batch, 10)])]
            })
            .collect();
        write_log(&fs, &batches);
        write(&fs, 1, 0, &[]).unwrap();
        disk
    };
    let needed = |fs: &Arc<dyn Fs>| -> BTreeSet<(u64, i64)> {
        let records = replay(fs);
        let defined: BTreeSet<_> = records
            .iter()
            .filter(|record| record_type(record) == RecordType::Series)
            .flat_map(|record| SeriesIter::new(record).map(|entry| entry.unwrap().series))
            .collect();
        let samples = records.iter().filter(|record| record_type(record) == RecordType::Samples);
        let samples = samples.flat_map(|record| SamplesIter::new(record).unwrap().map(Result::unwrap));
        let samples: Vec<_> = samples.filter(|(_, sample)| sample.t >= 3).collect();
        assert!(samples.iter().all(|(series, _)| defined.contains(series)));
        samples.into_iter().map(|(series, sample)| (series.0, sample.t)).collect()
    };
    let work = |fs: &Arc<dyn Fs>| -> Result<()> {
        write(fs, 4, 3, &[])?;
        delete_obsolete(fs.as_ref(), dir()).map(|_| ())
    };
    let counter = FaultyFs::new(Arc::new(prepare()));
    let fs: Arc<dyn Fs> = Arc::new(counter.clone());
    let expected = needed(&fs);
    assert_eq!(expected.len(), 8);
    work(&fs).unwrap();
    assert_eq!(needed(&fs), expected);
    assert!(counter.steps() > 12, "{}", counter.steps());

    for step in 0..=counter.steps() {
        let disk = prepare();
        let faulty = FaultyFs::new(Arc::new(disk.clone()));
        faulty.fail_from_step(step, 20, ErrorKind::Other);
        let result = work(&(Arc::new(faulty) as Arc<dyn Fs>));
        assert_eq!(result.is_ok(), step == counter.steps());
        for seed in 0..6 {
            let fs: Arc<dyn Fs> = Arc::new(if seed == 0 { disk.clone_now() } else { disk.crash(seed) });
            sweep_tmp(fs.as_ref(), dir()).unwrap();
            assert_eq!(needed(&fs), expected, "step {step}, seed {seed}");
            delete_obsolete(fs.as_ref(), dir()).unwrap();
            work(&fs).unwrap();
            assert_eq!(needed(&fs), expected, "step {step}, seed {seed}");
            assert_eq!(
                names(&fs),
                ["00000005", "00000006", "checkpoint.00000004"],
                "step {step}, seed {seed}"
            );
        }
    }
}
