//! Giving away what a node holds, before it leaves its cluster.
//!
//! The ring takes the node's slots away first, wave by wave; that is the leader's work. Then the node has
//! all the data that nobody writes to it any more, and it gives that away, in an order that loses nothing:
//!
//! 1. Requests that began with a ring in which the node owned something are waited for.
//! 2. The fence is closed: batches of peers that still have such a ring are refused, and the peers split
//!    what then has too few copies anew. From here on nothing is added.
//! 3. All heads are cut into blocks.
//! 4. The blocks are uploaded, and each upload verified.
//! 5. The cluster is told. It waits until readers find the data in the bucket, and then says that the
//!    node is safe to delete.
//!
//! Reads are served all the time. If the node is to stay after all, the fence is opened again.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use weir_tsdb::db::BlockKind;

use super::uploads::Uploads;
use crate::{
    replicate::{fence::WriteFence, routing::Routing},
    tenants::{TenantState, Tenants},
};

/// Pause between looks whether something has come about.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Pause between attempts to upload what is left.
const UPLOAD_INTERVAL: Duration = Duration::from_secs(1);

/// What the ring says about a drain, and how far it is.
#[derive(Debug)]
pub struct Drain {
    /// True while the node has no slots any more and is to leave.
    wanted: watch::Sender<bool>,
    /// Rings that were in force, as long as requests use them.
    routings: Mutex<Vec<Weak<Routing>>>,
    /// All that the node held is in the bucket.
    done: AtomicBool,
}

impl Drain {
    /// Nothing is known yet.
    pub fn new() -> Arc<Self> {
        let (wanted, routings) = (watch::Sender::new(false), Mutex::default());
        Arc::new(Self { wanted, routings, done: AtomicBool::new(false) })
    }

    /// A ring has been put in force, by which the node is to give away what it holds, or not.
    pub fn ring_in_force(&self, routing: &Arc<Routing>, is_wanted: bool) {
        let mut routings = self.routings.lock();
        routings.retain(|routing| routing.strong_count() > 0);
        routings.push(Arc::downgrade(routing));
        drop(routings);
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, is_wanted) != is_wanted);
    }

    /// True if all that the node held is in the bucket, and nothing can come any more.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// No request uses a ring older than the one in force.
    fn are_old_rings_gone(&self) -> bool {
        self.routings.lock().iter().rev().skip(1).all(|routing| routing.strong_count() == 0)
    }

    /// Drains whenever the ring wants it, until `stop` is cancelled.
    pub async fn run(
        self: Arc<Self>,
        fence: Arc<WriteFence>,
        tenants: Arc<Tenants>,
        uploads: Option<Arc<Uploads>>,
        stop: CancellationToken,
    ) {
        let mut wanted = self.wanted.subscribe();
        let set_closed = async |closed: bool| {
            let fence = fence.clone();
            // It waits for batches that are being stored.
            tokio::task::spawn_blocking(move || fence.set_closed(closed)).await.expect("does not panic");
        };
        // A node that was leaving when it started begins closed; the ring may have changed since.
        if !*wanted.borrow_and_update() {
            set_closed(false).await;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender lives as long as this.
                _ = wanted.wait_for(|wanted| *wanted) => {}
            }
            let give_away = async {
                while !self.are_old_rings_gone() {
                    sleep(LOOK_INTERVAL).await;
                }
                set_closed(true).await;
                tracing::info!("the node owns nothing any more; what it holds is cut and uploaded");
                give_away(&tenants, uploads.as_deref()).await;
                self.done.store(true, Ordering::Release);
                tracing::info!("all that the node held is in the bucket");
                std::future::pending::<()>().await;
            };
            let mut until = self.wanted.subscribe();
            tokio::select! {
                () = stop.cancelled() => return,
                () = give_away => {}
                _ = until.wait_for(|wanted| !*wanted) => {}
            }
            self.done.store(false, Ordering::Release);
            set_closed(false).await;
            tracing::info!("the node stays");
        }
    }
}

/// Cuts all heads and uploads all blocks.
async fn give_away(tenants: &Arc<Tenants>, uploads: Option<&Uploads>) {
    let mut told: Option<String> = None;
    loop {
        let trouble = match try_give_away(tenants, uploads).await {
            Ok(()) => return,
            Err(trouble) => trouble,
        };
        if told.as_ref() != Some(&trouble) {
            tracing::warn!(trouble, "the node cannot give away all that it holds yet");
            told = Some(trouble);
        }
        sleep(UPLOAD_INTERVAL).await;
    }
}

