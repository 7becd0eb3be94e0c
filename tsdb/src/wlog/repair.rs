//! Cutting off a torn tail.
//!
//! Upstream renames the damaged segment to `.repair`, copies its good part to the old name, and deletes
//! `.repair`; between these steps a crash leaves a log without that segment. Here the good part is
//! written aside and renamed over the damaged segment, so that each crash leaves one or the other.

use std::path::Path;

use super::{LogPosition, PAGE_BYTES, last_segment, segment_path};
use crate::{
    error::{Error, Result},
    fs::Fs,
    types::SegmentIndex,
};

/// Suffix of a good part that is being written.
const COPY_SUFFIX: &str = ".repair-copy";

/// Suffix upstream gives to a damaged segment while it repairs it.
const UPSTREAM_SUFFIX: &str = ".repair";

const BLOCK_BYTES: usize = 1024 * 1024;

/// Cuts a segment off at `position.offset`, the start of the record that is torn, and pads what is
/// left to a full page. Crash-safe: afterwards the segment is as before, or cut.
pub fn repair_torn_tail(fs: &dyn Fs, dir: &Path, position: LogPosition) -> Result<()> {
    let path = segment_path(dir, position.segment);
    let aside = dir.join(format!("{:08}{COPY_SUFFIX}", position.segment.0));
    let source = fs.open(&path).map_err(Error::io("open", &path))?;
    let mut copy = fs.create(&aside).map_err(Error::io("create", &aside))?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while at < position.offset {
        let len = usize::try_from(position.offset - at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let part = block.get_mut(..len).unwrap_or_default();
        source.read_exact_at(part, at).map_err(Error::io("read", &path))?;
        copy.write_all(part).map_err(Error::io("write", &aside))?;
        at += len as u64;
    }
    let padded = position.offset.next_multiple_of(PAGE_BYTES as u64);
    let padding = vec![0; (padded - position.offset) as usize];
    copy.write_all(&padding).map_err(Error::io("write", &aside))?;
    copy.sync().map_err(Error::io("sync", &aside))?;
    drop(copy);
    fs.rename(&aside, &path).map_err(Error::io("rename", &aside))?;
    fs.sync_dir(dir).map_err(Error::io("sync", dir))
}

/// Ends repairs that a crash interrupted, ours and upstream's. To be called before a log is read.
///
/// Of ours a copy may be left, which is deleted. Of upstream's the damaged segment may be left: if its
/// repaired successor is missing, or may not be whole because no later segment was begun, the damaged
/// one is put back, to be repaired anew.
pub fn recover_repairs(fs: &dyn Fs, dir: &Path) -> Result<()> {
    if !fs.exists(dir).map_err(Error::io("look at", dir))? {
        return Ok(());
    }
    let entries = fs.read_dir(dir).map_err(Error::io("list", dir))?;
    let last = last_segment(fs, dir)?;
    let mut changed = false;
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let path = dir.join(&entry.name);
        if segment_of(&entry.name, COPY_SUFFIX).is_some() {
            fs.remove_file(&path).map_err(Error::io("delete", &path))?;
        } else if let Some(segment) = segment_of(&entry.name, UPSTREAM_SUFFIX) {
            let whole = segment_path(dir, segment);
            let is_repaired =
                last > Some(segment) && fs.exists(&whole).map_err(Error::io("look at", &whole))?;
            if is_repaired {
                fs.remove_file(&path).map_err(Error::io("delete", &path))?;
            } else {
                fs.rename(&path, &whole).map_err(Error::io("rename", &path))?;
            }
        } else {
            continue;
        }
        changed = true;
    }
    if changed {
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

fn segment_of(name: &str, suffix: &str) -> Option<SegmentIndex> {
    let number = name.strip_suffix(suffix)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?.map(SegmentIndex)
}
