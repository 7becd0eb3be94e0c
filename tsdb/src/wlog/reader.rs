//! Reading a log: the path of every start, so it copies as little as it can.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Damage, LogPosition, PAGE_BYTES, RECORD_BYTES_MAX, damage,
    fragment::{FragmentHead, HEAD_BYTES, Packing, Part},
    segment_path,
    unpack::Unpacker,
};
use crate::{
    crc::crc32c,
    error::{Error, Result},
    fs::{Fs, ReadFile},
    types::SegmentIndex,
};

/// How much of a segment is read at once: 32 pages.
const BLOCK_BYTES: usize = 32 * PAGE_BYTES;

/// Streams the records of a list of segments.
///
/// A plain record that lies in one page is lent straight from the block that was read; all others go
/// through one of two buffers that are reused.
pub struct LogReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    segments: Vec<SegmentIndex>,
    /// How many of `segments` were begun.
    begun: usize,
    cursor: Option<Cursor>,
    /// Memory of the block; moves from cursor to cursor.
    block: Vec<u8>,
    /// A record of several fragments, put together.
    joined: Vec<u8>,
    unpacker: Unpacker,
    position: LogPosition,
    damage: Option<Found>,
}

/// Where the reader stands in a segment.
struct Cursor {
    file: Arc<dyn ReadFile>,
    segment: SegmentIndex,
    /// Length of the file when it was opened.
    len: u64,
    /// Offset in the file of the block's first byte: a page border.
    block_start: u64,
    block_len: usize,
    /// Offset in the block of the next byte to read.
    at: usize,
}

/// Damage that was met.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Start of the record that cannot be read.
    pub record: LogPosition,
    /// Where in that segment the first byte is that does not fit; at its end, if something is missing.
    pub at: u64,
    /// The checksums were right, but the content was not. No torn write leaves that.
    pub checked: bool,
    pub what: String,
}

/// Why there is no next fragment.
enum Stop {
    EndOfSegment,
    Io(std::io::Error),
    Damage { at: u64, checked: bool, what: String },
}

/// A fragment in the block.
struct Fragment {
    head: FragmentHead,
    /// Offset of its head in the segment.
    start: u64,
    /// Offset of its data in the block.
    data: usize,
    fills_page: bool,
}

/// Where a record is to be found.
enum Place {
    Block { data: usize, len: usize },
    Joined,
    Unpacked { len: usize },
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LogReader")
            .field("dir", &self.dir)
            .field("position", &self.position)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

impl LogReader {
    /// Reads `segments` of the log in `dir`, in this order. The last of them is taken for the end of
    /// the log. Files are opened when their turn comes.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path, segments: Vec<SegmentIndex>) -> Self {
        let first = segments.first().copied().unwrap_or(SegmentIndex(0));
        Self {
            fs,
            dir: dir.to_owned(),
            segments,
            begun: 0,
            cursor: None,
            block: Vec::new(),
            joined: Vec::new(),
            unpacker: Unpacker::new(),
            position: LogPosition { segment: first, offset: 0 },
            damage: None,
        }
    }

