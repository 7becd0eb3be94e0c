//! Opening a directory.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::{Mutex, RwLock};

use super::{CorruptBlock, Db, DbOptions, Shared, lock_path};
use crate::{
    Error, Result,
    block::{self, BlockReader},
    fs::Fs,
    head::Head,
};

impl Db {
    /// Opens (or creates) the database in `dir`: takes the lock, clears away what a crash or another
    /// program left half done, loads blocks, replays the log.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has the directory; [`Error::Corrupt`] if the log is
    /// damaged elsewhere than at its torn end. Nothing is cut away then.
    pub fn open(fs: Arc<dyn Fs>, dir: PathBuf, options: DbOptions) -> Result<Self> {
        fs.create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let lock = if options.lock_file {
            let path = lock_path(&dir);
            Some(fs.lock(&path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Error::Locked { path },
                _ => Error::io("lock", path)(error),
            })?)
        } else {
            None
        };
        sweep(&*fs, &dir)?;
        let (blocks, corrupt_blocks) = load_blocks(&fs, &dir)?;
        let in_order = blocks.iter().filter(|block| block.meta().bounds_the_log());
        let min_valid = in_order.map(|block| block.meta().max_time).max().unwrap_or(i64::MIN);
        let head = Head::open(fs.clone(), &dir, options.clone(), min_valid)?;
        let shared = Shared {
            fs,
            dir,
            options,
            head,
            blocks: RwLock::new(blocks),
            corrupt_blocks,
            maintenance: Mutex::new(()),
            lock: Mutex::new(lock),
            compactions: Default::default(),
            compactions_failed: Default::default(),
            time_retentions: Default::default(),
            size_retentions: Default::default(),
        };
        shared.forget_late_in_blocks();
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// A crash may have come between a block and the end of the log of the late samples in it. They would
    /// go into another block, which overlaps the first.
    fn forget_late_in_blocks(&self) {
        let (late, end) = self.head.late_series_before_blocks_end();
        let Some(last) = end.checked_sub(1) else { return };
        for (labels, handle) in late {
            let mut chunks = Vec::new();
            for block in self.blocks.read().iter() {
                // Of a block that cannot be read nothing is known to be stored.
                let read = super::select::chunks_of_labels(block, &labels, i64::MIN..=last, &mut chunks);
                if let Err(error) = read {
                    tracing::warn!(block = %block.dir().display(), %error, "late samples are kept: a block cannot be read");
                }
            }
            self.head.forget_late(handle, &chunks);
        }
    }
}

/// Deletes half-made and half-deleted blocks, and state of other programs that would be out of step
/// once this one writes: memory snapshots and the list of series for their fast start.
fn sweep(fs: &dyn Fs, dir: &std::path::Path) -> Result<()> {
    for removed in block::sweep_leftovers(fs, dir)? {
        tracing::warn!(dir = %dir.display(), removed, "removed a half-made or half-deleted block");
    }
    for entry in fs.read_dir(dir).map_err(Error::io("list", dir))? {
        if entry.is_dir && entry.name.starts_with("chunk_snapshot.") {
            let path = dir.join(entry.name);
            fs.remove_dir_all(&path).map_err(Error::io("remove", path))?;
        }
    }
    let state = dir.join("wal/series_state.json");
    if fs.exists(&state).map_err(Error::io("look for", &state))? {
        fs.remove_file(&state).map_err(Error::io("remove", state))?;
    }
    Ok(())
}

/// Opens all blocks. Damaged ones come back apart, and so stay on disk untouched; ones that were
/// merged into another one are left to whoever merged them.
fn load_blocks(
    fs: &Arc<dyn Fs>,
    dir: &std::path::Path,
) -> Result<(Vec<Arc<BlockReader>>, Vec<CorruptBlock>)> {
    let (mut blocks, mut corrupt) = (Vec::new(), Vec::new());
    for (ulid, path) in block::block_dirs(&**fs, dir)? {
        match BlockReader::open(&**fs, &path) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) => {
                tracing::error!(block = %path.display(), %error, "block cannot be opened and is left out");
                corrupt.push(CorruptBlock { ulid, dir: path, error });
            }
        }
    }
    let merged: Vec<_> = blocks
        .iter()
        .flat_map(|block| block.meta().compaction.parents.iter().map(|parent| parent.ulid))
        .collect();
    blocks.retain(|block| !merged.contains(&block.meta().ulid));
    blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
    Ok((blocks, corrupt))
}
