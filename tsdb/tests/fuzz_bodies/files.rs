//! A directory in memory that can be read.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use rand::{RngExt, rngs::StdRng};
use weir_tsdb::fs::{DirEntry, DirLock, Fs, ReadFile, WriteFile};

/// The files of one directory and the directories in it, by their path from there. Read only.
#[derive(Debug, Default)]
pub struct MemoryFs {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryFs {
    /// Reads a directory of the disk.
    pub fn load(dir: &Path) -> Self {
        let mut files = Self::default();
        files.load_into(dir, "");
        files
    }

    fn load_into(&mut self, dir: &Path, prefix: &str) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{prefix}{}", entry.file_name().to_str().expect("a name"));
            if entry.file_type().expect("a type").is_dir() {
                self.load_into(&entry.path(), &format!("{name}/"));
            } else {
                self.files.insert(name, std::fs::read(entry.path()).expect("a file"));
            }
        }
    }

    /// Where the directory is, for the readers.
    pub fn dir() -> &'static Path {
        Path::new("/memory")
    }

    /// Content of a file that is there.
    pub fn file(&mut self, name: &str) -> &mut Vec<u8> {
        self.files.get_mut(name).expect("a file")
    }

    /// Content of some file.
    pub fn any_file(&mut self, rng: &mut StdRng) -> &mut Vec<u8> {
        let chosen = rng.random_range(0..self.files.len());
        self.files.values_mut().nth(chosen).expect("a file")
    }

    fn name(path: &Path) -> &str {
        path.strip_prefix(Self::dir()).ok().and_then(Path::to_str).unwrap_or_default()
    }
}

#[derive(Debug)]
struct MemoryFile(Vec<u8>);

impl ReadFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Fs for MemoryFs {
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let prefix = match Self::name(path) {
            "" => String::new(),
            name => format!("{name}/"),
        };
        let mut entries: BTreeMap<String, DirEntry> = BTreeMap::new();
        for (name, data) in &self.files {
            let Some(name) = name.strip_prefix(&prefix) else { continue };
            let (name, is_dir) = name.split_once('/').map_or((name, false), |(dir, _)| (dir, true));
            let len = if is_dir { 0 } else { data.len() as u64 };
            entries.insert(name.to_owned(), DirEntry { name: name.to_owned(), is_dir, len });
        }
        Ok(entries.into_values().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        match self.files.get(Self::name(path)) {
            Some(data) => Ok(Arc::new(MemoryFile(data.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files.contains_key(Self::name(path)))
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        unsupported()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> {
        unsupported()
    }
}
