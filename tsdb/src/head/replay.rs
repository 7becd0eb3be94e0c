//! From a directory to a head: `chunks_head`, checkpoint, log, and what other programs left in the
//! write-behind log.
//!
//! The order is that of Prometheus. Full chunks are looked up first; then the log is read from its
//! checkpoint on, and a sample counts unless it is older than what blocks hold, or not newer than
//! the newest sample of its series, which for a series with full chunks is the last of those. So the
//! result is the same with and without `chunks_head`, and damage there costs only time.
//!
//! A log that ends within a record was cut off by a crash: no append that was acknowledged is behind
//! that point, and it is repaired. Any other damage is an error, and nothing is cut away.

use std::{path::Path, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    BatchRecords, Counters, Head, HeadState, MappedChunk, OpenChunks, OutOfOrderSamples, UnwrittenChunks,
    index::SeriesIndex,
};
use crate::{
    Error, Labels, Result, checkpoint,
    chunkenc::{Encoding, decode_floats},
    db::DbOptions,
    fs::Fs,
    head_chunks::{
        HEAD_CHUNK_FILE_BYTES_MAX, HeadChunkDamage, HeadChunkReader, HeadChunkWriter, LoadedHeadChunk,
        OUT_OF_ORDER_BIT,
    },
    record::{self, RecordType},
    tombstones::{Interval, Intervals},
    types::{HeadChunkRef, Sample, SegmentIndex, SeriesRef},
    varint::DecodeError,
    wlog,
};

/// Full chunks gathered in memory during replay before they are written.
const UNWRITTEN_MAX: usize = 4096;

impl Head {
    /// Opens the head in `dir`, whose blocks hold everything older than `min_valid`.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, options: DbOptions, min_valid: i64) -> Result<Self> {
        let wal_dir = dir.join("wal");
        let chunks_dir = dir.join("chunks_head");
        for path in [&wal_dir, &chunks_dir] {
            fs.create_dir_all(path).map_err(Error::io("create", path))?;
        }
        checkpoint::sweep_tmp(&*fs, &wal_dir)?;
        // A crash may have come between a checkpoint and the deletion of what it replaces.
        checkpoint::delete_obsolete(&*fs, &wal_dir)?;
        wlog::recover_repairs(&*fs, &wal_dir)?;

        let chunk_reader = HeadChunkReader::open(fs.clone(), &chunks_dir);
        let mut replay = Replay::new(min_valid, options.block_range_ms);
        replay.load_chunks(&chunk_reader)?;
        let next_file = chunk_reader.next_file()?;
        let writer = HeadChunkWriter::open(fs.clone(), &chunks_dir, next_file, HEAD_CHUNK_FILE_BYTES_MAX)?;
        replay.chunk_writer = Some(writer);
        let next_segment = replay.read_log(&fs, &wal_dir)?;
        replay.read_write_behind_log(&fs, &dir.join("wbl"))?;
        let wal = wlog::Writer::create(fs.clone(), &wal_dir, next_segment, options.wal_options())?;
        let state = replay.finish(wal)?;
        Ok(Self { fs, dir: dir.to_owned(), options, chunk_reader, state: Mutex::new(state) })
    }
}

/// The head as far as it was read.
struct Replay {
    index: SeriesIndex,
    by_ref: RefMap,
    full_chunks: HashMap<SeriesRef, FullChunks, RandomState>,
    max_ref: u64,
    min_valid: i64,
    block_range_ms: i64,
    chunk_writer: Option<HeadChunkWriter>,
    open_chunks: OpenChunks,
    unwritten: UnwrittenChunks,
    written_refs: Vec<HeadChunkRef>,
    tombstones: HashMap<u32, Intervals>,
    out_of_order: HashMap<u32, OutOfOrderSamples>,
    other_refs: HashMap<SeriesRef, u32>,
    counters: Counters,
}

/// What `chunks_head` holds of one ref.
#[derive(Debug, Default)]
struct FullChunks {
    in_order: Vec<MappedChunk>,
    out_of_order: OutOfOrderSamples,
}

