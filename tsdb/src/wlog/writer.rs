//! Writing a log.

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    PAGE_BYTES, SEGMENT_BYTES_DEFAULT,
    fragment::{FRAGMENT_BYTES_MAX, FragmentHead, HEAD_BYTES, Packing, Part},
    last_segment, segment_path,
};
use crate::{
    crc::crc32c,
    error::{Error, Result},
    fs::{Fs, WriteFile},
    types::SegmentIndex,
};

/// How records are compressed. zstd is only read: Prometheus before 2.46 drops it in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy, where it makes a record shorter.
    Snappy,
}

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Length of a segment in bytes, a multiple of [`PAGE_BYTES`].
    pub segment_bytes: u64,
    /// How records are compressed.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT, compression: Compression::Snappy }
    }
}

/// Appends records to a log.
///
/// After a write or a sync failed, nobody knows what of it is on the disk, so the writer is dead:
/// everything later fails with [`Error::LogDead`]. What was logged before can be read.
///
/// Keeps no buffer of its own, so an idle writer costs its open file and little else.
#[derive(Debug)]
pub struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: WriterOptions,
    segment: SegmentIndex,
    file: Box<dyn WriteFile>,
    /// Length of the file when it was last synced.
    synced_len: u64,
    bytes_written: u64,
    /// Why it is dead.
    dead: Option<String>,
}

/// Buffers of a batch. Per thread, because one thread writes for many logs.
struct Scratch {
    encoder: snap::raw::Encoder,
    compressed: Vec<u8>,
    /// Fragments not yet written.
    pending: Vec<u8>,
}

/// Buffers that a large batch made longer than this are given back.
const SCRATCH_BYTES_KEPT: usize = 4 * 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        encoder: snap::raw::Encoder::new(),
        compressed: Vec::new(),
        pending: Vec::new(),
    });
}

