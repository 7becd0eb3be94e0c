//! Appending to the head.
//!
//! One lock is held for a whole batch. Within it each sample is judged, put into its open chunk and
//! encoded for the log; then the log gets the batch in one write. Memory and log thus agree about
//! the order of the samples of a series even when two requests carry the same series, which replay
//! depends on. If the log fails, memory holds samples that it lacks; nobody was told that they are
//! stored, and the log takes nothing more until the directory is opened again.

use std::convert::Infallible;

use smallvec::SmallVec;

use super::{
    BatchRecords, Head, HeadState, samples_of,
    series::{MappedChunk, MemSeries, Verdict},
    unwritten::{Owners, WrittenLate},
};
use crate::{
    Labels, Result,
    append::{AppendBatch, BatchSeries, DurabilityTicket, RefuseReason, Refused, SeriesHandle, Target},
    chunkenc::{Encoding, encode_float_chunks},
    head_chunks::OUT_OF_ORDER_BIT,
    record::{SamplesEncoder, SeriesEncoder, encode_mmap_markers},
    types::{Sample, SeriesRef},
    wlog,
};

/// Series whose memory is asked for together.
const WINDOW: usize = 32;

/// Which times an append takes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Oldest time that is taken in order.
    in_order: i64,
    /// Oldest time of late samples; `None` if none are taken.
    late: Option<i64>,
}

/// What became of a sample that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is stored.
    InOrder,
    /// It is stored among the late ones.
    Late,
    /// It was stored before.
    Repeated,
}

impl Head {
    /// Appends `batch`; see [`crate::db::Db::append`].
    pub fn append(&self, batch: &mut AppendBatch) -> Result<DurabilityTicket> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.check_logs_alive()?;
        batch.refused.clear();
        batch.outdated.clear();
        let bounds = state.bounds(self, batch.late_from);
        state.unwritten.begin_append();

        let mut records = std::mem::take(&mut state.records);
        records.clear();
        let mut new_series = SeriesEncoder::begin(&mut records.series);
        let mut stored = SamplesEncoder::begin(&mut records.samples);
        let mut late = SamplesEncoder::begin(&mut records.late);
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
                match state.append_sample(self, handle, sample, bounds) {
                    Ok(Taken::InOrder) => stored.push(handle.series, sample.t, sample.bits),
                    Ok(Taken::Late) => late.push(handle.series, sample.t, sample.bits),
                    Ok(Taken::Repeated) => {}
                    Err(reason) => batch.refused.push(Refused { series: index as u32, sample, reason }),
                }
            }
        }
        let logged = records.log(&mut state.wal);
        state.write_full_chunks(self);
        let logged = logged.and_then(|()| state.log_late(self, &mut records));
        state.records = records;
        logged?;
        Ok(DurabilityTicket { log_position: state.wal.bytes_written() })
    }
}

