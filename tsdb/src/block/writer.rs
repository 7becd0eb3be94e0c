//! Writes a whole block.
//!
//! Chunks go to their files as the series come in; the series themselves wait in a spool until the
//! last of them has told which symbols there are, and then go into the index. In memory are one
//! series with its samples, the symbols, and what [`IndexWriter`] keeps. All files are built and
//! made durable in a directory of another name; the rename at the end makes them a block.
//!
//! A block of equal series and samples has equal bytes, its name apart, whatever the way the samples
//! came in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ulid::Ulid;

use super::{
    chunks_file::{CHUNK_FILE_BYTES_MAX, CHUNKS_DIR, ChunkFilesWriter},
    dir::{creation_dir, delete_block},
    index_reader::{ChunkMeta, INDEX_FILE},
    index_symbols::SymbolCollector,
    index_writer::{IndexWriter, invalid},
    meta::{BlockMeta, BlockStats, META_FILE},
    spool::Spool,
};
use crate::{
    Error, Result,
    chunkenc::{Encoding, FloatChunkEncoder, sample_count},
    fs::Fs,
    labels::Labels,
    query::Chunk,
    tombstones::{TOMBSTONES_FILE, Tombstones},
    types::{BLOCK_RANGE_MS, Sample},
};

/// Name of the spool within the directory being built.
const SPOOL_FILE: &str = "series.spool";

/// What block is to be written.
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// Its name; must be fresh.
    pub ulid: Ulid,
    /// First millisecond of its range.
    pub mint: i64,
    /// The millisecond behind its range.
    pub maxt_exclusive: i64,
    /// Hints for `meta.json`, as [`super::HINT_OUT_OF_ORDER`]. None for a block cut from the head.
    pub hints: Vec<String>,
    /// No chunk reaches over a multiple of this, in milliseconds.
    pub chunk_range_ms: i64,
    /// Longest chunk file in bytes.
    pub chunk_file_bytes_max: u64,
}

impl BlockSpec {
    /// An ordinary block of the range from `mint` to `maxt_exclusive`.
    pub fn new(ulid: Ulid, mint: i64, maxt_exclusive: i64) -> Self {
        Self {
            ulid,
            mint,
            maxt_exclusive,
            hints: Vec::new(),
            chunk_range_ms: BLOCK_RANGE_MS,
            chunk_file_bytes_max: CHUNK_FILE_BYTES_MAX,
        }
    }
}

/// One series on its way into a block; reused for all of them.
#[derive(Debug, Default)]
pub struct BlockSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its float samples. Times rise strictly.
    pub samples: Vec<Sample>,
    /// Chunks to be stored as they are, in the order of time, none overlapping another. No float
    /// sample may lie within one.
    pub chunks: Vec<Chunk>,
}

impl BlockSeries {
    fn clear(&mut self) {
        self.labels = Labels::empty();
        self.samples.clear();
        self.chunks.clear();
    }
}

/// Writes a block into the directory `parent` and returns its meta, once it is durable.
///
/// `next` fills in one series after the other, in strictly ascending order of labels, and returns
/// false when there is none left; it finds the series cleared, with the memory of the one before.
/// Series without samples are left out. If there are no samples at all no block is made, and `None`
/// returned. Samples out of the range or out of order are an error. After an error nothing is left
/// behind, as far as the file system allows.
pub fn write_block(
    fs: &Arc<dyn Fs>,
    parent: &Path,
    spec: &BlockSpec,
    mut next: impl FnMut(&mut BlockSeries) -> Result<bool>,
) -> Result<Option<BlockMeta>> {
    let dir = creation_dir(parent, spec.ulid);
    let written = write_files(fs, parent, &dir, spec, &mut next);
    if !matches!(written, Ok(Some(_))) {
        // If this fails as well, the next open sweeps the directory; the first error tells more.
        let removed = fs.remove_dir_all(&dir);
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "half-made block is left behind");
        }
    }
    written
}

