//! Series of a block to be, kept until its symbols are known.
//!
//! The index begins with all symbols in order, and which these are is known only after the last
//! series. So the series wait here with provisional symbol numbers, at first in memory, and in a
//! file beside the index once there are many.

use std::{path::PathBuf, sync::Arc};

use super::{index_reader::ChunkMeta, read_ahead::ReadAhead};
use crate::{
    Error, Result,
    fs::{Fs, ReadFile, WriteFile},
    types::BlockChunkRef,
    varint::{DecodeError, Decoder, put_uvarint, put_varint},
};

/// Bytes kept in memory, and written at once.
const MEMORY_BYTES_MAX: usize = 4 << 20;

/// Longest length field of an entry.
const LEN_FIELD_MAX: usize = 10;

/// Takes series in.
#[derive(Debug)]
pub(super) struct Spool {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    memory: Vec<u8>,
    memory_max: usize,
    file: Option<Box<dyn WriteFile>>,
    entry: Vec<u8>,
    series: u64,
}

/// A series as it was taken in.
#[derive(Debug, Default)]
pub(super) struct SpooledSeries {
    /// Provisional symbol numbers of names and values.
    pub labels: Vec<(u32, u32)>,
    pub chunks: Vec<ChunkMeta>,
}

impl Spool {
    /// Uses the file `path` if there is too much for memory.
    pub(super) fn new(fs: Arc<dyn Fs>, path: PathBuf) -> Self {
        Self::with_memory(fs, path, MEMORY_BYTES_MAX)
    }

    fn with_memory(fs: Arc<dyn Fs>, path: PathBuf, memory_max: usize) -> Self {
        Self { fs, path, memory: Vec::new(), memory_max, file: None, entry: Vec::new(), series: 0 }
    }

    pub(super) fn push(&mut self, labels: &[(u32, u32)], chunks: &[ChunkMeta]) -> Result<()> {
        let entry = &mut self.entry;
        entry.clear();
        put_uvarint(entry, labels.len() as u64);
        for &(name, value) in labels {
            put_uvarint(entry, name.into());
            put_uvarint(entry, value.into());
        }
        put_uvarint(entry, chunks.len() as u64);
        for chunk in chunks {
            put_varint(entry, chunk.mint);
            put_varint(entry, chunk.maxt);
            put_uvarint(entry, chunk.reference.0);
        }
        put_uvarint(&mut self.memory, self.entry.len() as u64);
        self.memory.extend_from_slice(&self.entry);
        self.series += 1;
        if self.memory.len() > self.memory_max { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.fs.create(&self.path).map_err(Error::io("create", &self.path))?),
        };
        file.write_all(&self.memory).map_err(Error::io("write", &self.path))?;
        self.memory.clear();
        Ok(())
    }

    /// Hands all series to `sink`, in the order they came, and deletes the file.
    pub(super) fn drain(mut self, mut sink: impl FnMut(&SpooledSeries) -> Result<()>) -> Result<()> {
        let mut series = SpooledSeries::default();
        if self.file.is_none() {
            let mut decoder = Decoder::new(&self.memory);
            for _ in 0..self.series {
                let entry = decoder.prefixed_bytes().and_then(|entry| series.decode(entry));
                entry.map_err(|error| Error::corrupt(&self.path, 0, error.to_string()))?;
                sink(&series)?;
            }
            return Ok(());
        }
        self.flush()?;
        self.file = None;
        let file = self.fs.open(&self.path).map_err(Error::io("open", &self.path))?;
        let mut ahead = ReadAhead::default();
        let mut at = 0;
        for _ in 0..self.series {
            at = self.read(&*file, &mut ahead, at, &mut series)?;
            sink(&series)?;
        }
        drop(file);
        self.fs.remove_file(&self.path).map_err(Error::io("delete", &self.path))
    }

    /// Reads the entry at `at` and returns where the next one begins.
    fn read(
        &self,
        file: &dyn ReadFile,
        ahead: &mut ReadAhead,
        at: u64,
        series: &mut SpooledSeries,
    ) -> Result<u64> {
        let damaged = |error: DecodeError| Error::corrupt(&self.path, at, error.to_string());
        let field = ahead.get(file, at, LEN_FIELD_MAX).map_err(Error::io("read", &self.path))?;
        let mut decoder = Decoder::new(field);
        let before = decoder.remaining();
        let len = decoder.uvarint().map_err(damaged)? as usize;
        let field = before - decoder.remaining();
        let whole = field.saturating_add(len);
        let entry = ahead.get(file, at, whole).map_err(Error::io("read", &self.path))?;
        let entry = entry.get(field..whole).ok_or_else(|| damaged(DecodeError::UnexpectedEnd))?;
        series.decode(entry).map_err(damaged)?;
        Ok(at + whole as u64)
    }
}

impl SpooledSeries {
    fn decode(&mut self, entry: &[u8]) -> Result<(), DecodeError> {
        let mut decoder = Decoder::new(entry);
        self.labels.clear();
        for _ in 0..decoder.uvarint()? {
            self.labels.push((decoder.uvarint()? as u32, decoder.uvarint()? as u32));
        }
        self.chunks.clear();
        for _ in 0..decoder.uvarint()? {
            self.chunks.push(ChunkMeta {
                mint: decoder.varint()?,
                maxt: decoder.varint()?,
                reference: BlockChunkRef(decoder.uvarint()?),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::StdFs;

    #[test]
    fn series_survive_in_memory_and_in_a_file() {
        let check = |memory_max: usize, series: u32| {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("spool");
            let mut spool = Spool::with_memory(Arc::new(StdFs), path.clone(), memory_max);
            let make = |number: u32| {
                let labels: Vec<_> = (0..number % 40).map(|label| (label, label * number)).collect();
                let chunk = |chunk: u32| ChunkMeta {
                    mint: -i64::from(chunk),
                    maxt: i64::from(number),
                    reference: BlockChunkRef(u64::from(number) << 32 | u64::from(chunk)),
                };
                (labels, (0..number % 300).map(chunk).collect::<Vec<_>>())
            };
            for number in 0..series {
                let (labels, chunks) = make(number);
                spool.push(&labels, &chunks).expect("taken in");
            }
            let file_was_there = path.exists();
            let mut number = 0;
            let sink = |spooled: &SpooledSeries| {
                let (labels, chunks) = make(number);
                assert_eq!((&spooled.labels, &spooled.chunks), (&labels, &chunks));
                number += 1;
                Ok(())
            };
            spool.drain(sink).expect("all handed out");
            assert_eq!(number, series);
            assert!(!path.exists());
            file_was_there
        };
        assert!(!check(1 << 20, 0));
        assert!(!check(1 << 20, 100));
        assert!(check(0, 100));
        assert!(check(5_000, 1_000));
    }
}
