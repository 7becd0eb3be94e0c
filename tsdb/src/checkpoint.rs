//! Checkpoints: what is still needed of old segments of the write-ahead log.
//!
//! `checkpoint.<number>` is a directory below the log's, itself a log ([`crate::wlog`]). It stands for
//! all segments up to and with that number. A replay reads the newest checkpoint and then the segments
//! above its number. Upstream: `tsdb/wlog/checkpoint.go` of prometheus/prometheus.
//!
//! # What is kept
//! - Series the caller still needs: those of the head, and those that left it while a sample of theirs
//!   may still be in the log.
//! - Samples not older than the head's oldest time, and tombstones that reach it.
//! - Records of known types that are not decoded here (exemplars, histograms, metadata) are copied
//!   whole, whatever their time, so that nothing of them is lost. Of samples with start timestamps a
//!   record is copied whole if any sample of it is needed.
//! - Records of unknown types are dropped, as upstream does.
//!
//! # Crashes
//! A checkpoint is written to a directory with the suffix `.tmp`, synced, renamed, and the rename is
//! synced, before anything it replaces is deleted. So at any moment the newest checkpoint and the
//! segments above it hold all that is needed; what else is there is swept at the next open.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    fs::Fs,
    record::{
        RecordType, SamplesEncoder, SamplesIter, SamplesV2Iter, SeriesEncoder, SeriesIter, TombstonesIter,
        encode_tombstones, record_type,
    },
    types::{SegmentIndex, SeriesRef},
    varint::DecodeError,
    wlog::{
        LogReader, Writer, WriterOptions, list_segments, list_segments_after, segment_path, truncate_before,
    },
};

#[cfg(test)]
mod tests;

const PREFIX: &str = "checkpoint.";
const TMP_SUFFIX: &str = ".tmp";

/// Records are written in batches of about this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;

/// What a checkpoint kept and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Series entries written.
    pub series_kept: u64,
    /// Series entries left out.
    pub series_dropped: u64,
    /// Samples written.
    pub samples_kept: u64,
    /// Samples left out.
    pub samples_dropped: u64,
    /// Tombstones written.
    pub tombstones_kept: u64,
    /// Tombstones left out.
    pub tombstones_dropped: u64,
    /// Records copied whole because they are not decoded.
    pub records_copied: u64,
    /// Records of unknown types, and empty ones, left out.
    pub unknown_records_dropped: u64,
}

/// Directory of a checkpoint.
pub fn checkpoint_dir(wal_dir: &Path, number: SegmentIndex) -> PathBuf {
    wal_dir.join(format!("{PREFIX}{:08}", number.0))
}

/// Number of the newest checkpoint in `wal_dir`.
pub fn find_last_checkpoint(fs: &dyn Fs, wal_dir: &Path) -> Result<Option<SegmentIndex>> {
    Ok(checkpoints(fs, wal_dir)?.into_iter().max())
}

/// Up to which segment a checkpoint should reach, given the lowest segment and the last finished one:
/// two thirds of the way. `None` if that is too little to gain.
pub fn checkpoint_target(first: SegmentIndex, last_finished: SegmentIndex) -> Option<SegmentIndex> {
    let span = u64::from(last_finished.0.checked_sub(first.0)?);
    let steps = (span * 2 / 3) as u32;
    (steps > 0).then(|| SegmentIndex(first.0 + steps))
}

/// Writes the checkpoint of all segments up to and with `upto`, from the newest checkpoint and the
/// segments above it. `mint` is the head's oldest time in milliseconds, `keep` says whether a series is
/// still needed. Does nothing if there is a checkpoint of that number or a higher one.
///
/// Segments up to `upto` must be finished. Call [`delete_obsolete`] afterwards.
///
/// # Errors
/// Damage in what is read is an error; nothing is changed then, and nothing may be deleted.
pub fn write_checkpoint(
    fs: &Arc<dyn Fs>,
    wal_dir: &Path,
    upto: SegmentIndex,
    mint: i64,
    keep: &mut dyn FnMut(SeriesRef) -> bool,
    options: WriterOptions,
) -> Result<CheckpointStats> {
    let previous = find_last_checkpoint(fs.as_ref(), wal_dir)?;
    if previous >= Some(upto) {
        return Ok(CheckpointStats::default());
    }
    let target = checkpoint_dir(wal_dir, upto);
    let tmp = wal_dir.join(format!("{PREFIX}{:08}{TMP_SUFFIX}", upto.0));
    remove_dir_if_there(fs.as_ref(), &tmp)?;

    let written = fill(fs, wal_dir, &tmp, previous, upto, Filter::new(mint, keep), options);
    if written.is_err() {
        // The disk may be full; what cannot be deleted now is swept at the next open.
        let _ = remove_dir_if_there(fs.as_ref(), &tmp);
    }
    let stats = written?;
    fs.rename(&tmp, &target).map_err(Error::io("rename", tmp))?;
    fs.sync_dir(wal_dir).map_err(Error::io("sync", wal_dir))?;
    Ok(stats)
}

