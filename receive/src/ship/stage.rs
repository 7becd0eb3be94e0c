//! A block made ready to leave: `thanos/upload/<ULID>/` with links to its files and the full meta.json.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::{
    BlockFile, BlockMeta, FileHash, HashFunc, IndexStats, ShipError, ShipperConfig, ThanosMeta,
    block::LocalBlock,
    meta::Downsample,
    verify::{check_index, check_segment},
};

/// Where blocks are staged, below a tenant's directory.
const STAGING: &str = "thanos/upload";

/// A file ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StagedFile {
    /// Path below the block, with slashes.
    pub(super) rel_path: String,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
}

/// A block ready to be sent. Removed by [`unstage`].
#[derive(Debug)]
pub(super) struct Staged {
    /// Chunk files, ascending.
    pub(super) chunks: Vec<StagedFile>,
    pub(super) index: StagedFile,
    pub(super) meta: StagedFile,
}

fn staging_dir(tenant_dir: &Path, block: Ulid) -> PathBuf {
    tenant_dir.join(STAGING).join(block.to_string())
}

/// Removes what earlier runs left staged. Blocking.
pub(super) fn sweep(tenant_dir: &Path) -> Result<(), ShipError> {
    remove_dir(&tenant_dir.join(STAGING))
}

/// Removes a staged block. Blocking.
pub(super) fn unstage(tenant_dir: &Path, block: Ulid) -> Result<(), ShipError> {
    remove_dir(&staging_dir(tenant_dir, block))
}

fn remove_dir(dir: &Path) -> Result<(), ShipError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ShipError::local("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Links, checks and describes a block. Blocking, reads all of it.
pub(super) fn stage(block: &LocalBlock, config: &ShipperConfig) -> Result<Staged, ShipError> {
    let dir = staging_dir(&config.tenant_dir, block.ulid);
    remove_dir(&dir)?;
    let chunks_dir = dir.join("chunks");
    fs::create_dir_all(&chunks_dir).map_err(ShipError::local("create", &chunks_dir))?;

    let mut chunks = Vec::new();
    let mut chunk_count = 0;
    for (number, name) in (1_u64..).zip(segment_names(&block.dir)?) {
        let source = block.dir.join("chunks").join(&name);
        if name.parse() != Ok(number) {
            return Err(ShipError::corrupted(&source, format!("chunk file {number} is missing before it")));
        }
        let path = chunks_dir.join(&name);
        link(&source, &path)?;
        let checked = at_home(&source, check_segment(&path))?;
        chunk_count += checked.chunks;
        chunks.push(StagedFile { rel_path: format!("chunks/{name}"), path, size: checked.size });
    }
    if chunk_count < block.meta.stats.num_chunks.max(1) {
        return Err(ShipError::corrupted(
            &block.dir.join("chunks"),
            format!("{chunk_count} chunks are there, meta.json says {}", block.meta.stats.num_chunks),
        ));
    }

    let source = block.dir.join("index");
    let path = dir.join("index");
    link(&source, &path)?;
    let size = at_home(&source, check_index(&path))?;
    let index = StagedFile { rel_path: "index".to_owned(), path, size };
    let index_stats = match &config.index_stats {
        Some(read) => read(&block.dir).map_err(|what| ShipError::corrupted(&source, what))?,
        None => IndexStats::default(),
    };

    let meta = full_meta(block, config, &chunks, &index, index_stats)?.to_json();
    let path = dir.join("meta.json");
    fs::write(&path, &meta).map_err(ShipError::local("write", &path))?;
    let meta = StagedFile { rel_path: "meta.json".to_owned(), path, size: meta.len() as u64 };
    Ok(Staged { chunks, index, meta })
}

/// Names of the chunk files, ascending.
fn segment_names(block_dir: &Path) -> Result<Vec<String>, ShipError> {
    let dir = block_dir.join("chunks");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ShipError::corrupted(&dir, "is missing"));
        }
        Err(error) => return Err(ShipError::local("list", &dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ShipError::local("list", &dir))?;
        // Names that are no numbers are not chunk files, to Prometheus neither.
        if let Ok(name) = entry.file_name().into_string()
            && name.bytes().all(|byte| byte.is_ascii_digit())
        {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), name.clone()));
    Ok(names)
}

/// Links `source` to `path`, or copies it where links are not possible.
fn link(source: &Path, path: &Path) -> Result<(), ShipError> {
    let linked = fs::hard_link(source, path).or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound { Err(error) } else { fs::copy(source, path).map(drop) }
    });
    linked.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ShipError::corrupted(source, "is missing"),
        _ => ShipError::local("link", source)(error),
    })
}

/// A finding in a staged file, told of the file it is a link to.
fn at_home<T>(source: &Path, checked: Result<T, ShipError>) -> Result<T, ShipError> {
    checked.map_err(|error| match error {
        ShipError::Corrupted { what, .. } => ShipError::corrupted(source, what),
        other => other,
    })
}

fn full_meta(
    block: &LocalBlock,
    config: &ShipperConfig,
    chunks: &[StagedFile],
    index: &StagedFile,
    index_stats: IndexStats,
) -> Result<BlockMeta, ShipError> {
    let mut files = Vec::with_capacity(chunks.len() + 2);
    for file in chunks.iter().chain([index]) {
        let hash = match config.hash_func {
            Some(HashFunc::Sha256) => {
                Some(FileHash { hash_func: "SHA256".to_owned(), value: sha256(&file.path)? })
            }
            None => None,
        };
        files.push(BlockFile { rel_path: file.rel_path.clone(), size_bytes: Some(file.size), hash });
    }
    files.push(BlockFile { rel_path: "meta.json".to_owned(), size_bytes: None, hash: None });
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    let segment_files =
        chunks.iter().filter_map(|file| file.rel_path.strip_prefix("chunks/")).map(str::to_owned).collect();
    let thanos = ThanosMeta {
        version: 1,
        labels: config.labels.clone(),
        downsample: Downsample { resolution: 0 },
        source: "receive".to_owned(),
        segment_files,
        files,
        index_stats,
        upload_time: Some(config.clock.now().to_string()),
        other: serde_json::Map::new(),
    };
    Ok(BlockMeta { thanos: Some(thanos), ..block.meta.clone() })
}

fn sha256(path: &Path) -> Result<String, ShipError> {
    let mut file = File::open(path).map_err(ShipError::local("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).map_err(ShipError::local("read", path))?;
        match buffer.get(..read) {
            None | Some([]) => break,
            Some(data) => hasher.update(data),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