impl Writer {
    /// Begins segment `at_least`, or the one behind the last that is in `dir` if that is later.
    /// An existing segment is never appended to. Creates `dir` if it is not there.
    ///
    /// # Panics
    /// If the segment length is not a multiple of a page, or 0.
    pub fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        at_least: SegmentIndex,
        options: WriterOptions,
    ) -> Result<Self> {
        let pages = options.segment_bytes / PAGE_BYTES as u64;
        assert!(
            pages > 0 && options.segment_bytes.is_multiple_of(PAGE_BYTES as u64),
            "segments are whole pages"
        );
        fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs.sync_dir(parent).map_err(Error::io("sync", parent))?;
        }
        let next = match last_segment(fs.as_ref(), dir)? {
            Some(last) => following(last, dir)?,
            None => SegmentIndex(0),
        };
        let segment = next.max(at_least);
        let file = create_segment(fs.as_ref(), dir, segment)?;
        let dir = dir.to_owned();
        Ok(Self { fs, dir, options, segment, file, synced_len: 0, bytes_written: 0, dead: None })
    }

    /// Appends `records` in this order, with one write, or one per segment if they do not fit in the
    /// current one. When this returns, they survive kill -9; a power cut they survive only after
    /// [`sync`](Self::sync).
    pub fn log(&mut self, records: &[&[u8]]) -> Result<()> {
        self.guarded(|writer| SCRATCH.with_borrow_mut(|scratch| writer.log_with(records, scratch)))
    }

    /// Makes everything logged so far survive a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.guarded(Self::sync_segment)
    }

    /// Finishes the current segment (pads and syncs it) and begins the next, whose number it returns.
    pub fn next_segment(&mut self) -> Result<SegmentIndex> {
        self.guarded(|writer| writer.cut(&mut Vec::new()))?;
        Ok(self.segment)
    }

    /// Pads the last page and syncs. Everything later fails; closing again does nothing.
    ///
    /// # Errors
    /// If the log was dead before, or died of this.
    pub fn close(&mut self) -> Result<()> {
        if self.dead.as_deref() == Some(CLOSED) {
            return Ok(());
        }
        self.guarded(|writer| writer.finish(&mut Vec::new()))?;
        self.dead = Some(CLOSED.to_owned());
        Ok(())
    }

    /// The segment that is written to.
    pub fn segment_index(&self) -> SegmentIndex {
        self.segment
    }

    /// Bytes written since this writer was created, over all segments, padding included. Never falls.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// [`Error::LogDead`] if nothing can be logged any more.
    pub fn check_alive(&self) -> Result<()> {
        match &self.dead {
            Some(cause) => Err(Error::LogDead { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Runs `work` unless the log is dead; if it fails, the log is.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.check_alive()?;
        let result = work(self);
        if let Err(error) = &result {
            self.dead = Some(error.to_string());
        }
        result
    }

    fn log_with(&mut self, records: &[&[u8]], scratch: &mut Scratch) -> Result<()> {
        let Scratch { encoder, compressed, pending } = scratch;
        pending.clear();
        for &record in records {
            let (stored, packing) = match self.options.compression {
                Compression::None => (record, Packing::Plain),
                Compression::Snappy => compress(encoder, compressed, record),
            };
            let at = self.file.size() + pending.len() as u64;
            if !fits(stored.len(), at, self.options.segment_bytes) {
                self.cut(pending)?;
            }
            let at = self.file.size() + pending.len() as u64;
            push_fragments(pending, (at % PAGE_BYTES as u64) as usize, stored, packing);
        }
        self.write(pending)?;
        for buf in [compressed, pending] {
            if buf.capacity() > SCRATCH_BYTES_KEPT {
                *buf = Vec::new();
            }
        }
        Ok(())
    }

    /// Finishes the segment with `pending` as its last bytes and begins the next.
    fn cut(&mut self, pending: &mut Vec<u8>) -> Result<()> {
        self.finish(pending)?;
        let next = following(self.segment, &self.dir)?;
        self.file = create_segment(self.fs.as_ref(), &self.dir, next)?;
        self.segment = next;
        self.synced_len = 0;
        Ok(())
    }

    fn finish(&mut self, pending: &mut Vec<u8>) -> Result<()> {
        let in_page = (self.file.size() + pending.len() as u64) % PAGE_BYTES as u64;
        if in_page > 0 {
            pending.resize(pending.len() + PAGE_BYTES - in_page as usize, 0);
        }
        self.write(pending)?;
        self.sync_segment()
    }

    fn write(&mut self, pending: &mut Vec<u8>) -> Result<()> {
        if !pending.is_empty() {
            self.file.write_all(pending).map_err(|error| self.io("write", error))?;
            self.bytes_written += pending.len() as u64;
            pending.clear();
        }
        Ok(())
    }

    fn sync_segment(&mut self) -> Result<()> {
        let len = self.file.size();
        if len > self.synced_len {
            self.file.sync().map_err(|error| self.io("sync", error))?;
            self.synced_len = len;
        }
        Ok(())
    }

    fn io(&self, action: &'static str, error: io::Error) -> Error {
        Error::io(action, segment_path(&self.dir, self.segment))(error)
    }
}

const CLOSED: &str = "closed";

fn following(segment: SegmentIndex, dir: &Path) -> Result<SegmentIndex> {
    segment.0.checked_add(1).map(SegmentIndex).ok_or_else(|| Error::corrupt(dir, 0, "no segment number left"))
}

/// The entry must survive a power cut before anything in the file is promised to.
fn create_segment(fs: &dyn Fs, dir: &Path, segment: SegmentIndex) -> Result<Box<dyn WriteFile>> {
    let path = segment_path(dir, segment);
    let file = fs.create(&path).map_err(Error::io("create", path))?;
    fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(file)
}

/// The bytes to store for `record`: compressed if that makes it shorter.
fn compress<'a>(
    encoder: &mut snap::raw::Encoder,
    compressed: &'a mut Vec<u8>,
    record: &'a [u8],
) -> (&'a [u8], Packing) {
    // 0 stands for "too long for snappy".
    let len_max = snap::raw::max_compress_len(record.len());
    if len_max == 0 {
        return (record, Packing::Plain);
    }
    if compressed.len() < len_max {
        compressed.resize(len_max, 0);
    }
    match encoder.compress(record, compressed) {
        Ok(len) if len < record.len() => (&compressed[..len], Packing::Snappy),
        _ => (record, Packing::Plain),
    }
}

/// Whether a record of `len` stored bytes may begin at offset `at` of its segment. An empty segment
/// takes any.
fn fits(len: usize, at: u64, segment_bytes: u64) -> bool {
    if at == 0 {
        return true;
    }
    // Behind an oversized record there is no room, even if its last page has some.
    if at >= segment_bytes {
        return false;
    }
    let page = PAGE_BYTES as u64;
    let page_left = (page - at % page) % page;
    let pages_behind = segment_bytes.saturating_sub(at + page_left) / page;
    if page_left < HEAD_BYTES as u64 && pages_behind == 0 {
        return false;
    }
    let room = page_left.saturating_sub(HEAD_BYTES as u64) + pages_behind * FRAGMENT_BYTES_MAX as u64;
    len as u64 <= room
}

/// Appends the fragments of a record that begins at offset `in_page` of a page.
fn push_fragments(pending: &mut Vec<u8>, in_page: usize, stored: &[u8], packing: Packing) {
    let mut page_left = PAGE_BYTES - in_page;
    if page_left < HEAD_BYTES {
        pending.resize(pending.len() + page_left, 0);
        page_left = PAGE_BYTES;
    }
    let mut rest = stored;
    let mut is_first = true;
    loop {
        let (data, behind) = rest.split_at(rest.len().min(page_left - HEAD_BYTES));
        let part = match (is_first, behind.is_empty()) {
            (true, true) => Part::Full,
            (true, false) => Part::First,
            (false, false) => Part::Middle,
            (false, true) => Part::Last,
        };
        let head = FragmentHead { part, packing, len: data.len(), crc: crc32c(data) };
        pending.extend_from_slice(&head.to_bytes());
        pending.extend_from_slice(data);
        if behind.is_empty() {
            return;
        }
        rest = behind;
        is_first = false;
        page_left = PAGE_BYTES;
    }
}
