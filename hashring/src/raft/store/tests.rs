//! Tests of the store.

use std::{fs, io, sync::mpsc::Receiver};

use super::*;

fn payload(text: &str) -> Payload {
    text.as_bytes().into()
}

fn purged(index: u64) -> Purged {
    Purged { index, payload: payload("mark") }
}

/// A `Done` and where its result arrives.
fn done() -> (Done, Receiver<Result<(), StoreError>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| sender.send(result).unwrap()), receiver)
}

/// Does a write and waits for it.
fn wait(write: impl FnOnce(Done) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let (done, result) = done();
    write(done)?;
    result.recv().unwrap()
}

fn append(store: &RaftStore, indexes: std::ops::Range<u64>) {
    let entries = indexes.map(|index| (index, payload(&index.to_string()))).collect();
    wait(|done| store.append(entries, done)).unwrap();
}

fn indexes(store: &RaftStore) -> Vec<u64> {
    store.entries(..).into_iter().map(|(index, _)| index).collect()
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = RaftStore::open(&path).unwrap();
    assert_eq!((store.vote(), store.committed(), store.purged(), store.last()), (None, None, None, None));
    append(&store, 0..10);
    wait(|done| store.set_vote(payload("vote"), done)).unwrap();
    store.set_committed(payload("committed")).unwrap();
    wait(|done| store.truncate(8, done)).unwrap();
    wait(|done| store.purge(purged(2), done)).unwrap();
    append(&store, 8..9);

    let seen = |store: &RaftStore| (store.vote(), store.committed(), store.purged(), store.entries(..));
    let before = seen(&store);
    assert_eq!(before.0, Some(payload("vote")));
    assert_eq!(before.1, Some(payload("committed")));
    assert_eq!(before.2, Some(purged(2)));
    assert_eq!(before.3, (3..9).map(|index| (index, payload(&index.to_string()))).collect::<Vec<_>>());
    store.close();
    let store = RaftStore::open(&path).unwrap();
    assert_eq!(seen(&store), before);
    assert_eq!(store.last(), Some((8, payload("8"))));
    // Purging beyond the end leaves an empty log that goes on behind the mark.
    wait(|done| store.purge(purged(20), done)).unwrap();
    append(&store, 21..22);
    store.close();
    assert_eq!(indexes(&RaftStore::open(&path).unwrap()), [21]);
}

#[test]
fn ranges() {
    let dir = tempfile::tempdir().unwrap();
    let store = RaftStore::open(&dir.path().join("log")).unwrap();
    append(&store, 0..5);
    let check = |range: (Bound<u64>, Bound<u64>), expected: &[u64]| {
        let found: Vec<u64> = store.entries(range).into_iter().map(|(index, _)| index).collect();
        assert_eq!(found, expected, "{range:?}");
    };
    use Bound::{Excluded, Included, Unbounded};
    check((Unbounded, Unbounded), &[0, 1, 2, 3, 4]);
    check((Included(2), Excluded(4)), &[2, 3]);
    check((Excluded(2), Included(9)), &[3, 4]);
    check((Included(3), Excluded(3)), &[]);
    check((Included(3), Excluded(1)), &[]);
    check((Excluded(2), Excluded(3)), &[]);
    check((Excluded(u64::MAX), Unbounded), &[]);
    check((Unbounded, Excluded(0)), &[]);
}

#[test]
fn a_value_is_stored_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = RaftStore::open(&path).unwrap();
    let of_size = |bytes: usize| -> Payload { vec![7; bytes].into() };
    let refused = |result| matches!(result, Err(StoreError::TooLarge { bytes: 65_536, bytes_max: 65_535 }));
    let too_large = wait(|done| store.append(vec![(0, of_size(100)), (1, of_size(1_048_577))], done));
    assert!(matches!(too_large, Err(StoreError::TooLarge { bytes: 1_048_577, bytes_max: 1_048_576 })));
    assert_eq!(indexes(&store), [0; 0], "all of a refused write is refused");
    assert!(refused(wait(|done| store.set_vote(of_size(65_536), done))));
    assert!(refused(store.set_committed(of_size(65_536))));
    wait(|done| store.set_vote(of_size(65_535), done)).unwrap();
    wait(|done| store.append(vec![(0, of_size(1_048_576)), (1, of_size(1))], done)).unwrap();
    store.close();
    let store = RaftStore::open(&path).unwrap();
    assert_eq!(store.vote(), Some(of_size(65_535)));
    assert_eq!(store.entries(..), [(0, of_size(1_048_576)), (1, of_size(1))]);
}

