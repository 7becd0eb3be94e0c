//! What Thanos Receive uploaded of its own blocks is what we upload of them.

use serde_json::Value;
use weir::ship::{HashFunc, Shipper};

use crate::ship::{fault_store::*, support::*};

async fn check(case: &str) {
    let tenant = Tenant::of(case);
    let listed_by_thanos = tenant.listed();
    // Its list is believed: nothing is done.
    let store = FaultStore::new();
    assert!(tenant.shipper(&store.bucket(&impatient())).sync().await.is_done());
    assert_eq!(store.ops(), []);

    std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
    let mut config = tenant.config();
    config.hash_func = Some(HashFunc::Sha256);
    let mut shipper = Shipper::new(config, store.bucket(&impatient())).unwrap();
    let report = shipper.sync().await;
    assert_eq!(report.uploaded.len(), listed_by_thanos.len());
    assert_eq!(tenant.listed(), listed_by_thanos);

    let ours = contents(store.inner()).await;
    let theirs = files_below(&golden(case).join("bucket"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, data) in &ours {
        if !name.ends_with("/meta.json") {
            assert!(data == &theirs[name], "{name} differs");
            continue;
        }
        let mut our_meta: Value = serde_json::from_slice(data).unwrap();
        let mut their_meta: Value = serde_json::from_slice(&theirs[name]).unwrap();
        // Thanos leaves out its version, and the time is its own.
        assert_eq!(our_meta["thanos"]["version"].take(), 1);
        assert!(their_meta["thanos"].get("version").is_none());
        their_meta["thanos"]["version"] = Value::Null;
        let time = our_meta["thanos"]["upload_time"].take();
        assert_eq!(time, "2026-11-20T18:40:00Z");
        assert!(!their_meta["thanos"]["upload_time"].take().as_str().unwrap().is_empty());
        assert_eq!(our_meta, their_meta, "{name}");
        // The layout is the same, too: order of the first keys and tabs.
        let first_lines = |data: &[u8]| {
            let text = String::from_utf8(data.to_vec()).unwrap();
            text.lines().take(4).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(first_lines(data), first_lines(&theirs[name]));
    }

    // And a bucket that Thanos filled is complete for us.
    std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
    let store = FaultStore::new();
    let bucket = store.bucket(&impatient());
    for (name, data) in theirs {
        bucket.put_small(&name, data.into()).await.unwrap();
    }
    store.heal();
    let report = tenant.shipper(&bucket).sync().await;
    assert_eq!(report.already_there.len(), listed_by_thanos.len());
    assert_eq!(store.sent(), Vec::<String>::new());
    assert_eq!(tenant.listed(), listed_by_thanos);
}

#[tokio::test]
async fn a_tenant_of_thanos() {
    check("thanos-tenant").await;
}

#[tokio::test]
async fn a_tenant_of_thanos_after_its_stop() {
    check("thanos-tenant-stopped").await;
}

#[tokio::test]
async fn members_that_nobody_knows_are_kept() {
    let tenant = Tenant::of("float-blocks");
    let path = tenant.dir.join(BLOCK_1).join("meta.json");
    let mut meta: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    meta["new"] = serde_json::json!({"a": [1, 2]});
    meta["stats"]["numNew"] = 7.into();
    meta["compaction"]["hints"] = serde_json::json!(["from-out-of-order"]);
    std::fs::write(&path, meta.to_string()).unwrap();
    let store = FaultStore::new();
    tenant.shipper(&store.bucket(&impatient())).sync().await;
    let uploaded = &contents(store.inner()).await[&format!("{BLOCK_1}/meta.json")];
    let mut uploaded: Value = serde_json::from_slice(uploaded).unwrap();
    uploaded.as_object_mut().unwrap().remove("thanos").unwrap();
    assert_eq!(uploaded, meta);
}
