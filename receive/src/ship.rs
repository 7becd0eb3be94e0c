//! Blocks to the bucket.
//!
//! A [`Shipper`] watches one tenant's directory and uploads each finished block of level 1 that has
//! samples, so that the Store Gateway and the Compactor of Thanos take it for one of their own. A
//! [`ShipperLoop`] runs the shippers of all tenants.
//!
//! # What must hold
//!
//! 1. **A block is in the bucket whole or not at all.** Readers take `<ULID>/meta.json` for the
//!    block's existence, so it goes last, after every other object was sent and the store was asked for
//!    its size.
//! 2. **A block is called uploaded only when it is.** `thanos.shipper.json` lists a block after its
//!    meta.json was verified, or was found in the bucket with every file it names. Retention may delete
//!    what [`UploadedBlocks`] contains, and nothing else.
//! 3. **What was sent is not sent again.** Objects that are there with the right size are passed over,
//!    after a failure, a restart or a kill alike; names are ULIDs, so an object of the name and size is
//!    the object.
//! 4. **One bad block holds back nobody.** A block that fails is tried again next time; the rest go on.
//!    Only when the bucket does not answer at all does a round end early.
//! 5. **Damage stays at home.** Index and chunks are checked before the first byte leaves: checksums,
//!    borders, the number of chunks.
//!
//! # A round
//!
//! Scan the tenant's directory; for each block not in the list, oldest samples first: ask the bucket
//! for its meta.json; if there is none, hard-link the block's files to `thanos/upload/<ULID>/`, so that
//! retention may delete the block meanwhile; check and, if asked, hash them; write the full meta.json
//! beside them; send chunks, then index, then meta.json; note the block; remove the links. The block's
//! own directory is not changed. Links that a kill left behind are swept by the first round.
//!
//! Work on files runs on the threads for blocking work. Nothing here takes a lock that ingestion needs.
//! The formats are Thanos' (`pkg/shipper`, `pkg/block/metadata`).

use std::{collections::BTreeMap, fmt, path::Path, path::PathBuf, sync::Arc};

mod block;
mod driver;
mod error;
mod meta;
mod metrics;
mod record;
mod shipper;
mod stage;
mod verify;

pub use driver::{LoopOptions, ShipperLoop, TenantShipState};
pub use error::ShipError;
pub use meta::{BlockFile, BlockMeta, BlockStats, Compaction, Downsample, FileHash, IndexStats, ThanosMeta};
pub use record::UploadedBlocks;
pub use shipper::{Shipper, SyncReport};

/// Which hash of each file meta.json gets (`--hash-func`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunc {
    /// SHA-256.
    Sha256,
}

impl HashFunc {
    /// Reads the flag's value: `SHA256`, or nothing for none.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "SHA256" => Ok(Some(Self::Sha256)),
            other => Err(format!("unknown hash function {other:?}; known is SHA256")),
        }
    }
}

/// Reads the figures of the index of the block in a directory. An error means that the block is
/// damaged.
pub type IndexStatsReader = Arc<dyn Fn(&Path) -> Result<IndexStats, String> + Send + Sync>;

/// Tells the present moment.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(jiff::Timestamp::now)
    }

    /// A clock that is told by `now`.
    pub fn new(now: impl Fn() -> jiff::Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> jiff::Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How one tenant's blocks are shipped.
#[derive(Clone)]
pub struct ShipperConfig {
    /// The tenant's directory, with its blocks.
    pub tenant_dir: PathBuf,
    /// The tenant, for metrics and logs.
    pub tenant: String,
    /// External labels, the tenant label included. Never empty: readers refuse blocks without.
    pub labels: BTreeMap<String, String>,
    /// Whether meta.json gets hashes of the files.
    pub hash_func: Option<HashFunc>,
    /// How many chunk files of a block are sent at once; 0 means 1.
    pub upload_concurrency: usize,
    /// Reads what goes to `index_stats`; without it that stays empty.
    pub index_stats: Option<IndexStatsReader>,
    /// The clock behind `upload_time` and the age of waiting blocks.
    pub clock: Clock,
}

impl ShipperConfig {
    /// A configuration with the defaults of Thanos and the system's clock.
    pub fn new(
        tenant_dir: impl Into<PathBuf>,
        tenant: impl Into<String>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        Self {
            tenant_dir: tenant_dir.into(),
            tenant: tenant.into(),
            labels,
            hash_func: None,
            upload_concurrency: 0,
            index_stats: None,
            clock: Clock::system(),
        }
    }
}

impl fmt::Debug for ShipperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShipperConfig")
            .field("tenant_dir", &self.tenant_dir)
            .field("tenant", &self.tenant)
            .field("labels", &self.labels)
            .field("hash_func", &self.hash_func)
            .field("upload_concurrency", &self.upload_concurrency)
            .finish_non_exhaustive()
    }
}