/// Writes the content of a checkpoint to `target` and syncs it.
fn fill(
    fs: &Arc<dyn Fs>,
    wal_dir: &Path,
    target: &Path,
    previous: Option<SegmentIndex>,
    upto: SegmentIndex,
    mut filter: Filter<'_>,
    options: WriterOptions,
) -> Result<CheckpointStats> {
    let mut output = Output::new(Writer::create(fs.clone(), target, SegmentIndex(0), options)?);
    if let Some(previous) = previous {
        let dir = checkpoint_dir(wal_dir, previous);
        let segments = list_segments(fs.as_ref(), &dir)?;
        filter.read(LogReader::new(fs.clone(), &dir, segments), &dir, &mut output)?;
    }
    let mut segments = list_segments_after(fs.as_ref(), wal_dir, previous)?;
    segments.retain(|&segment| segment <= upto);
    filter.read(LogReader::new(fs.clone(), wal_dir, segments), wal_dir, &mut output)?;
    output.finish()?;
    Ok(filter.stats)
}

/// Deletes what the newest checkpoint replaces: the segments up to its number and all other
/// checkpoints. Nothing without a checkpoint. Returns its number.
pub fn delete_obsolete(fs: &dyn Fs, wal_dir: &Path) -> Result<Option<SegmentIndex>> {
    let numbers = checkpoints(fs, wal_dir)?;
    let Some(&newest) = numbers.iter().max() else { return Ok(None) };
    // Its rename may be newer than the last sync if we come from a crash.
    fs.sync_dir(wal_dir).map_err(Error::io("sync", wal_dir))?;
    if let Some(first_kept) = newest.0.checked_add(1) {
        truncate_before(fs, wal_dir, SegmentIndex(first_kept))?;
    }
    for number in numbers.into_iter().filter(|&number| number < newest) {
        remove_dir_if_there(fs, &checkpoint_dir(wal_dir, number))?;
    }
    fs.sync_dir(wal_dir).map_err(Error::io("sync", wal_dir))?;
    Ok(Some(newest))
}

/// Deletes checkpoints that were never finished. To be called at open.
pub fn sweep_tmp(fs: &dyn Fs, wal_dir: &Path) -> Result<()> {
    for name in dir_names(fs, wal_dir)? {
        if name.starts_with(PREFIX) && name.ends_with(TMP_SUFFIX) {
            remove_dir_if_there(fs, &wal_dir.join(name))?;
        }
    }
    Ok(())
}

fn checkpoints(fs: &dyn Fs, wal_dir: &Path) -> Result<Vec<SegmentIndex>> {
    let number = |name: String| {
        let digits = name.strip_prefix(PREFIX)?;
        let number = digits.parse().ok().map(SegmentIndex)?;
        (checkpoint_dir(wal_dir, number) == wal_dir.join(&name)).then_some(number)
    };
    Ok(dir_names(fs, wal_dir)?.into_iter().filter_map(number).collect())
}

fn dir_names(fs: &dyn Fs, wal_dir: &Path) -> Result<Vec<String>> {
    match fs.read_dir(wal_dir) {
        Ok(entries) => Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", wal_dir)(error)),
    }
}

fn remove_dir_if_there(fs: &dyn Fs, dir: &Path) -> Result<()> {
    if fs.exists(dir).map_err(Error::io("look at", dir))? {
        fs.remove_dir_all(dir).map_err(Error::io("delete", dir))?;
    }
    Ok(())
}

/// Passes on what is still needed.
struct Filter<'k> {
    mint: i64,
    keep: &'k mut dyn FnMut(SeriesRef) -> bool,
    stats: CheckpointStats,
}

impl<'k> Filter<'k> {
    fn new(mint: i64, keep: &'k mut dyn FnMut(SeriesRef) -> bool) -> Self {
        Self { mint, keep, stats: CheckpointStats::default() }
    }

