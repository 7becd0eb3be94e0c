//! The bytes of open chunks, of all series of one head.
//!
//! Most of a head's memory is open chunks, and all of them grow, a few bytes at a time. Buffers of
//! their own would be allocated anew five times per chunk, by whichever thread appends, and leave
//! holes of the sizes that nobody needs any more. So the bytes lie in blocks of one size, linked
//! into a chain per chunk: growing never copies, a block that is given back fits every other chunk,
//! and half a block per series is all that is lost.
//!
//! An append only writes here; what it needs to know is in the series. The processor thus does not
//! wait for the memory of the chunk.

use crate::chunkenc::SampleBytes;

/// Bytes of a chunk in one block. With the link a block is two cache lines.
const BLOCK_BYTES: usize = 124;

/// Ends a chain.
const NONE: u32 = u32::MAX;

/// Blocks of the first page. Many tenants have few series.
const FIRST_PAGE: u32 = 16;

/// Blocks of all pages but the first few, which grow up to it: 128 KiB.
const LARGE_PAGE: u32 = 1024;

/// Pages before the first one with [`LARGE_PAGE`] blocks; together they have as many.
const SMALL_PAGES: u32 = (LARGE_PAGE / FIRST_PAGE).ilog2() + 1;

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Block {
    bytes: [u8; BLOCK_BYTES],
    /// The block behind this one, in its chain or among the free ones.
    next: u32,
}

/// Where the bytes of one chunk lie. Belongs to one [`OpenChunks`], which has to be told when they
/// are not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenBytes {
    first: u32,
    last: u32,
    len: u32,
}

impl OpenBytes {
    /// No bytes.
    pub const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True if there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The blocks.
#[derive(Debug)]
pub(crate) struct OpenChunks {
    pages: Vec<Vec<Block>>,
    /// Blocks that were ever in use.
    used: u32,
    /// First block of the chain of free ones.
    free: u32,
}

impl Default for OpenChunks {
    fn default() -> Self {
        Self { pages: Vec::new(), used: 0, free: NONE }
    }
}

/// Page of a block and its place in there.
#[inline]
fn place(block: u32) -> (usize, usize) {
    if block >= LARGE_PAGE {
        let page = SMALL_PAGES - 1 + block / LARGE_PAGE;
        return (page as usize, (block % LARGE_PAGE) as usize);
    }
    match (block / FIRST_PAGE).checked_ilog2() {
        None => (0, block as usize),
        Some(doublings) => (doublings as usize + 1, (block - (FIRST_PAGE << doublings)) as usize),
    }
}

/// Blocks in page number `page`.
fn page_len(page: usize) -> usize {
    let doublings = u32::try_from(page).unwrap_or(u32::MAX).saturating_sub(1);
    if doublings >= SMALL_PAGES - 1 { LARGE_PAGE as usize } else { (FIRST_PAGE << doublings) as usize }
}

impl OpenChunks {
    /// Adds what a sample adds to `chunk`.
    #[inline]
    pub fn write(&mut self, chunk: &mut OpenBytes, sample: &SampleBytes) {
        let bytes = sample.bytes();
        if bytes.is_empty() {
            return;
        }
        let replaced = u32::from(sample.replaces_last);
        let start = (chunk.len - replaced) as usize % BLOCK_BYTES;
        chunk.len += bytes.len() as u32 - replaced;
        if start == 0 && replaced == 0 {
            self.extend(chunk);
        }
        let block = self.block_mut(chunk.last);
        if let Some(eight) = sample.first_eight()
            && let Some(target) = block.bytes.get_mut(start..start + 8)
        {
            // Bytes behind the end are nobody's yet.
            target.copy_from_slice(eight);
        } else if let Some(target) = block.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        } else {
            self.write_over_border(chunk, start, bytes);
        }
    }

    #[cold]
    fn write_over_border(&mut self, chunk: &mut OpenBytes, start: usize, bytes: &[u8]) {
        let (here, beyond) = bytes.split_at(BLOCK_BYTES - start);
        self.block_mut(chunk.last).bytes[start..].copy_from_slice(here);
        self.extend(chunk);
        self.block_mut(chunk.last).bytes[..beyond.len()].copy_from_slice(beyond);
    }

