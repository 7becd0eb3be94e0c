//! Selecting series from head and blocks.

use std::{ops::RangeInclusive, sync::Arc};

use smallvec::SmallVec;

use super::Shared;
use crate::{
    Error, Result,
    append::SeriesHandle,
    block::{BlockMeta, BlockReader, IndexReader},
    chunkenc::merge_overlapping,
    labels::Labels,
    matchers::{MatchType, Matcher},
    postings::{self, PostingsSource},
    query::{Chunk, Query},
    tombstones::delete_from_chunk,
    types::IndexSeriesId,
};

/// The series a query selected. Holds what it needs to read their chunks, so that a block may be
/// deleted meanwhile.
///
/// If the head is truncated meanwhile, what it held of a series has gone into a block that this
/// selection does not know. [`Self::chunks`] notices that and looks into the newer blocks.
#[derive(Debug)]
pub struct Selection {
    shared: Arc<Shared>,
    mint: i64,
    maxt: i64,
    /// What the head is asked for: the part of the range that no block holds.
    head_range: RangeInclusive<i64>,
    head_truncations: u64,
    blocks: Vec<Arc<BlockReader>>,
    series: Vec<Selected>,
}

#[derive(Debug)]
struct Selected {
    labels: Labels,
    sources: SmallVec<[Source; 2]>,
}

/// Where samples of a series lie.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Index of the block in the selection, and the series there.
    Block(u32, IndexSeriesId),
    Head(SeriesHandle),
}

impl Selection {
    pub(super) fn new(shared: Arc<Shared>, query: &Query) -> Result<Self> {
        loop {
            let truncations = shared.head.truncations();
            let selection = Self::once(shared.clone(), query)?;
            // Had the head been truncated between the look at the blocks and the look at the head,
            // both would have missed what was moved.
            if selection.head_truncations == truncations {
                return Ok(selection);
            }
        }
    }