/// Blobs are files that sled does not sync.
#[test]
fn the_largest_values_make_no_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = RaftStore::open(&path).unwrap();
    let entries: [Payload; 2] = [vec![7; ENTRY_BYTES_MAX].into(), vec![7; VALUE_BYTES_MAX].into()];
    for round in 0..20 {
        let entry = |index: u64| (index, Arc::clone(&entries[usize::from(!index.is_multiple_of(8))]));
        let entries = (round * 8..(round + 1) * 8).map(entry).collect();
        wait(|done| store.append(entries, done)).unwrap();
        wait(|done| store.set_vote(vec![1; VALUE_BYTES_MAX / 16].into(), done)).unwrap();
        if round % 4 == 3 {
            wait(|done| store.purge(purged(round * 8 - 10), done)).unwrap();
        }
        assert_eq!(fs::read_dir(path.join("blobs")).unwrap().count(), 0, "round {round}");
    }
    store.close();
    assert_eq!(fs::read_dir(path.join("blobs")).unwrap().count(), 0);
}

#[test]
fn writes_that_wait_share_a_sync() {
    struct Slow(Sender<usize>, Receiver<()>);
    impl Disk for Slow {
        fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
            self.0.send(changes.len()).unwrap();
            self.1.recv().unwrap();
            Ok(())
        }
    }
    let (sizes, size) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let store =
        RaftStore::open_with(Path::new("none"), |_| Ok((Slow(sizes, gate), Contents::default()))).unwrap();
    let mut results = Vec::new();
    for index in 0..4 {
        let (done, result) = done();
        store.append(vec![(index, payload("entry"))], done).unwrap();
        results.push(result);
        if index == 0 {
            assert_eq!(size.recv(), Ok(1));
        }
    }
    // In memory at once, and done only when the disk says so.
    assert_eq!(indexes(&store), [0, 1, 2, 3]);
    assert!(results.iter().all(|result| result.try_recv().is_err()));
    go.send(()).unwrap();
    assert_eq!(size.recv(), Ok(3));
    go.send(()).unwrap();
    assert!(results.iter().all(|result| result.recv().unwrap().is_ok()));
}

#[test]
fn a_failed_write_is_the_last() {
    struct Failing(Sender<()>);
    impl Disk for Failing {
        fn write(&mut self, _: Vec<Change>) -> Result<(), StoreError> {
            self.0.send(()).unwrap();
            Err(StoreError::io("sync", "db")(io::Error::other("no such luck")))
        }
    }
    let (writes, written) = mpsc::channel();
    let store =
        RaftStore::open_with(Path::new("none"), |_| Ok((Failing(writes), Contents::default()))).unwrap();
    assert!(store.failure().is_none());
    let first = wait(|done| store.set_vote(payload("vote"), done)).unwrap_err();
    assert_eq!(first.to_string(), "cannot sync db: no such luck");
    assert_eq!(store.failure().unwrap().to_string(), first.to_string());
    for _ in 0..3 {
        let next = wait(|done| store.set_vote(payload("vote"), done));
        assert!(
            matches!(&next, Err(StoreError::Dead { cause }) if cause.contains("no such luck")),
            "{next:?}"
        );
    }
    assert_eq!(written.try_iter().count(), 1, "the disk is not touched again");
}

#[test]
fn a_panic_below_is_an_error() {
    struct Panicking;
    impl Disk for Panicking {
        fn write(&mut self, _: Vec<Change>) -> Result<(), StoreError> {
            panic!("on purpose")
        }
    }
    let opened = RaftStore::open_with(Path::new("none"), |_| -> Result<(Panicking, Contents), _> {
        panic!("on purpose")
    });
    assert!(matches!(opened.err(), Some(StoreError::Corrupt { .. })));
    let store = RaftStore::open_with(Path::new("none"), |_| Ok((Panicking, Contents::default()))).unwrap();
    let (done, result) = done();
    store.set_vote(payload("vote"), done).unwrap();
    assert!(result.recv().is_err(), "untold");
    store.shared.thread.lock().take().unwrap().join().unwrap_err();
    assert!(matches!(store.set_committed(payload("x")), Err(StoreError::Dead { .. })));
}