impl HeadState {
    /// In order nothing is taken that is half a block range behind the newest sample, or that a block holds
    /// already or is being made of.
    fn bounds(&self, head: &Head, late_from: Option<i64>) -> Bounds {
        let window_ms = head.options.out_of_order_window_ms;
        let newest = self.max_time.max(self.min_valid);
        Bounds {
            in_order: self
                .min_valid
                .max(self.being_cut)
                .max(self.max_time.saturating_sub(head.options.block_range_ms / 2)),
            late: late_from.or((window_ms > 0).then(|| newest.saturating_sub(window_ms))),
        }
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

    /// Judges and stores one sample.
    #[inline]
    fn append_sample(
        &mut self,
        head: &Head,
        handle: SeriesHandle,
        sample: Sample,
        bounds: Bounds,
    ) -> Result<Taken, RefuseReason> {
        let Some(series) = self.index.slab.get_mut(handle.slot) else {
            unreachable!("the handle was looked up under the same lock");
        };
        match series.judge(sample, bounds.in_order) {
            Verdict::Store => {}
            Verdict::Repeated => return Ok(Taken::Repeated),
            Verdict::Conflict => return self.refuse(RefuseReason::DuplicateTimestamp),
            Verdict::Late => return self.append_late(head, handle, sample, bounds),
        }
        if series.cut_before(sample.t, head.options.block_range_ms) {
            self.active_series += u64::from(series.is_empty() && !self.late.has(handle.slot));
            self.chunks += 1;
            self.unwritten.close_open(handle.slot, series, &mut self.open_chunks);
        }
        series.push(sample, &mut self.open_chunks);
        self.counters.samples_appended += 1;
        self.max_time = self.max_time.max(sample.t);
        self.min_time = self.min_time.min(sample.t);
        Ok(Taken::InOrder)
    }

    fn refuse(&mut self, reason: RefuseReason) -> Result<Taken, RefuseReason> {
        self.counters.count_refused(reason);
        Err(reason)
    }

    /// Decides about a sample that is not newer than the newest one, or too old to be in order. Senders
    /// repeat what they got no answer for, and a repeat is a success, however old.
    #[cold]
    fn append_late(
        &mut self,
        head: &Head,
        handle: SeriesHandle,
        sample: Sample,
        bounds: Bounds,
    ) -> Result<Taken, RefuseReason> {
        match self.stored_at(head, handle, sample.t) {
            Some(bits) if bits == sample.bits => return Ok(Taken::Repeated),
            Some(_) => return self.refuse(RefuseReason::DuplicateTimestamp),
            None => {}
        }
        match bounds.late {
            None if sample.t < bounds.in_order => return self.refuse(RefuseReason::OutOfBounds),
            None => return self.refuse(RefuseReason::OutOfOrder),
            Some(from) if sample.t < from => return self.refuse(RefuseReason::TooOld),
            Some(_) => {}
        }
        self.insert_late(head, handle, sample);
        self.counters.samples_appended += 1;
        self.counters.late_appended += 1;
        Ok(Taken::Late)
    }

    /// Stores a late sample of whose time there is none.
    pub(super) fn insert_late(&mut self, head: &Head, handle: SeriesHandle, sample: Sample) {
        let slot = handle.slot;
        let is_first = self.index.slab.get(slot).is_some_and(MemSeries::is_empty) && !self.late.has(slot);
        self.active_series += u64::from(is_first);
        let late = self.late.current.entry(slot).or_default();
        if late.buffer.len() >= head.options.out_of_order_cap.clamp(1, 255) {
            // No chunk reaches over the end of the newest block: which samples need another one is seen by
            // the times of chunks.
            let behind = late.buffer.partition_point(|sample| sample.t < self.min_valid);
            let (before, behind) = late.buffer.split_at(behind);
            let (unwritten, chunks) = (&mut self.unwritten, &mut late.chunks);
            let range_ms = head.options.block_range_ms;
            for samples in [before, behind] {
                let samples = samples.iter().copied();
                let Ok(()) = encode_float_chunks::<Infallible>(range_ms, samples, |mint, maxt, data| {
                    chunks.push(unwritten.push_late(slot, handle.series, (mint, maxt), data));
                    Ok(())
                });
            }
            late.buffer.clear();
        }
        late.insert(sample);
        self.max_time = self.max_time.max(sample.t);
        let oldest = if sample.t >= self.min_valid { &mut self.min_time } else { &mut self.min_late_time };
        *oldest = sample.t.min(*oldest);
    }

    /// Logs the late samples of an append, then which chunks were made of late samples, and then what these
    /// series have in no chunk: upstream forgets all that it has read of a series when it reads a marker.
    pub(super) fn log_late(&mut self, head: &Head, records: &mut BatchRecords) -> Result<()> {
        if self.written_late.is_empty() && records.late.is_empty() {
            return Ok(());
        }
        let mut left = SamplesEncoder::begin(&mut records.late_left);
        // Chunks of one series come one after the other.
        for written in self.written_late.chunk_by(|one, other| one.slot == other.slot) {
            let Some(&WrittenLate { slot, marker }) = written.first() else { continue };
            let buffer = self.late.current.get(&slot).map(|late| &late.buffer[..]);
            for sample in buffer.unwrap_or_default() {
                left.push(marker.series, sample.t, sample.bits);
            }
        }
        encode_mmap_markers(&mut records.markers, self.written_late.drain(..).map(|written| written.marker));
        let all = [&records.late[..], &records.markers, &records.late_left];
        let used: SmallVec<[&[u8]; 3]> = all.into_iter().filter(|record| !record.is_empty()).collect();
        self.late.log(&head.fs, &head.dir.join("wbl"), head.options.wal_options())?.log(&used)
    }

    /// The bits of the sample at `t` of the series, in order or late.
    fn stored_at(&self, head: &Head, handle: SeriesHandle, t: i64) -> Option<u64> {
        let series = self.index.by_handle(handle)?;
        let holds = |&(mint, maxt): &(i64, i64)| mint <= t && t <= maxt;
        if series.open_range().filter(holds).is_some()
            && let Some(bits) = bits_at(Encoding::Xor, &series.copy_open(&self.open_chunks), t)
        {
            return Some(bits);
        }
        let in_order = series.mapped.iter().rev().find(|chunk| holds(&(chunk.mint, chunk.maxt)));
        if let Some(bits) = in_order.and_then(|chunk| self.bits_in(head, chunk, t)) {
            return Some(bits);
        }
        self.late.of(handle.slot).find_map(|late| {
            if let Ok(at) = late.buffer.binary_search_by_key(&t, |sample| sample.t) {
                return late.buffer.get(at).map(|sample| sample.bits);
            }
            let mut chunks = late.chunks.iter().filter(|chunk| holds(&(chunk.mint, chunk.maxt)));
            chunks.find_map(|chunk| self.bits_in(head, chunk, t))
        })
    }

    /// The bits of the sample at `t` in a full chunk.
    fn bits_in(&self, head: &Head, chunk: &MappedChunk, t: i64) -> Option<u64> {
        if chunk.at.file() == 0 {
            return bits_at(Encoding::Xor, self.unwritten.data(chunk.at)?, t);
        }
        let mut data = Vec::new();
        let meta = head.chunk_reader.read(chunk.at, &mut data).ok()?;
        bits_at(Encoding::from_byte(meta.encoding & !OUT_OF_ORDER_BIT)?, &data, t)
    }

    /// Moves full chunks from memory to chunks_head. If that fails they stay in memory, where
    /// queries find them, and the next batch tries again; the log has their samples anyway.
    pub(super) fn write_full_chunks(&mut self, head: &Head) {
        if self.unwritten.is_empty() {
            return;
        }
        let mut owners =
            Owners { index: &mut self.index, late: &mut self.late, written_late: &mut self.written_late };
        let written = self.unwritten.write(&mut owners, &mut self.chunk_writer, &mut self.written_refs);
        if let Err(error) = written {
            self.counters.chunk_writes_failed += 1;
            if self.counters.chunk_writes_failed.is_power_of_two() {
                let dir = head.dir.display();
                tracing::error!(%dir, %error, "cannot write full chunks of the head, they stay in memory");
            }
        }
    }
}

/// The bits of the sample at `t` in the data of a chunk.
fn bits_at(encoding: Encoding, data: &[u8], t: i64) -> Option<u64> {
    let mut samples = samples_of(encoding, data).take_while(|sample| sample.t <= t);
    samples.find(|sample| sample.t == t).map(|sample| sample.bits)
}

impl BatchRecords {
    pub(super) fn clear(&mut self) {
        let Self { series, samples, late, markers, late_left } = self;
        for buffer in [series, samples, late, markers, late_left] {
            buffer.clear();
        }
    }

    /// Writes what came in order, series first, because samples name them.
    fn log(&self, wal: &mut wlog::Writer) -> Result<()> {
        let both: [&[u8]; 2] = [&self.series, &self.samples];
        let used = usize::from(self.series.is_empty())..(if self.samples.is_empty() { 1 } else { 2 });
        if used.is_empty() { Ok(()) } else { wal.log(&both[used]) }
    }
}