    fn read(&mut self, mut reader: LogReader, dir: &Path, output: &mut Output) -> Result<()> {
        while let Some(record) = reader.next()? {
            let filtered = self.filter(record, &mut output.buf);
            if let Err(error) = filtered {
                let position = reader.position();
                let path = segment_path(dir, position.segment);
                return Err(Error::corrupt(path, position.offset, format!("record: {error}")));
            }
            output.end_record()?;
        }
        Ok(())
    }

    /// Appends what is needed of `record` to `buf`.
    fn filter(&mut self, record: &[u8], buf: &mut Vec<u8>) -> Result<(), DecodeError> {
        match record_type(record) {
            RecordType::Series => self.filter_series(record, buf),
            RecordType::Samples => self.filter_samples(record, buf),
            RecordType::Tombstones => self.filter_tombstones(record, buf),
            RecordType::SamplesV2 => self.filter_samples_v2(record, buf),
            RecordType::Exemplars
            | RecordType::Metadata
            | RecordType::Histograms
            | RecordType::FloatHistograms
            | RecordType::CustomBucketHistograms
            | RecordType::CustomBucketFloatHistograms
            | RecordType::HistogramsV2
            | RecordType::FloatHistogramsV2 => {
                self.copy(record, buf);
                Ok(())
            }
            // Markers belong to the write-behind log, which has no checkpoints.
            RecordType::MmapMarkers | RecordType::Unknown(_) => {
                self.stats.unknown_records_dropped += 1;
                Ok(())
            }
        }
    }

    fn copy(&mut self, record: &[u8], buf: &mut Vec<u8>) {
        buf.extend_from_slice(record);
        self.stats.records_copied += 1;
    }

    fn filter_series(&mut self, record: &[u8], buf: &mut Vec<u8>) -> Result<(), DecodeError> {
        let mut encoder = SeriesEncoder::begin(buf);
        for entry in SeriesIter::new(record) {
            let entry = entry?;
            if (self.keep)(entry.series) {
                encoder.push_entry(&entry);
                self.stats.series_kept += 1;
            } else {
                self.stats.series_dropped += 1;
            }
        }
        Ok(())
    }

    fn filter_samples(&mut self, record: &[u8], buf: &mut Vec<u8>) -> Result<(), DecodeError> {
        let mut encoder = SamplesEncoder::begin(buf);
        let mut read = 0;
        for sample in SamplesIter::new(record)? {
            let (series, sample) = sample?;
            read += 1;
            if sample.t >= self.mint {
                encoder.push(series, sample.t, sample.bits);
            }
        }
        let kept = encoder.count() as u64;
        self.stats.samples_kept += kept;
        self.stats.samples_dropped += read - kept;
        Ok(())
    }

    fn filter_samples_v2(&mut self, record: &[u8], buf: &mut Vec<u8>) -> Result<(), DecodeError> {
        let mut read = 0;
        let mut is_needed = false;
        for sample in SamplesV2Iter::new(record) {
            is_needed |= sample?.1.t >= self.mint;
            read += 1;
        }
        if is_needed {
            self.copy(record, buf);
            self.stats.samples_kept += read;
        } else {
            self.stats.samples_dropped += read;
        }
        Ok(())
    }

    fn filter_tombstones(&mut self, record: &[u8], buf: &mut Vec<u8>) -> Result<(), DecodeError> {
        let mut kept = Vec::new();
        for tombstone in TombstonesIter::new(record) {
            let tombstone = tombstone?;
            if tombstone.maxt >= self.mint && (self.keep)(tombstone.series) {
                kept.push(tombstone);
            } else {
                self.stats.tombstones_dropped += 1;
            }
        }
        self.stats.tombstones_kept += kept.len() as u64;
        encode_tombstones(buf, kept);
        Ok(())
    }
}

/// Collects records into batches.
struct Output {
    writer: Writer,
    buf: Vec<u8>,
    /// Where each record in `buf` ends.
    ends: Vec<usize>,
}

impl Output {
    fn new(writer: Writer) -> Self {
        Self { writer, buf: Vec::new(), ends: Vec::new() }
    }

    /// What was appended to the buffer since the last call is a record, unless it is nothing.
    fn end_record(&mut self) -> Result<()> {
        if self.buf.len() > self.ends.last().copied().unwrap_or(0) {
            self.ends.push(self.buf.len());
        }
        if self.buf.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let mut rest = self.buf.as_slice();
        let mut start = 0;
        let mut records = Vec::with_capacity(self.ends.len());
        for &end in &self.ends {
            let (record, behind) = rest.split_at(end - start);
            records.push(record);
            (rest, start) = (behind, end);
        }
        self.writer.log(&records)?;
        self.buf.clear();
        self.ends.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.writer.close()
    }
}
