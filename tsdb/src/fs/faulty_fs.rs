//! A file system that fails where a test tells it to.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use parking_lot::Mutex;

use super::{DirEntry, DirLock, Fs, ReadFile, WriteFile};

/// What is counted and may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`Fs::open`].
    Open,
    /// [`Fs::create`].
    Create,
    /// [`ReadFile::read_at`].
    Read,
    /// [`WriteFile::write_all`].
    Write,
    /// [`WriteFile::sync`].
    Sync,
    /// [`Fs::sync_dir`].
    SyncDir,
    /// [`Fs::rename`].
    Rename,
    /// [`Fs::remove_file`] and [`Fs::remove_dir_all`].
    Remove,
    /// [`Fs::create_dir_all`].
    CreateDir,
    /// [`Fs::read_dir`].
    ReadDir,
    /// [`Fs::lock`].
    Lock,
}

impl Op {
    /// True for what changes the disk or makes changes durable.
    fn is_change(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::ReadDir | Self::Lock)
    }
}

/// Wraps a file system, counts what is done on it, and fails some of it. Clones share counts and
/// faults.
///
/// Operations are counted from 0, per kind, and those that change the disk also all together: the
/// latter number is a step. A test runs a scenario once to count the steps, then once per step with
/// a fault there.
#[derive(Clone, Debug)]
pub struct FaultyFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    counts: BTreeMap<Op, u64>,
    steps: u64,
    faults: Vec<Fault>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: At,
    /// Whether everything after it fails too.
    forever: bool,
    kind: io::ErrorKind,
    /// Bytes that a failing write still writes.
    written: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Op(Op, u64),
    Step(u64),
}

impl Fault {
    fn strikes(&self, op: Op, count: u64, step: u64) -> bool {
        let (planned, now) = match self.at {
            At::Op(own, planned) if own == op => (planned, count),
            At::Step(planned) if op.is_change() => (planned, step),
            At::Op(..) | At::Step(_) => return false,
        };
        now == planned || self.forever && now > planned
    }
}

impl FaultyFs {
    /// Wraps `inner` without any fault.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Lets operation number `nth` of this kind fail.
    pub fn fail(&self, op: Op, nth: u64, kind: io::ErrorKind) {
        self.add(Fault { at: At::Op(op, nth), forever: false, kind, written: 0 });
    }

    /// Lets write number `nth` fail after `written` of its bytes, as when the disk is full.
    pub fn fail_write_after(&self, nth: u64, written: usize, kind: io::ErrorKind) {
        self.add(Fault { at: At::Op(Op::Write, nth), forever: false, kind, written });
    }

    /// Lets step number `nth` fail; a write among them after `written` bytes.
    pub fn fail_step(&self, nth: u64, written: usize, kind: io::ErrorKind) {
        self.add(Fault { at: At::Step(nth), forever: false, kind, written });
    }

    /// Lets step number `nth` and all later ones fail, as when the disk goes away.
    pub fn fail_from_step(&self, nth: u64, written: usize, kind: io::ErrorKind) {
        self.add(Fault { at: At::Step(nth), forever: true, kind, written });
    }

    /// Forgets all faults; counts go on.
    pub fn heal(&self) {
        self.plan.lock().faults.clear();
    }

    /// How many operations of this kind there were, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.plan.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// How many operations there were that change the disk or make changes durable.
    pub fn steps(&self) -> u64 {
        self.plan.lock().steps
    }

    fn add(&self, fault: Fault) {
        self.plan.lock().faults.push(fault);
    }

    fn strike(&self, op: Op) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let count = plan.counts.entry(op).or_default();
        let own = *count;
        *count += 1;
        let step = plan.steps;
        plan.steps += u64::from(op.is_change());
        plan.faults.iter().find(|fault| fault.strikes(op, own, step)).copied()
    }

    fn check(&self, op: Op) -> io::Result<()> {
        self.strike(op).map_or(Ok(()), |fault| Err(fault.kind.into()))
    }
}

impl Fs for FaultyFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(Op::CreateDir)?;
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check(Op::ReadDir)?;
        self.inner.read_dir(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        self.check(Op::Open)?;
        Ok(Arc::new(FaultyReadFile { inner: self.inner.open(path)?, fs: self.clone() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.check(Op::Create)?;
        Ok(Box::new(FaultyWriteFile { inner: self.inner.create(path)?, fs: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Op::Rename)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove)?;
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Op::SyncDir)?;
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.check(Op::Lock)?;
        self.inner.lock(path)
    }
}

#[derive(Debug)]
struct FaultyReadFile {
    inner: Arc<dyn ReadFile>,
    fs: FaultyFs,
}

impl ReadFile for FaultyReadFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.check(Op::Read)?;
        self.inner.read_at(buf, offset)
    }
}

#[derive(Debug)]
struct FaultyWriteFile {
    inner: Box<dyn WriteFile>,
    fs: FaultyFs,
}

impl WriteFile for FaultyWriteFile {
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(fault) = self.fs.strike(Op::Write) else {
            return self.inner.write_all(data);
        };
        let part = data.get(..fault.written).unwrap_or(data);
        if !part.is_empty() {
            self.inner.write_all(part)?;
        }
        Err(fault.kind.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fs.check(Op::Sync)?;
        self.inner.sync()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{MemFs, read_file};

    fn write(fs: &FaultyFs, path: &str) -> io::Result<()> {
        let mut file = fs.create(path.as_ref())?;
        file.write_all(b"0123")?;
        file.write_all(b"4567")?;
        file.sync()
    }

    #[test]
    fn fails_as_planned() {
        let fs = FaultyFs::new(Arc::new(MemFs::new()));
        write(&fs, "/a").unwrap();
        assert_eq!([Op::Create, Op::Write, Op::Sync, Op::Read].map(|op| fs.count(op)), [1, 2, 1, 0]);
        assert_eq!(fs.steps(), 4);

        fs.fail_write_after(3, 3, io::ErrorKind::StorageFull);
        assert_eq!(write(&fs, "/b").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read_file(&fs, "/b".as_ref()).unwrap(), b"0123456");
        write(&fs, "/c").unwrap();

        fs.fail(Op::Read, fs.count(Op::Read), io::ErrorKind::Other);
        assert_eq!(read_file(&fs, "/b".as_ref()).unwrap_err().kind(), io::ErrorKind::Other);
        assert!(read_file(&fs, "/b".as_ref()).is_ok());

        fs.fail_from_step(fs.steps() + 1, 0, io::ErrorKind::Other);
        assert!(write(&fs, "/d").is_err());
        assert_eq!(read_file(&fs, "/d".as_ref()).unwrap(), b"");
        assert!(write(&fs, "/e").is_err());
        assert!(!fs.exists("/e".as_ref()).unwrap());
        fs.heal();
        write(&fs, "/e").unwrap();
    }
}
