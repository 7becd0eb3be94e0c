//! The blocks of a tenant's directory.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ulid::Ulid;

use super::{BlockMeta, ShipError};

/// Longest meta.json that is read. Real ones have a few hundred bytes.
pub(super) const META_BYTES_MAX: u64 = 16 << 20;

/// A block with its meta.json.
#[derive(Clone, Debug)]
pub(super) struct LocalBlock {
    pub(super) ulid: Ulid,
    pub(super) dir: PathBuf,
    pub(super) meta: BlockMeta,
}

/// What a tenant's directory holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Blocks to upload, oldest samples first.
    pub(super) candidates: Vec<LocalBlock>,
    /// Blocks whose meta.json is no good.
    pub(super) failed: Vec<(Ulid, ShipError)>,
    /// All blocks, whether they are uploaded, to be uploaded or neither.
    pub(super) present: BTreeSet<Ulid>,
    /// False if there is no such directory, which a tenant without data may not have yet.
    pub(super) dir_exists: bool,
}

/// Reads a block's name strictly: 26 characters, upper case.
pub(super) fn parse_block_name(name: &str) -> Option<Ulid> {
    Ulid::from_string(name).ok().filter(|ulid| ulid.to_string() == name)
}

/// Lists the blocks in `tenant_dir` and reads the meta.json of those not in `uploaded`. Blocking.
pub(super) fn scan(tenant_dir: &Path, uploaded: &BTreeSet<Ulid>) -> Result<Scan, ShipError> {
    let mut scan = Scan::default();
    let entries = match fs::read_dir(tenant_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(scan),
        Err(error) => return Err(ShipError::local("list", tenant_dir)(error)),
    };
    scan.dir_exists = true;
    for entry in entries {
        let entry = entry.map_err(ShipError::local("list", tenant_dir))?;
        let Some(ulid) = entry.file_name().to_str().and_then(parse_block_name) else {
            continue;
        };
        let dir = entry.path();
        if !entry.file_type().map_err(ShipError::local("examine", &dir))?.is_dir() {
            continue;
        }
        scan.present.insert(ulid);
        if uploaded.contains(&ulid) {
            continue;
        }
        match read_meta(ulid, &dir) {
            Ok(meta) if meta.compaction.level == 1 && meta.stats.num_samples > 0 => {
                scan.candidates.push(LocalBlock { ulid, dir, meta });
            }
            Ok(_) => {}
            // Deleted since it was listed.
            Err(_) if !dir.exists() => {
                scan.present.remove(&ulid);
            }
            Err(error) => scan.failed.push((ulid, error)),
        }
    }
    scan.candidates.sort_by_key(|block| (block.meta.min_time, block.ulid));
    scan.failed.sort_by_key(|(ulid, _)| *ulid);
    Ok(scan)
}

fn read_meta(ulid: Ulid, dir: &Path) -> Result<BlockMeta, ShipError> {
    let path = dir.join("meta.json");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ShipError::corrupted(&path, "is missing"));
        }
        Err(error) => return Err(ShipError::local("open", &path)(error)),
    };
    let mut data = Vec::new();
    file.take(META_BYTES_MAX + 1).read_to_end(&mut data).map_err(ShipError::local("read", &path))?;
    if data.len() as u64 > META_BYTES_MAX {
        return Err(ShipError::corrupted(&path, format!("is longer than {META_BYTES_MAX} bytes")));
    }
    let meta = BlockMeta::parse(&data).map_err(|what| ShipError::corrupted(&path, what))?;
    if meta.ulid != ulid.to_string() {
        return Err(ShipError::corrupted(&path, format!("belongs to block {}", meta.ulid)));
    }
    Ok(meta)
}

/// Files of a block with their sizes and times of change: as long as these stay the same, so does the
/// block.
pub(super) type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Fingerprint of the block in `dir`. What cannot be read is left out. Blocking.
pub(super) fn fingerprint(dir: &Path) -> Fingerprint {
    let mut files = Vec::new();
    for dir in [dir, &dir.join("chunks")] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                files.push((entry.path(), metadata.len(), metadata.modified().ok()));
            }
        }
    }
    files.sort();
    files
}
