//! Going through all files at a start.

use std::{path::Path, sync::Arc};

use super::files::{CHUNK_FIXED_BYTES, CHUNK_HEAD_BYTES_MAX, ChunkHead, FILE_HEADER, file_path, list_files};
use crate::{
    chunkenc::Encoding,
    error::{Error, Result},
    fs::{Fs, ReadFile},
    head_chunks::{HeadChunkMeta, OUT_OF_ORDER_BIT},
    types::HeadChunkRef,
};

const BLOCK_BYTES: usize = 1024 * 1024;

/// A chunk that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedHeadChunk {
    /// Series, times and encoding.
    pub meta: HeadChunkMeta,
    /// Number of samples in it.
    pub samples: u16,
    /// Where it lies.
    pub chunk: HeadChunkRef,
}

/// Damage that was found. The file and all later ones are of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadChunkDamage {
    /// Number of the file.
    pub file: u32,
    /// Offset in bytes of the chunk that is damaged.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

pub(super) fn load_all(
    fs: &dyn Fs,
    dir: &Path,
    on_chunk: &mut dyn FnMut(LoadedHeadChunk) -> Result<(), String>,
) -> Result<Option<HeadChunkDamage>> {
    let files = list_files(fs, dir)?;
    let mut window = Window::default();
    let mut expected = files.first().map(|&(file, _)| file);
    for (index, &(file, _)) in files.iter().enumerate() {
        if expected != Some(file) {
            return Ok(Some(HeadChunkDamage {
                file,
                offset: 0,
                what: "file before it is missing".to_owned(),
            }));
        }
        expected = file.checked_add(1);
        let path = file_path(dir, file);
        let is_last = index + 1 == files.len();
        let open = fs.open(&path).map_err(Error::io("open", &path))?;
        window.begin(open).map_err(Error::io("look at", &path))?;
        match load_file(&mut window, file, is_last, on_chunk) {
            Ok(()) => {}
            Err(Stop::Empty) => {
                fs.remove_file(&path).map_err(Error::io("delete", &path))?;
                fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
            }
            Err(Stop::Damage(offset, what)) => return Ok(Some(HeadChunkDamage { file, offset, what })),
            Err(Stop::Io(error)) => return Err(Error::io("read", path)(error)),
        }
    }
    Ok(None)
}

enum Stop {
    /// Last file without content.
    Empty,
    Damage(u64, String),
    Io(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn load_file(
    window: &mut Window,
    file: u32,
    is_last: bool,
    on_chunk: &mut dyn FnMut(LoadedHeadChunk) -> Result<(), String>,
) -> Result<(), Stop> {
    let header = window.peek(FILE_HEADER.len())?;
    let magic = header.get(..4).unwrap_or(header);
    if is_last && magic.iter().all(|&byte| byte == 0) {
        return Err(Stop::Empty);
    }
    if header != FILE_HEADER {
        return Err(Stop::Damage(0, "no header of version 1".to_owned()));
    }
    window.skip(FILE_HEADER.len());
    loop {
        let offset = window.offset();
        let damage = |what: &str| Stop::Damage(offset, what.to_owned());
        let head = window.peek(CHUNK_HEAD_BYTES_MAX)?;
        let fixed = head.get(..CHUNK_FIXED_BYTES).unwrap_or(head);
        if fixed.iter().all(|&byte| byte == 0) {
            return match window.rest_is_zero()? {
                true => Ok(()),
                false => Err(damage("data behind the end")),
            };
        }
        let Some(head) = ChunkHead::parse(head) else { return Err(damage("no head of a chunk")) };
        if head.total_len as u64 > window.file_left() {
            return Err(damage("chunk reaches beyond the file"));
        }
        let Some(data) = head.checked_data(window.peek(head.total_len)?) else {
            return Err(damage("checksum does not match"));
        };
        let Some(samples) = sample_count(head.meta.encoding, data) else {
            return Err(damage("chunk has no sample count"));
        };
        // An offset beyond 4 GiB cannot be referred to; files are 128 MiB long at most.
        let Ok(place) = u32::try_from(offset) else { return Err(damage("file is too long")) };
        let chunk = HeadChunkRef::new(file, place);
        on_chunk(LoadedHeadChunk { meta: head.meta, samples, chunk })
            .map_err(|what| Stop::Damage(offset, what))?;
        window.skip(head.total_len);
    }
}

/// All encodings begin with the count; those with start timestamps keep two flags in it.
fn sample_count(encoding: u8, data: &[u8]) -> Option<u16> {
    let count = u16::from_be_bytes(*data.first_chunk()?);
    match Encoding::from_byte(encoding & !OUT_OF_ORDER_BIT) {
        Some(Encoding::HistogramSt | Encoding::FloatHistogramSt) => Some(count & 0x3fff),
        _ => Some(count),
    }
}

/// A part of a file that moves over it.
#[derive(Default)]
struct Window {
    file: Option<Arc<dyn ReadFile>>,
    file_len: u64,
    buf: Vec<u8>,
    /// Offset in the file of the first byte of `buf`.
    start: u64,
    /// Bytes of `buf` that are filled, and that were gone through.
    filled: usize,
    at: usize,
}

impl Window {
    fn begin(&mut self, file: Arc<dyn ReadFile>) -> std::io::Result<()> {
        self.file_len = file.size()?;
        self.file = Some(file);
        (self.start, self.filled, self.at) = (0, 0, 0);
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    fn file_left(&self) -> u64 {
        self.file_len.saturating_sub(self.offset())
    }

    /// The next `len` bytes, or as many as there are.
    fn peek(&mut self, len: usize) -> std::io::Result<&[u8]> {
        let len = usize::try_from(self.file_left()).unwrap_or(usize::MAX).min(len);
        if self.filled - self.at < len {
            self.fill(len)?;
        }
        Ok(self.buf.get(self.at..self.at + len).unwrap_or_default())
    }

    fn skip(&mut self, len: usize) {
        self.at += len;
    }

    /// Moves the window so that at least `len` bytes, which the file has, are in it.
    fn fill(&mut self, len: usize) -> std::io::Result<()> {
        self.buf.copy_within(self.at..self.filled, 0);
        self.start += self.at as u64;
        self.filled -= self.at;
        self.at = 0;
        let left = usize::try_from(self.file_left()).unwrap_or(usize::MAX);
        let wanted = len.max(BLOCK_BYTES).min(left);
        if self.buf.len() < wanted {
            self.buf.resize(wanted, 0);
        }
        let (have, offset) = (self.filled, self.start + self.filled as u64);
        if let (Some(file), Some(target)) = (&self.file, self.buf.get_mut(have..wanted)) {
            file.read_exact_at(target, offset)?;
        }
        self.filled = wanted;
        Ok(())
    }

    /// Goes to the end of the file. True if there were zeros only.
    fn rest_is_zero(&mut self) -> std::io::Result<bool> {
        while self.file_left() > 0 {
            let rest = self.peek(BLOCK_BYTES)?;
            let len = rest.len();
            if rest.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            self.skip(len);
        }
        Ok(true)
    }
}
