//! Names, headers and chunk borders of the files.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::HeadChunkMeta;
use crate::{
    crc::crc32c,
    error::{Error, Result},
    fs::Fs,
    types::SeriesRef,
    varint::{Decoder, MAX_VARINT_LEN, put_uvarint},
};

/// Header of a file: magic, version, padding.
pub(super) const FILE_HEADER: [u8; 8] = [0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0];

/// Series ref, mint and maxt: all zero only behind the last chunk.
pub(super) const CHUNK_FIXED_BYTES: usize = 3 * 8;

/// Most bytes before the data of a chunk: the fixed ones, encoding, length.
pub(super) const CHUNK_HEAD_BYTES_MAX: usize = CHUNK_FIXED_BYTES + 1 + MAX_VARINT_LEN;

pub(super) const CRC_BYTES: usize = 4;

pub(super) fn file_path(dir: &Path, file: u32) -> PathBuf {
    dir.join(format!("{file:06}"))
}

/// Numbers and lengths of the files in `dir`, ascending. None if there is no such directory.
pub(super) fn list_files(fs: &dyn Fs, dir: &Path) -> Result<Vec<(u32, u64)>> {
    let entries = match fs.read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let number = |name: &str| name.parse().ok().filter(|&file| format!("{file:06}") == name);
    let mut files: Vec<(u32, u64)> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| Some((number(&entry.name)?, entry.len)))
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Deletes the files that `condition` chooses, in ascending order. Returns how many there were.
pub(super) fn delete_files(fs: &dyn Fs, dir: &Path, condition: impl Fn(u32) -> bool) -> Result<usize> {
    let mut chosen = list_files(fs, dir)?;
    chosen.retain(|&(file, _)| condition(file));
    for &(file, _) in &chosen {
        let path = file_path(dir, file);
        fs.remove_file(&path).map_err(Error::io("delete", path))?;
    }
    if !chosen.is_empty() {
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    Ok(chosen.len())
}

/// Appends a chunk as it lies on disk.
pub(super) fn encode_chunk(buf: &mut Vec<u8>, meta: &HeadChunkMeta, data: &[u8]) {
    let start = buf.len();
    buf.extend_from_slice(&meta.series.0.to_be_bytes());
    buf.extend_from_slice(&meta.mint.to_be_bytes());
    buf.extend_from_slice(&meta.maxt.to_be_bytes());
    buf.push(meta.encoding);
    put_uvarint(buf, data.len() as u64);
    buf.extend_from_slice(data);
    let crc = crc32c(&buf[start..]);
    buf.extend_from_slice(&crc.to_be_bytes());
}

/// Head of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkHead {
    pub meta: HeadChunkMeta,
    /// Bytes before the data.
    pub head_len: usize,
    /// Bytes of data.
    pub data_len: usize,
    /// Bytes of the chunk, checksum included.
    pub total_len: usize,
}

impl ChunkHead {
    /// Reads the head of the chunk that begins with `bytes`. `None` if they are too few or the length
    /// is absurd.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let series = SeriesRef(decoder.u64_be().ok()?);
        let mint = decoder.i64_be().ok()?;
        let maxt = decoder.i64_be().ok()?;
        let encoding = decoder.u8().ok()?;
        let data_len = usize::try_from(decoder.uvarint().ok()?).ok()?;
        let head_len = bytes.len() - decoder.remaining();
        let total_len = data_len.checked_add(head_len + CRC_BYTES)?;
        Some(Self { meta: HeadChunkMeta { series, mint, maxt, encoding }, head_len, data_len, total_len })
    }

    /// The data of the chunk that begins with `bytes`, if they are all there and match the checksum.
    pub fn checked_data<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (covered, behind) = bytes.split_at_checked(self.head_len + self.data_len)?;
        let crc = Decoder::new(behind).u32_be().ok()?;
        if crc32c(covered) == crc { covered.get(self.head_len..) } else { None }
    }
}
