//! Is a block whole? Asked before it leaves, because in the bucket a damaged block stops the Compactor.
//!
//! The index: its header, the checksum of its table of contents, and that each section the table names
//! lies within the file. Chunk files: their headers, and each chunk's length and checksum up to the
//! last byte. Together the files must hold as many chunks as meta.json says, so a file cut between two
//! chunks does not pass. That the index agrees with the chunks is not checked here.
//!
//! Formats: `tsdb/docs/format` of Prometheus.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use weir_tsdb::crc::crc32c;

use super::ShipError;

const INDEX_MAGIC: u32 = 0xBAAA_D700;
const INDEX_HEADER_BYTES: u64 = 5;
/// Six offsets and a checksum.
const INDEX_TOC_BYTES: u64 = 6 * 8 + 4;
const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
const CHUNKS_HEADER_BYTES: u64 = 8;

/// Checks the index file at `path`. Returns its size in bytes. Blocking.
pub(super) fn check_index(path: &Path) -> Result<u64, ShipError> {
    let (file, size) = open(path)?;
    let corrupted = |what: String| Err(ShipError::corrupted(path, what));
    if size < INDEX_HEADER_BYTES + INDEX_TOC_BYTES {
        return corrupted(format!("{size} bytes are too few for an index"));
    }
    let mut header = [0; INDEX_HEADER_BYTES as usize];
    let mut toc = [0; INDEX_TOC_BYTES as usize];
    let toc_at = size - INDEX_TOC_BYTES;
    read_at(&file, path, &mut header, 0)?;
    read_at(&file, path, &mut toc, toc_at)?;
    let [m0, m1, m2, m3, version] = header;
    if u32::from_be_bytes([m0, m1, m2, m3]) != INDEX_MAGIC {
        return corrupted("offset 0: not the magic number of an index".to_owned());
    }
    if !(1..=3).contains(&version) {
        return corrupted(format!("offset 4: version {version} of the index is unknown"));
    }
    let (offsets, checksum) = toc.split_at(6 * 8);
    if checksum != crc32c(offsets).to_be_bytes() {
        return corrupted(format!("offset {toc_at}: the checksum of the table of contents is wrong"));
    }
    for offset in offsets.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes)) {
        if offset > toc_at {
            return corrupted(format!(
                "offset {toc_at}: a section begins at {offset}, behind the file's end"
            ));
        }
    }
    Ok(size)
}

/// A chunk file that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckedSegment {
    /// Size in bytes.
    pub(super) size: u64,
    /// Number of chunks.
    pub(super) chunks: u64,
}

/// Checks the chunk file at `path`, reading all of it. Blocking.
pub(super) fn check_segment(path: &Path) -> Result<CheckedSegment, ShipError> {
    let (file, size) = open(path)?;
    let corrupted = |what: String| Err(ShipError::corrupted(path, what));
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut header = [0; CHUNKS_HEADER_BYTES as usize];
    if size < CHUNKS_HEADER_BYTES {
        return corrupted(format!("{size} bytes are too few for a chunk file"));
    }
    reader.read_exact(&mut header).map_err(ShipError::local("read", path))?;
    let [m0, m1, m2, m3, version, ..] = header;
    if u32::from_be_bytes([m0, m1, m2, m3]) != CHUNKS_MAGIC {
        return corrupted("offset 0: not the magic number of a chunk file".to_owned());
    }
    if version != 1 {
        return corrupted(format!("offset 4: version {version} of the chunk file is unknown"));
    }
    let mut offset = CHUNKS_HEADER_BYTES;
    let mut chunks = 0;
    let mut chunk = Vec::new();
    while offset < size {
        let here = offset;
        let len = read_uvarint(&mut reader, path, &mut offset)?;
        // Encoding and checksum are not counted by the length.
        let rest = len.checked_add(1 + 4).filter(|&rest| rest <= size.saturating_sub(offset));
        let Some(rest) = rest else {
            return corrupted(format!("offset {here}: a chunk of {len} bytes does not fit into the file"));
        };
        chunk.resize(usize::try_from(rest).unwrap_or(usize::MAX), 0);
        reader.read_exact(&mut chunk).map_err(ShipError::local("read", path))?;
        offset += rest;
        let (data, checksum) = chunk.split_at(chunk.len().saturating_sub(4));
        if checksum != crc32c(data).to_be_bytes() {
            return corrupted(format!("offset {here}: the checksum of a chunk is wrong"));
        }
        chunks += 1;
    }
    Ok(CheckedSegment { size, chunks })
}

/// Reads a number in groups of seven bits, the lowest first.
fn read_uvarint(reader: &mut impl BufRead, path: &Path, offset: &mut u64) -> Result<u64, ShipError> {
    let began = *offset;
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        match reader.read_exact(&mut byte) {
            Ok(()) => *offset += 1,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ShipError::corrupted(path, format!("offset {began}: the file ends in a length")));
            }
            Err(error) => return Err(ShipError::local("read", path)(error)),
        }
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ShipError::corrupted(path, format!("offset {began}: a length has more than 64 bits")))
}

fn open(path: &Path) -> Result<(File, u64), ShipError> {
    let file = File::open(path).map_err(ShipError::local("open", path))?;
    let size = file.metadata().map_err(ShipError::local("examine", path))?.len();
    Ok((file, size))
}

fn read_at(file: &File, path: &Path, data: &mut [u8], offset: u64) -> Result<(), ShipError> {
    std::os::unix::fs::FileExt::read_exact_at(file, data, offset).map_err(ShipError::local("read", path))
}
