//! One tenant's shipper.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use futures::{TryStreamExt, stream::FuturesUnordered};
use tokio::task::spawn_blocking;
use ulid::Ulid;

use super::{
    BlockMeta, Clock, ShipError, ShipperConfig, UploadedBlocks,
    block::{self, Fingerprint, LocalBlock, META_BYTES_MAX, Scan},
    metrics::ShipMetrics,
    record::Record,
    stage::{self, Staged, StagedFile},
};
use crate::objstore::Bucket;

/// Blocks in a row for which the bucket does not answer the first question, before a round ends.
const UNANSWERED_MAX: usize = 2;

/// What a round did.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Blocks whose upload was completed, in order.
    pub uploaded: Vec<Ulid>,
    /// Blocks that were found complete in the bucket, in order.
    pub already_there: Vec<Ulid>,
    /// Blocks that failed, and why. Damaged ones are reported in each round.
    pub failed: Vec<(Ulid, ShipError)>,
    /// What kept the round as a whole from being done: the directory or the list of uploaded blocks.
    pub round_error: Option<ShipError>,
    /// Blocks not in the bucket after this round: failed and not tried.
    pub pending: usize,
    /// When the oldest of the pending blocks was made (the time in its name), in Unix milliseconds.
    pub oldest_not_uploaded_ms: Option<i64>,
}

impl SyncReport {
    /// True if everything that can be uploaded is. Damaged blocks do not count: no retry helps them.
    pub fn is_done(&self) -> bool {
        self.round_error.is_none() && self.pending == self.corrupted()
    }

    /// Number of damaged blocks.
    pub fn corrupted(&self) -> usize {
        self.failed.iter().filter(|(_, error)| error.is_corrupted()).count()
    }

    /// The first failure, damage last.
    pub fn first_error(&self) -> Option<&ShipError> {
        let failures = || self.failed.iter().map(|(_, error)| error);
        let round = self.round_error.as_ref();
        round.or_else(|| failures().find(|error| !error.is_corrupted())).or_else(|| failures().next())
    }
}

/// What is known of a tenant's blocks while a round runs; read by metrics and status.
#[derive(Debug)]
pub(super) struct Progress {
    pending: AtomicUsize,
    /// `i64::MAX` if nothing is pending.
    oldest_ms: AtomicI64,
    metrics: ShipMetrics,
    clock: Clock,
}

impl Progress {
    fn set(&self, pending: &BTreeSet<Ulid>) {
        self.pending.store(pending.len(), Ordering::Relaxed);
        self.oldest_ms.store(oldest_ms(pending).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.publish();
    }

    /// Brings the gauge up to the present.
    pub(super) fn publish(&self) {
        let age_ms = match self.oldest_not_uploaded_ms() {
            Some(oldest) => self.clock.now().as_millisecond().saturating_sub(oldest).max(0),
            None => 0,
        };
        self.metrics.oldest_not_uploaded_seconds.set(age_ms as f64 / 1000.0);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn oldest_not_uploaded_ms(&self) -> Option<i64> {
        Some(self.oldest_ms.load(Ordering::Relaxed)).filter(|&oldest| oldest != i64::MAX)
    }
}

/// Uploads one tenant's blocks. There must be only one for a directory.
#[derive(Debug)]
pub struct Shipper {
    config: Arc<ShipperConfig>,
    bucket: Bucket,
    record: Record,
    progress: Arc<Progress>,
    /// Damaged blocks, so that they are not read again until they change.
    corrupted: HashMap<Ulid, KnownDamage>,
    /// Whether leftovers of an earlier process were removed.
    swept: bool,
}

#[derive(Debug)]
struct KnownDamage {
    fingerprint: Fingerprint,
    path: std::path::PathBuf,
    what: String,
}

/// How a block came to be in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shipped {
    Now,
    Before,
    /// It is not: its directory was deleted meanwhile.
    Vanished,
}

/// Why a block is not in the bucket.
#[derive(Debug)]
struct Failure {
    error: ShipError,
    /// The bucket did not answer even the first question.
    unanswered: bool,
}

impl From<ShipError> for Failure {
    fn from(error: ShipError) -> Self {
        Self { error, unanswered: false }
    }
}

impl Shipper {
    /// A shipper for a tenant's directory. Reads the small file `thanos.shipper.json`; the bucket is
    /// first used by [`Shipper::sync`]. Metrics go to the recorder that is installed now.
    ///
    /// Fails with [`ShipError::NoLabels`] if there are no external labels.
    pub fn new(config: ShipperConfig, bucket: Bucket) -> Result<Self, ShipError> {
        if config.labels.is_empty() {
            return Err(ShipError::NoLabels { tenant: config.tenant });
        }
        let progress = Progress {
            pending: AtomicUsize::new(0),
            oldest_ms: AtomicI64::new(i64::MAX),
            metrics: ShipMetrics::new(&config.tenant),
            clock: config.clock.clone(),
        };
        Ok(Self {
            record: Record::load(&config.tenant_dir),
            config: Arc::new(config),
            bucket,
            progress: Arc::new(progress),
            corrupted: HashMap::new(),
            swept: false,
        })
    }

    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.config.tenant
    }

