//! Reads the `index` file of a block.
//!
//! In memory are a small part of the symbols and of the postings offset table; everything else is
//! read when it is asked for. The checksums of TOC, symbols and postings offset table are checked
//! at open, those of postings lists and series at each reading. Label-index sections, which older
//! programs wrote, are not looked at.

use std::{path::Path, sync::Arc};

use super::{
    index_file::{CRC_LEN, IndexFile, SERIES_ALIGNMENT},
    index_postings::{PostingsTable, read_list},
    index_symbols::{SymbolCache, SymbolTable},
    read_ahead::ReadAhead,
};
use crate::{
    Result,
    crc::crc32c,
    fs::{Fs, ReadFile},
    labels::Labels,
    types::{BlockChunkRef, IndexSeriesId},
    varint::{DecodeError, Decoder, MAX_VARINT_LEN},
};

/// Name of the file in the block's directory.
pub const INDEX_FILE: &str = "index";

/// Read at first for a series entry: most are shorter.
const SERIES_BYTES_GUESS: u64 = 512;

/// Fewest bytes that a chunk takes in a series entry.
const CHUNK_BYTES_MIN: usize = 3;

/// A chunk as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Time of the first sample.
    pub mint: i64,
    /// Time of the last sample, inclusive.
    pub maxt: i64,
    /// Where its data lies.
    pub reference: BlockChunkRef,
}

/// An open index. Cheap to share between threads.
#[derive(Debug)]
pub struct IndexReader {
    index: IndexFile,
    symbols: SymbolTable,
    postings: PostingsTable,
}

/// Keeps what was read beyond a series, and the symbols met, for a walk over many series.
#[derive(Debug, Default)]
pub struct SeriesCursor {
    ahead: ReadAhead,
    symbols: SymbolCache,
    /// Symbol numbers of the series being read.
    labels: Vec<(u32, u32)>,
}

impl IndexReader {
    /// Opens the index in `file`, whose name is needed for errors alone.
    pub fn open(file: Arc<dyn ReadFile>, path: &Path) -> Result<Self> {
        Self::new(IndexFile::open(file, path)?)
    }

    /// Opens the index at `path`.
    pub fn open_path(fs: &dyn Fs, path: &Path) -> Result<Self> {
        Self::new(IndexFile::open_path(fs, path)?)
    }

    fn new(index: IndexFile) -> Result<Self> {
        let symbols = SymbolTable::open(&index)?;
        let postings = PostingsTable::open(&index)?;
        Ok(Self { index, symbols, postings })
    }

