//! Reads frames, which come from another process and may be anything.

use super::{ANONYMOUS, FLAG_BITS, FrameError, LABELS, MANY, unzigzag};

/// Reads the batches of a frame, one after the other.
#[derive(Clone, Debug)]
pub struct FrameReader<'f> {
    cursor: Cursor<'f>,
}

impl<'f> FrameReader<'f> {
    /// Reads from the start of `frame`.
    pub fn new(frame: &'f [u8]) -> Self {
        Self { cursor: Cursor { rest: frame, len: frame.len() } }
    }

    /// The next batch; `None` at the end. After an error the rest of the frame cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<BatchReader<'f>>, FrameError> {
        if self.cursor.rest.is_empty() {
            return Ok(None);
        }
        let len = self.cursor.u32()? as usize;
        let mut body = self.cursor.part(len)?;
        let series_count = body.u32()?;
        let sequence = body.varint()?;
        let epoch = body.varint()?;
        let digest = body.u64()?;
        let tenant = body.varint()?;
        let tenant_name = if tenant & 1 == 1 { Some(body.text()?) } else { None };
        let tenant = u32::try_from(tenant >> 1).map_err(|_| body.error("tenant number too large"))?;
        let base_ms = unzigzag(body.varint()?);
        let head = BatchHead { series_count, sequence, epoch, digest, tenant, tenant_name };
        Ok(Some(BatchReader { head, body, series_left: series_count, last: -1, base_ms, before: 0, left: 0 }))
    }
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead<'f> {
    /// Number of its series.
    pub series_count: u32,
    /// Its number on the stream.
    pub sequence: u64,
    /// Epoch of the sender's ring.
    pub epoch: u64,
    /// Digest of the sender's ring.
    pub digest: u64,
    /// Number of the tenant on the stream.
    pub tenant: u32,
    /// Name of the tenant, where the number is used for the first time.
    pub tenant_name: Option<&'f str>,
}

/// How a series is named.
#[derive(Clone, Debug)]
pub struct SeriesHead<'f> {
    /// Its number on the stream; `None` if it has none.
    pub number: Option<u32>,
    /// Its labels, if it is defined here or has no number.
    pub labels: Option<LabelsReader<'f>>,
}

/// Reads the series of a batch and their samples.
///
/// For each series call [`Self::next_series`], then [`Self::next_sample`] until it returns `None`.
#[derive(Clone, Debug)]
pub struct BatchReader<'f> {
    head: BatchHead<'f>,
    body: Cursor<'f>,
    series_left: u32,
    last: i64,
    base_ms: i64,
    /// Time of the sample before.
    before: i64,
    /// Samples of the series that were not read yet.
    left: u64,
}

impl<'f> BatchReader<'f> {
    /// What the batch says of itself.
    pub fn head(&self) -> &BatchHead<'f> {
        &self.head
    }

    /// The next series; samples of the one before that were not read are passed over.
    #[inline]
    pub fn next_series(&mut self) -> Result<Option<SeriesHead<'f>>, FrameError> {
        while self.left > 0 {
            self.next_sample()?;
        }
        if self.series_left == 0 {
            return if self.body.rest.is_empty() {
                Ok(None)
            } else {
                Err(self.body.error("bytes left over"))
            };
        }
        self.series_left -= 1;
        let head = self.body.varint()?;
        let number = if head & ANONYMOUS != 0 {
            if head & LABELS == 0 {
                return Err(self.body.error("series without number and labels"));
            }
            None
        } else {
            let number = unzigzag(head >> FLAG_BITS).checked_add(self.last + 1);
            let number = number.and_then(|number| u32::try_from(number).ok());
            let Some(number) = number else { return Err(self.body.error("series number out of range")) };
            self.last = number.into();
            Some(number)
        };
        let labels = if head & LABELS != 0 { Some(self.labels()?) } else { None };
        self.left = if head & MANY != 0 { self.body.varint()? } else { 1 };
        // Each has 9 bytes at least; what cannot be there is not waited for.
        if self.left > (self.body.rest.len() / 9) as u64 {
            return Err(self.body.error("fewer samples than announced"));
        }
        self.before = self.base_ms;
        Ok(Some(SeriesHead { number, labels }))
    }

    /// The next sample of the series: time and bits of the value.
    #[inline]
    pub fn next_sample(&mut self) -> Result<Option<(i64, u64)>, FrameError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let t = self.before.wrapping_add(unzigzag(self.body.varint()?));
        let bits = self.body.u64()?;
        self.before = t;
        Ok(Some((t, bits)))
    }

    /// Passes over labels, all of which it looks at, and returns a reader of them.
    fn labels(&mut self) -> Result<LabelsReader<'f>, FrameError> {
        let count = self.body.varint()?;
        // Two lengths each.
        if count > (self.body.rest.len() / 2) as u64 {
            return Err(self.body.error("fewer labels than announced"));
        }
        let labels = LabelsReader { cursor: self.body, left: count };
        for _ in 0..count {
            self.body.text()?;
            self.body.text()?;
        }
        Ok(labels)
    }
}

/// Iterates over labels: name and value.
#[derive(Clone, Debug)]
pub struct LabelsReader<'f> {
    cursor: Cursor<'f>,
    left: u64,
}

impl<'f> Iterator for LabelsReader<'f> {
    type Item = (&'f str, &'f str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // They were looked at before.
        Some((self.cursor.text().ok()?, self.cursor.text().ok()?))
    }
}

#[derive(Clone, Copy, Debug)]
struct Cursor<'f> {
    rest: &'f [u8],
    /// Length of the frame up to the end of `rest`.
    len: usize,
}

impl<'f> Cursor<'f> {
    #[cold]
    fn error(&self, what: &'static str) -> FrameError {
        FrameError { what, offset: self.len - self.rest.len() }
    }

    fn part(&mut self, len: usize) -> Result<Self, FrameError> {
        let Some((part, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error("ends too early"));
        };
        let end = self.len - rest.len();
        self.rest = rest;
        Ok(Self { rest: part, len: end })
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error("ends too early"));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, FrameError> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(byte.into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0u64;
        let mut rest = self.rest;
        for index in 0..10 {
            let Some((&byte, tail)) = rest.split_first() else {
                return Err(self.error("ends too early"));
            };
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            rest = tail;
            if byte < 0x80 {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.error("number too large"))
    }

    fn text(&mut self) -> Result<&'f str, FrameError> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| self.error("ends too early"))?;
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error("ends too early"));
        };
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("text is not UTF-8"))?;
        self.rest = rest;
        Ok(text)
    }
}
