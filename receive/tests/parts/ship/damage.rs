//! Damaged blocks stay at home, are reported, and hold back nobody.

use std::{fs, path::Path, sync::Arc};

use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use weir::ship::{IndexStats, Shipper, ShipperConfig};

use crate::ship::{fault_store::*, outage::value, support::*};

fn cut(path: &Path, by: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - by).unwrap();
}

/// Flips a bit, in a copy of the file: the golden block's links must not change.
fn flip(path: &Path, offset: usize) {
    let mut data = fs::read(path).unwrap();
    data[offset] ^= 4;
    fs::write(path, data).unwrap();
}

/// Damages block 1 and expects it to be reported so, while block 2 goes.
async fn check(what: &str, damage: impl Fn(&Path)) {
    let tenant = Tenant::of("float-blocks");
    let dir = tenant.dir.join(BLOCK_1);
    damage(&dir);
    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));
    let prefix = format!("corrupted: {}/", dir.display());
    for _ in 0..2 {
        let report = shipper.sync().await;
        let [(block, error)] = report.failed.as_slice() else {
            panic!("{what}: {report:?}");
        };
        assert_eq!(*block, ulid(BLOCK_1));
        assert!(error.is_corrupted());
        let text = error.to_string();
        assert_eq!(text.strip_prefix(&prefix), Some(what), "{text}");
        // No retry helps, so there is no more to do, but the block waits.
        assert!(report.is_done());
        assert_eq!(report.pending, 1);
        assert_eq!(tenant.listed(), [BLOCK_2]);
        assert!(tenant.is_staging_empty());
    }
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_2]);
}

#[tokio::test]
async fn damages_of_meta_json() {
    let edit = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            let path = dir.join("meta.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(&path, text.replace(from, to)).unwrap();
        }
    };
    check("meta.json: is missing", |dir| fs::remove_file(dir.join("meta.json")).unwrap()).await;
    check("meta.json: EOF while parsing a value at line 1 column 0", |dir| {
        fs::write(dir.join("meta.json"), "").unwrap();
    })
    .await;
    check("meta.json: version 2 is not 1", edit("\"version\": 1", "\"version\": 2")).await;
    check(
        "meta.json: minTime 1795132800000 is after maxTime 179",
        edit("\"maxTime\": 1795140000000", "\"maxTime\": 179"),
    )
    .await;
    check(
        "meta.json: belongs to block 01M7VZGC0014FJ1NHY383WMJ25",
        edit("\"ulid\": \"01M7VZGC0014FJ1NHY383WMJ24\"", "\"ulid\": \"01M7VZGC0014FJ1NHY383WMJ25\""),
    )
    .await;
    check("chunks: 22 chunks are there, meta.json says 23", edit("\"numChunks\": 22", "\"numChunks\": 23"))
        .await;
}

#[tokio::test]
async fn damages_of_the_index() {
    check("index: is missing", |dir| fs::remove_file(dir.join("index")).unwrap()).await;
    check("index: 0 bytes are too few for an index", |dir| fs::write(dir.join("index"), "").unwrap()).await;
    check("index: 56 bytes are too few for an index", |dir| cut(&dir.join("index"), 2063 - 56)).await;
    check("index: offset 0: not the magic number of an index", |dir| flip(&dir.join("index"), 1)).await;
    check("index: offset 4: version 6 of the index is unknown", |dir| flip(&dir.join("index"), 4)).await;
    check("index: offset 2010: the checksum of the table of contents is wrong", |dir| {
        cut(&dir.join("index"), 1)
    })
    .await;
    check("index: offset 2011: the checksum of the table of contents is wrong", |dir| {
        flip(&dir.join("index"), 2012);
    })
    .await;
}

