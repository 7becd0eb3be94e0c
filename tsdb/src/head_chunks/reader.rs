//! Reading chunks of the head.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    HeadChunkMeta,
    files::{ChunkHead, delete_files, file_path, list_files},
    loader::{self, HeadChunkDamage, LoadedHeadChunk},
};
use crate::{
    error::{Error, Result},
    fs::{Fs, ReadFile},
    types::HeadChunkRef,
};

/// How much is read at once in the hope that it is the whole chunk. Float chunks of a head end at
/// about 1 KiB.
const CHUNK_BYTES_GUESSED: usize = 1152;

/// Reads chunks of the head from any thread. Files are opened when first needed and stay open until they
/// are deleted here.
#[derive(Debug)]
pub struct HeadChunkReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    open_files: Mutex<HashMap<u32, Arc<dyn ReadFile>>>,
}

impl HeadChunkReader {
    /// Reads files in `dir`, which need not be there.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        Self { fs, dir: dir.to_owned(), open_files: Mutex::default() }
    }

    /// Reads the chunk at `chunk`: its data goes to `data`, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no chunk of a right checksum, [`Error::Io`] if the file is not
    /// there or reading fails. `data` then holds anything.
    pub fn read(&self, chunk: HeadChunkRef, data: &mut Vec<u8>) -> Result<HeadChunkMeta> {
        let path = || file_path(&self.dir, chunk.file());
        let offset = u64::from(chunk.offset());
        let corrupt = |what: &str| Error::corrupt(path(), offset, what);
        let file = self.file(chunk.file())?;
        data.resize(CHUNK_BYTES_GUESSED, 0);
        let read = file.read_at(data, offset).map_err(Error::io("read", path()))?;
        data.truncate(read);
        let head = ChunkHead::parse(data).ok_or_else(|| corrupt("no head of a chunk"))?;
        if head.total_len > read {
            let size = file.size().map_err(Error::io("look at", path()))?;
            if offset.saturating_add(head.total_len as u64) > size {
                return Err(corrupt("chunk reaches beyond the file"));
            }
            data.resize(head.total_len, 0);
            let rest = data.get_mut(read..).unwrap_or_default();
            file.read_exact_at(rest, offset + read as u64).map_err(Error::io("read", path()))?;
        }
        if head.checked_data(data).is_none() {
            return Err(corrupt("checksum does not match"));
        }
        data.truncate(head.head_len + head.data_len);
        data.drain(..head.head_len);
        Ok(head.meta)
    }

    /// Reads all files in order and gives each chunk to `on_chunk`, at a start. An empty last file is
    /// deleted: upstream leaves one if it is killed at the wrong moment.
    ///
    /// Returns the first damage, where the reading stopped. `on_chunk` may declare a chunk damaged too,
    /// which it has to if an in-order chunk does not begin after the one before of its series. The
    /// caller is to forget all chunks from the damaged file on, or all there are, and to call
    /// [`remove_from`](Self::remove_from).
    pub fn load_all(
        &self,
        on_chunk: &mut dyn FnMut(LoadedHeadChunk) -> Result<(), String>,
    ) -> Result<Option<HeadChunkDamage>> {
        loader::load_all(self.fs.as_ref(), &self.dir, on_chunk)
    }

    /// Number of the file a writer may begin: behind the last that is there, or 1.
    pub fn next_file(&self) -> Result<u32> {
        let last = list_files(self.fs.as_ref(), &self.dir)?.last().map_or(0, |&(file, _)| file);
        last.checked_add(1).ok_or_else(|| Error::corrupt(&self.dir, 0, "no file number left"))
    }

    /// Deletes the files from `file` on.
    pub fn remove_from(&self, file: u32) -> Result<usize> {
        self.delete(|number| number >= file)
    }

    /// Deletes the files before `file`. Chunks in them cannot be read any more.
    pub fn delete_before(&self, file: u32) -> Result<usize> {
        self.delete(|number| number < file)
    }

    /// Bytes of all files that are there now.
    pub fn size_bytes(&self) -> Result<u64> {
        Ok(list_files(self.fs.as_ref(), &self.dir)?.iter().map(|&(_, len)| len).sum())
    }

    fn delete(&self, condition: impl Fn(u32) -> bool) -> Result<usize> {
        let deleted = delete_files(self.fs.as_ref(), &self.dir, &condition);
        self.open_files.lock().retain(|&file, _| !condition(file));
        deleted
    }

    fn file(&self, file: u32) -> Result<Arc<dyn ReadFile>> {
        let mut open_files = self.open_files.lock();
        if let Some(open) = open_files.get(&file) {
            return Ok(open.clone());
        }
        let path = file_path(&self.dir, file);
        let open = self.fs.open(&path).map_err(Error::io("open", path))?;
        open_files.insert(file, open.clone());
        Ok(open)
    }
}
