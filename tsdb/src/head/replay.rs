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

use std::{collections::BTreeMap, convert::Infallible, path::Path, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    BatchRecords, Counters, Head, HeadState, MappedChunk, OpenChunks, UnwrittenChunks,
    index::SeriesIndex,
    late::{LateSamples, LateSeries},
    samples_of,
    unwritten::Owners,
};
use crate::{
    Error, Labels, Result, checkpoint,
    chunkenc::{Encoding, encode_float_chunks},
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
        replay.read_write_behind_log(&fs, &chunk_reader, &dir.join("wbl"))?;
        replay.pack_late(options.out_of_order_cap);
        let wal = wlog::Writer::create(fs.clone(), &wal_dir, next_segment, options.wal_options())?;
        let state = replay.finish(wal)?;
        Ok(Self { fs, dir: dir.to_owned(), options, chunk_reader, state: Mutex::new(state) })
    }
}

/// The head as far as it was read.
struct Replay {
    index: SeriesIndex,
    by_ref: RefMap,
    full_chunks: HashMap<SeriesRef, Vec<MappedChunk>, RandomState>,
    /// Chunks of late samples that no marker has named yet.
    unmarked: HashMap<HeadChunkRef, (SeriesRef, MappedChunk), RandomState>,
    max_ref: u64,
    min_valid: i64,
    block_range_ms: i64,
    chunk_writer: Option<HeadChunkWriter>,
    open_chunks: OpenChunks,
    unwritten: UnwrittenChunks,
    written_refs: Vec<HeadChunkRef>,
    tombstones: HashMap<u32, Intervals>,
    /// Chunks of late samples; their buffers are empty until the end.
    late: LateSamples,
    /// Late samples in no chunk by slot and time. The first of a time counts.
    late_buffers: HashMap<u32, BTreeMap<i64, u64>>,
    other_refs: HashMap<SeriesRef, u32>,
    counters: Counters,
}

/// Late samples of a series that lie in memory by themselves while the write-behind log is read.
const LATE_SAMPLES_MAX: usize = 8192;

