//! `thanos.shipper.json`: the list of uploaded blocks.
//!
//! The list saves asking the bucket. It is never believed more than the bucket: when it is lost or
//! cannot be read it starts empty, and blocks whose meta.json is in the bucket return to it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use weir_tsdb::fs::{StdFs, write_atomically};

use super::{ShipError, block::parse_block_name};

/// Name of the file in a tenant's directory.
pub(super) const RECORD_FILE: &str = "thanos.shipper.json";

/// The blocks that a tenant's shipper has uploaded and noted on disk. Clones see the same set.
#[derive(Clone, Debug, Default)]
pub struct UploadedBlocks {
    blocks: Arc<RwLock<BTreeSet<Ulid>>>,
}

impl UploadedBlocks {
    /// True if `block` is in the bucket, verified, and listed in `thanos.shipper.json`. Only such a
    /// block may be deleted locally.
    pub fn contains(&self, block: Ulid) -> bool {
        self.blocks.read().contains(&block)
    }

    /// The set as it is now.
    pub fn snapshot(&self) -> BTreeSet<Ulid> {
        self.blocks.read().clone()
    }
}

#[derive(Serialize, Deserialize)]
struct RecordFile {
    version: u32,
    /// Go writes null for an empty list.
    #[serde(default)]
    uploaded: Option<Vec<String>>,
}

/// The list and its file.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    uploaded: UploadedBlocks,
}

impl Record {
    /// Reads the list of `tenant_dir`. A list that cannot be read counts as lost, with a warning.
    pub(super) fn load(tenant_dir: &Path) -> Self {
        let path = tenant_dir.join(RECORD_FILE);
        let blocks = match std::fs::read(&path) {
            Ok(data) => parse(&data).unwrap_or_else(|what| {
                tracing::warn!(path = %path.display(), what, "list of uploaded blocks is lost; asking the bucket");
                BTreeSet::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "list of uploaded blocks is lost; asking the bucket");
                }
                BTreeSet::new()
            }
        };
        Self { path, uploaded: UploadedBlocks { blocks: Arc::new(RwLock::new(blocks)) } }
    }

    pub(super) fn uploaded(&self) -> &UploadedBlocks {
        &self.uploaded
    }

    /// Notes `block` on disk, then in memory.
    pub(super) async fn insert(&self, block: Ulid) -> Result<(), ShipError> {
        let mut blocks = self.uploaded.snapshot();
        if blocks.insert(block) { self.replace(blocks).await } else { Ok(()) }
    }

    /// Forgets the blocks that are not in `present`.
    pub(super) async fn retain(&self, present: &BTreeSet<Ulid>) -> Result<(), ShipError> {
        let mut blocks = self.uploaded.snapshot();
        let before = blocks.len();
        blocks.retain(|block| present.contains(block));
        if blocks.len() == before { Ok(()) } else { self.replace(blocks).await }
    }

    async fn replace(&self, blocks: BTreeSet<Ulid>) -> Result<(), ShipError> {
        let path = self.path.clone();
        let data = to_json(&blocks);
        let written = tokio::task::spawn_blocking(move || write_atomically(&StdFs, &path, &data)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(ShipError::local("write", &self.path))?;
        *self.uploaded.blocks.write() = blocks;
        Ok(())
    }
}

fn parse(data: &[u8]) -> Result<BTreeSet<Ulid>, String> {
    let file: RecordFile = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not 1", file.version));
    }
    let names = file.uploaded.unwrap_or_default();
    names
        .iter()
        .map(|name| parse_block_name(name).ok_or_else(|| format!("{name:?} is not a block's name")))
        .collect()
}

fn to_json(blocks: &BTreeSet<Ulid>) -> Vec<u8> {
    let uploaded = Some(blocks.iter().map(|block| block.to_string()).collect());
    super::meta::tab_indented(&RecordFile { version: 1, uploaded })
}
