//! Power cuts and failing disks.

use std::io::ErrorKind;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::fs::FaultyFs;

/// Opens a log as a database would: repairs, reads, cuts a torn tail.
fn recover(fs: &Arc<dyn Fs>) -> Vec<Vec<u8>> {
    recover_repairs(fs.as_ref(), dir()).unwrap();
    let reading = read_log(fs);
    if let Some(damage) = reading.damage {
        let Damage::TornTail { segment, offset } = damage else { panic!("{damage:?}") };
        repair_torn_tail(fs.as_ref(), dir(), LogPosition { segment, offset }).unwrap();
        assert_eq!(read_log(fs), Reading { records: reading.records.clone(), damage: None });
    }
    reading.records
}

#[test]
fn rounds_of_crash_recover_write() {
    let mut torn_rounds = 0;
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = MemFs::new();
        let mut logged: Vec<Vec<u8>> = Vec::new();
        let mut synced = 0;
        for round in 0..6 {
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let found = recover(&fs);
            assert!(found.len() >= synced, "seed {seed}, round {round}: {} of {synced}", found.len());
            assert!(logged.starts_with(&found), "seed {seed}, round {round}");
            torn_rounds += usize::from(found.len() < logged.len());
            logged = found;
            synced = logged.len();

            let compression = if random.random() { Compression::Snappy } else { Compression::None };
            let mut writer = create(&fs, options(random.random_range(1..4), compression)).unwrap();
            for _ in 0..random.random_range(0..12) {
                let batch: Vec<_> = (0..random.random_range(1..5))
                    .map(|_| {
                        let len = if random.random_ratio(1, 4) { 20_000 } else { 300 };
                        record(random.random_range(0..len), random.random())
                    })
                    .collect();
                log_all(&mut writer, &batch).unwrap();
                logged.extend(batch);
                match random.random_range(0..8) {
                    0 | 1 => writer.sync().unwrap(),
                    2 => drop(writer.next_segment().unwrap()),
                    _ => continue,
                }
                synced = logged.len();
            }
            disk = disk.crash(random.random());
        }
    }
    assert!(torn_rounds > 40, "crashes lost something in {torn_rounds} rounds only");
}

#[test]
fn a_crash_within_a_repair_loses_nothing() {
    let records: Vec<_> = (0..20).map(|seed| record(3000, seed)).collect();
    let disk = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut writer = create(&fs, options(4, Compression::None)).unwrap();
    log_all(&mut writer, &records).unwrap();
    writer.sync().unwrap();
    let whole = get(&fs, 0);
    let torn = &whole[..whole.len() - 100];
    let mut file = fs.create(&segment_path(dir(), SegmentIndex(0))).unwrap();
    file.write_all(torn).unwrap();
    file.sync().unwrap();

    let repair = |fs: &Arc<dyn Fs>| {
        let Some(Damage::TornTail { segment, offset }) = read_log(fs).damage else { panic!("not torn") };
        repair_torn_tail(fs.as_ref(), dir(), LogPosition { segment, offset })
    };
    let counter = FaultyFs::new(Arc::new(disk.clone_now()));
    repair(&(Arc::new(counter.clone()) as Arc<dyn Fs>)).unwrap();
    assert!(counter.steps() >= 6);
    for step in 0..counter.steps() {
        for seed in 0..8 {
            let copy = disk.clone_now();
            let faulty = FaultyFs::new(Arc::new(copy.clone()));
            faulty.fail_from_step(step, 1000, ErrorKind::Other);
            repair(&(Arc::new(faulty) as Arc<dyn Fs>)).unwrap_err();
            let after: Arc<dyn Fs> = Arc::new(copy.crash(seed));
            assert_eq!(recover(&after), records[..19], "step {step}, seed {seed}");
            assert_eq!(list_segments(after.as_ref(), dir()).unwrap(), [SegmentIndex(0)]);
            assert_eq!(after.read_dir(dir()).unwrap().len(), 1);
        }
    }
}

/// Logs, syncs, cuts, closes. Returns the records of the calls that succeeded, and those of the call
/// that failed.
fn scenario(fs: &Arc<dyn Fs>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Result<()>) {
    let mut done = Vec::new();
    let mut writer = match create(fs, options(2, Compression::Snappy)) {
        Ok(writer) => writer,
        Err(error) => return (done, Vec::new(), Err(error)),
    };
    for step in 0..12 {
        let batch: Vec<_> = (0..4).map(|seed| record(9000, seed + 10 * step)).collect();
        let result = match step {
            3 => writer.sync(),
            5 => writer.next_segment().map(|_| ()),
            11 => writer.close(),
            _ => log_all(&mut writer, &batch),
        };
        let is_log = !matches!(step, 3 | 5 | 11);
        if let Err(error) = result {
            assert!(matches!(error, Error::Io { .. }), "{error}");
            assert!(
                matches!(writer.log(&[b"x"]), Err(Error::LogDead { cause }) if cause == error.to_string())
            );
            assert!(matches!(writer.sync(), Err(Error::LogDead { .. })));
            assert!(matches!(writer.next_segment(), Err(Error::LogDead { .. })));
            assert!(matches!(writer.close(), Err(Error::LogDead { .. })));
            return (done, if is_log { batch } else { Vec::new() }, Err(error));
        }
        if is_log {
            done.extend(batch);
        }
    }
    (done, Vec::new(), Ok(()))
}

#[test]
fn a_failed_step_kills_the_writer_and_spares_what_was_logged() {
    let counter = FaultyFs::new(mem());
    let (done, _, result) = scenario(&(Arc::new(counter.clone()) as Arc<dyn Fs>));
    result.unwrap();
    assert_eq!(done.len(), 36);
    let steps = counter.steps();
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        for written in [0, 1, 5000, 40_000] {
            let disk = mem();
            let faulty = FaultyFs::new(disk.clone());
            faulty.fail_step(step, written, ErrorKind::StorageFull);
            let (done, failed, result) = scenario(&(Arc::new(faulty) as Arc<dyn Fs>));
            assert!(matches!(result, Err(Error::Io { .. })), "step {step}: {result:?}");
            let found = recover(&disk);
            assert!(found.starts_with(&done), "step {step}, {written} bytes");
            assert!([done, failed].concat().starts_with(&found), "step {step}, {written} bytes");
        }
    }
}
