//! What rounds do when nothing fails.

use std::fs;

use weir::ship::{Shipper, ShipperConfig};

use crate::ship::{fault_store::*, support::*};

#[tokio::test]
async fn blocks_go_oldest_first_and_meta_goes_last() {
    let tenant = Tenant::of("float-blocks");
    let before = tenant.files();
    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));

    let report = shipper.sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_1), ulid(BLOCK_2)]);
    assert!(report.already_there.is_empty() && report.failed.is_empty() && report.is_done());
    assert_eq!((report.pending, report.oldest_not_uploaded_ms), (0, None));

    let names = ["chunks/000001", "chunks/000002", "chunks/000003", "index", "meta.json"];
    let expected: Vec<String> =
        [BLOCK_1, BLOCK_2].iter().flat_map(|block| names.map(|name| format!("{block}/{name}"))).collect();
    assert_eq!(store.sent(), expected);
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);

    // Each object is asked for after it was put.
    let ops = store.ops();
    for name in expected {
        let put = ops.iter().position(|op| op.kind == "put" && op.path == name).unwrap();
        assert_eq!(ops[put + 1], Op { kind: "head", path: name });
    }

    // Nothing of the tenant's changed, nothing is left over, and the list is on disk.
    assert_eq!(tenant.files(), before);
    assert!(tenant.is_staging_empty());
    assert_eq!(tenant.listed(), [BLOCK_1, BLOCK_2]);
    assert!(shipper.is_uploaded(ulid(BLOCK_1)) && !shipper.is_uploaded(ulid(BLOCK_3)));
    assert_eq!(shipper.uploaded_set(), [ulid(BLOCK_1), ulid(BLOCK_2)].into());

    // The next round, of this shipper or of a new one, asks nothing of the bucket.
    store.heal();
    assert!(shipper.sync().await.is_done());
    assert!(tenant.shipper(&store.bucket(&impatient())).sync().await.is_done());
    assert_eq!(store.ops(), []);
}

#[tokio::test]
async fn order_is_by_time_of_samples_not_by_name() {
    let tenant = Tenant::of("float-blocks");
    for (block, min_time) in [(BLOCK_1, 2000), (BLOCK_2, 1000)] {
        let path = tenant.dir.join(block).join("meta.json");
        let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        meta["minTime"] = min_time.into();
        fs::write(&path, meta.to_string()).unwrap();
    }
    let store = FaultStore::new();
    let report = tenant.shipper(&store.bucket(&impatient())).sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_2), ulid(BLOCK_1)]);
}

#[tokio::test]
async fn chunk_files_may_go_side_by_side_but_index_and_meta_follow() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    // The first chunk file never ends, so with one at a time nothing else would be put.
    store.plan(|_, op| {
        if op.kind == "put" && op.path.ends_with("chunks/000001") { Fault::Hang } else { Fault::None }
    });
    let config = ShipperConfig { upload_concurrency: 3, ..tenant.config() };
    let mut shipper = Shipper::new(config, store.bucket(&impatient())).unwrap();
    let wait_for_two = async {
        while store.sent().len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = shipper.sync() => panic!("a round ended though an upload hangs"),
        () = wait_for_two => {}
    }
    let mut sent = store.sent();
    sent.sort();
    assert_eq!(sent, [1, 2, 3].map(|number| format!("{BLOCK_1}/chunks/00000{number}")));
}

#[tokio::test]
async fn only_blocks_of_level_1_with_samples_are_candidates() {
    // A merged block of level 2, and one of level 1.
    let tenant = Tenant::of("block-level2");
    let level_of = |block: &str| {
        let data = fs::read(tenant.dir.join(block).join("meta.json")).unwrap();
        weir::ship::BlockMeta::parse(&data).unwrap().compaction.level
    };
    let blocks = tenant.blocks();
    let (first, others): (Vec<&str>, Vec<&str>) =
        blocks.iter().map(String::as_str).partition(|block| level_of(block) == 1);
    assert_eq!((first.len(), others.len()), (1, 1));

    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));
    let report = shipper.sync().await;
    assert_eq!(report.uploaded, [ulid(first[0])]);
    assert!(report.is_done() && report.pending == 0);
    tenant.check_bucket(&contents(store.inner()).await, &first);

    let empty = Tenant::of("float-blocks");
    let path = empty.dir.join(BLOCK_1).join("meta.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"numSamples\": 868", "\"numSamples\": 0");
    fs::write(&path, text).unwrap();
    let report = empty.shipper(&FaultStore::new().bucket(&impatient())).sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_2)]);
}

#[tokio::test]
async fn what_is_not_a_block_is_passed_over() {
    let tenant = Tenant::of("leftovers");
    let lower = BLOCK_3.to_lowercase();
    for name in ["lost+found", lower.as_str(), "01M7VZGDYG10DA60198NS4EC9", "wal2"] {
        fs::create_dir_all(tenant.dir.join(name)).unwrap();
    }
    fs::write(tenant.dir.join(BLOCK_3), "a file, not a directory").unwrap();
    let store = FaultStore::new();
    let report = tenant.shipper(&store.bucket(&impatient())).sync().await;
    assert!(report.failed.is_empty() && report.is_done(), "{report:?}");
    for name in contents(store.inner()).await.keys() {
        assert!(tenant.blocks().iter().any(|block| name.starts_with(block)), "{name}");
    }
}