impl Replay {
    fn new(min_valid: i64, block_range_ms: i64) -> Self {
        Self {
            index: SeriesIndex::default(),
            by_ref: RefMap::default(),
            full_chunks: HashMap::default(),
            unmarked: HashMap::default(),
            max_ref: 0,
            min_valid,
            block_range_ms,
            chunk_writer: None,
            open_chunks: OpenChunks::default(),
            unwritten: UnwrittenChunks::default(),
            written_refs: Vec::new(),
            tombstones: HashMap::new(),
            late: LateSamples::default(),
            late_buffers: HashMap::new(),
            other_refs: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// Notes which chunks lie in `chunks_head`. Damaged files are deleted, with all after them: the
    /// log has their samples.
    fn load_chunks(&mut self, reader: &HeadChunkReader) -> Result<()> {
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
            let chunk = MappedChunk { at, mint: meta.mint, maxt: meta.maxt };
            if is_out_of_order {
                self.unmarked.insert(at, (meta.series, chunk));
            } else if meta.maxt >= self.min_valid {
                let known = self.full_chunks.entry(meta.series).or_default();
                if known.last().is_some_and(|last| last.maxt >= meta.mint) {
                    return Err("chunk does not begin after the one before it".to_owned());
                }
                known.push(chunk);
            }
            Ok(())
        })?;
        if let Some(HeadChunkDamage { file, offset, what }) = damage {
            tracing::warn!(file, offset, what, "chunks_head is damaged, the log supplies its samples");
            self.counters.chunk_corruptions += 1;
            reader.remove_from(file)?;
            for chunks in self.full_chunks.values_mut() {
                chunks.retain(|chunk| chunk.at.file() < file);
            }
            self.unmarked.retain(|at, _| at.file() < file);
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
        apply: impl Fn(&mut Self, &[u8]) -> Result<(), DecodeError>,
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
    fn adopt(&mut self, slot: u32, chunks: Vec<MappedChunk>) {
        let Some(series) = self.index.slab.get_mut(slot) else { return };
        for chunk in chunks {
            if chunk.mint > series.last_t() {
                self.unwritten.close_open(slot, series, &mut self.open_chunks);
                series.mapped.push(chunk);
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
            self.tombstones.remove(&slot);
        } else if tombstone.maxt >= self.min_valid {
            let interval = Interval { mint: tombstone.mint, maxt: tombstone.maxt };
            self.tombstones.entry(slot).or_default().add(interval);
        }
    }

    /// Reads the late samples.
    fn read_write_behind_log(
        &mut self,
        fs: &Arc<dyn Fs>,
        chunks: &HeadChunkReader,
        dir: &Path,
    ) -> Result<()> {
        if !fs.exists(dir).map_err(Error::io("look for", dir))? {
            return Ok(());
        }
        wlog::recover_repairs(&**fs, dir)?;
        let segments = wlog::list_segments(&**fs, dir)?;
        self.read_segments(fs, dir, &segments, |replay, record| replay.apply_late(chunks, record))
    }

    fn apply_late(&mut self, chunks: &HeadChunkReader, record: &[u8]) -> Result<(), DecodeError> {
        match record::record_type(record) {
            RecordType::Samples => {
                for entry in record::SamplesIter::new(record)? {
                    let (series, sample) = entry?;
                    self.apply_late_sample(series, sample);
                }
            }
            RecordType::SamplesV2 => {
                for entry in record::SamplesV2Iter::new(record) {
                    let (series, sample) = entry?;
                    self.apply_late_sample(series, sample);
                }
            }
            RecordType::MmapMarkers => {
                for entry in record::MmapMarkersIter::new(record) {
                    let record::MmapMarker { series, chunk } = entry?;
                    self.apply_marker(chunks, series, chunk);
                }
            }
            RecordType::Unknown(_) => {}
            _ => self.counters.unsupported_records += 1,
        }
        self.write_full_chunks_if(UNWRITTEN_MAX);
        Ok(())
    }

    fn apply_late_sample(&mut self, series: SeriesRef, sample: Sample) {
        let Some(slot) = self.by_ref.get(series) else { return };
        let samples = self.late_buffers.entry(slot).or_default();
        samples.entry(sample.t).or_insert(sample.bits);
        if samples.len() > LATE_SAMPLES_MAX {
            // Their chunk is lost, or its marker is far away.
            self.pack_late_series(slot, 0);
        }
    }

    /// What was logged of the series is in this chunk, if the chunk is there.
    fn apply_marker(&mut self, chunks: &HeadChunkReader, series: SeriesRef, at: HeadChunkRef) {
        let Some((owner, chunk)) = self.unmarked.get(&at).copied() else { return };
        let (Some(slot), true) = (self.by_ref.get(series), owner == series) else { return };
        let mut data = Vec::new();
        let Ok(meta) = chunks.read(at, &mut data) else { return };
        let Some(encoding) = Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT) else { return };
        self.unmarked.remove(&at);
        let samples = self.late_buffers.entry(slot).or_default();
        for sample in samples_of(encoding, &data) {
            if samples.get(&sample.t) == Some(&sample.bits) {
                samples.remove(&sample.t);
            }
        }
        self.late.current.entry(slot).or_default().chunks.push(chunk);
    }

    /// Makes chunks of late samples wherever there are more than a buffer takes.
    fn pack_late(&mut self, cap: usize) {
        let full = self.late_buffers.iter().filter(|(_, samples)| samples.len() > cap.clamp(1, 255));
        let slots: Vec<u32> = full.map(|(&slot, _)| slot).collect();
        for slot in slots {
            self.pack_late_series(slot, cap);
            self.write_full_chunks_if(UNWRITTEN_MAX);
        }
    }

    /// Makes chunks of the oldest late samples of a series; about `left` stay.
    fn pack_late_series(&mut self, slot: u32, left: usize) {
        let Some(series) = self.index.slab.get(slot).map(|series| series.series) else { return };
        let Some(buffer) = self.late_buffers.get_mut(&slot) else { return };
        let packed = buffer.len().saturating_sub(left / 2);
        let first_left = buffer.keys().nth(packed).copied();
        let stay = first_left.map(|t| buffer.split_off(&t)).unwrap_or_default();
        let samples = std::mem::replace(buffer, stay).into_iter();
        let samples = samples.map(|(t, bits)| Sample { t, bits });
        let chunks = &mut self.late.current.entry(slot).or_default().chunks;
        let unwritten = &mut self.unwritten;
        let Ok(()) = encode_float_chunks::<Infallible>(self.block_range_ms, samples, |mint, maxt, data| {
            chunks.push(unwritten.push_late(slot, series, (mint, maxt), data));
            Ok(())
        });
    }

    fn write_full_chunks_if(&mut self, at_least: usize) {
        if self.unwritten.len() < at_least {
            return;
        }
        let Some(writer) = &mut self.chunk_writer else { return };
        // No marker names these: their samples are in the write-behind log, and are found there again.
        self.unwritten.begin_append();
        let mut owners =
            Owners { index: &mut self.index, late: &mut self.late, written_late: &mut Vec::new() };
        if let Err(error) = self.unwritten.write(&mut owners, writer, &mut self.written_refs) {
            self.counters.chunk_writes_failed += 1;
            if self.counters.chunk_writes_failed.is_power_of_two() {
                tracing::error!(%error, "cannot write full chunks of the head, they stay in memory");
            }
        }
    }

    fn finish(mut self, wal: wlog::Writer) -> Result<HeadState> {
        self.write_full_chunks_if(1);
        for (slot, samples) in std::mem::take(&mut self.late_buffers) {
            if !samples.is_empty() {
                let samples = samples.into_iter().map(|(t, bits)| Sample { t, bits });
                self.late.current.entry(slot).or_default().buffer = samples.collect();
            }
        }
        let segment = wal.segment_index().0;
        let mut max_time = i64::MIN;
        let (mut active_series, mut chunks) = (0, 0);
        for (slot, series) in self.index.slab.iter_mut() {
            chunks += series.chunk_count() as u64;
            if series.is_empty() {
                series.retire(segment);
            } else {
                max_time = max_time.max(series.last_t());
            }
            active_series += u64::from(!series.is_empty() || self.late.has(slot));
        }
        for (_, maxt) in self.late.iter().filter_map(LateSeries::range) {
            max_time = max_time.max(maxt);
        }
        let mut state = HeadState {
            index: self.index,
            active_series,
            chunks,
            next_ref: self.max_ref + 1,
            min_time: i64::MAX,
            min_late_time: i64::MAX,
            max_time,
            min_valid: self.min_valid,
            being_cut: i64::MIN,
            truncations: 0,
            wal,
            chunk_writer: self.chunk_writer.expect("the writer is set before the log is read"),
            open_chunks: self.open_chunks,
            unwritten: self.unwritten,
            tombstones: self.tombstones,
            late: self.late,
            other_refs: self.other_refs,
            counters: self.counters,
            records: BatchRecords::default(),
            written_refs: self.written_refs,
            written_late: Vec::new(),
        };
        state.recount_times();
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