    /// The next record, or `None` at the end of the log. An empty record is a record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the offset of the record that cannot be read, now and whenever this is
    /// called again; [`classify`](Self::classify) then tells what it is. [`Error::Io`] if reading
    /// fails.
    // It lends its result, which no iterator can.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        if let Some(found) = &self.damage {
            return Err(self.corrupt(found));
        }
        Ok(match self.read_record()? {
            None => None,
            Some(Place::Block { data, len }) => self.block.get(data..data + len),
            Some(Place::Joined) => Some(&self.joined),
            Some(Place::Unpacked { len }) => Some(self.unpacker.output(len)),
        })
    }

    /// Where the record lies that was returned last, or that could not be read.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Whether the damage that [`next`](Self::next) met is a torn tail. `None` if it met none.
    /// Searches the rest of the segment for anything valid.
    pub fn classify(&self) -> Result<Option<Damage>> {
        let Some(found) = &self.damage else { return Ok(None) };
        let is_last = self.segments.last() == Some(&found.record.segment);
        let LogPosition { segment, offset } = found.record;
        if is_last && !found.checked && !self.anything_valid_from(found)? {
            return Ok(Some(Damage::TornTail { segment, offset }));
        }
        Ok(Some(Damage::Middle { segment, offset }))
    }

    fn anything_valid_from(&self, found: &Found) -> Result<bool> {
        let path = segment_path(&self.dir, found.record.segment);
        let file = self.fs.open(&path).map_err(Error::io("open", &path))?;
        damage::anything_valid_from(file.as_ref(), found.at).map_err(Error::io("read", path))
    }

    fn corrupt(&self, found: &Found) -> Error {
        let path = segment_path(&self.dir, found.record.segment);
        Error::corrupt(path, found.record.offset, format!("{} (at {})", found.what, found.at))
    }

    fn read_record(&mut self) -> Result<Option<Place>> {
        loop {
            if self.cursor.is_none() && !self.begin_segment()? {
                return Ok(None);
            }
            match self.read_in_segment() {
                Ok(place) => return Ok(Some(place)),
                Err(Stop::EndOfSegment) => self.cursor = None,
                Err(Stop::Io(error)) => {
                    let path = segment_path(&self.dir, self.position.segment);
                    return Err(Error::io("read", path)(error));
                }
                Err(Stop::Damage { at, checked, what }) => {
                    return Err(self.note_damage(at, checked, what));
                }
            }
        }
    }

    fn note_damage(&mut self, at: u64, checked: bool, what: String) -> Error {
        let found = Found { record: self.position, at, checked, what };
        let error = self.corrupt(&found);
        self.damage = Some(found);
        error
    }

    fn begin_segment(&mut self) -> Result<bool> {
        let Some(&segment) = self.segments.get(self.begun) else { return Ok(false) };
        let path = segment_path(&self.dir, segment);
        let file = self.fs.open(&path).map_err(Error::io("open", &path))?;
        let len = file.size().map_err(Error::io("look at", &path))?;
        self.begun += 1;
        self.position = LogPosition { segment, offset: 0 };
        self.cursor = Some(Cursor { file, segment, len, block_start: 0, block_len: 0, at: 0 });
        Ok(true)
    }

    /// The next record of the current segment.
    fn read_in_segment(&mut self) -> Result<Place, Stop> {
        let Some(cursor) = &mut self.cursor else { return Err(Stop::EndOfSegment) };
        let first = loop {
            match cursor.next_fragment(&mut self.block) {
                Ok(Some(fragment)) => break fragment,
                Ok(None) => {}
                Err(stop) => {
                    self.position = LogPosition { segment: cursor.segment, offset: cursor.offset() };
                    return Err(stop);
                }
            }
        };
        self.position = LogPosition { segment: cursor.segment, offset: first.start };
        let stored = match first.head.part {
            Part::Full => self.block.get(first.data..first.data + first.head.len).unwrap_or_default(),
            Part::First => {
                cursor.join(&mut self.block, &mut self.joined, &first)?;
                &self.joined
            }
            Part::Middle | Part::Last => {
                return Err(damaged(first.start, "fragment of a record that was not begun"));
            }
        };
        if first.head.packing != Packing::Plain {
            let unpacked = self.unpacker.unpack(stored, first.head.packing);
            return match unpacked {
                Ok(len) => Ok(Place::Unpacked { len }),
                Err(what) => Err(Stop::Damage { at: first.start, checked: true, what }),
            };
        }
        if self.unpacker.lacks_its_flag(stored) {
            let what = "record is compressed, but says that it is not".to_owned();
            return Err(Stop::Damage { at: first.start, checked: true, what });
        }
        match first.head.part {
            Part::Full => Ok(Place::Block { data: first.data, len: first.head.len }),
            _ => Ok(Place::Joined),
        }
    }
}

impl Cursor {
    /// Offset in the segment of the next byte to read.
    fn offset(&self) -> u64 {
        self.block_start + self.at as u64
    }

