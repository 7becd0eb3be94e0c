//! Type FILESYSTEM.

use weir::objstore::{Bucket, BucketConfig, BucketOptions};

use crate::ship::support::*;

#[tokio::test]
async fn blocks_arrive_as_files() {
    let tenant = Tenant::of("float-blocks");
    let root = tempfile::tempdir().unwrap();
    let yaml = format!(
        "type: FILESYSTEM\nconfig:\n  directory: {}\nprefix: p\n",
        root.path().join("bucket").display()
    );
    let config = BucketConfig::parse(&yaml).unwrap();
    let options = BucketOptions { part_bytes: 1200, ..Default::default() };
    let bucket = Bucket::open(&config, &options).unwrap();
    let report = tenant.shipper(&bucket).sync().await;
    assert!(report.is_done() && report.failed.is_empty(), "{report:?}");
    let files = files_below(&root.path().join("bucket/p"));
    tenant.check_bucket(&files, &[BLOCK_1, BLOCK_2]);
    assert_eq!(files, crate::buckets::contents(&bucket).await);
}

#[tokio::test]
async fn half_written_files_of_a_killed_process_go() {
    let tenant = Tenant::of("float-blocks");
    let root = tempfile::tempdir().unwrap();
    let chunks = root.path().join(BLOCK_1).join("chunks");
    std::fs::create_dir_all(&chunks).unwrap();
    std::fs::write(chunks.join("000001#1"), "half").unwrap();
    std::fs::write(root.path().join(BLOCK_1).join("index#1"), "half").unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", root.path().display());
    let bucket = Bucket::open(&BucketConfig::parse(&yaml).unwrap(), &BucketOptions::default()).unwrap();
    assert!(tenant.shipper(&bucket).sync().await.is_done());
    tenant.check_bucket(&files_below(root.path()), &[BLOCK_1, BLOCK_2]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = file.join("bucket");
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", path.display());
    let error = Bucket::open(&BucketConfig::parse(&yaml).unwrap(), &BucketOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("config.directory: {}: Not a directory (os error 20)", path.display())
    );
}
