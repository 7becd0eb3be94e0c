//! The files of a log.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    fs::Fs,
    types::SegmentIndex,
};

/// Path of a segment: its number in at least 8 digits.
pub fn segment_path(dir: &Path, segment: SegmentIndex) -> PathBuf {
    dir.join(format!("{:08}", segment.0))
}

/// All segments in `dir`, ascending. None if there is no such directory. Files whose names are no
/// numbers, and directories, are not looked at.
///
/// # Errors
/// If a number is written with other than 8 digits: upstream would not find that file again.
fn all_segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentIndex>> {
    let entries = match fs.read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        if entry.is_dir || !entry.name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let segment = entry.name.parse().map(SegmentIndex).ok();
        match segment.filter(|&segment| segment_path(dir, segment) == dir.join(&entry.name)) {
            Some(segment) => segments.push(segment),
            None => return Err(Error::corrupt(dir.join(entry.name), 0, "segment name not of 8 digits")),
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Segments in `dir`, ascending.
///
/// # Errors
/// If a number is missing between two others.
pub fn list_segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentIndex>> {
    list_segments_after(fs, dir, None)
}

/// Segments in `dir` above `checkpoint`, ascending: what a replay reads behind that checkpoint. A gap
/// below it is not looked at, since a power cut may undo some of the deletions there.
///
/// # Errors
/// If a number is missing between two others, or between the checkpoint and the first.
pub fn list_segments_after(
    fs: &dyn Fs,
    dir: &Path,
    checkpoint: Option<SegmentIndex>,
) -> Result<Vec<SegmentIndex>> {
    let mut segments = all_segments(fs, dir)?;
    segments.retain(|&segment| checkpoint.is_none_or(|checkpoint| segment > checkpoint));
    let mut expected = checkpoint.map(|checkpoint| u64::from(checkpoint.0) + 1);
    for &segment in &segments {
        if expected.is_some_and(|expected| expected != u64::from(segment.0)) {
            let what = format!("segment missing before {}", segment.0);
            return Err(Error::corrupt(dir, 0, what));
        }
        expected = Some(u64::from(segment.0) + 1);
    }
    Ok(segments)
}

/// The segment of the highest number in `dir`, gaps or not.
pub fn last_segment(fs: &dyn Fs, dir: &Path) -> Result<Option<SegmentIndex>> {
    Ok(all_segments(fs, dir)?.last().copied())
}

/// Deletes the segments below `first_kept`, in ascending order, and makes that survive a power cut.
/// Returns how many there were.
pub fn truncate_before(fs: &dyn Fs, dir: &Path, first_kept: SegmentIndex) -> Result<usize> {
    let mut segments = all_segments(fs, dir)?;
    segments.retain(|&segment| segment < first_kept);
    for &segment in &segments {
        let path = segment_path(dir, segment);
        fs.remove_file(&path).map_err(Error::io("delete", path))?;
    }
    if !segments.is_empty() {
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    Ok(segments.len())
}
