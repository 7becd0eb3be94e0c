//! Appending to the head.
//!
//! One lock is held for a whole batch. Within it each sample is judged, put into its open chunk and
//! encoded for the log; then the log gets the batch in one write. Memory and log thus agree about
//! the order of the samples of a series even when two requests carry the same series, which replay
//! depends on. If the log fails, memory holds samples that it lacks; nobody was told that they are
//! stored, and the log takes nothing more until the directory is opened again.

use super::{
    BatchRecords, Head, HeadState, samples_of,
    series::{MemSeries, Verdict},
};
use crate::{
    Labels, Result,
    append::{AppendBatch, BatchSeries, DurabilityTicket, RefuseReason, Refused, SeriesHandle, Target},
    chunkenc::Encoding,
    record::{SamplesEncoder, SeriesEncoder},
    types::{Sample, SeriesRef},
    wlog,
};

/// Series whose memory is asked for together.
const WINDOW: usize = 32;

impl Head {
    /// Appends `batch`; see [`crate::db::Db::append`].
    pub fn append(&self, batch: &mut AppendBatch) -> Result<DurabilityTicket> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.wal.check_alive()?;
        batch.refused.clear();
        batch.outdated.clear();
        let bound = state.append_bound(self.options.block_range_ms);

        let mut records = std::mem::take(&mut state.records);
        records.clear();
        let mut new_series = SeriesEncoder::begin(&mut records.series);
        let mut stored = SamplesEncoder::begin(&mut records.samples);
        let mut start = 0;
        for index in 0..batch.series.len() {
            if index % WINDOW == 0 {
                state.warm(&batch.series[index..batch.series.len().min(index + WINDOW)]);
            }
            let end = batch.series[index].samples_end as usize;
            let samples = &batch.samples[start..end];
            start = end;
            let handle = match batch.series[index].target {
                Target::Known(handle) => {
                    if state.index.by_handle(handle).is_none() {
                        batch.series[index].target = Target::Outdated;
                        batch.outdated.push(index as u32);
                        continue;
                    }
                    handle
                }
                Target::New(labels) => {
                    let handle = state.find_or_create(&batch.labels[labels as usize], &mut new_series);
                    batch.series[index].target = Target::Known(handle);
                    handle
                }
                Target::Outdated | Target::Elsewhere(_) => continue,
            };
            for &sample in samples {
                match state.append_sample(self, handle, sample, bound) {
                    Ok(true) => stored.push(handle.series, sample.t, sample.bits),
                    Ok(false) => {}
                    Err(reason) => batch.refused.push(Refused { series: index as u32, sample, reason }),
                }
            }
        }
        let logged = records.log(&mut state.wal);
        state.records = records;
        logged?;
        state.write_full_chunks(self);
        Ok(DurabilityTicket { log_position: state.wal.bytes_written() })
    }
}

impl HeadState {
    /// Oldest time that is taken now: half a block range behind the newest sample, and never what a
    /// block holds already or is being made of.
    pub(super) fn append_bound(&self, block_range_ms: i64) -> i64 {
        self.min_valid.max(self.being_cut).max(self.max_time.saturating_sub(block_range_ms / 2))
    }

    /// Reads a little of each of these series, so that their memory is in the cache when their turn
    /// comes. An append mostly waits for memory; here the processor waits for many series at once.
    fn warm(&self, series: &[BatchSeries]) {
        let touched = series.iter().filter_map(|one| match one.target {
            Target::Known(handle) => self.index.slab.get(handle.slot).map(MemSeries::touch),
            _ => None,
        });
        std::hint::black_box(touched.fold(0, u8::wrapping_add));
    }

    /// The handle of the series of `labels`. A new series gets a line in the batch's series record.
    fn find_or_create(&mut self, labels: &Labels, new_series: &mut SeriesEncoder<'_>) -> SeriesHandle {
        if let Some(slot) = self.index.find(labels)
            && let Some(series) = self.index.slab.get(slot)
        {
            return SeriesHandle { slot, series: series.series };
        }
        let series = SeriesRef(self.next_ref);
        self.next_ref += 1;
        let slot = self.index.create(labels, series);
        if let Some(created) = self.index.slab.get_mut(slot) {
            // Its samples may all be refused; then it goes like a series that has lost its samples.
            created.retire(self.wal.segment_index().0);
        }
        self.counters.series_created += 1;
        new_series.push(series, labels);
        SeriesHandle { slot, series }
    }

