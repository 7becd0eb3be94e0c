//! Names of block directories: which are whole blocks, which are leftovers, and how blocks go.

use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::meta::parse_ulid;
use crate::{Error, Result, fs::Fs};

/// Ends the name of a block that is being built.
const FOR_CREATION: &str = ".tmp-for-creation";
/// Ends the name of a block that is being deleted.
const FOR_DELETION: &str = ".tmp-for-deletion";
/// Ended the name of a block that was being built by programs of old.
const OLD_TMP: &str = ".tmp";

/// Where block `ulid` is built in the directory `parent`.
pub(super) fn creation_dir(parent: &Path, ulid: Ulid) -> PathBuf {
    parent.join(format!("{ulid}{FOR_CREATION}"))
}

/// Lists the blocks in the directory `parent`, ascending by name. They are not opened.
pub fn block_dirs(fs: &dyn Fs, parent: &Path) -> Result<Vec<(Ulid, PathBuf)>> {
    let entries = fs.read_dir(parent).map_err(Error::io("list", parent))?;
    let block = |name: &String| Some((parse_ulid(name)?, parent.join(name)));
    let dirs = entries.iter().filter(|entry| entry.is_dir);
    Ok(dirs.filter_map(|entry| block(&entry.name)).collect())
}

/// Deletes block `ulid` in the directory `parent`. It is renamed first: after a crash there is
/// either the whole block or a leftover. The rename is durable before anything is deleted.
pub fn delete_block(fs: &dyn Fs, parent: &Path, ulid: Ulid) -> Result<()> {
    let dir = parent.join(ulid.to_string());
    let doomed = parent.join(format!("{ulid}{FOR_DELETION}"));
    // Left by a crash; the rename would fail over it.
    if fs.exists(&doomed).map_err(Error::io("look for", &doomed))? {
        fs.remove_dir_all(&doomed).map_err(Error::io("delete", &doomed))?;
    }
    fs.rename(&dir, &doomed).map_err(Error::io("rename", &dir))?;
    fs.sync_dir(parent).map_err(Error::io("sync", parent))?;
    fs.remove_dir_all(&doomed).map_err(Error::io("delete", &doomed))
}

/// Deletes what a crash left of half-made and half-deleted blocks in the directory `parent`, and
/// returns the names.
pub fn sweep_leftovers(fs: &dyn Fs, parent: &Path) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for entry in fs.read_dir(parent).map_err(Error::io("list", parent))? {
        let stem =
            [FOR_CREATION, FOR_DELETION, OLD_TMP].iter().find_map(|suffix| entry.name.strip_suffix(suffix));
        if entry.is_dir && stem.is_some_and(|stem| parse_ulid(stem).is_some()) {
            let path = parent.join(&entry.name);
            fs.remove_dir_all(&path).map_err(Error::io("delete", &path))?;
            swept.push(entry.name);
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::StdFs;

    #[test]
    fn blocks_go_and_leftovers_are_swept() {
        let parent = tempfile::tempdir().expect("a directory");
        let [one, two] = ["01M7VZGC0014FJ1NHY383WMJ24", "01M7VZGCZ8EW4WVTSWSGKBMQM7"];
        let others = ["wal", "01M7VZGC0014FJ1NHY383WMJ2", "wal.tmp-for-deletion", "chunks_head.tmp"];
        let leftovers = [
            format!("{one}.tmp"),
            format!("{one}.tmp-for-creation"),
            format!("{one}.tmp-for-deletion"),
            format!("{two}.tmp-for-creation"),
        ];
        let all = [one, two].into_iter().chain(others).chain(leftovers.iter().map(String::as_str));
        for name in all {
            std::fs::create_dir_all(parent.path().join(name).join("chunks")).expect("created");
        }
        let file = "01M7VZGDYG10DA60198NS4EC9C";
        std::fs::write(parent.path().join(file), "no directory").expect("written");
        let names = || -> Vec<String> {
            let blocks = block_dirs(&StdFs, parent.path()).expect("listed");
            blocks.iter().map(|(ulid, _)| ulid.to_string()).collect()
        };
        assert_eq!(names(), [one, two]);

        let ulid = parse_ulid(one).expect("a name");
        delete_block(&StdFs, parent.path(), ulid).expect("deleted, in spite of the leftover");
        assert_eq!(names(), [two]);
        assert!(delete_block(&StdFs, parent.path(), ulid).is_err());

        let swept = sweep_leftovers(&StdFs, parent.path()).expect("swept");
        assert_eq!(swept, [&*leftovers[0], &leftovers[1], &leftovers[3]]);
        assert!(sweep_leftovers(&StdFs, parent.path()).expect("nothing left").is_empty());
        let left: Vec<_> =
            StdFs.read_dir(parent.path()).expect("listed").into_iter().map(|entry| entry.name).collect();
        let mut expected = [two, file].into_iter().chain(others).collect::<Vec<_>>();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }
}
