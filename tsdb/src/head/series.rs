//! One series of the head: its open chunk, and where its full chunks lie.

use super::{
    index::SymbolPairs,
    open_chunks::{OpenBytes, OpenChunks},
};
use crate::{
    chunkenc::{FloatCutter, OpenChunk, XorState},
    types::{HeadChunkRef, Sample, SeriesRef},
};

/// A full chunk of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappedChunk {
    /// Where it lies in chunks_head.
    pub at: HeadChunkRef,
    /// First sample's time.
    pub mint: i64,
    /// Last sample's time.
    pub maxt: i64,
}

/// What becomes of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be stored.
    Store,
    /// An exact repeat of what is stored: success, and nothing to do.
    Repeated,
    /// Another value than the newest sample, at its time.
    Conflict,
    /// Not newer than what is stored, or older than what is taken in order: it may repeat what is stored, or be
    /// late.
    Late,
}

/// Bytes of the sample count that a chunk begins with. Open chunks lie in memory without it.
const CHUNK_HEADER_LEN: usize = 2;

/// [`MemSeries::retired_in`] of a series that has samples.
const NOT_RETIRED: u32 = u32::MAX;

/// One series of the head: two cache lines, of which an append of a sample touches the first.
///
/// Full chunks ascend and do not overlap, and the open chunk begins after them.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct MemSeries {
    /// Its number in the log; 0 marks a free slot.
    pub series: SeriesRef,
    xor: XorState,
    cutter: FloatCutter,
    open: OpenBytes,
    /// See [`Self::retired_in`].
    retired_in: u32,
    open_mint: i64,
    pub mapped: Vec<MappedChunk>,
    pub labels: SymbolPairs,
}

impl MemSeries {
    pub fn new(series: SeriesRef, labels: SymbolPairs) -> Self {
        Self {
            series,
            xor: XorState::new(),
            cutter: FloatCutter::new(),
            open: OpenBytes::EMPTY,
            retired_in: NOT_RETIRED,
            open_mint: 0,
            mapped: Vec::new(),
            labels,
        }
    }

    /// What a free slot holds.
    pub fn free() -> Self {
        Self::new(SeriesRef(0), Box::default())
    }

    /// Something read from where the next sample goes.
    #[inline]
    pub fn touch(&self) -> u8 {
        self.xor.count() as u8
    }

    /// Time of the newest sample, in the open chunk or, when that is empty, in the last full one;
    /// `i64::MIN` if there is none.
    #[inline]
    pub fn last_t(&self) -> i64 {
        if self.open.is_empty() {
            return self.mapped.last().map_or(i64::MIN, |chunk| chunk.maxt);
        }
        self.xor.last_t()
    }

    /// Some while there are no samples: the log segment that was current when the last chunk went,
    /// or when the series was created. The series leaves the head when a checkpoint has passed that
    /// segment, since until then the log still names its ref.
    pub fn retired_in(&self) -> Option<u32> {
        (self.retired_in != NOT_RETIRED).then_some(self.retired_in)
    }

    /// Notes that there are no samples while `segment` is current.
    pub fn retire(&mut self, segment: u32) {
        self.retired_in = segment;
    }

    /// Judges a sample. `bound` is the oldest time that the head takes in order now.
    #[inline]
    pub fn judge(&self, sample: Sample, bound: i64) -> Verdict {
        let last_t = self.last_t();
        if sample.t > last_t && sample.t >= bound {
            return Verdict::Store;
        }
        if sample.t == last_t && !self.open.is_empty() {
            let same = self.xor.last_bits() == sample.bits;
            return if same { Verdict::Repeated } else { Verdict::Conflict };
        }
        Verdict::Late
    }

    /// True if a sample at `t` begins a new chunk. Must be asked once before each [`Self::push`].
    #[inline]
    pub fn cut_before(&mut self, t: i64, range_ms: i64) -> bool {
        let open = (!self.open.is_empty()).then_some(OpenChunk {
            mint: self.open_mint,
            maxt: self.xor.last_t(),
            bytes: CHUNK_HEADER_LEN + self.open.len(),
            samples: self.xor.count(),
        });
        self.cutter.cut_before(range_ms, open, t)
    }

    /// Appends a sample, which must be newer than all before, to the open chunk.
    #[inline]
    pub fn push(&mut self, sample: Sample, open_chunks: &mut OpenChunks) {
        if self.open.is_empty() {
            self.open_mint = sample.t;
        }
        open_chunks.write(&mut self.open, &self.xor.encode(sample.t, sample.bits));
        self.retired_in = NOT_RETIRED;
    }

    /// First and last time of the open chunk, if it has samples.
    pub fn open_range(&self) -> Option<(i64, i64)> {
        (!self.open.is_empty()).then(|| (self.open_mint, self.xor.last_t()))
    }

    /// A copy of the open chunk's data.
    pub fn copy_open(&self, open_chunks: &OpenChunks) -> Vec<u8> {
        let mut data = Vec::with_capacity(CHUNK_HEADER_LEN + self.open.len());
        data.extend_from_slice(&self.xor.count().to_be_bytes());
        open_chunks.copy(&self.open, &mut data);
        data
    }

    /// Drops the open chunk.
    pub fn clear_open(&mut self, open_chunks: &mut OpenChunks) {
        self.xor = XorState::new();
        open_chunks.clear(&mut self.open);
    }

    /// Time of the oldest sample, if there is any.
    pub fn min_time(&self) -> Option<i64> {
        self.mapped.first().map(|chunk| chunk.mint).or((!self.open.is_empty()).then_some(self.open_mint))
    }

    /// True if there are no samples.
    pub fn is_empty(&self) -> bool {
        self.mapped.is_empty() && self.open.is_empty()
    }

    /// Number of chunks, the open one included.
    pub fn chunk_count(&self) -> usize {
        self.mapped.len() + usize::from(!self.open.is_empty())
    }

    /// Drops chunks whose samples are all older than `mint`. Returns how many went.
    pub fn truncate(&mut self, mint: i64, open_chunks: &mut OpenChunks) -> usize {
        let before = self.chunk_count();
        self.mapped.retain(|chunk| chunk.maxt >= mint);
        if self.open_range().is_some_and(|(_, maxt)| maxt < mint) {
            self.clear_open(open_chunks);
        }
        before - self.chunk_count()
    }

    /// Forgets all samples, as if none had ever come.
    pub fn reset(&mut self, open_chunks: &mut OpenChunks) {
        self.mapped.clear();
        self.clear_open(open_chunks);
    }
}
