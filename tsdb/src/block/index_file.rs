//! What reader and writer of the index share: the file's frame, and reading with checks.
//!
//! The index is header, symbols, series, postings lists, postings offset table, table of contents
//! (TOC). Each section and each list is its length, its content and a crc over the content; of
//! series entries the length is a uvarint. Format: prometheus/prometheus `tsdb/index/index.go`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::read_ahead::ReadAhead;
use crate::{
    Error, Result,
    crc::{crc32c, crc32c_append},
    fs::{Fs, ReadFile},
    varint::{DecodeError, Decoder},
};

pub(super) const MAGIC: u32 = 0xBAAA_D700;
pub(super) const VERSION: u8 = 2;
pub(super) const HEADER_LEN: u64 = 5;
/// Six numbers of 64 bits and a crc.
pub(super) const TOC_LEN: usize = 6 * 8 + CRC_LEN;
pub(super) const CRC_LEN: usize = 4;
/// Length field of sections and postings lists.
pub(super) const LEN_FIELD: usize = 4;
/// Series entries begin at multiples of this, and their ids are offsets divided by it.
pub(super) const SERIES_ALIGNMENT: u64 = 16;
/// Number of columns of the postings offset table, which stands before each entry.
pub(super) const POSTINGS_TABLE_COLUMNS: u8 = 2;

/// Read at once when a whole section is checked.
const CHECK_BYTES: usize = 64 << 10;

/// First guess of how long an entry of a section is.
const ENTRY_BYTES_GUESS: usize = 256;

/// Where the sections begin, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Toc {
    pub symbols: u64,
    pub series: u64,
    pub label_indices: u64,
    pub label_index_table: u64,
    pub postings: u64,
    pub postings_table: u64,
}

impl Toc {
    pub(super) fn encode(&self) -> [u8; TOC_LEN] {
        let fields = [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_index_table,
            self.postings,
            self.postings_table,
        ];
        let mut bytes = Vec::with_capacity(TOC_LEN);
        fields.iter().for_each(|field| bytes.extend_from_slice(&field.to_be_bytes()));
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.try_into().expect("six fields and a crc")
    }

    /// `None` if the crc is wrong.
    fn decode(bytes: &[u8; TOC_LEN]) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
        if crc32c(fields) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut decoder = Decoder::new(fields);
        Some(Self {
            symbols: decoder.u64_be().ok()?,
            series: decoder.u64_be().ok()?,
            label_indices: decoder.u64_be().ok()?,
            label_index_table: decoder.u64_be().ok()?,
            postings: decoder.u64_be().ok()?,
            postings_table: decoder.u64_be().ok()?,
        })
    }
}

/// An open index file whose header and TOC are in order.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub file: Arc<dyn ReadFile>,
    pub path: PathBuf,
    pub len: u64,
    pub toc: Toc,
}

impl IndexFile {
    pub(super) fn open(file: Arc<dyn ReadFile>, path: &Path) -> Result<Self> {
        let io = || Error::io("read", path);
        let len = file.size().map_err(io())?;
        let toc_at = len
            .checked_sub(TOC_LEN as u64)
            .filter(|&at| at >= HEADER_LEN)
            .ok_or_else(|| Error::corrupt(path, 0, "too short for an index"))?;
        let mut header = [0; HEADER_LEN as usize];
        file.read_exact_at(&mut header, 0).map_err(io())?;
        let mut decoder = Decoder::new(&header);
        if decoder.u32_be() != Ok(MAGIC) {
            return Err(Error::corrupt(path, 0, "not the magic number of an index"));
        }
        match decoder.u8() {
            Ok(VERSION) => {}
            version => {
                let version = version.unwrap_or_default();
                return Err(Error::corrupt(path, 4, format!("index version {version} is not supported")));
            }
        }
        let mut toc = [0; TOC_LEN];
        file.read_exact_at(&mut toc, toc_at).map_err(io())?;
        let toc = Toc::decode(&toc)
            .ok_or_else(|| Error::corrupt(path, toc_at, "checksum of the table of contents is wrong"))?;
        let order = [HEADER_LEN, toc.symbols, toc.series, toc.postings, toc.postings_table, toc_at];
        if !order.is_sorted() {
            return Err(Error::corrupt(path, toc_at, "table of contents has sections out of order"));
        }
        Ok(Self { file, path: path.to_owned(), len, toc })
    }