#[tokio::test]
async fn damages_of_chunks() {
    check("chunks: is missing", |dir| fs::remove_dir_all(dir.join("chunks")).unwrap()).await;
    check("chunks: 0 chunks are there, meta.json says 22", |dir| {
        fs::remove_dir_all(dir.join("chunks")).unwrap();
        fs::create_dir(dir.join("chunks")).unwrap();
    })
    .await;
    check("chunks/000002: chunk file 1 is missing before it", |dir| {
        fs::remove_file(dir.join("chunks/000001")).unwrap();
    })
    .await;
    check("chunks/000003: chunk file 2 is missing before it", |dir| {
        fs::remove_file(dir.join("chunks/000002")).unwrap();
    })
    .await;
    check("chunks/000001: 7 bytes are too few for a chunk file", |dir| {
        fs::write(dir.join("chunks/000001"), [0; 7]).unwrap();
    })
    .await;
    check("chunks/000001: offset 0: not the magic number of a chunk file", |dir| {
        flip(&dir.join("chunks/000001"), 3);
    })
    .await;
    check("chunks/000001: offset 4: version 5 of the chunk file is unknown", |dir| {
        flip(&dir.join("chunks/000001"), 4);
    })
    .await;
    check("chunks/000001: offset 8: the checksum of a chunk is wrong", |dir| {
        flip(&dir.join("chunks/000001"), 20);
    })
    .await;
}

/// A chunk file cut at any length is noticed; where a chunk ends, by the number of chunks.
#[tokio::test]
async fn a_chunk_file_cut_anywhere_is_damaged() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));
    fs::remove_dir_all(tenant.dir.join(BLOCK_2)).unwrap();
    let path = tenant.dir.join(BLOCK_1).join("chunks/000003");
    let whole = fs::read(&path).unwrap();
    for len in (0..whole.len()).rev() {
        fs::write(&path, &whole[..len]).unwrap();
        let report = shipper.sync().await;
        assert_eq!(report.corrupted(), 1, "cut to {len}: {report:?}");
    }
    assert_eq!(store.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_index_reader_means_damage_and_a_good_one_is_asked() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let mut config = tenant.config();
    let block_1 = tenant.dir.join(BLOCK_1);
    config.index_stats = Some(Arc::new(move |dir: &Path| {
        if dir == block_1 {
            Err("offset 99: a series is cut".to_owned())
        } else {
            Ok(IndexStats { series_max_size: 123, chunk_max_size: 4567 })
        }
    }));
    let report = Shipper::new(config, store.bucket(&impatient())).unwrap().sync().await;
    let [(_, error)] = report.failed.as_slice() else {
        panic!("{report:?}");
    };
    let index = tenant.dir.join(BLOCK_1).join("index");
    assert_eq!(error.to_string(), format!("corrupted: {}: offset 99: a series is cut", index.display()));
    let contents = contents(store.inner()).await;
    let meta: serde_json::Value = serde_json::from_slice(&contents[&format!("{BLOCK_2}/meta.json")]).unwrap();
    assert_eq!(
        meta["thanos"]["index_stats"],
        serde_json::json!({"series_max_size": 123, "chunk_max_size": 4567})
    );
}

#[test]
fn a_damaged_block_is_counted_once_and_forgiven_when_it_is_mended() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tenant = Tenant::of("float-blocks");
    let index = tenant.dir.join(BLOCK_1).join("index");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..100]).unwrap();
    let store = FaultStore::new();
    let mut shipper = with_local_recorder(&recorder, || tenant.shipper(&store.bucket(&impatient())));
    let corrupted = || value(&handle, "thanos_shipper_corrupted_blocks_total");
    runtime.block_on(async {
        for _ in 0..3 {
            assert_eq!(shipper.sync().await.corrupted(), 1);
        }
        assert_eq!(corrupted(), 1.0);
        assert_eq!(value(&handle, "thanos_shipper_upload_failures_total"), 0.0);
        // Damaged otherwise: that is news.
        fs::write(&index, &whole[..99]).unwrap();
        assert_eq!(shipper.sync().await.corrupted(), 1);
        assert_eq!(corrupted(), 2.0);
        fs::write(&index, &whole).unwrap();
        let report = shipper.sync().await;
        assert_eq!(report.uploaded, [ulid(BLOCK_1)]);
        assert!(report.failed.is_empty());
    });
}

#[test]
fn hash_functions() {
    use weir::ship::HashFunc;
    assert_eq!(HashFunc::parse(""), Ok(None));
    assert_eq!(HashFunc::parse("SHA256"), Ok(Some(HashFunc::Sha256)));
    assert_eq!(HashFunc::parse("MD5"), Err("unknown hash function \"MD5\"; known is SHA256".to_owned()));
    let config = ShipperConfig::new("/x", "t", labels());
    assert_eq!((config.hash_func, config.upload_concurrency), (None, 0));
}