    /// Judges and stores one sample. `Ok(true)`: stored. `Ok(false)`: an exact repeat.
    #[inline]
    fn append_sample(
        &mut self,
        head: &Head,
        handle: SeriesHandle,
        sample: Sample,
        bound: i64,
    ) -> Result<bool, RefuseReason> {
        let Some(series) = self.index.slab.get_mut(handle.slot) else {
            unreachable!("the handle was looked up under the same lock");
        };
        match series.judge(sample, bound) {
            Verdict::Store => {}
            Verdict::Repeated => return Ok(false),
            Verdict::CompareWithChunk => return self.compare_with_chunk(head, handle, sample, bound),
            Verdict::Refuse(reason) => {
                self.counters.count_refused(reason);
                return Err(reason);
            }
        }
        if series.cut_before(sample.t, head.options.block_range_ms) {
            self.active_series += u64::from(series.is_empty());
            self.chunks += 1;
            self.unwritten.close_open(handle.slot, series, &mut self.open_chunks);
        }
        series.push(sample, &mut self.open_chunks);
        self.counters.samples_appended += 1;
        self.max_time = self.max_time.max(sample.t);
        self.min_time = self.min_time.min(sample.t);
        Ok(true)
    }

    /// Decides about a sample that is not newer than the newest one: senders repeat what they got no
    /// answer for, and a repeat is a success, however old.
    #[cold]
    fn compare_with_chunk(
        &mut self,
        head: &Head,
        handle: SeriesHandle,
        sample: Sample,
        bound: i64,
    ) -> Result<bool, RefuseReason> {
        if self.stored_at(head, handle, sample.t).is_some_and(|bits| bits == sample.bits) {
            return Ok(false);
        }
        let is_newest = self.index.by_handle(handle).is_some_and(|series| series.last_t() == sample.t);
        let reason = if is_newest {
            RefuseReason::DuplicateTimestamp
        } else if sample.t < bound {
            RefuseReason::OutOfBounds
        } else {
            RefuseReason::OutOfOrder
        };
        self.counters.count_refused(reason);
        Err(reason)
    }

    /// The bits of the sample at `t` in a chunk of the series.
    fn stored_at(&self, head: &Head, handle: SeriesHandle, t: i64) -> Option<u64> {
        let series = self.index.by_handle(handle)?;
        let holds = |&(mint, maxt): &(i64, i64)| mint <= t && t <= maxt;
        let find = |encoding, data: &[u8]| {
            samples_of(encoding, data).take_while(|sample| sample.t <= t).find(|sample| sample.t == t)
        };
        let found = if series.open_range().filter(holds).is_some() {
            find(Encoding::Xor, &series.copy_open(&self.open_chunks))
        } else {
            let chunk = series.mapped.iter().rev().find(|chunk| holds(&(chunk.mint, chunk.maxt)))?;
            if chunk.at.file() == 0 {
                find(Encoding::Xor, self.unwritten.data(chunk.at)?)
            } else {
                let mut data = Vec::new();
                let meta = head.chunk_reader.read(chunk.at, &mut data).ok()?;
                find(Encoding::from_byte(meta.encoding)?, &data)
            }
        };
        found.map(|sample| sample.bits)
    }

    /// Moves full chunks from memory to chunks_head. If that fails they stay in memory, where
    /// queries find them, and the next batch tries again; the log has their samples anyway.
    pub(super) fn write_full_chunks(&mut self, head: &Head) {
        if self.unwritten.is_empty() {
            return;
        }
        let refs = &mut self.written_refs;
        let written = self.unwritten.write(&mut self.index, &mut self.chunk_writer, refs);
        if let Err(error) = written {
            self.counters.chunk_writes_failed += 1;
            if self.counters.chunk_writes_failed.is_power_of_two() {
                let dir = head.dir.display();
                tracing::error!(%dir, %error, "cannot write full chunks of the head, they stay in memory");
            }
        }
    }
}

impl BatchRecords {
    fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
    }

    /// Writes what there is, series first, because samples name them.
    fn log(&self, wal: &mut wlog::Writer) -> Result<()> {
        let both: [&[u8]; 2] = [&self.series, &self.samples];
        let used = usize::from(self.series.is_empty())..(if self.samples.is_empty() { 1 } else { 2 });
        if used.is_empty() { Ok(()) } else { wal.log(&both[used]) }
    }
}