impl Replay {
    fn new(min_valid: i64, block_range_ms: i64) -> Self {
        Self {
            index: SeriesIndex::default(),
            by_ref: RefMap::default(),
            full_chunks: HashMap::default(),
            max_ref: 0,
            min_valid,
            block_range_ms,
            chunk_writer: None,
            open_chunks: OpenChunks::default(),
            unwritten: UnwrittenChunks::default(),
            written_refs: Vec::new(),
            tombstones: HashMap::new(),
            out_of_order: HashMap::new(),
            other_refs: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// Notes which chunks lie in `chunks_head`. Damaged files are deleted, with all after them: the
    /// log has their samples.
    fn load_chunks(&mut self, reader: &HeadChunkReader) -> Result<()> {
        let mut out_of_order: Vec<(SeriesRef, HeadChunkRef)> = Vec::new();
        let damage = reader.load_all(&mut |LoadedHeadChunk { meta, chunk: at, .. }| {
            self.max_ref = self.max_ref.max(meta.series.0);
            let is_out_of_order = meta.encoding & OUT_OF_ORDER_BIT != 0;
            match Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT) {
                Some(encoding) if encoding.is_float() => {}
                _ => {
                    self.counters.unsupported_records += 1;
                    return Ok(());
                }
            }
            if is_out_of_order {
                out_of_order.push((meta.series, at));
            } else if meta.maxt >= self.min_valid {
                let known = &mut self.full_chunks.entry(meta.series).or_default().in_order;
                if known.last().is_some_and(|last| last.maxt >= meta.mint) {
                    return Err("chunk does not begin after the one before it".to_owned());
                }
                known.push(MappedChunk { at, mint: meta.mint, maxt: meta.maxt });
            }
            Ok(())
        })?;
        if let Some(HeadChunkDamage { file, offset, what }) = damage {
            tracing::warn!(file, offset, what, "chunks_head is damaged, the log supplies its samples");
            self.counters.chunk_corruptions += 1;
            reader.remove_from(file)?;
            for chunks in self.full_chunks.values_mut() {
                chunks.in_order.retain(|chunk| chunk.at.file() < file);
            }
            out_of_order.retain(|(_, at)| at.file() < file);
        }
        let mut data = Vec::new();
        for (series, at) in out_of_order {
            let meta = reader.read(at, &mut data)?;
            let Some(encoding) = Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT) else { continue };
            let samples = &mut self.full_chunks.entry(series).or_default().out_of_order;
            for sample in
                decode_floats(encoding, &data).into_iter().flatten().map_while(std::result::Result::ok)
            {
                samples.entry(sample.t).or_insert(sample.bits);
            }
        }
        Ok(())
    }

    /// Reads checkpoint and log. Returns the lowest number that the next segment may have.
    fn read_log(&mut self, fs: &Arc<dyn Fs>, wal_dir: &Path) -> Result<SegmentIndex> {
        let mut after = None;
        if let Some(upto) = checkpoint::find_last_checkpoint(&**fs, wal_dir)? {
            let checkpoint_dir = checkpoint::checkpoint_dir(wal_dir, upto);
            let segments = wlog::list_segments(&**fs, &checkpoint_dir)?;
            let mut reader = wlog::LogReader::new(fs.clone(), &checkpoint_dir, segments);
            while let Some(record) = reader.next()? {
                self.apply(record).map_err(|error| undecodable(&checkpoint_dir, 0, error))?;
            }
            after = Some(upto);
        }
        let segments = wlog::list_segments_after(&**fs, wal_dir, after)?;
        self.read_segments(fs, wal_dir, &segments, Self::apply)?;
        Ok(SegmentIndex(after.map_or(0, |upto| upto.0 + 1)))
    }

