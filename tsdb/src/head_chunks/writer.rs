//! Writing chunks of the head.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    HEAD_CHUNK_FILE_BYTES_MAX, HeadChunkMeta,
    files::{CHUNK_HEAD_BYTES_MAX, CRC_BYTES, FILE_HEADER, encode_chunk, file_path},
};
use crate::{
    error::{Error, Result},
    fs::{Fs, WriteFile},
    types::HeadChunkRef,
};

/// A chunk to be written.
#[derive(Clone, Copy, Debug)]
pub struct HeadChunk<'a> {
    /// Series, times and encoding.
    pub meta: HeadChunkMeta,
    /// The encoded samples.
    pub data: &'a [u8],
}

/// Appends chunks to files of limited length. A file is begun with the first chunk that goes into it,
/// so a head without full chunks has none.
///
/// After a failed write or sync the file is left as it is and the next write begins another. A start
/// then finds the torn one, deletes it and all later ones, and takes the samples from the log.
#[derive(Debug)]
pub struct HeadChunkWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    file_bytes_max: u64,
    /// Number of the current file, or of the next one if there is none.
    number: u32,
    file: Option<Box<dyn WriteFile>>,
}

impl HeadChunkWriter {
    /// Begins with file number `next_file`, which must not be there yet (see
    /// [`next_file`](super::HeadChunkReader::next_file)). Files get no longer than `file_bytes_max`
    /// unless a single chunk is.
    ///
    /// # Panics
    /// If a file may get longer than [`HEAD_CHUNK_FILE_BYTES_MAX`], which upstream refuses.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, next_file: u32, file_bytes_max: u32) -> Result<Self> {
        assert!(file_bytes_max <= HEAD_CHUNK_FILE_BYTES_MAX, "chunks_head files stay below 128 MiB");
        fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            file_bytes_max: file_bytes_max.into(),
            number: next_file,
            file: None,
        })
    }

    /// Writes `chunks` with one write per file and appends where they lie to `refs`, in the same order.
    /// They can be read at once.
    ///
    /// # Errors
    /// If a write or sync fails. `refs` then has those that were written before; the others were not.
    pub fn write<'a>(
        &mut self,
        chunks: impl IntoIterator<Item = HeadChunk<'a>>,
        refs: &mut Vec<HeadChunkRef>,
    ) -> Result<()> {
        let mut pending = Vec::new();
        let mut pending_refs = Vec::new();
        for chunk in chunks {
            let len_max = (CHUNK_HEAD_BYTES_MAX + chunk.data.len() + CRC_BYTES) as u64;
            let at = self.file_len() + pending.len() as u64;
            if at > FILE_HEADER.len() as u64 && at + len_max > self.file_bytes_max {
                self.flush(&mut pending, &mut pending_refs, refs)?;
                self.cut_new_file()?;
            }
            if self.file_len() == 0 && pending.is_empty() {
                pending.extend_from_slice(&FILE_HEADER);
            }
            let at = self.file_len() + pending.len() as u64;
            // Below the limit of a file, so it fits.
            pending_refs.push(HeadChunkRef::new(self.number, at as u32));
            encode_chunk(&mut pending, &chunk.meta, chunk.data);
        }
        self.flush(&mut pending, &mut pending_refs, refs)
    }

    /// Syncs and closes the current file, if there is one. The next write begins another.
    pub fn cut_new_file(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let path = file_path(&self.dir, self.number);
        self.number += 1;
        file.sync().map_err(Error::io("sync", path))?;
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))
    }

    /// Number of the file that the next chunk goes to, unless it does not fit there.
    pub fn current_file(&self) -> u32 {
        self.number
    }

    fn file_len(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.size())
    }

    fn flush(
        &mut self,
        pending: &mut Vec<u8>,
        pending_refs: &mut Vec<HeadChunkRef>,
        refs: &mut Vec<HeadChunkRef>,
    ) -> Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let path = file_path(&self.dir, self.number);
        let written =
            match &mut self.file {
                Some(file) => file.write_all(pending).map_err(Error::io("write", path)),
                None => self.fs.create(&path).map_err(Error::io("create", &path)).and_then(|file| {
                    self.file.insert(file).write_all(pending).map_err(Error::io("write", path))
                }),
            };
        if written.is_err() {
            self.file = None;
            self.number += 1;
        } else {
            refs.append(pending_refs);
        }
        pending.clear();
        written
    }
}
