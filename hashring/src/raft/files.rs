//! Directories and files that survive a power cut.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Makes creations, renames and deletions in `dir` survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir`, and its parents if need be, so that it survives a power cut. A directory that is
/// there may have been created just before one, so it is synced too.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.try_exists()?
    {
        create_dir(parent)?;
    }
    fs::create_dir_all(dir)?;
    sync_dir(dir)?;
    parent.map_or(Ok(()), sync_dir)
}

/// Ending of files that are not finished.
pub const UNFINISHED: &str = ".tmp";

/// Writes `parts` to the file `name` in `dir`. After a crash the file is there whole, or as it was
/// before: write aside, sync, rename, sync the directory.
pub fn write_atomically(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let aside = dir.join(format!("{name}{UNFINISHED}"));
    let mut file = File::create(&aside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&aside, dir.join(name))?;
    sync_dir(dir)
}