    /// Reads `segments` to their end; the torn tail of the last one is repaired.
    fn read_segments(
        &mut self,
        fs: &Arc<dyn Fs>,
        dir: &Path,
        segments: &[SegmentIndex],
        apply: fn(&mut Self, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<()> {
        let mut reader = wlog::LogReader::new(fs.clone(), dir, segments.to_vec());
        let error = loop {
            match reader.next() {
                Ok(Some(record)) => {
                    if let Err(error) = apply(self, record) {
                        let at = reader.position();
                        return Err(undecodable(&wlog::segment_path(dir, at.segment), at.offset, error));
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => break error,
            }
        };
        match reader.classify()? {
            Some(wlog::Damage::TornTail { segment, offset }) => {
                let dir_shown = dir.display();
                tracing::warn!(dir = %dir_shown, segment = segment.0, offset, %error, "log ends within a record, cut off there");
                self.counters.wal_corruptions += 1;
                wlog::repair_torn_tail(&**fs, dir, wlog::LogPosition { segment, offset })
            }
            Some(wlog::Damage::Middle { .. }) | None => Err(error),
        }
    }

    fn apply(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        match record::record_type(record) {
            RecordType::Samples => {
                for entry in record::SamplesIter::new(record)? {
                    let (series, sample) = entry?;
                    self.apply_sample(series, sample);
                }
            }
            RecordType::SamplesV2 => {
                for entry in record::SamplesV2Iter::new(record) {
                    let (series, sample) = entry?;
                    self.apply_sample(series, sample);
                }
            }
            RecordType::Series => {
                for entry in record::SeriesIter::new(record) {
                    let entry = entry?;
                    self.apply_series(entry.series, entry.labels);
                }
            }
            RecordType::Tombstones => {
                for entry in record::TombstonesIter::new(record) {
                    let tombstone = entry?;
                    self.apply_tombstone(tombstone);
                }
            }
            RecordType::Exemplars
            | RecordType::Metadata
            | RecordType::MmapMarkers
            | RecordType::Unknown(_) => {}
            _ => self.counters.unsupported_records += 1,
        }
        self.write_full_chunks_if(UNWRITTEN_MAX);
        Ok(())
    }

    fn apply_series<'a>(
        &mut self,
        series: SeriesRef,
        pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) {
        self.max_ref = self.max_ref.max(series.0);
        let labels = Labels::from_sorted(pairs.clone()).unwrap_or_else(|| Labels::from_pairs(pairs));
        if self.by_ref.get(series).is_some_and(|slot| self.index.labels(slot).as_ref() == Some(&labels)) {
            return;
        }
        let slot = match self.index.find(&labels) {
            Some(slot) => {
                self.other_refs.insert(series, slot);
                slot
            }
            None => self.index.create(&labels, series),
        };
        self.by_ref.insert(series, slot);
        if let Some(chunks) = self.full_chunks.remove(&series) {
            self.adopt(slot, chunks);
        }
    }

    /// Gives the series in `slot` the full chunks found under one of its refs.
    fn adopt(&mut self, slot: u32, chunks: FullChunks) {
        let Some(series) = self.index.slab.get_mut(slot) else { return };
        for chunk in chunks.in_order {
            if chunk.mint > series.last_t() {
                self.unwritten.close_open(slot, series, &mut self.open_chunks);
                series.mapped.push(chunk);
            }
        }
        if !chunks.out_of_order.is_empty() {
            let known = self.out_of_order.entry(slot).or_default();
            for (t, bits) in chunks.out_of_order {
                known.entry(t).or_insert(bits);
            }
        }
    }

    #[inline]
    fn apply_sample(&mut self, series: SeriesRef, sample: Sample) {
        let Some(slot) = self.by_ref.get(series) else { return };
        let Some(series) = self.index.slab.get_mut(slot) else { return };
        if sample.t <= series.last_t() || sample.t < self.min_valid {
            return;
        }
        if series.cut_before(sample.t, self.block_range_ms) {
            self.unwritten.close_open(slot, series, &mut self.open_chunks);
        }
        series.push(sample, &mut self.open_chunks);
    }

    fn apply_tombstone(&mut self, tombstone: record::Tombstone) {
        self.max_ref = self.max_ref.max(tombstone.series.0);
        let Some(slot) = self.by_ref.get(tombstone.series) else { return };
        if tombstone.mint == i64::MIN && tombstone.maxt == i64::MAX {
            // Not a deletion: the series was written to a block and taken out of the head.
            if let Some(series) = self.index.slab.get_mut(slot) {
                series.reset(&mut self.open_chunks);
            }
            self.out_of_order.remove(&slot);
            self.tombstones.remove(&slot);
        } else if tombstone.maxt >= self.min_valid {
            let interval = Interval { mint: tombstone.mint, maxt: tombstone.maxt };
            self.tombstones.entry(slot).or_default().add(interval);
        }
    }

    /// Reads the samples that another program took out of order.
    fn read_write_behind_log(&mut self, fs: &Arc<dyn Fs>, dir: &Path) -> Result<()> {
        if !fs.exists(dir).map_err(Error::io("look for", dir))? {
            return Ok(());
        }
        wlog::recover_repairs(&**fs, dir)?;
        let segments = wlog::list_segments(&**fs, dir)?;
        self.read_segments(fs, dir, &segments, Self::apply_out_of_order)
    }

    fn apply_out_of_order(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let add = |replay: &mut Self, series: SeriesRef, sample: Sample| {
            if let Some(slot) = replay.by_ref.get(series) {
                replay.out_of_order.entry(slot).or_default().entry(sample.t).or_insert(sample.bits);
            }
        };
        match record::record_type(record) {
            RecordType::Samples => {
                for entry in record::SamplesIter::new(record)? {
                    let (series, sample) = entry?;
                    add(self, series, sample);
                }
            }
            RecordType::SamplesV2 => {
                for entry in record::SamplesV2Iter::new(record) {
                    let (series, sample) = entry?;
                    add(self, series, sample);
                }
            }
            RecordType::MmapMarkers | RecordType::Unknown(_) => {}
            _ => self.counters.unsupported_records += 1,
        }
        Ok(())
    }

    fn write_full_chunks_if(&mut self, at_least: usize) {
        if self.unwritten.len() < at_least {
            return;
        }
        let Some(writer) = &mut self.chunk_writer else { return };
        let refs = &mut self.written_refs;
        if let Err(error) = self.unwritten.write(&mut self.index, writer, refs) {
            self.counters.chunk_writes_failed += 1;
            if self.counters.chunk_writes_failed.is_power_of_two() {
                tracing::error!(%error, "cannot write full chunks of the head, they stay in memory");
            }
        }
    }

    fn finish(mut self, wal: wlog::Writer) -> Result<HeadState> {
        self.write_full_chunks_if(1);
        let segment = wal.segment_index().0;
        let mut max_time = i64::MIN;
        let (mut active_series, mut chunks) = (0, 0);
        for (slot, series) in self.index.slab.iter_mut() {
            chunks += series.chunk_count() as u64;
            if series.is_empty() {
                series.retire(segment);
            } else {
                active_series += 1;
                max_time = max_time.max(series.last_t());
            }
            if let Some(samples) = self.out_of_order.get(&slot) {
                max_time = samples.keys().next_back().copied().unwrap_or(i64::MIN).max(max_time);
            }
        }
        let mut state = HeadState {
            index: self.index,
            active_series,
            chunks,
            next_ref: self.max_ref + 1,
            min_time: i64::MAX,
            max_time,
            min_valid: self.min_valid,
            being_cut: i64::MIN,
            truncations: 0,
            wal,
            chunk_writer: self.chunk_writer.expect("the writer is set before the log is read"),
            open_chunks: self.open_chunks,
            unwritten: self.unwritten,
            tombstones: self.tombstones,
            out_of_order: self.out_of_order,
            other_refs: self.other_refs,
            counters: self.counters,
            records: BatchRecords::default(),
            written_refs: self.written_refs,
        };
        state.min_time = state.oldest_sample().unwrap_or(i64::MAX);
        Ok(state)
    }
}

/// The error for a record whose checksum is right but whose content is not.
fn undecodable(path: &Path, offset: u64, error: DecodeError) -> Error {
    Error::corrupt(path, offset, format!("record cannot be decoded: {error}"))
}

/// Slots by ref. Refs are dense in a log of ordinary life, so most lie in a vector that begins at
/// the first ref seen; the rest lie in a map.
#[derive(Debug, Default)]
struct RefMap {
    first: u64,
    dense: Vec<u32>,
    sparse: HashMap<SeriesRef, u32, RandomState>,
    len: usize,
}

impl RefMap {
    const NONE: u32 = u32::MAX;

    #[inline]
    fn get(&self, series: SeriesRef) -> Option<u32> {
        match self.dense.get(series.0.wrapping_sub(self.first) as usize) {
            Some(&slot) if slot != Self::NONE => Some(slot),
            _ if self.sparse.is_empty() => None,
            _ => self.sparse.get(&series).copied(),
        }
    }

    fn insert(&mut self, series: SeriesRef, slot: u32) {
        if self.len == 0 {
            self.first = series.0;
        }
        self.len += 1;
        let index = series.0.wrapping_sub(self.first);
        // The vector may have up to fifteen unused entries for each used one.
        if index < 4096 + 16 * self.len as u64 {
            let index = index as usize;
            if index >= self.dense.len() {
                self.dense.resize(index + 1, Self::NONE);
            }
            self.dense[index] = slot;
        } else {
            self.sparse.insert(series, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_map_holds_dense_and_far_refs() {
        let mut map = RefMap::default();
        let refs = [70, 71, 75, 1 << 39, 69, 3, 5000];
        for (slot, &series) in (0u32..).zip(&refs) {
            assert_eq!(map.get(SeriesRef(series)), None);
            map.insert(SeriesRef(series), slot);
        }
        for (slot, &series) in (0u32..).zip(&refs) {
            assert_eq!(map.get(SeriesRef(series)), Some(slot), "{series}");
        }
        assert!(map.dense.len() < 6000);
        map.insert(SeriesRef(3), 9);
        assert_eq!(map.get(SeriesRef(3)), Some(9));
    }
}
