//! Writes the `index` file of a block, version 2, without label-index sections.
//!
//! The file is written from front to back, series by series. The postings come behind the series
//! and need all of them, turned round: for each label the series that have it. Few enough label
//! pairs are collected while the series come in. If there are more, they are thrown away, and at
//! the end the series section is read back, once for each group of names whose pairs fit. So memory
//! is bounded by the symbols and by [`POSTINGS_MAX`] (or the number of series, if that is more), not
//! by series times labels.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    index_file::{
        CRC_LEN, HEADER_LEN, IndexFile, LEN_FIELD, MAGIC, POSTINGS_TABLE_COLUMNS, SERIES_ALIGNMENT, Scanner,
        Toc, VERSION,
    },
    index_reader::ChunkMeta,
    index_symbols::SortedSymbols,
};
use crate::{
    Error, Result,
    crc::crc32c,
    fs::{Fs, WriteFile},
    labels::Labels,
    types::{BlockChunkRef, IndexSeriesId},
    varint::{DecodeError, Decoder, put_str, put_uvarint, put_varint, uvarint_len},
};

/// Bytes collected before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Label pairs of series held at once: 24 MB.
const POSTINGS_MAX: usize = 2 << 20;

/// Postings lists begin at multiples of this.
const POSTINGS_ALIGNMENT: u64 = 4;

/// A label of a series: symbol numbers of name and value, and the series. Sorted, these are the
/// postings, because symbols are numbered in order.
type Posting = (u32, u32, u32);

/// Writes one index.
#[derive(Debug)]
pub struct IndexWriter {
    fs: Arc<dyn Fs>,
    out: Output,
    symbols: SortedSymbols,
    toc: Toc,
    /// Number of series of each label name, by symbol.
    name_counts: Vec<u32>,
    all_series: Vec<u32>,
    /// The postings so far, while they are few enough.
    postings: Option<Vec<Posting>>,
    postings_max: usize,
    /// Labels of the last series.
    last_labels: Vec<(u32, u32)>,
    labels: Vec<(u32, u32)>,
    last_chunk: BlockChunkRef,
    entry: Vec<u8>,
}

/// An entry of the postings offset table: symbol numbers, and where the list lies.
#[derive(Clone, Copy, Debug)]
struct ListPlace {
    name: u32,
    value: u32,
    offset: u64,
}

impl IndexWriter {
    /// Begins the file `path`. `symbols` must hold all names and values of the series to come; more
    /// do no harm.
    pub fn create(fs: Arc<dyn Fs>, path: PathBuf, symbols: SortedSymbols) -> Result<Self> {
        Self::with_postings_max(fs, path, symbols, POSTINGS_MAX)
    }

    fn with_postings_max(
        fs: Arc<dyn Fs>,
        path: PathBuf,
        symbols: SortedSymbols,
        postings_max: usize,
    ) -> Result<Self> {
        let file = fs.create(&path).map_err(Error::io("create", &path))?;
        let mut out = Output { file, path, buffer: Vec::new(), len: 0 };
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        debug_assert_eq!(out.len, HEADER_LEN);

        let mut toc = Toc { symbols: out.len, ..Toc::default() };
        let len: usize = symbols.iter().map(str_len).sum();
        let mut section = out.section(LEN_FIELD + len)?;
        section.write(&(symbols.len() as u32).to_be_bytes())?;
        let mut text = Vec::new();
        for symbol in symbols.iter() {
            text.clear();
            put_str(&mut text, symbol);
            section.write(&text)?;
        }
        section.finish()?;
        toc.series = out.len;

        Ok(Self {
            fs,
            out,
            name_counts: vec![0; symbols.len()],
            symbols,
            toc,
            all_series: Vec::new(),
            postings: Some(Vec::new()),
            postings_max,
            last_labels: Vec::new(),
            labels: Vec::new(),
            last_chunk: BlockChunkRef(0),
            entry: Vec::new(),
        })
    }