fn write_files(
    fs: &Arc<dyn Fs>,
    parent: &Path,
    dir: &Path,
    spec: &BlockSpec,
    next: &mut dyn FnMut(&mut BlockSeries) -> Result<bool>,
) -> Result<Option<BlockMeta>> {
    let mut build = Build::begin(fs, dir, spec)?;
    let mut series = BlockSeries::default();
    loop {
        series.clear();
        if !next(&mut series)? {
            break;
        }
        build.add(&series)?;
    }
    if build.stats.num_samples == 0 {
        return Ok(None);
    }
    let meta = build.finish()?;

    let target = parent.join(spec.ulid.to_string());
    fs.rename(dir, &target).map_err(Error::io("rename", dir))?;
    if let Err(error) = fs.sync_dir(parent) {
        // The caller will write the samples again under another name; both must not stay.
        if let Err(error) = delete_block(&**fs, parent, spec.ulid) {
            tracing::warn!(dir = %target.display(), %error, "block that is not durable is left behind");
        }
        return Err(Error::io("sync", parent)(error));
    }
    Ok(Some(meta))
}

/// A block being built.
struct Build<'a> {
    fs: &'a Arc<dyn Fs>,
    dir: &'a Path,
    spec: &'a BlockSpec,
    chunk_files: ChunkFilesWriter,
    symbols: SymbolCollector,
    spool: Spool,
    encoder: FloatChunkEncoder,
    stats: BlockStats,
    last_labels: Labels,
    /// Chunks and symbol numbers of the series at hand.
    chunks: Vec<ChunkMeta>,
    labels: Vec<(u32, u32)>,
}

impl<'a> Build<'a> {
    fn begin(fs: &'a Arc<dyn Fs>, dir: &'a Path, spec: &'a BlockSpec) -> Result<Self> {
        // A leftover of the same name could only come from a failed attempt.
        if fs.exists(dir).map_err(Error::io("look for", dir))? {
            fs.remove_dir_all(dir).map_err(Error::io("delete", dir))?;
        }
        fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
        let chunks_dir = dir.join(CHUNKS_DIR);
        Ok(Self {
            fs,
            dir,
            spec,
            chunk_files: ChunkFilesWriter::create(fs.clone(), chunks_dir, spec.chunk_file_bytes_max)?,
            symbols: SymbolCollector::new(),
            spool: Spool::new(fs.clone(), dir.join(SPOOL_FILE)),
            encoder: FloatChunkEncoder::default(),
            stats: BlockStats::default(),
            last_labels: Labels::empty(),
            chunks: Vec::new(),
            labels: Vec::new(),
        })
    }

    fn add(&mut self, series: &BlockSeries) -> Result<()> {
        if series.labels <= self.last_labels {
            let what = format!("series {} does not come after {}", series.labels, self.last_labels);
            return Err(invalid(self.dir, what));
        }
        self.last_labels.clone_from(&series.labels);
        self.write_chunks(series)?;
        if self.chunks.is_empty() {
            return Ok(());
        }
        self.stats.num_series += 1;
        self.stats.num_chunks += self.chunks.len() as u64;
        self.labels.clear();
        for (name, value) in series.labels.iter() {
            self.labels.push((self.symbols.number(name), self.symbols.number(value)));
        }
        self.spool.push(&self.labels, &self.chunks)
    }

    /// Writes the chunks of a series, floats between given chunks.
    fn write_chunks(&mut self, series: &BlockSeries) -> Result<()> {
        self.chunks.clear();
        self.check(series)?;
        let mut floats = series.samples.as_slice();
        for chunk in &series.chunks {
            let before = floats.partition_point(|sample| sample.t < chunk.mint);
            let (head, tail) = floats.split_at_checked(before).unwrap_or((floats, &[]));
            self.write_floats(head)?;
            let count = sample_count(chunk.encoding, &chunk.data)
                .map_err(|error| invalid(self.dir, error.to_string()))?;
            match chunk.encoding.is_float() {
                true => self.stats.num_float_samples += u64::from(count),
                false => self.stats.num_histogram_samples += u64::from(count),
            }
            self.stats.num_samples += u64::from(count);
            let reference = self.chunk_files.write(chunk.encoding, &chunk.data)?;
            self.chunks.push(ChunkMeta { mint: chunk.mint, maxt: chunk.maxt, reference });
            floats = tail;
        }
        self.write_floats(floats)
    }