#[test]
fn a_closed_store_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let store = RaftStore::open(&dir.path().join("log")).unwrap();
    store.close();
    store.close();
    assert!(matches!(store.set_committed(payload("x")), Err(StoreError::Closed)));
}

#[test]
fn a_second_opener_is_refused_and_nothing_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let _store = RaftStore::open(&path).unwrap();
    assert!(matches!(RaftStore::open(&path).err(), Some(StoreError::Io { .. })));
}

/// What a kill during an open leaves behind: sled takes it for corruption.
#[test]
fn unfinished_snapshots_of_sled_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = RaftStore::open(&path).unwrap();
    append(&store, 0..3);
    store.close();
    let unfinished = path.join("snap.0000000000000ABC.generating");
    fs::write(&unfinished, b"half").unwrap();
    assert_eq!(indexes(&RaftStore::open(&path).unwrap()), [0, 1, 2]);
    assert!(!unfinished.exists());
}

/// Changes the database behind the store's back.
fn tamper(path: &Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::Config::new().path(path).flush_every_ms(None).open().unwrap();
    change(&db);
    db.flush().unwrap();
}

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, change: fn(&sled::Db), expected: &str| {
        let path = dir.path().join(name);
        let store = RaftStore::open(&path).unwrap();
        append(&store, 0..40);
        wait(|done| store.set_vote(payload("vote"), done)).unwrap();
        wait(|done| store.purge(purged(9), done)).unwrap();
        store.close();
        tamper(&path, change);
        let error = RaftStore::open(&path).map(|store| indexes(&store)).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { what, .. } if what == expected), "{error:?}");
        assert!(error.to_string().contains("--data.path together, never one of them alone"));
    };
    let hole = |db: &sled::Db| drop(db.remove(b"l/\0\0\0\0\0\0\0\x14").unwrap());
    check("hole", hole, "the log has entry 21 where 20 belongs");
    let front = |db: &sled::Db| drop(db.remove(b"l/\0\0\0\0\0\0\0\x0a").unwrap());
    check("front", front, "the log has entry 11 where 10 belongs");
    let mark = |db: &sled::Db| drop(db.remove(b"m/purged").unwrap());
    check("mark", mark, "the log has entry 10 where 0 belongs");
    let vote = |db: &sled::Db| drop(db.insert(b"m/vote", b"\x01\0\0\0\0vote").unwrap());
    check("vote", vote, "the checksum of m/vote is wrong");
    let nothing = |db: &sled::Db| db.clear().unwrap();
    check("nothing", nothing, "of 3 writes that were acknowledged only 0 are there");
    let hidden = |db: &sled::Db| drop(db.remove(b"m/writes").unwrap());
    check("hidden", hidden, "of 3 writes that were acknowledged only 0 are there");
}

#[test]
fn a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    RaftStore::open(&path).unwrap().close();
    tamper(&path, |db| drop(db.insert(b"m/vote", b"\x02\0\0\0\0vote").unwrap()));
    assert!(matches!(RaftStore::open(&path).err(), Some(StoreError::Version { version: 2, .. })));
}

/// Flips bytes of the database's file: a store that opens has everything, unchanged.
#[test]
fn flipped_bytes_never_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let store = RaftStore::open(&path).unwrap();
    for index in 0..100 {
        append(&store, index..index + 1);
    }
    store.close();
    let files = |path: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let good = files(&path);
    let db = &good.iter().find(|(path, _)| path.ends_with("db")).unwrap().1;
    let used: Vec<usize> = (0..db.len()).filter(|&at| db[at] != 0).collect();
    let mut refused = 0;
    for &at in used.iter().step_by(used.len() / 60) {
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir_all(path.join("blobs")).unwrap();
        good.iter().for_each(|(path, data)| fs::write(path, data).unwrap());
        let mut bad = db.clone();
        bad[at] ^= 0x55;
        fs::write(path.join("db"), bad).unwrap();
        match RaftStore::open(&path) {
            Ok(store) => {
                let entries: Vec<(u64, Payload)> =
                    (0..100).map(|index| (index, payload(&index.to_string()))).collect();
                assert_eq!(store.entries(..), entries, "byte {at}");
                store.close();
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the flips hit nothing");
}