    pub(super) fn open_path(fs: &dyn Fs, path: &Path) -> Result<Self> {
        Self::open(fs.open(path).map_err(Error::io("open", path))?, path)
    }

    /// Where the TOC begins.
    pub(super) fn toc_at(&self) -> u64 {
        self.len - TOC_LEN as u64
    }

    pub(super) fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }

    /// Reads through `ahead`; fewer bytes than `least` are an error.
    pub(super) fn read<'a>(&self, ahead: &'a mut ReadAhead, offset: u64, least: usize) -> Result<&'a [u8]> {
        let data = ahead.get(&*self.file, offset, least).map_err(Error::io("read", &self.path))?;
        if data.len() < least {
            return Err(Error::io("read", &self.path)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(data)
    }

    /// Checks the crc of the section at `offset`, which must end at or before `limit`, and returns
    /// a scanner over its content and its number of entries, the field it begins with.
    pub(super) fn check_section(&self, offset: u64, limit: u64) -> Result<(Scanner<'_>, u32)> {
        let beyond = || self.corrupt(offset, "section reaches beyond its end");
        let start = offset + LEN_FIELD as u64;
        if start > limit {
            return Err(beyond());
        }
        let mut ahead = ReadAhead::default();
        let decode = |data: &[u8]| Decoder::new(data).u32_be().unwrap_or_default();
        let len = decode(self.read(&mut ahead, offset, LEN_FIELD)?);
        let end = start + u64::from(len);
        if end + CRC_LEN as u64 > limit {
            return Err(beyond());
        }
        let mut crc = 0;
        let mut buffer = vec![0; CHECK_BYTES.min(len as usize)];
        let mut at = start;
        while at < end {
            let piece = buffer.len().min((end - at) as usize);
            let piece = buffer.get_mut(..piece).unwrap_or_default();
            self.file.read_exact_at(piece, at).map_err(Error::io("read", &self.path))?;
            crc = crc32c_append(crc, piece);
            at += piece.len() as u64;
        }
        if crc != decode(self.read(&mut ahead, end, CRC_LEN)?) {
            return Err(self.corrupt(offset, "checksum of the section is wrong"));
        }
        let mut scanner = Scanner { file: self, ahead, at: start, end };
        let count = scanner.entry(|decoder| decoder.u32_be().map(drop))?;
        let count = decode(count);
        Ok((scanner, count))
    }
}

/// Walks through the entries of a section that was checked.
#[derive(Debug)]
pub(super) struct Scanner<'f> {
    pub file: &'f IndexFile,
    pub ahead: ReadAhead,
    pub at: u64,
    pub end: u64,
}

impl<'f> Scanner<'f> {
    pub(super) fn new(file: &'f IndexFile, at: u64, end: u64) -> Self {
        Self { file, ahead: ReadAhead::default(), at, end }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The bytes of the next entry. `skip` passes over one entry; it may be called more than once.
    pub(super) fn entry(
        &mut self,
        skip: impl Fn(&mut Decoder<'_>) -> Result<(), DecodeError>,
    ) -> Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut least = ENTRY_BYTES_GUESS.min(left);
        let len = loop {
            let data = self.file.read(&mut self.ahead, self.at, least)?;
            let data = data.get(..left).unwrap_or(data);
            let mut decoder = Decoder::new(data);
            match skip(&mut decoder) {
                Ok(()) => break data.len() - decoder.remaining(),
                Err(DecodeError::UnexpectedEnd) if data.len() < left => {
                    least = data.len().saturating_mul(2).min(left);
                }
                Err(error) => return Err(self.file.corrupt(self.at, error.to_string())),
            }
        };
        let data = self.file.read(&mut self.ahead, self.at, len)?;
        self.at += len as u64;
        Ok(data.get(..len).unwrap_or(data))
    }
}
