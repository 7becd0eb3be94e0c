//! One series of the head: its open chunk, and where its full chunks lie.

use super::index::SymbolPairs;
use crate::{
    append::RefuseReason,
    chunkenc::{FloatCutter, OpenChunk, XorState},
    types::{HeadChunkRef, Sample, SeriesRef},
};

/// The most that one sample adds to a chunk, in bytes.
const SAMPLE_BYTES_MAX: usize = 20;

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
    /// Same time as the last sample of the last full chunk; that chunk has to be read to tell a
    /// repeat from a conflict.
    CompareWithChunk,
    /// To be refused.
    Refuse(RefuseReason),
}

/// One series of the head. Ordered by how often an append touches the fields.
///
/// `last_t` is the time of the newest sample, in the open chunk or, when that is empty, in the last
/// full one. Full chunks ascend and do not overlap, and the open chunk begins after them.
#[derive(Debug)]
pub(crate) struct MemSeries {
    /// Its number in the log; 0 marks a free slot.
    pub series: SeriesRef,
    /// Time of the newest sample; `i64::MIN` if there is none.
    pub last_t: i64,
    xor: XorState,
    cutter: FloatCutter,
    open: Vec<u8>,
    open_mint: i64,
    pub mapped: Vec<MappedChunk>,
    pub labels: SymbolPairs,
    /// Set while there are no samples: the log segment that was current when the last chunk went,
    /// or when the series was created. The series leaves the head when a checkpoint has passed that
    /// segment, since until then the log still names its ref.
    pub retired_in: Option<u32>,
}

impl MemSeries {
    pub fn new(series: SeriesRef, labels: SymbolPairs) -> Self {
        Self {
            series,
            last_t: i64::MIN,
            xor: XorState::new(),
            cutter: FloatCutter::new(),
            open: Vec::new(),
            open_mint: 0,
            mapped: Vec::new(),
            labels,
            retired_in: None,
        }
    }

    /// What a free slot holds.
    pub fn free() -> Self {
        Self::new(SeriesRef(0), Box::default())
    }

    /// Something read from where the next sample goes.
    #[inline]
    pub fn touch(&self) -> u8 {
        self.open.last().copied().unwrap_or_default()
    }

    /// Judges a sample. `bound` is the oldest time that the head takes now.
    #[inline]
    pub fn judge(&self, sample: Sample, bound: i64) -> Verdict {
        if sample.t > self.last_t && sample.t >= bound {
            return Verdict::Store;
        }
        if sample.t == self.last_t && !self.open.is_empty() {
            let same = self.xor.last_bits() == sample.bits;
            return if same { Verdict::Repeated } else { Verdict::Refuse(RefuseReason::DuplicateTimestamp) };
        }
        if sample.t == self.last_t && !self.mapped.is_empty() {
            return Verdict::CompareWithChunk;
        }
        let reason = if sample.t < bound { RefuseReason::OutOfBounds } else { RefuseReason::OutOfOrder };
        Verdict::Refuse(reason)
    }

    /// True if a sample at `t` begins a new chunk. Must be asked once before each [`Self::push`].
    #[inline]
    pub fn cut_before(&mut self, t: i64, range_ms: i64) -> bool {
        let open = (!self.open.is_empty()).then_some(OpenChunk {
            mint: self.open_mint,
            maxt: self.last_t,
            bytes: self.open.len(),
            samples: self.xor.count(),
        });
        self.cutter.cut_before(range_ms, open, t)
    }

    /// Appends a sample, which must be newer than all before, to the open chunk.
    #[inline]
    pub fn push(&mut self, sample: Sample) {
        if self.open.is_empty() {
            self.open_mint = sample.t;
        }
        // Grows by half instead of doubling: most of the memory of a head is open chunks.
        if self.open.capacity() - self.open.len() < SAMPLE_BYTES_MAX {
            self.open.reserve_exact(SAMPLE_BYTES_MAX + (self.open.len() / 2).max(12));
        }
        self.xor.append(&mut self.open, sample.t, sample.bits);
        self.last_t = sample.t;
        self.retired_in = None;
    }

    /// The open chunk, if it has samples: first and last time, data.
    pub fn open_chunk(&self) -> Option<(i64, i64, &[u8])> {
        (!self.open.is_empty()).then_some((self.open_mint, self.last_t, &self.open[..]))
    }

    /// Takes the data of the open chunk, which is empty afterwards.
    pub fn take_open(&mut self) -> Vec<u8> {
        self.xor = XorState::new();
        std::mem::take(&mut self.open)
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
    pub fn truncate(&mut self, mint: i64) -> usize {
        let before = self.chunk_count();
        self.mapped.retain(|chunk| chunk.maxt >= mint);
        if !self.open.is_empty() && self.last_t < mint {
            self.take_open();
        }
        before - self.chunk_count()
    }

    /// Forgets all samples, as if none had ever come.
    pub fn reset(&mut self) {
        self.mapped.clear();
        self.take_open();
        self.last_t = i64::MIN;
    }
}