    fn once(shared: Arc<Shared>, query: &Query) -> Result<Self> {
        let over_limit = |count: usize| query.series_limit.is_some_and(|limit| count > limit);
        let limit_error =
            || Error::QueryLimit { what: "series", limit: query.series_limit.unwrap_or(0) as u64 };
        let (blocks, newest_block_end) = shared.blocks_and_their_end(query);
        let mut found: Vec<(Labels, Source)> = Vec::new();
        for (block_index, block) in (0u32..).zip(&blocks) {
            let before = found.len();
            for series in select_in_block(block, &query.matchers)? {
                if let Some(labels) = labels_if_in_range(block, series, query)? {
                    found.push((labels, Source::Block(block_index, series)));
                    if over_limit(found.len() - before) {
                        return Err(limit_error());
                    }
                }
            }
        }
        let head_range = query.mint.max(newest_block_end)..=query.maxt;
        let in_head = shared.head.select(&query.matchers, head_range.clone(), query.mint)?;
        found.extend(in_head.series.into_iter().map(|(labels, handle)| (labels, Source::Head(handle))));
        found.sort_by(|left, right| left.0.cmp(&right.0));
        let mut series: Vec<Selected> = Vec::with_capacity(found.len());
        for (labels, source) in found {
            match series.last_mut() {
                Some(last) if last.labels == labels => last.sources.push(source),
                _ => series.push(Selected { labels, sources: SmallVec::from_slice(&[source]) }),
            }
        }
        if over_limit(series.len()) {
            return Err(limit_error());
        }
        Ok(Self {
            shared,
            mint: query.mint,
            maxt: query.maxt,
            head_range,
            head_truncations: in_head.truncations,
            blocks,
            series,
        })
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// True if nothing was selected.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Labels of series number `index`; they ascend with it.
    ///
    /// # Panics
    /// If there is no such series.
    pub fn labels(&self, index: usize) -> &Labels {
        &self.series[index].labels
    }

    /// Chunks of series number `index` that overlap the range, in order of their first samples.
    /// Reads from disk. Deleted samples are left out. Chunks of floats do not overlap each other: where late
    /// samples lie between others, chunks are made anew.
    ///
    /// # Errors
    /// If a block is damaged or cannot be read.
    ///
    /// # Panics
    /// If there is no such series.
    pub fn chunks(&self, index: usize) -> Result<Vec<Chunk>> {
        let Selected { labels, sources } = &self.series[index];
        let mut chunks = Vec::new();
        let mut late = Vec::new();
        for source in sources {
            match *source {
                Source::Block(block, series) => {
                    self.chunks_of_block(&self.blocks[block as usize], series, &mut chunks)?
                }
                Source::Head(handle) => {
                    let in_head = self.shared.head.chunks(handle, self.head_range.clone(), self.mint)?;
                    chunks.extend(in_head.chunks);
                    late = in_head.late;
                    if in_head.truncations != self.head_truncations {
                        self.chunks_of_newer_blocks(labels, in_head.min_valid, &mut chunks)?;
                    }
                }
            }
        }
        chunks.append(&mut late);
        chunks.sort_by_key(|chunk| (chunk.mint, chunk.maxt));
        merge_overlapping(chunks, self.shared.options.block_range_ms)
            .map_err(|error| Error::corrupt(&self.shared.dir, 0, format!("chunk of {labels}: {error}")))
    }

    fn chunks_of_block(
        &self,
        block: &BlockReader,
        series: IndexSeriesId,
        chunks: &mut Vec<Chunk>,
    ) -> Result<()> {
        chunks_of_block(block, series, self.mint..=self.maxt, chunks)
    }

    /// Chunks of the series `labels` in blocks cut since the selection was made that end by `end`.
    fn chunks_of_newer_blocks(&self, labels: &Labels, end: i64, chunks: &mut Vec<Chunk>) -> Result<()> {
        let newer: Vec<Arc<BlockReader>> = {
            let all = self.shared.blocks.read();
            let unknown =
                all.iter().filter(|block| !self.blocks.iter().any(|known| Arc::ptr_eq(known, block)));
            // All that overlapped then are known. What is newer and ends later is in the head, too.
            let is_newer = |meta: &BlockMeta| {
                meta.max_time <= end && meta.min_time <= self.maxt && meta.max_time > self.mint
            };
            unknown.filter(|block| is_newer(block.meta())).cloned().collect()
        };
        for block in newer {
            chunks_of_labels(&block, labels, self.mint..=self.maxt, chunks)?;
        }
        Ok(())
    }
}

/// Chunks of the series `labels` in a block, if they overlap `range`.
pub(super) fn chunks_of_labels(
    block: &BlockReader,
    labels: &Labels,
    range: RangeInclusive<i64>,
    chunks: &mut Vec<Chunk>,
) -> Result<()> {
    let exact = labels.iter().map(|(name, value)| Matcher::new(MatchType::Equal, name, value));
    let exact = exact.collect::<Result<Vec<_>>>()?;
    for series in select_in_block(block, &exact)? {
        if block.index().series(series)?.0 == *labels {
            chunks_of_block(block, series, range.clone(), chunks)?;
        }
    }
    Ok(())
}

fn chunks_of_block(
    block: &BlockReader,
    series: IndexSeriesId,
    range: RangeInclusive<i64>,
    chunks: &mut Vec<Chunk>,
) -> Result<()> {
    let deleted = block.tombstones().get(series);
    for meta in block.index().series(series)?.1 {
        if meta.mint > *range.end() || meta.maxt < *range.start() {
            continue;
        }
        let chunk = block.chunk(&meta)?;
        match deleted {
            Some(deleted) => chunks.extend(
                delete_from_chunk(chunk, deleted)
                    .map_err(|error| Error::corrupt(block.dir(), 0, format!("chunk of a block: {error}")))?,
            ),
            None => chunks.push(chunk),
        }
    }
    Ok(())
}

/// Labels of a series of a block, if it has samples left in the range of `query`.
fn labels_if_in_range(block: &BlockReader, series: IndexSeriesId, query: &Query) -> Result<Option<Labels>> {
    let (labels, chunks) = block.index().series(series)?;
    let deleted = block.tombstones().get(series);
    let has_samples = chunks.iter().any(|chunk| {
        let overlaps = chunk.mint <= query.maxt && chunk.maxt >= query.mint;
        overlaps && !deleted.is_some_and(|deleted| deleted.covers(chunk.mint, chunk.maxt))
    });
    Ok(has_samples.then_some(labels))
}

fn select_in_block(block: &BlockReader, matchers: &[Matcher]) -> Result<impl Iterator<Item = IndexSeriesId>> {
    let ids = postings::resolve(&mut BlockPostings(block.index()), matchers)?;
    Ok(ids.into_iter().map(IndexSeriesId))
}

struct BlockPostings<'a>(&'a IndexReader);

fn numbers(ids: Vec<IndexSeriesId>) -> Vec<u32> {
    ids.into_iter().map(|id| id.0).collect()
}

impl PostingsSource for BlockPostings<'_> {
    fn all(&mut self) -> Result<Vec<u32>> {
        self.0.postings("", "").map(numbers)
    }

    fn with_value(&mut self, name: &str, value: &str) -> Result<Vec<u32>> {
        self.0.postings(name, value).map(numbers)
    }

    fn with_values(&mut self, name: &str, wanted: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u32>> {
        self.0.postings_for_values(name, wanted).map(numbers)
    }
}