    fn write_floats(&mut self, samples: &[Sample]) -> Result<()> {
        self.stats.num_samples += samples.len() as u64;
        self.stats.num_float_samples += samples.len() as u64;
        let Self { encoder, chunk_files, chunks, .. } = self;
        encoder.encode(self.spec.chunk_range_ms, samples.iter().copied(), |mint, maxt, data| {
            let reference = chunk_files.write(Encoding::Xor, data)?;
            chunks.push(ChunkMeta { mint, maxt, reference });
            Ok(())
        })
    }

    /// Whether times rise and lie in the range: what is wrong here would halt a Compactor later.
    fn check(&self, series: &BlockSeries) -> Result<()> {
        let fail = |what: String| Err(invalid(self.dir, format!("{what} in series {}", series.labels)));
        let times = series.samples.as_slice();
        if !times.is_sorted_by(|left, right| left.t < right.t) {
            return fail("samples out of order".to_owned());
        }
        let range = self.spec.mint..self.spec.maxt_exclusive;
        if let (Some(first), Some(last)) = (times.first(), times.last())
            && !(range.contains(&first.t) && range.contains(&last.t))
        {
            return fail(format!("samples from {} to {} outside of {range:?}", first.t, last.t));
        }
        let mut maxt = None;
        for chunk in &series.chunks {
            let is_after = maxt.is_none_or(|maxt| chunk.mint > maxt);
            let is_inside = range.contains(&chunk.mint) && range.contains(&chunk.maxt);
            let first_behind = times.partition_point(|sample| sample.t < chunk.mint);
            let is_apart = times.get(first_behind).is_none_or(|sample| sample.t > chunk.maxt);
            if !(is_after && is_inside && is_apart && chunk.mint <= chunk.maxt) {
                return fail(format!("chunk from {} to {} out of place", chunk.mint, chunk.maxt));
            }
            maxt = Some(chunk.maxt);
        }
        Ok(())
    }

    /// Writes what is left and makes all of it durable.
    fn finish(self) -> Result<BlockMeta> {
        let Self { fs, dir, spec, .. } = self;
        self.chunk_files.finish()?;

        let (symbols, renumber) = self.symbols.sort();
        let mut index = IndexWriter::create(fs.clone(), dir.join(INDEX_FILE), symbols)?;
        let mut labels = Vec::new();
        self.spool.drain(|series| {
            let new = |old: u32| renumber.get(old as usize).copied().unwrap_or(u32::MAX);
            labels.clear();
            labels.extend(series.labels.iter().map(|&(name, value)| (new(name), new(value))));
            index.add_series_by_symbols(&labels, &series.chunks).map(drop)
        })?;
        index.finish()?;

        write_synced(&**fs, dir.join(TOMBSTONES_FILE), &Tombstones::default().encode())?;
        let mut meta = BlockMeta::new(spec.ulid, spec.mint, spec.maxt_exclusive);
        meta.stats = self.stats;
        meta.compaction.hints.clone_from(&spec.hints);
        write_synced(&**fs, dir.join(META_FILE), &meta.to_json())?;
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        Ok(meta)
    }
}

fn write_synced(fs: &dyn Fs, path: PathBuf, data: &[u8]) -> Result<()> {
    let mut file = fs.create(&path).map_err(Error::io("create", &path))?;
    file.write_all(data).map_err(Error::io("write", &path))?;
    file.sync().map_err(Error::io("sync", &path))
}

#[cfg(test)]
mod tests;