#[tokio::test]
async fn a_tenant_without_a_directory_or_blocks_is_done() {
    let tenant = Tenant::of("float-wal-only");
    let store = FaultStore::new();
    let bucket = store.bucket(&impatient());
    let report = tenant.shipper(&bucket).sync().await;
    assert!(report.is_done() && report.uploaded.is_empty());
    fs::remove_dir_all(&tenant.dir).unwrap();
    let report = tenant.shipper(&bucket).sync().await;
    assert!(report.is_done() && report.round_error.is_none());
    assert!(!tenant.dir.exists());
}

#[tokio::test]
async fn a_lost_list_is_made_anew_from_the_bucket() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let bucket = store.bucket(&impatient());
    tenant.shipper(&bucket).sync().await;
    let path = tenant.dir.join("thanos.shipper.json");
    let was = fs::read(&path).unwrap();
    let losses: [(&str, Option<&str>); 6] = [
        ("removed", None),
        ("empty", Some("")),
        ("cut", Some("{\"version\":1,\"uploaded\":[\"01M7")),
        ("of another version", Some("{\"version\":2,\"uploaded\":[]}")),
        ("without a list", Some("{\"version\":1,\"uploaded\":null}")),
        ("with a strange name", Some("{\"version\":1,\"uploaded\":[\"x\"]}")),
    ];
    for (how, text) in losses {
        match text {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        store.heal();
        let mut shipper = tenant.shipper(&bucket);
        assert!(shipper.uploaded_set().is_empty(), "{how}");
        let report = shipper.sync().await;
        assert_eq!(report.already_there, [ulid(BLOCK_1), ulid(BLOCK_2)], "{how}");
        assert!(report.uploaded.is_empty() && report.is_done(), "{how}");
        assert_eq!(store.sent(), Vec::<String>::new(), "{how}");
        assert_eq!(fs::read(&path).unwrap(), was, "{how}");
    }
}

#[tokio::test]
async fn deleted_blocks_leave_the_list_and_stay_in_the_bucket() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));
    shipper.sync().await;
    let uploaded = shipper.uploaded();
    assert!(uploaded.contains(ulid(BLOCK_1)));
    fs::remove_dir_all(tenant.dir.join(BLOCK_1)).unwrap();
    assert!(shipper.sync().await.is_done());
    assert_eq!(tenant.listed(), [BLOCK_2]);
    assert!(!uploaded.contains(ulid(BLOCK_1)));
    assert!(contents(store.inner()).await.contains_key(&format!("{BLOCK_1}/meta.json")));
}

#[tokio::test]
async fn a_block_may_be_deleted_while_it_is_uploaded() {
    let tenant = Tenant::of("float-blocks");
    let expected = files_below(&tenant.dir.join(BLOCK_1));
    let store = FaultStore::new();
    let dir = tenant.dir.clone();
    store.plan(move |_, op| {
        if op.kind == "put" && op.path == format!("{BLOCK_1}/chunks/000001") {
            fs::remove_dir_all(dir.join(BLOCK_1)).unwrap();
        }
        Fault::None
    });
    let report = tenant.shipper(&store.bucket(&impatient())).sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_1), ulid(BLOCK_2)]);
    let contents = contents(store.inner()).await;
    for name in ["chunks/000001", "chunks/000002", "chunks/000003", "index"] {
        assert_eq!(contents[&format!("{BLOCK_1}/{name}")], expected[name]);
    }
}

#[tokio::test]
async fn a_block_that_vanishes_before_it_is_read_is_no_failure() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let dir = tenant.dir.clone();
    store.plan(move |number, _| {
        if number == 0 {
            fs::remove_dir_all(dir.join(BLOCK_1)).unwrap();
        }
        Fault::None
    });
    let report = tenant.shipper(&store.bucket(&impatient())).sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_2)]);
    assert!(report.failed.is_empty() && report.is_done() && report.pending == 0, "{report:?}");
}

#[tokio::test]
async fn leftovers_of_a_killed_process_are_swept() {
    let tenant = Tenant::of("float-blocks");
    let left = tenant.dir.join("thanos/upload").join(BLOCK_3).join("chunks");
    fs::create_dir_all(&left).unwrap();
    fs::hard_link(tenant.dir.join(BLOCK_1).join("chunks/000001"), left.join("000001")).unwrap();
    let half_done = tenant.dir.join("thanos/upload").join(BLOCK_1);
    fs::create_dir_all(&half_done).unwrap();
    fs::write(half_done.join("index"), "cut").unwrap();
    let store = FaultStore::new();
    assert!(tenant.shipper(&store.bucket(&impatient())).sync().await.is_done());
    assert!(tenant.is_staging_empty());
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
}

#[test]
fn blocks_need_labels() {
    let tenant = Tenant::of("float-blocks");
    let config = ShipperConfig::new(&tenant.dir, "team-a", Default::default());
    let error = Shipper::new(config, FaultStore::new().bucket(&impatient())).unwrap_err();
    assert_eq!(error.to_string(), "tenant team-a: blocks need at least one external label");
}