    /// Adds a series. Series must come in strictly ascending order, none without labels or chunks;
    /// chunks in the order of time, their references never falling, neither within a series nor from
    /// one to the next.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<IndexSeriesId> {
        let mut numbers = std::mem::take(&mut self.labels);
        numbers.clear();
        for (name, value) in labels.iter() {
            let number = |symbol| {
                let unknown = || self.out.invalid(format!("{symbol:?} is not among the symbols"));
                self.symbols.find(symbol).ok_or_else(unknown)
            };
            numbers.push((number(name)?, number(value)?));
        }
        let id = self.add_series_by_symbols(&numbers, chunks);
        self.labels = numbers;
        id
    }

    /// As [`IndexWriter::add_series`], the labels given as symbol numbers of name and value.
    pub(super) fn add_series_by_symbols(
        &mut self,
        labels: &[(u32, u32)],
        chunks: &[ChunkMeta],
    ) -> Result<IndexSeriesId> {
        if labels.is_empty() || chunks.is_empty() {
            return Err(self.out.invalid("series without labels or without chunks".to_owned()));
        }
        // Symbols are numbered in order, so their numbers compare as the labels do.
        if self.last_labels.as_slice() >= labels || !labels.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(self.out.invalid("series or labels out of order".to_owned()));
        }
        self.encode_series(labels, chunks)?;
        self.out.align(SERIES_ALIGNMENT)?;
        let id = u32::try_from(self.out.len / SERIES_ALIGNMENT)
            .map_err(|_| self.out.invalid("index longer than 64 GiB".to_owned()))?;
        let mut field = Vec::new();
        put_uvarint(&mut field, self.entry.len() as u64);
        self.out.write(&field)?;
        self.out.write(&self.entry)?;
        self.out.write(&crc32c(&self.entry).to_be_bytes())?;

        self.last_labels.clear();
        self.last_labels.extend_from_slice(labels);
        self.all_series.push(id);
        for &(name, _) in labels {
            if let Some(count) = self.name_counts.get_mut(name as usize) {
                *count += 1;
            }
        }
        if let Some(postings) = &mut self.postings {
            postings.extend(labels.iter().map(|&(name, value)| (name, value, id)));
            if postings.len() > self.postings_max {
                self.postings = None;
            }
        }
        Ok(IndexSeriesId(id))
    }

    fn encode_series(&mut self, labels: &[(u32, u32)], chunks: &[ChunkMeta]) -> Result<()> {
        let entry = &mut self.entry;
        entry.clear();
        put_uvarint(entry, labels.len() as u64);
        for &(name, value) in labels {
            if name.max(value) as usize >= self.symbols.len() {
                return Err(self.out.invalid(format!("there are no symbols {name} and {value}")));
            }
            put_uvarint(entry, name.into());
            put_uvarint(entry, value.into());
        }
        put_uvarint(entry, chunks.len() as u64);
        let mut previous: Option<&ChunkMeta> = None;
        for chunk in chunks {
            let is_after = previous.is_none_or(|previous| chunk.mint > previous.maxt);
            if chunk.mint > chunk.maxt || !is_after || chunk.reference < self.last_chunk {
                return Err(self.out.invalid(format!("chunk out of order: {chunk:?}")));
            }
            match previous {
                None => put_varint(entry, chunk.mint),
                Some(previous) => put_uvarint(entry, chunk.mint.wrapping_sub(previous.maxt) as u64),
            }
            put_uvarint(entry, chunk.maxt.wrapping_sub(chunk.mint) as u64);
            match previous {
                None => put_uvarint(entry, chunk.reference.0),
                Some(previous) => {
                    put_varint(entry, chunk.reference.0.wrapping_sub(previous.reference.0) as i64);
                }
            }
            self.last_chunk = chunk.reference;
            previous = Some(chunk);
        }
        Ok(())
    }

    /// Writes the postings and all behind them, makes the file durable and returns its length in
    /// bytes.
    pub fn finish(mut self) -> Result<u64> {
        self.toc.label_indices = self.out.len;
        self.toc.postings = self.out.len;
        let mut places = vec![ListPlace { name: 0, value: 0, offset: self.out.align(POSTINGS_ALIGNMENT)? }];
        let all = std::mem::take(&mut self.all_series);
        self.out.postings_list(all.iter().copied(), all.len())?;
        drop(all);
        match self.postings.take() {
            Some(mut postings) => self.out.postings(&mut postings, &mut places)?,
            None => self.postings_from_file(&mut places)?,
        }
        self.toc.label_index_table = self.out.len;
        self.toc.postings_table = self.out.len;
        self.postings_table(&places)?;
        let toc = self.toc.encode();
        self.out.write(&toc)?;
        self.out.flush()?;
        self.out.file.sync().map_err(Error::io("sync", &self.out.path))?;
        Ok(self.out.len)
    }

    /// Reads the series back, once per group of names.
    fn postings_from_file(&mut self, places: &mut Vec<ListPlace>) -> Result<()> {
        self.out.flush()?;
        let path = &self.out.path;
        let file = self.fs.open(path).map_err(Error::io("open", path))?;
        let index = IndexFile { file, path: path.clone(), len: self.toc.postings, toc: self.toc };
        let mut postings = Vec::new();
        let mut first = 0;
        while first < self.name_counts.len() {
            let (mut last, mut sum) = (first, 0);
            while let Some(&count) = self.name_counts.get(last)
                && (sum == 0 || sum + count as usize <= self.postings_max)
            {
                sum += count as usize;
                last += 1;
            }
            postings.clear();
            postings.reserve_exact(sum);
            if sum > 0 {
                collect_postings(&index, first as u32..last as u32, &mut postings)?;
            }
            self.out.postings(&mut postings, places)?;
            first = last;
        }
        Ok(())
    }

    /// The table's first entry is that of all series, whose name and value are empty, whether or not
    /// the empty string is among the symbols.
    fn postings_table(&mut self, places: &[ListPlace]) -> Result<()> {
        let text = |index: usize, place: &ListPlace| {
            let get = |number: u32| self.symbols.get(number as usize).unwrap_or_default();
            if index == 0 { ("", "") } else { (get(place.name), get(place.value)) }
        };
        let entry_len = |(index, place): (usize, &ListPlace)| {
            let (name, value) = text(index, place);
            1 + str_len(name) + str_len(value) + uvarint_len(place.offset)
        };
        let len: usize = places.iter().enumerate().map(entry_len).sum();
        let mut section = self.out.section(LEN_FIELD + len)?;
        section.write(&(places.len() as u32).to_be_bytes())?;
        let mut entry = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let (name, value) = text(index, place);
            entry.clear();
            entry.push(POSTINGS_TABLE_COLUMNS);
            put_str(&mut entry, name);
            put_str(&mut entry, value);
            put_uvarint(&mut entry, place.offset);
            section.write(&entry)?;
        }
        section.finish()
    }
}