    /// What of the current page is in the file and not yet read. Empty only at the end of the file.
    fn rest_of_page<'b>(&mut self, block: &'b mut Vec<u8>) -> Result<&'b [u8], Stop> {
        if self.at == self.block_len {
            self.read_block(block).map_err(Stop::Io)?;
        }
        let page_end = (self.at / PAGE_BYTES + 1) * PAGE_BYTES;
        Ok(block.get(self.at..page_end.min(self.block_len)).unwrap_or_default())
    }

    fn read_block(&mut self, block: &mut Vec<u8>) -> std::io::Result<()> {
        self.block_start += self.block_len as u64;
        self.at = 0;
        self.block_len = 0;
        let left = self.len.saturating_sub(self.block_start);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        if block.len() < wanted {
            block.resize(wanted, 0);
        }
        let target = block.get_mut(..wanted).unwrap_or_default();
        self.file.read_exact_at(target, self.block_start)?;
        self.block_len = wanted;
        Ok(())
    }

    /// The next fragment. `None` if there was only the padding of a page, which is then behind us.
    #[inline]
    fn next_fragment(&mut self, block: &mut Vec<u8>) -> Result<Option<Fragment>, Stop> {
        let page = self.rest_of_page(block)?;
        let start = self.offset();
        let page_left = PAGE_BYTES - self.at % PAGE_BYTES;
        let Some((&kind, _)) = page.split_first() else { return Err(Stop::EndOfSegment) };
        if kind == 0 || page_left < HEAD_BYTES {
            if page.iter().any(|&byte| byte != 0) {
                return Err(damaged(start, "padding is not zero"));
            }
            self.at += page.len();
            return Ok(None);
        }
        // Zeros are supplied for padding only: a fragment that was written is in the file as a whole.
        let Some((head, rest)) = page.split_first_chunk::<HEAD_BYTES>() else {
            return Err(damaged(start, "file ends within the head of a fragment"));
        };
        let Some(head) = FragmentHead::parse(head) else {
            return Err(damaged(start, "unknown kind of fragment"));
        };
        let Some(data) = rest.get(..head.len) else {
            return Err(damaged(start, "fragment reaches beyond its page or the file"));
        };
        if crc32c(data) != head.crc {
            return Err(damaged(start, "checksum does not match"));
        }
        let data = self.at + HEAD_BYTES;
        self.at = data + head.len;
        Ok(Some(Fragment { head, start, data, fills_page: self.at.is_multiple_of(PAGE_BYTES) }))
    }

    /// Puts the record that begins with `first` together in `joined`.
    fn join(&mut self, block: &mut Vec<u8>, joined: &mut Vec<u8>, first: &Fragment) -> Result<(), Stop> {
        joined.clear();
        let mut fills_page = first.fills_page;
        joined.extend_from_slice(block.get(first.data..first.data + first.head.len).unwrap_or_default());
        loop {
            // Only the last fragment leaves room in its page. This is checked because a lost page in
            // the middle of a record has no checksum of its own.
            if !fills_page {
                return Err(damaged(self.offset(), "record goes on before the end of the page"));
            }
            let fragment = match self.next_fragment(block) {
                Ok(Some(fragment)) => fragment,
                Ok(None) => return Err(damaged(self.offset(), "padding within a record")),
                Err(Stop::EndOfSegment) => {
                    return Err(damaged(self.offset(), "record is not finished"));
                }
                Err(stop) => return Err(stop),
            };
            let goes_on = matches!(fragment.head.part, Part::Middle | Part::Last);
            if !goes_on || fragment.head.packing != first.head.packing {
                return Err(damaged(fragment.start, "record is not finished before the next"));
            }
            if joined.len() + fragment.head.len > RECORD_BYTES_MAX {
                return Err(damaged(fragment.start, "record is too long"));
            }
            let data = block.get(fragment.data..fragment.data + fragment.head.len);
            joined.extend_from_slice(data.unwrap_or_default());
            if fragment.head.part == Part::Last {
                return Ok(());
            }
            fills_page = fragment.fills_page;
        }
    }
}

fn damaged(at: u64, what: &str) -> Stop {
    Stop::Damage { at, checked: false, what: what.to_owned() }
}
