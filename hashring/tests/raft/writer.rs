//! A process that writes to a store until it is ended, and what must be found afterwards.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
};

use weir_hashring::raft::store::{Payload, Purged, RaftStore, StoreError};

const CHILD_DIR: &str = "WEIR_RAFT_WRITER_DIR";
/// Entries kept when the log is purged.
const KEPT: u64 = 40;

/// Numbers that look random: splitmix64.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}

/// An entry is a function of its index: mostly small, now and then as large as it may be.
fn entry(index: u64) -> Payload {
    let mut numbers = Numbers(index);
    let bytes = match numbers.below(0..40) {
        0 => numbers.below(20_000..65_536),
        1..10 => numbers.below(1000..10_000),
        _ => numbers.below(1..600),
    };
    (0..bytes).map(|at| (index.wrapping_mul(31) + at) as u8).collect()
}

/// What a writer was told is durable, by the largest number of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    pub opening: bool,
    pub last: Option<u64>,
    pub vote: Option<u64>,
    pub purged: Option<u64>,
    /// How many acknowledgements that were.
    pub count: u64,
}

impl Acked {
    fn take(&mut self, line: &str) {
        let (what, number) = line.split_once(' ').unwrap_or_else(|| panic!("a line of the writer: {line:?}"));
        let number: u64 = number.parse().unwrap();
        match what {
            "opening" => self.opening = true,
            "entry" => self.last = Some(number),
            "vote" => self.vote = Some(number),
            "purged" => self.purged = Some(number),
            other => panic!("the writer says {other:?}"),
        }
        self.count += u64::from(what != "opening");
    }

    /// Reopens the store: nothing acknowledged may be missing, and nothing else be there than what
    /// the writer wrote.
    pub fn check(&self, path: &Path) {
        let store = RaftStore::open(path).unwrap_or_else(|error| panic!("{error}; acknowledged: {self:?}"));
        let vote = store.vote().map(|vote| u64::from_be_bytes(vote.as_ref().try_into().unwrap()));
        let purged = store.purged();
        let last = store.last().map(|(index, _)| index);
        assert!(vote >= self.vote, "vote {vote:?}, acknowledged: {self:?}");
        assert!(last >= self.last, "last entry {last:?}, acknowledged: {self:?}");
        assert!(
            purged.as_ref().map(|purged| purged.index) >= self.purged,
            "{purged:?}, acknowledged: {self:?}"
        );
        for (index, found) in store.entries(..) {
            assert!(found == entry(index), "entry {index} is another");
        }
        store.close();
    }
}

/// A writer at work in another process.
pub struct Writer {
    pub child: Child,
    acked: Arc<(Mutex<Acked>, Condvar)>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts this binary again as a writer to the store in `path`.
    pub fn start(path: &Path) -> Writer {
        Writer::start_test("writer::writes", path)
    }

    /// Starts a test of this binary as a writer.
    pub fn start_test(name: &str, path: &Path) -> Writer {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--quiet"])
            .env(CHILD_DIR, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let acked = Arc::new((Mutex::new(Acked::default()), Condvar::new()));
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = thread::spawn({
            let acked = Arc::clone(&acked);
            move || {
                for line in lines.lines() {
                    // The harness says a word of its own; our lines are marked.
                    if let Some(line) = line.unwrap().strip_prefix("#") {
                        acked.0.lock().unwrap().take(line);
                        acked.1.notify_all();
                    }
                }
            }
        });
        Writer { child, acked, reader: Some(reader) }
    }

    /// What it was told so far.
    pub fn acked(&self) -> Acked {
        self.acked.0.lock().unwrap().clone()
    }

    /// Waits until it was told enough.
    pub fn wait_until(&mut self, enough: impl Fn(&Acked) -> bool) {
        let mut acked = self.acked.0.lock().unwrap();
        while !enough(&acked) {
            assert_eq!(self.child.try_wait().unwrap(), None, "the writer ended by itself");
            let pause = std::time::Duration::from_millis(200);
            acked = self.acked.1.wait_timeout(acked, pause).unwrap().0;
        }
    }

    /// Kills it at once; returns all that it was told.
    pub fn kill(mut self) -> Acked {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.acked()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does one write after the other, `rounds` of them if given, and reports each when it is durable.
fn write(path: &Path, rounds: Option<u64>, mut report: impl FnMut(&str, u64)) {
    report("opening", 0);
    let store = RaftStore::open(path).unwrap();
    let (sender, results) = mpsc::channel();
    let done = || -> weir_hashring::raft::store::Done {
        let sender = sender.clone();
        Box::new(move |result: Result<(), StoreError>| sender.send(result).unwrap())
    };
    let wait = || results.recv().unwrap().unwrap();
    let mut vote = store.vote().map_or(0, |vote| u64::from_be_bytes(vote.as_ref().try_into().unwrap()));
    let mut next = store.last().map(|(index, _)| index).or(store.purged().map(|purged| purged.index));
    for round in 0.. {
        if rounds.is_some_and(|rounds| round >= rounds) {
            break;
        }
        let first = next.map_or(0, |last| last + 1);
        // Three appends wait for one sync; the middle one has two entries.
        let appends = [first..first + 1, first + 1..first + 3, first + 3..first + 4];
        for indexes in &appends {
            store.append(indexes.clone().map(|index| (index, entry(index))).collect(), done()).unwrap();
        }
        store.set_committed(first.to_be_bytes().as_slice().into()).unwrap();
        for indexes in &appends {
            wait();
            report("entry", indexes.end - 1);
        }
        next = Some(first + 3);
        vote += 1;
        store.set_vote(vote.to_be_bytes().as_slice().into(), done()).unwrap();
        wait();
        report("vote", vote);
        if round % 8 == 7 && first > KEPT {
            let purged = Purged { index: first - KEPT, payload: Arc::from(*b"mark") };
            store.purge(purged, done()).unwrap();
            wait();
            report("purged", first - KEPT);
        }
    }
    store.close();
}

/// Where a writer in another process is to write; none in a test of its own.
pub fn child_dir() -> Option<PathBuf> {
    env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Tells the process that started this one.
pub fn tell(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("#{what} {number}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// As a test of its own: what is written is found. As another process: writes until it is ended.
#[test]
fn writes() {
    if let Some(path) = child_dir() {
        return write(&path, None, tell);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("log");
    let mut acked = Acked::default();
    for rounds in [1, 40, 3] {
        write(&path, Some(rounds), |what, number| acked.take(&format!("{what} {number}")));
        acked.check(&path);
    }
    assert_eq!((acked.last, acked.vote, acked.purged), (Some(175), Some(44), Some(120)));
}