    /// The blocks that are in the bucket. The handle stays current.
    pub fn uploaded(&self) -> UploadedBlocks {
        self.record.uploaded().clone()
    }

    /// True if `block` is in the bucket, verified, and listed in `thanos.shipper.json`.
    pub fn is_uploaded(&self, block: Ulid) -> bool {
        self.record.uploaded().contains(block)
    }

    /// The blocks that are in the bucket, as of now.
    pub fn uploaded_set(&self) -> BTreeSet<Ulid> {
        self.record.uploaded().snapshot()
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Does one round: uploads what is not in the bucket yet. May be dropped at any await; the next
    /// round goes on where this one was.
    pub async fn sync(&mut self) -> SyncReport {
        self.progress.metrics.dir_syncs.increment(1);
        let mut report = SyncReport::default();
        if let Err(error) = self.round(&mut report).await {
            tracing::warn!(tenant = %self.config.tenant, %error, "cannot look for blocks to upload");
            report.round_error = Some(error);
        }
        if report.round_error.is_some() || !report.failed.is_empty() {
            self.progress.metrics.dir_sync_failures.increment(1);
        }
        report.pending = self.progress.pending();
        report.oldest_not_uploaded_ms = self.progress.oldest_not_uploaded_ms();
        report
    }

    async fn round(&mut self, report: &mut SyncReport) -> Result<(), ShipError> {
        let scan = self.scan().await?;
        let mut pending: BTreeSet<Ulid> = scan.candidates.iter().map(|block| block.ulid).collect();
        pending.extend(scan.failed.iter().map(|(ulid, _)| *ulid));
        self.progress.set(&pending);
        self.corrupted.retain(|ulid, _| scan.present.contains(ulid));

        for (ulid, error) in scan.failed {
            let dir = self.config.tenant_dir.join(ulid.to_string());
            self.block_failed(ulid, &dir, error, report).await;
        }
        let mut unanswered = 0;
        for block in &scan.candidates {
            if let Some(error) = self.known_damage(block).await {
                report.failed.push((block.ulid, error));
                continue;
            }
            match self.ship_and_note(block).await {
                Ok(shipped) => {
                    unanswered = 0;
                    match shipped {
                        Shipped::Now => report.uploaded.push(block.ulid),
                        Shipped::Before => report.already_there.push(block.ulid),
                        Shipped::Vanished => {}
                    }
                    pending.remove(&block.ulid);
                    self.progress.set(&pending);
                }
                Err(failure) => {
                    unanswered = if failure.unanswered { unanswered + 1 } else { 0 };
                    self.block_failed(block.ulid, &block.dir, failure.error, report).await;
                }
            }
            if unanswered >= UNANSWERED_MAX {
                tracing::warn!(
                    tenant = %self.config.tenant,
                    bucket = self.bucket.name(),
                    pending = pending.len(),
                    "the bucket does not answer; the other blocks wait for the next round"
                );
                break;
            }
        }
        if scan.dir_exists {
            self.record.retain(&scan.present).await?;
        }
        Ok(())
    }

    async fn scan(&mut self) -> Result<Scan, ShipError> {
        let tenant_dir = self.config.tenant_dir.clone();
        let uploaded = self.record.uploaded().snapshot();
        let sweep = !self.swept;
        let scan = blocking(&self.config.tenant_dir, move || {
            if sweep {
                stage::sweep(&tenant_dir)?;
            }
            block::scan(&tenant_dir, &uploaded)
        })
        .await?;
        self.swept = true;
        Ok(scan)
    }

    async fn block_failed(&mut self, ulid: Ulid, dir: &Path, error: ShipError, report: &mut SyncReport) {
        let tenant = &self.config.tenant;
        if let ShipError::Corrupted { path, what } = &error {
            let dir = dir.to_owned();
            let fingerprint = spawn_blocking(move || block::fingerprint(&dir)).await.unwrap_or_default();
            let known = self.corrupted.get(&ulid).is_some_and(|known| known.fingerprint == fingerprint);
            if !known {
                tracing::error!(%tenant, block = %ulid, %error, "a block is damaged and is not uploaded");
                self.progress.metrics.corrupted_blocks.increment(1);
                let damage = KnownDamage { fingerprint, path: path.clone(), what: what.clone() };
                self.corrupted.insert(ulid, damage);
            }
        } else {
            tracing::warn!(%tenant, block = %ulid, %error, "cannot upload a block");
            self.progress.metrics.upload_failures.increment(1);
        }
        report.failed.push((ulid, error));
    }

    /// The damage of a block that was found damaged and has not changed since.
    async fn known_damage(&mut self, block: &LocalBlock) -> Option<ShipError> {
        let known = self.corrupted.get(&block.ulid)?;
        let dir = block.dir.clone();
        let fingerprint = spawn_blocking(move || block::fingerprint(&dir)).await.ok()?;
        if known.fingerprint == fingerprint {
            return Some(ShipError::corrupted(&known.path, known.what.clone()));
        }
        self.corrupted.remove(&block.ulid);
        None
    }

    /// Uploads a block unless it is in the bucket, and notes it.
    async fn ship_and_note(&self, block: &LocalBlock) -> Result<Shipped, Failure> {
        let shipped = match self.ship(block).await {
            Err(_) if !exists(&block.dir).await => return Ok(Shipped::Vanished),
            result => result?,
        };
        self.record.insert(block.ulid).await?;
        match shipped {
            Shipped::Now => {
                self.progress.metrics.uploads.increment(1);
                tracing::info!(tenant = %self.config.tenant, block = %block.ulid, "uploaded a block");
            }
            Shipped::Before | Shipped::Vanished => {
                tracing::info!(tenant = %self.config.tenant, block = %block.ulid, "found a block in the bucket");
            }
        }
        Ok(shipped)
    }

    async fn ship(&self, block: &LocalBlock) -> Result<Shipped, Failure> {
        let meta_name = object_name(block.ulid, "meta.json");
        let meta_size = self
            .bucket
            .size(&meta_name)
            .await
            .map_err(|error| Failure { error: error.into(), unanswered: true })?;
        let is_broken = meta_size.is_some();
        if is_broken {
            if self.is_complete(block).await? {
                return Ok(Shipped::Before);
            }
            tracing::warn!(
                tenant = %self.config.tenant, block = %block.ulid,
                "a block in the bucket is not what its meta.json says; completing it"
            );
        }
        let staged = {
            let (block, config) = (block.clone(), Arc::clone(&self.config));
            blocking(&self.config.tenant_dir, move || stage::stage(&block, &config)).await
        };
        let sent = match staged {
            Ok(staged) => self.send(block.ulid, &staged, is_broken).await,
            Err(error) => Err(error),
        };
        let (tenant_dir, ulid) = (self.config.tenant_dir.clone(), block.ulid);
        let unstaged = blocking(&self.config.tenant_dir, move || stage::unstage(&tenant_dir, ulid)).await;
        if let Err(error) = unstaged {
            tracing::warn!(tenant = %self.config.tenant, block = %ulid, %error, "cannot remove the links to a block");
        }
        sent?;
        Ok(Shipped::Now)
    }

    /// True if meta.json in the bucket belongs to this block and all files it names are there with the
    /// sizes it says.
    async fn is_complete(&self, block: &LocalBlock) -> Result<bool, ShipError> {
        let data = match self.bucket.get(&object_name(block.ulid, "meta.json"), META_BYTES_MAX).await {
            Ok(data) => data,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Ok(meta) = BlockMeta::parse(&data) else {
            return Ok(false);
        };
        let files = meta.thanos.map(|thanos| thanos.files).unwrap_or_default();
        if meta.ulid != block.ulid.to_string() || files.iter().all(|file| file.size_bytes.is_none()) {
            return Ok(false);
        }
        for file in files {
            let Some(expected) = file.size_bytes else {
                continue;
            };
            if self.bucket.size(&object_name(block.ulid, &file.rel_path)).await? != Some(expected) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends the files of a block; `is_broken` if there is a meta.json in the bucket that promises too
    /// much.
    async fn send(&self, block: Ulid, staged: &Staged, is_broken: bool) -> Result<(), ShipError> {
        if is_broken {
            self.bucket.delete(&object_name(block, "meta.json")).await?;
        }
        self.bucket.remove_partial_files(&block.to_string()).await;
        let at_once = self.config.upload_concurrency.max(1);
        let mut sending = FuturesUnordered::new();
        for file in &staged.chunks {
            if sending.len() >= at_once {
                sending.try_next().await?;
            }
            sending.push(self.send_file(block, file));
        }
        while sending.try_next().await?.is_some() {}
        self.send_file(block, &staged.index).await?;
        let meta = &staged.meta;
        self.bucket.upload_file(&meta.path, &object_name(block, &meta.rel_path)).await?;
        Ok(())
    }

    /// Sends a file unless an object of its size is there.
    async fn send_file(&self, block: Ulid, file: &StagedFile) -> Result<(), ShipError> {
        let name = object_name(block, &file.rel_path);
        if self.bucket.size(&name).await? != Some(file.size) {
            self.bucket.upload_file(&file.path, &name).await?;
        }
        Ok(())
    }
}

fn object_name(block: Ulid, rel_path: &str) -> String {
    format!("{block}/{rel_path}")
}

fn oldest_ms(blocks: &BTreeSet<Ulid>) -> Option<i64> {
    // Blocks are ordered by their time first.
    blocks.first().map(|block| i64::try_from(block.timestamp_ms()).unwrap_or(i64::MAX - 1))
}

async fn exists(dir: &Path) -> bool {
    tokio::fs::try_exists(dir).await.unwrap_or(true)
}

/// Runs `work` on a thread for blocking work; `path` is told if that fails.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, ShipError> + Send + 'static,
) -> Result<T, ShipError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ShipError::local("work on", path)(io::Error::other(error))))
}
