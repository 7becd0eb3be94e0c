//! Blocks: the samples of a range of time, cut from the head and never changed afterwards.
//!
//! A block is a directory named by a ULID:
//!
//! | file | holds |
//! |---|---|
//! | `meta.json` | name, range, figures, descent: [`BlockMeta`] |
//! | `chunks/000001` and up | the samples: [`ChunkFilesReader`] |
//! | `index` | labels, and which chunks each series has: [`IndexReader`] |
//! | `tombstones` | what was deleted since: [`crate::tombstones::Tombstones`] |
//!
//! It comes into being whole: [`write_block`] builds it beside its place and renames it when all of
//! it is durable. It goes by a rename too, so a directory with the name of a block is always a whole
//! block; what a crash leaves under other names is swept at the next open ([`sweep_leftovers`]).
//!
//! [`BlockReader`] holds its files open, so queries end in peace while the block is deleted.

mod chunks_file;
mod dir;
#[cfg(test)]
mod golden;
mod index_file;
mod index_postings;
mod index_reader;
mod index_symbols;
mod index_writer;
mod meta;
mod read_ahead;
mod spool;
mod writer;

use std::path::{Path, PathBuf};

pub use chunks_file::{CHUNK_FILE_BYTES_MAX, CHUNKS_DIR, ChunkCursor, ChunkFilesReader, ChunkFilesWriter};
pub use dir::{block_dirs, delete_block, sweep_leftovers};
pub use index_reader::{ChunkMeta, INDEX_FILE, IndexReader, SeriesCursor};
pub use index_symbols::SortedSymbols;
pub use index_writer::IndexWriter;
pub use meta::{
    BlockCompaction, BlockMeta, BlockParent, BlockStats, HINT_OUT_OF_ORDER, HINT_SELECTED_SERIES,
    HINT_STALE_SERIES, META_FILE, parse_ulid,
};
pub use writer::{BlockSeries, BlockSpec, write_block};

use crate::{
    Error, Result,
    fs::Fs,
    query::Chunk,
    tombstones::{TOMBSTONES_FILE, Tombstones},
    types::{BlockChunkRef, IndexSeriesId},
};

/// An open block. Cheap to share between threads.
#[derive(Debug)]
pub struct BlockReader {
    dir: PathBuf,
    meta: BlockMeta,
    index: IndexReader,
    chunks: ChunkFilesReader,
    tombstones: Tombstones<IndexSeriesId>,
    size_bytes: u64,
}

/// How long the longest pieces of a block are, in bytes. Thanos' Store Gateway fetches so much when
/// it does not know better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Longest series entry of the index, with its length field and crc.
    pub series_max_size: u64,
    /// Longest chunk of the chunk files, with its length field, encoding and crc.
    pub chunk_max_size: u64,
}

impl BlockReader {
    /// Opens the block in the directory `dir` and checks what is cheap to check: `meta.json`, the
    /// frame of the index with its symbols and its postings offset table, headers of the chunk
    /// files, tombstones.
    pub fn open(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let meta = BlockMeta::read(fs, dir)?;
        let index = IndexReader::open_path(fs, &dir.join(INDEX_FILE))?;
        let chunks = ChunkFilesReader::open(fs, &dir.join(CHUNKS_DIR))?;
        let tombstones = Tombstones::read(fs, dir)?;
        let is_small = |name: &str| name == META_FILE || name == TOMBSTONES_FILE;
        let entries = fs.read_dir(dir).map_err(Error::io("list", dir))?;
        let small: u64 = entries.iter().filter(|entry| is_small(&entry.name)).map(|entry| entry.len).sum();
        let size_bytes = small + index.size_bytes() + chunks.size_bytes();
        Ok(Self { dir: dir.to_owned(), meta, index, chunks, tombstones, size_bytes })
    }

    /// The block's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `meta.json` said when the block was opened.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Bytes of all files of the block.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The index.
    pub fn index(&self) -> &IndexReader {
        &self.index
    }

    /// The chunk files.
    pub fn chunks(&self) -> &ChunkFilesReader {
        &self.chunks
    }

    /// Reads one chunk. For many use [`ChunkFilesReader::chunk_with`].
    pub fn chunk(&self, meta: &ChunkMeta) -> Result<Chunk> {
        self.chunks.chunk(meta)
    }

    /// What was deleted from the block when it was opened.
    pub fn tombstones(&self) -> &Tombstones<IndexSeriesId> {
        &self.tombstones
    }

    /// True if the block has any of the milliseconds from `mint` to `maxt`, both inclusive.
    pub fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.meta.min_time <= maxt && mint < self.meta.max_time
    }

    /// Walks through the whole series section. Reads no chunk unless the chunks lie in another order
    /// than their series, which those of our blocks never do.
    pub fn index_stats(&self) -> Result<IndexStats> {
        let mut stats = IndexStats::default();
        let mut series = SeriesCursor::default();
        let mut cursor = ChunkCursor::default();
        let mut chunks = Vec::new();
        let mut previous: Option<BlockChunkRef> = None;
        for id in self.index.all_postings()? {
            let len = self.index.series_entry_len(&mut series, id)?;
            stats.series_max_size = stats.series_max_size.max(len);
            self.index.series_with(&mut series, id, &mut chunks)?;
            for chunk in &chunks {
                let len = self.len_before(previous.replace(chunk.reference), chunk.reference, &mut cursor)?;
                stats.chunk_max_size = stats.chunk_max_size.max(len);
            }
        }
        if let Some(last) = previous {
            let len = self.chunks.file_len(last.file_index()).unwrap_or_default();
            stats.chunk_max_size = stats.chunk_max_size.max(len.saturating_sub(last.offset()));
        }
        Ok(stats)
    }

    /// Length of the chunk at `from`, behind which the one at `to` comes.
    fn len_before(
        &self,
        from: Option<BlockChunkRef>,
        to: BlockChunkRef,
        cursor: &mut ChunkCursor,
    ) -> Result<u64> {
        let Some(from) = from else { return Ok(0) };
        if to <= from {
            return self.chunks.entry_len(cursor, from);
        }
        if to.file_index() == from.file_index() {
            return Ok(to.offset() - from.offset());
        }
        let len = self.chunks.file_len(from.file_index()).unwrap_or_default();
        Ok(len.saturating_sub(from.offset()))
    }
}

#[cfg(test)]
mod tests;