async fn try_give_away(tenants: &Arc<Tenants>, uploads: Option<&Uploads>) -> Result<(), String> {
    for (name, state) in tenants.states() {
        match state {
            TenantState::Serving => {}
            TenantState::Opening => return Err(format!("tenant {name} is being opened")),
            TenantState::Quarantined(cause) => {
                return Err(format!("tenant {name} could not be opened: {cause}"));
            }
        }
    }
    for tenant in tenants.list() {
        let name = tenant.name.clone();
        let cut = tokio::task::spawn_blocking(move || tenant.db.cut_whole_head());
        cut.await.map_err(|error| error.to_string())?.map_err(|error| format!("tenant {name}: {error}"))?;
    }
    let open = tenants.list();
    let Some(uploads) = uploads else {
        // Nothing to give away is given away without a bucket.
        let holder = open.iter().find(|tenant| tenant.db.oldest_unsafe(&|_| false).is_some());
        return match holder {
            Some(tenant) => Err(format!("no bucket is configured, and tenant {} has data", tenant.name)),
            None => Ok(()),
        };
    };
    for tenant in open {
        let synced = uploads.sync_now(&tenant).await;
        let is_uploaded = |ulid| uploads.is_uploaded(&tenant, ulid);
        let name = &tenant.name;
        if let Some((block, kind)) = tenant.db.an_unsafe_block(&is_uploaded) {
            let cause = match (kind, synced) {
                (BlockKind::Damaged, _) => "is damaged; repair it, or take it out of the data directory, and \
                                               start the node again"
                    .to_owned(),
                (BlockKind::Merged, _) => "is made of merged blocks, which are not uploaded; \
                                                          copy it elsewhere, take it out of the data directory, \
                                                          and start the node again"
                    .to_owned(),
                (BlockKind::Cut, Err(error)) => format!("could not be uploaded: {error}"),
                (BlockKind::Cut, Ok(())) => "is not uploaded yet".to_owned(),
            };
            return Err(format!("block {block} of tenant {name} {cause}"));
        }
        if tenant.db.oldest_unsafe(&is_uploaded).is_some() {
            return Err(format!("tenant {name} was written to"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use weir_tsdb::{
        Labels, Sample,
        append::AppendBatch,
        db::{Db, DbOptions},
        fs::StdFs,
    };

    use super::*;
    use crate::{
        config::UploadConfig,
        objstore::{Bucket, BucketConfig, BucketOptions},
        tenants::TenantsConfig,
    };

    /// A tenant with a block and with samples in its head. Returns the block's directory.
    fn make_tenant(tsdb: &Path, name: &str) -> std::path::PathBuf {
        let dir = tsdb.join(name);
        fs::create_dir_all(&dir).unwrap();
        let db = Db::open(Arc::new(StdFs), dir.clone(), DbOptions::default()).unwrap();
        let append = |t| {
            let mut batch = AppendBatch::default();
            batch.push_labels(Labels::from_pairs([("__name__", "m")]));
            batch.push_sample(Sample { t, bits: 1 });
            let _ = db.append(&mut batch).unwrap();
        };
        append(1_700_000_000_000);
        let block = db.cut_whole_head().unwrap()[0];
        append(1_700_000_000_001);
        db.close().unwrap();
        dir.join(block.to_string())
    }

    async fn give_away_from(tsdb: &Path, bucket: &Path) -> Result<(), String> {
        let config = TenantsConfig::new(tsdb.to_owned(), Arc::new(StdFs), DbOptions::default());
        let tenants = Tenants::open(config).await.unwrap();
        let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
        let bucket = Bucket::open(&BucketConfig::parse(&yaml).unwrap(), &BucketOptions::default()).unwrap();
        let config =
            UploadConfig { objstore: None, hash_files: false, concurrency: 1, interval: UPLOAD_INTERVAL };
        let uploads = Uploads::new(bucket, &config);
        let given = try_give_away(&tenants, Some(&uploads)).await;
        tenants.close().await;
        given
    }

    #[tokio::test]
    async fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (tsdb, bucket) = (dir.path().join("tsdb"), dir.path().join("bucket"));
        fs::create_dir(&bucket).unwrap();
        make_tenant(&tsdb, "whole");
        assert_eq!(give_away_from(&tsdb, &bucket).await, Ok(()));
        let complete = fs::read_dir(&bucket).unwrap().filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.join("meta.json").exists() && path.join("index").exists()
        });
        assert_eq!(complete.count(), 2, "the block and the head");

        let merged = make_tenant(&tsdb, "merged");
        let meta = fs::read_to_string(merged.join("meta.json")).unwrap();
        let level_2 = meta.replace("\"level\": 1", "\"level\": 2").replace("\"level\":1", "\"level\":2");
        assert_ne!(meta, level_2);
        fs::write(merged.join("meta.json"), level_2).unwrap();
        let told = give_away_from(&tsdb, &bucket).await.unwrap_err();
        let block = merged.file_name().unwrap().to_str().unwrap();
        assert!(
            told.starts_with(&format!("block {block} of tenant merged is made of merged blocks")),
            "{told}"
        );
        fs::remove_dir_all(&merged).unwrap();
        assert_eq!(give_away_from(&tsdb, &bucket).await, Ok(()));

        let damaged = make_tenant(&tsdb, "damaged");
        fs::write(damaged.join("index"), "no index").unwrap();
        let told = give_away_from(&tsdb, &bucket).await.unwrap_err();
        let block = damaged.file_name().unwrap().to_str().unwrap();
        assert!(told.starts_with(&format!("block {block} of tenant damaged is damaged")), "{told}");
        fs::remove_dir_all(&damaged).unwrap();
        assert_eq!(give_away_from(&tsdb, &bucket).await, Ok(()));
    }
}
