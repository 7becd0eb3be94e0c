//! Files behind a trait, so that the same code runs on disk, in memory and on a lying disk.
//!
//! All paths are given whole; nothing here keeps a current directory. Readers use positions of
//! their own, so one open file serves many threads. What must survive a power cut is said by
//! `sync` and `sync_dir`; everything else may be lost or torn by one.

use std::{
    fmt::Debug,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

mod faulty_fs;
mod mem_fs;
mod std_fs;

pub use faulty_fs::{FaultyFs, Op};
pub use mem_fs::MemFs;
pub use std_fs::StdFs;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name, without the directory. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// True for directories.
    pub is_dir: bool,
    /// Length of a file in bytes; 0 for directories.
    pub len: u64,
}

/// A file open for reading at any position.
pub trait ReadFile: Send + Sync + Debug {
    /// Length in bytes when it was opened, or now if it grew since.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on and returns how many bytes were there; fewer than asked only
    /// at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills all of `buf` from `offset` on, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buf, offset)? == buf.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// A file open for writing at its end.
pub trait WriteFile: Send + Debug {
    /// Appends all of `data`.
    fn write_all(&mut self, data: &[u8]) -> io::Result<()>;

    /// Makes everything written so far, and the file's length, survive a power cut.
    fn sync(&mut self) -> io::Result<()>;

    /// Length in bytes: where the next write goes.
    fn size(&self) -> u64;
}

/// Releases a lock on a directory when dropped.
pub trait DirLock: Send + Sync + Debug {}

/// A file system.
pub trait Fs: Send + Sync + Debug {
    /// Creates `path` and its parents; not an error if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Lists `path`, ascending by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;

    /// Creates a file, or cuts an existing one to length 0, and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Renames a file or directory. An existing file of the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Deletes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and deletions in `path` survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// True if a file or directory of this name is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes the lock file `path` for this handle alone, creating it if needed. Fails with
    /// `WouldBlock` if another handle has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

/// Reads a whole file.
pub fn read_file(fs: &dyn Fs, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut data = vec![0; len];
    let read = file.read_at(&mut data, 0)?;
    data.truncate(read);
    Ok(data)
}

/// Writes `data` to `path` so that after a crash the file holds either what was there before or all
/// of `data`: write aside, sync, rename, sync the directory.
pub fn write_atomically(fs: &dyn Fs, path: &Path, data: &[u8]) -> io::Result<()> {
    let mut aside: PathBuf = path.to_owned();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    aside.set_file_name(name);
    let mut file = fs.create(&aside)?;
    file.write_all(data)?;
    file.sync()?;
    drop(file);
    fs.rename(&aside, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
