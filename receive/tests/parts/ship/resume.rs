//! An upload that breaks off at any step is finished by the next one, and nothing is sent twice.

use weir::objstore::BucketOptions;

use crate::ship::{fault_store::*, support::*};

/// Small parts, so that the larger files go in several.
fn options() -> BucketOptions {
    BucketOptions { part_bytes: 1200, ..impatient() }
}

/// Operations of a round in which nothing fails.
async fn clean_run_ops() -> Vec<Op> {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    assert!(tenant.shipper(&store.bucket(&options())).sync().await.is_done());
    store.ops()
}

/// After a broken round: what the bucket shows is whole, and the next round, by a new process, makes
/// it complete without sending again what is there.
async fn check_finished_by_next(tenant: &Tenant, store: &FaultStore, what: &str) {
    let before = contents(store.inner()).await;
    for (name, _) in before.iter().filter(|(name, _)| name.ends_with("/meta.json")) {
        let block = name.strip_suffix("/meta.json").unwrap();
        let only: std::collections::BTreeMap<_, _> = before
            .iter()
            .filter(|(name, _)| name.starts_with(block))
            .map(|(name, data)| (name.clone(), data.clone()))
            .collect();
        tenant.check_bucket(&only, &[block]);
    }

    store.heal();
    let mut shipper = tenant.shipper(&store.bucket(&options()));
    let report = shipper.sync().await;
    assert!(report.is_done() && report.failed.is_empty(), "{what}: {report:?}");
    let after = contents(store.inner()).await;
    tenant.check_bucket(&after, &[BLOCK_1, BLOCK_2]);
    assert_eq!(tenant.listed(), [BLOCK_1, BLOCK_2], "{what}");
    assert!(tenant.is_staging_empty(), "{what}");

    let mut sent = store.sent();
    sent.sort();
    let missing: Vec<String> = after.keys().filter(|name| !before.contains_key(*name)).cloned().collect();
    assert_eq!(sent, missing, "{what}: sent is not what was missing");
}

#[tokio::test]
async fn failures_at_every_step() {
    let ops = clean_run_ops().await;
    assert!(ops.len() > 30, "{ops:?}");
    for kind in ["put", "multipart", "part", "complete", "head"] {
        assert!(ops.iter().any(|op| op.kind == kind), "no {kind} in {ops:?}");
    }
    for fault in [Fault::Before, Fault::After] {
        for (number, op) in ops.iter().enumerate() {
            let tenant = Tenant::of("float-blocks");
            let store = FaultStore::new();
            store.plan(move |asked, _| if asked == number { fault } else { Fault::None });
            let mut shipper = tenant.shipper(&store.bucket(&options()));
            let report = shipper.sync().await;
            let what = format!("{fault:?} at operation {number}, {op:?}");
            // The block that was hit failed, the other one went.
            let block = op.path.split('/').next().unwrap();
            assert_eq!(report.failed.len(), 1, "{what}: {report:?}");
            assert_eq!(report.failed[0].0.to_string(), block, "{what}");
            assert_eq!(report.uploaded.len(), 1, "{what}");
            assert!(!shipper.is_uploaded(ulid(block)), "{what}");
            let failed_parts = ["multipart", "part", "complete"].contains(&op.kind) && fault == Fault::Before;
            if failed_parts && op.kind != "multipart" {
                let aborts = store.ops().iter().filter(|asked| asked.kind == "abort").count();
                assert_eq!(aborts, 1, "{what}: an upload in parts was not given up");
            }
            drop(shipper);
            check_finished_by_next(&tenant, &store, &what).await;
        }
    }
}

#[tokio::test]
async fn rounds_dropped_at_every_step() {
    for (number, op) in clean_run_ops().await.iter().enumerate() {
        let tenant = Tenant::of("float-blocks");
        let store = FaultStore::new();
        store.plan(move |asked, _| if asked == number { Fault::Hang } else { Fault::None });
        let mut shipper = tenant.shipper(&store.bucket(&options()));
        let reached = async {
            while store.ops().len() <= number {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            report = shipper.sync() => panic!("ended at {op:?}: {report:?}"),
            () = reached => {}
        }
        drop(shipper);
        check_finished_by_next(&tenant, &store, &format!("dropped at {number}, {op:?}")).await;
    }
}

#[tokio::test]
async fn an_object_of_the_wrong_size_is_sent_again() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let name = format!("{BLOCK_1}/chunks/000002");
    let bucket = store.bucket(&options());
    bucket.put_small(&name, bytes::Bytes::from_static(b"half")).await.unwrap();
    store.heal();
    assert!(tenant.shipper(&bucket).sync().await.is_done());
    assert!(store.sent().contains(&name));
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
}

/// Whatever is wrong with a block that shows in the bucket: it is hidden, completed, and shown again.
#[tokio::test]
async fn a_broken_block_in_the_bucket_is_completed() {
    for broken in ["chunks/000001", "index", "meta.json"] {
        let tenant = Tenant::of("float-blocks");
        let store = FaultStore::new();
        let bucket = store.bucket(&options());
        tenant.shipper(&bucket).sync().await;
        std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
        let name = format!("{BLOCK_1}/{broken}");
        bucket.put_small(&name, bytes::Bytes::from_static(b"{}")).await.unwrap();
        store.heal();
        let report = tenant.shipper(&bucket).sync().await;
        assert_eq!(report.uploaded, [ulid(BLOCK_1)], "{broken}");
        assert_eq!(report.already_there, [ulid(BLOCK_2)], "{broken}");
        tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
        let meta = format!("{BLOCK_1}/meta.json");
        let order: Vec<(&str, String)> = store
            .ops()
            .into_iter()
            .filter(|op| ["delete", "put", "complete"].contains(&op.kind))
            .map(|op| (op.kind, op.path))
            .collect();
        assert_eq!(order.first(), Some(&("delete", meta.clone())), "{broken}");
        assert_eq!(order.last(), Some(&("put", meta)), "{broken}");
    }
}