fn str_len(text: &str) -> usize {
    uvarint_len(text.len() as u64) + text.len()
}

/// Collects the pairs of the label names in `names` from the series section.
fn collect_postings(
    index: &IndexFile,
    names: std::ops::Range<u32>,
    postings: &mut Vec<Posting>,
) -> Result<()> {
    let skip = |decoder: &mut Decoder<'_>| {
        decoder.prefixed_bytes()?;
        decoder.bytes(CRC_LEN).map(drop)
    };
    let mut scanner = Scanner::new(index, index.toc.series, index.toc.postings);
    loop {
        scanner.at = scanner.at.next_multiple_of(SERIES_ALIGNMENT);
        if scanner.is_at_end() {
            return Ok(());
        }
        let at = scanner.at;
        let id = (at / SERIES_ALIGNMENT) as u32;
        let mut decoder = Decoder::new(scanner.entry(skip)?);
        let mut read = || {
            decoder.uvarint()?;
            for _ in 0..decoder.uvarint()? {
                let (name, value) = (decoder.uvarint()? as u32, decoder.uvarint()? as u32);
                if names.contains(&name) {
                    postings.push((name, value, id));
                }
            }
            Ok(())
        };
        read().map_err(|error: DecodeError| index.corrupt(at, format!("series just written: {error}")))?;
    }
}

/// The file with a buffer before it.
#[derive(Debug)]
struct Output {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Length in bytes with what is still in the buffer.
    len: u64,
}

impl Output {
    fn invalid(&self, what: String) -> Error {
        invalid(&self.path, what)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(data);
        self.len += data.len() as u64;
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(Error::io("write", &self.path))?;
        self.buffer.clear();
        Ok(())
    }

    /// Fills up with zeros to a multiple of `alignment`, at most 16, and returns the length.
    fn align(&mut self, alignment: u64) -> Result<u64> {
        let missing = self.len.next_multiple_of(alignment) - self.len;
        self.write([0; 16].get(..missing as usize).unwrap_or_default())?;
        Ok(self.len)
    }

    /// Begins a section whose content will have `len` bytes.
    fn section(&mut self, len: usize) -> Result<Section<'_>> {
        let field = u32::try_from(len).map_err(|_| self.invalid("section longer than 4 GiB".to_owned()))?;
        self.write(&field.to_be_bytes())?;
        let end = self.len + len as u64;
        Ok(Section { out: self, crc: 0, end })
    }

    fn postings_list(&mut self, ids: impl Iterator<Item = u32>, count: usize) -> Result<()> {
        let mut section = self.section(LEN_FIELD + 4 * count)?;
        section.write(&(count as u32).to_be_bytes())?;
        for id in ids {
            section.write(&id.to_be_bytes())?;
        }
        section.finish()
    }

    /// Sorts `postings`, writes their lists and notes where these lie.
    fn postings(&mut self, postings: &mut [Posting], places: &mut Vec<ListPlace>) -> Result<()> {
        postings.sort_unstable();
        for list in postings.chunk_by(|left, right| (left.0, left.1) == (right.0, right.1)) {
            let Some(&(name, value, _)) = list.first() else { continue };
            places.push(ListPlace { name, value, offset: self.align(POSTINGS_ALIGNMENT)? });
            self.postings_list(list.iter().map(|&(_, _, id)| id), list.len())?;
        }
        Ok(())
    }
}

/// A section or postings list whose crc is made while it is written.
struct Section<'a> {
    out: &'a mut Output,
    crc: u32,
    end: u64,
}

impl Section<'_> {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.crc = crate::crc::crc32c_append(self.crc, data);
        self.out.write(data)
    }

    fn finish(self) -> Result<()> {
        debug_assert_eq!(self.out.len, self.end, "the section is as long as its length field says");
        self.out.write(&self.crc.to_be_bytes())
    }
}

/// What was handed in cannot be written to `path`.
pub(super) fn invalid(path: &Path, what: String) -> Error {
    Error::io("write", path)(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests;