    /// Length of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.index.len
    }

    /// Number of symbols.
    pub fn symbol_count(&self) -> u32 {
        self.symbols.count()
    }

    /// Symbol of this number, from 0.
    pub fn symbol(&self, number: u32) -> Result<String> {
        let mut cache = SymbolCache::default();
        cache.load(&self.index, &self.symbols, number)?;
        Ok(cache.get(&self.symbols, number).unwrap_or_default().to_owned())
    }

    /// Label names in order.
    pub fn label_names(&self) -> Vec<String> {
        self.postings.names().map(str::to_owned).collect()
    }

    /// Values of the label `name` in order; empty if no series has it.
    pub fn label_values(&self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        if !name.is_empty() {
            self.postings.for_each_value(&self.index, name, &mut |value, _| values.push(value.to_owned()))?;
        }
        Ok(values)
    }

    /// Series with this label, ascending, which is the order of their labels too; empty if there is
    /// none. Empty name and value stand for all series.
    pub fn postings(&self, name: &str, value: &str) -> Result<Vec<IndexSeriesId>> {
        let mut ids = Vec::new();
        if let Some(list) = self.postings.find(&self.index, name, value)? {
            read_list(&self.index, &mut ReadAhead::default(), list, &mut ids)?;
        }
        Ok(ids)
    }

    /// All series, ascending.
    pub fn all_postings(&self) -> Result<Vec<IndexSeriesId>> {
        self.postings("", "")
    }

    /// Series whose value of the label `name` is one for which `wanted` says yes, ascending. Series
    /// without the label are not among them.
    pub fn postings_for_values(
        &self,
        name: &str,
        wanted: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<IndexSeriesId>> {
        let mut lists = Vec::new();
        self.postings.for_each_value(&self.index, name, &mut |value, list| {
            if wanted(value) {
                lists.push(list);
            }
        })?;
        let mut ids = Vec::new();
        let mut ahead = ReadAhead::default();
        for &list in &lists {
            read_list(&self.index, &mut ahead, list, &mut ids)?;
        }
        if lists.len() > 1 {
            // A series has one value of a name, so there are no doubles in an index that is sound.
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(ids)
    }

    /// Labels and chunks of a series, the chunks in the order of time.
    pub fn series(&self, id: IndexSeriesId) -> Result<(Labels, Vec<ChunkMeta>)> {
        let mut chunks = Vec::new();
        let labels = self.series_with(&mut SeriesCursor::default(), id, &mut chunks)?;
        Ok((labels, chunks))
    }

    /// As [`IndexReader::series`], within a walk. `chunks` is cleared first.
    pub fn series_with(
        &self,
        cursor: &mut SeriesCursor,
        id: IndexSeriesId,
        chunks: &mut Vec<ChunkMeta>,
    ) -> Result<Labels> {
        let SeriesCursor { ahead, symbols, labels } = cursor;
        let (content, _) = self.series_entry(ahead, id)?;
        let at = u64::from(id.0) * SERIES_ALIGNMENT;
        let damaged = |error: DecodeError| self.index.corrupt(at, format!("series entry: {error}"));
        decode_series(content, labels, chunks).map_err(damaged)?;
        symbols.trim();
        for &(name, value) in labels.iter() {
            symbols.load(&self.index, &self.symbols, name)?;
            symbols.load(&self.index, &self.symbols, value)?;
        }
        let get = |number| symbols.get(&self.symbols, number).unwrap_or_default();
        Labels::from_sorted(labels.iter().map(|&(name, value)| (get(name), get(value))))
            .ok_or_else(|| self.index.corrupt(at, "labels of a series do not ascend, or one is empty"))
    }

    /// Length in bytes of the entry of a series: length field, content and crc.
    pub(super) fn series_entry_len(&self, cursor: &mut SeriesCursor, id: IndexSeriesId) -> Result<u64> {
        Ok(self.series_entry(&mut cursor.ahead, id)?.1)
    }

    /// Content of a series entry, and length of the entry with its frame.
    fn series_entry<'a>(&self, ahead: &'a mut ReadAhead, id: IndexSeriesId) -> Result<(&'a [u8], u64)> {
        let toc = &self.index.toc;
        let offset = u64::from(id.0) * SERIES_ALIGNMENT;
        let damaged = |what: &str| self.index.corrupt(offset, format!("series entry {what}"));
        // Label-index sections, if any, lie behind the series; they are within the bound.
        let left = toc.postings.checked_sub(offset).filter(|_| offset >= toc.series);
        let left = left.ok_or_else(|| damaged("lies outside its section"))?;
        let near = self.index.read(ahead, offset, SERIES_BYTES_GUESS.min(left) as usize)?;
        let near = near.get(..MAX_VARINT_LEN).unwrap_or(near);
        let mut decoder = Decoder::new(near);
        let len = decoder.uvarint().map_err(|error| damaged(&error.to_string()))?;
        let field = near.len() - decoder.remaining();
        let whole = len.checked_add((field + CRC_LEN) as u64).filter(|&whole| whole <= left);
        let whole = whole.ok_or_else(|| damaged("reaches beyond its section"))?;
        let entry = self.index.read(ahead, offset, whole as usize)?.get(field..whole as usize);
        let Some((content, crc)) = entry.and_then(|entry| entry.split_last_chunk::<CRC_LEN>()) else {
            return Err(damaged("has no checksum"));
        };
        if crc32c(content) != u32::from_be_bytes(*crc) {
            return Err(damaged("has a wrong checksum"));
        }
        Ok((content, whole))
    }
}

/// Numbers that wrap or do not fit count as an overflow.
fn decode_series(
    content: &[u8],
    labels: &mut Vec<(u32, u32)>,
    chunks: &mut Vec<ChunkMeta>,
) -> Result<(), DecodeError> {
    let narrow = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Overflow);
    let mut decoder = Decoder::new(content);
    labels.clear();
    for _ in 0..decoder.uvarint()? {
        labels.push((narrow(decoder.uvarint()?)?, narrow(decoder.uvarint()?)?));
    }
    chunks.clear();
    let count = decoder.uvarint()?;
    // The count bounds nothing; what is left does.
    chunks.reserve((decoder.remaining() / CHUNK_BYTES_MIN).min(usize::try_from(count).unwrap_or(usize::MAX)));
    let mut previous: Option<ChunkMeta> = None;
    for _ in 0..count {
        let mint = match previous {
            None => Some(decoder.varint()?),
            Some(previous) => previous.maxt.checked_add_unsigned(decoder.uvarint()?),
        };
        let mint = mint.ok_or(DecodeError::Overflow)?;
        let maxt = mint.checked_add_unsigned(decoder.uvarint()?).ok_or(DecodeError::Overflow)?;
        let reference = match previous {
            None => decoder.uvarint()?,
            Some(previous) => previous.reference.0.wrapping_add_signed(decoder.varint()?),
        };
        let chunk = ChunkMeta { mint, maxt, reference: BlockChunkRef(reference) };
        chunks.push(chunk);
        previous = Some(chunk);
    }
    Ok(())
}