    /// Copies the bytes of `chunk` to the end of `target`.
    pub fn copy(&self, chunk: &OpenBytes, target: &mut Vec<u8>) {
        let mut left = chunk.len();
        let mut next = chunk.first;
        while left > 0 {
            let block = self.block(next);
            let here = left.min(BLOCK_BYTES);
            target.extend_from_slice(&block.bytes[..here]);
            left -= here;
            next = block.next;
        }
    }

    /// Takes the blocks of `chunk` back, which is empty afterwards.
    pub fn clear(&mut self, chunk: &mut OpenBytes) {
        let OpenBytes { first, last, .. } = std::mem::replace(chunk, OpenBytes::EMPTY);
        if first != NONE {
            self.block_mut(last).next = self.free;
            self.free = first;
        }
    }

    /// Puts one more block behind `chunk`.
    fn extend(&mut self, chunk: &mut OpenBytes) {
        let block = self.allocate();
        if chunk.first == NONE {
            chunk.first = block;
        } else {
            self.block_mut(chunk.last).next = block;
        }
        chunk.last = block;
    }

    fn allocate(&mut self) -> u32 {
        if self.free != NONE {
            let block = self.free;
            self.free = std::mem::replace(&mut self.block_mut(block).next, NONE);
            return block;
        }
        let block = self.used;
        self.used = block.checked_add(1).expect("fewer than 2^32 blocks fit memory");
        let (page, _) = place(block);
        if page == self.pages.len() {
            self.pages.push(Vec::with_capacity(page_len(page)));
        }
        self.pages[page].push(Block { bytes: [0; BLOCK_BYTES], next: NONE });
        block
    }

    #[inline]
    fn block(&self, block: u32) -> &Block {
        let (page, index) = place(block);
        &self.pages[page][index]
    }

    #[inline]
    fn block_mut(&mut self, block: u32) -> &mut Block {
        let (page, index) = place(block);
        &mut self.pages[page][index]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunkenc::XorState;

    #[test]
    fn pages_hold_all_blocks_without_gaps() {
        let mut expected = (0, 0);
        for block in 0..5 * LARGE_PAGE {
            assert_eq!(place(block), expected, "block {block}");
            expected.1 += 1;
            if expected.1 == page_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(size_of::<Block>(), 128);
    }

    #[test]
    fn blocks_are_used_again() {
        let mut chunks = OpenChunks::default();
        let fill = |chunks: &mut OpenChunks| {
            let (mut state, mut chunk) = (XorState::new(), OpenBytes::EMPTY);
            while chunk.len() < 10 * BLOCK_BYTES {
                let count = u64::from(state.count());
                chunks.write(
                    &mut chunk,
                    &state.encode(count as i64, count.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                );
            }
            chunk
        };
        let (mut one, mut two) = (fill(&mut chunks), fill(&mut chunks));
        let used = chunks.used;
        chunks.clear(&mut one);
        assert!(one.is_empty());
        chunks.clear(&mut one);
        let three = fill(&mut chunks);
        assert_eq!(chunks.used, used);
        let copied = |chunks: &OpenChunks, chunk| {
            let mut data = Vec::new();
            chunks.copy(chunk, &mut data);
            data
        };
        assert_eq!(copied(&chunks, &three), copied(&chunks, &two));
        chunks.clear(&mut two);
        fill(&mut chunks);
        assert_eq!(chunks.used, used);
    }

    proptest! {
        /// Any number of chunks, grown by turns, hold what one buffer each would hold.
        #[test]
        fn chains_equal_buffers(
            steps in prop::collection::vec((0usize..5, any::<bool>(), any::<u64>(), 0i64..100_000, 0u8..40), 0..900),
        ) {
            let mut chunks = OpenChunks::default();
            let mut all = vec![(OpenBytes::EMPTY, XorState::new(), Vec::new(), XorState::new(), 0i64); 5];
            for (index, same, bits, step, end) in steps {
                let (chunk, state, data, data_state, t) = &mut all[index];
                if end == 0 {
                    chunks.clear(chunk);
                    (*state, *data_state) = (XorState::new(), XorState::new());
                    data.clear();
                }
                let bits = if same { state.last_bits() } else { bits };
                *t += if same { 15_000 } else { step };
                chunks.write(chunk, &state.encode(*t, bits));
                data_state.append(data, *t, bits);
                prop_assert_eq!(chunk.len() + 2, data.len());
                let mut copied = state.count().to_be_bytes().to_vec();
                chunks.copy(chunk, &mut copied);
                prop_assert_eq!(&copied, data);
            }
        }
    }
}
