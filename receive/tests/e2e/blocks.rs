//! Blocks on their way to the bucket.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use weir_tsdb::Sample;

use weir::objstore::{Bucket, BucketConfig, BucketOptions, install_crypto_provider};

use super::{
    buckets::{
        self,
        azurite::Azurite,
        s3_server::{S3Server, Wire},
    },
    harness::{Content, NodeSite, assert_same, now_ms, post, wait_for, write_request},
};

const STEP_MS: i64 = 30_000;
const SERIES: usize = 40;

fn value(series: usize, t: i64) -> f64 {
    (series as f64).mul_add(1000.0, (t / STEP_MS) as f64 * 0.01).cos()
}

/// Sends nine hours of samples and returns them.
async fn write_history(site: &NodeSite) -> Content {
    let mut sent = Content::new();
    let steps = 9 * 3600 * 1000 / STEP_MS;
    let first_t = (now_ms() / STEP_MS - steps) * STEP_MS;
    for first in (0..steps).step_by(60) {
        for series in 0..SERIES {
            let name = series.to_string();
            let labels = [("__name__", "shipped"), ("series", name.as_str())];
            let samples: Vec<Sample> = (first..(first + 60).min(steps))
                .map(|step| first_t + step * STEP_MS)
                .map(|t| Sample::new(t, value(series, t)))
                .collect();
            let answer =
                post(&site.write_url(), Some(b"team-a"), write_request([(&labels[..], &samples[..])])).await;
            assert_eq!(answer.unwrap().status, 200);
            sent.entry(weir_tsdb::Labels::from_pairs(labels)).or_default().extend(samples);
        }
    }
    sent
}

/// Names of the blocks in `dir`.
fn blocks_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.len() == 26 && !name.contains('.')).collect()
}

/// Names of the blocks in a folder that are there as a whole.
pub fn complete_blocks_in(dir: &Path) -> BTreeSet<String> {
    blocks_in(dir).into_iter().filter(|name| dir.join(name).join("meta.json").exists()).collect()
}

fn meta(block: &Path) -> Value {
    serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap()
}

/// A site that uploads to the bucket of a Thanos configuration.
fn site_with_bucket(dir: &Path, yaml: &str) -> NodeSite {
    let config = dir.join("objstore.yml");
    fs::write(&config, yaml).unwrap();
    NodeSite::new(&dir.join("node"))
        .with_flag(format!("--objstore.config-file={}", config.display()))
        .with_flag("--hash-func=SHA256")
        .with_flag("--tsdb.maintenance-interval=50ms")
        .with_flag("--shipper.interval=50ms")
}

/// A site that uploads to a folder.
fn site_with_folder(dir: &Path) -> (NodeSite, PathBuf) {
    let bucket = dir.join("bucket");
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    (site_with_bucket(dir, &yaml), bucket)
}

/// Copies what is in the bucket of a Thanos configuration to the folder `to`, as it is now.
async fn download(yaml: &str, to: &Path) {
    install_crypto_provider();
    let bucket = Bucket::open(&BucketConfig::parse(yaml).unwrap(), &BucketOptions::default()).unwrap();
    let _ = fs::remove_dir_all(to);
    for (name, data) in buckets::contents(&bucket).await {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
}

/// Waits until the bucket holds all blocks, and compares it with what the node has and serves.
async fn check_uploads(site: &NodeSite, yaml: &str, scratch: &Path, sent: &Content) {
    let node = site.start().await;
    wait_for("all blocks in the bucket", async || {
        download(yaml, scratch).await;
        let local = blocks_in(&site.tenant_path("team-a"));
        (local.len() >= 3 && complete_blocks_in(scratch) == local).then_some(())
    })
    .await;
    node.stop();
    check_bucket(site, scratch);
    let node = site.start().await;
    assert_same(&site.read("team-a", i64::MIN, i64::MAX).await, sent, "after uploads and kills");
    node.stop();
}

/// The bucket holds each local block once, whole, with the meta that Thanos expects.
fn check_bucket(site: &NodeSite, bucket: &Path) {
    let local = blocks_in(&site.tenant_path("team-a"));
    assert_eq!(blocks_in(bucket), local);
    let mut ranges = Vec::new();
    for name in &local {
        let (here, there) = (site.tenant_path("team-a").join(name), bucket.join(name));
        let (local_meta, meta) = (meta(&here), meta(&there));
        assert_eq!(local_meta.get("thanos"), None, "the local meta.json is left alone");
        for member in ["ulid", "minTime", "maxTime", "stats", "version"] {
            assert_eq!(meta[member], local_meta[member], "{member}");
        }
        assert_eq!(meta["compaction"]["sources"], serde_json::json!([name]));
        let thanos = &meta["thanos"];
        assert_eq!(thanos["version"], 1);
        assert_eq!(thanos["source"], "receive");
        assert_eq!(thanos["labels"], serde_json::json!({"receive_replica": "a", "tenant_id": "team-a"}));
        assert_eq!(thanos["downsample"], serde_json::json!({"resolution": 0}));
        assert_eq!(thanos["segment_files"], serde_json::json!(["000001"]));
        let mut listed = Vec::new();
        for file in thanos["files"].as_array().unwrap() {
            let path = file["rel_path"].as_str().unwrap();
            listed.push(path);
            if path != "meta.json" {
                let bytes = fs::read(there.join(path)).unwrap();
                assert_eq!(file["size_bytes"].as_u64(), Some(bytes.len() as u64), "{path}");
                assert_eq!(bytes, fs::read(here.join(path)).unwrap(), "{path}");
                assert_eq!(file["hash"]["hashFunc"], "SHA256");
                assert_eq!(file["hash"]["value"].as_str().unwrap().len(), 64);
            }
        }
        assert_eq!(listed, ["chunks/000001", "index", "meta.json"]);
        assert!(!there.join("tombstones").exists());
        ranges.push((meta["minTime"].as_i64().unwrap(), meta["maxTime"].as_i64().unwrap()));
    }
    ranges.sort_unstable();
    assert!(ranges.is_sorted_by(|left, right| left.1 <= right.0), "blocks do not overlap: {ranges:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_arrive_in_a_folder_through_kills() {
    let temp = tempfile::tempdir().unwrap();
    let (site, bucket) = site_with_folder(temp.path());
    let mut node = site.start().await;
    let sent = write_history(&site).await;
    // Kills at different moments of cutting and uploading.
    for delay_ms in [0, 7, 19, 31, 53] {
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        node.kill();
        node = site.start().await;
    }
    node.stop();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    check_uploads(&site, &yaml, &temp.path().join("downloaded"), &sent).await;
}

/// kill -9 while a request of an upload hangs, at several places of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_arrive_in_s3_through_kills() {
    let temp = tempfile::tempdir().unwrap();
    let server = S3Server::start(true).await;
    let yaml = server.yaml("");
    let site = site_with_bucket(temp.path(), &yaml);
    // No block is cut and shipped before all is written: the first request hangs already.
    server.plan(|_, _| Wire::Hang);
    let mut node = site.start().await;
    let sent = write_history(&site).await;
    // Requests of three blocks: look for meta.json, put and check each file, meta.json last.
    for number in [1, 0, 2, 4, 3, 6, 5] {
        server.plan(move |asked, _| if asked == number { Wire::Hang } else { Wire::Serve });
        node.kill();
        node = site.start().await;
        wait_for("a request that hangs", async || (server.asked().len() > number).then_some(())).await;
    }
    node.kill();
    server.heal();
    check_uploads(&site, &yaml, &temp.path().join("downloaded"), &sent).await;
    // Nothing was stored twice since the last kill.
    let mut puts: Vec<String> =
        server.asked().into_iter().filter(|asked| asked.is_put()).map(|asked| asked.target).collect();
    let all = puts.len();
    puts.sort();
    puts.dedup();
    assert_eq!(puts.len(), all, "{puts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_arrive_in_azure_through_kills() {
    let temp = tempfile::tempdir().unwrap();
    let azurite = Azurite::start();
    azurite.create_container().await;
    let site = site_with_bucket(temp.path(), &azurite.yaml());
    let mut node = site.start().await;
    let sent = write_history(&site).await;
    // Kills at different moments of cutting and uploading.
    for delay_ms in [0, 11, 23, 47, 90] {
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        node.kill();
        node = site.start().await;
    }
    node.stop();
    check_uploads(&site, &azurite.yaml(), &temp.path().join("downloaded"), &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingestion_goes_on_while_the_bucket_is_down() {
    let temp = tempfile::tempdir().unwrap();
    let (site, bucket) = site_with_folder(temp.path());
    let node = site.start().await;
    // A file where the bucket's directory should be.
    fs::remove_dir_all(&bucket).unwrap();
    fs::write(&bucket, "in the way").unwrap();
    let sent = write_history(&site).await;
    let failures = "thanos_shipper_upload_failures_total{tenant=\"team-a\"}";
    let age = "weir_shipper_oldest_not_uploaded_seconds{tenant=\"team-a\"}";
    wait_for("failed uploads and their age", async || {
        let failed = site.metric(failures).await? > 0.0;
        let waits = site.metric(age).await? > 0.0;
        (failed && waits).then_some(())
    })
    .await;
    assert_same(&site.read("team-a", i64::MIN, i64::MAX).await, &sent, "while the bucket is down");
    fs::remove_file(&bucket).unwrap();
    wait_for("all blocks in the bucket", async || {
        let local = blocks_in(&site.tenant_path("team-a"));
        (local.len() >= 3 && complete_blocks_in(&bucket) == local && site.metric(age).await? == 0.0)
            .then_some(())
    })
    .await;
    node.stop();
    check_bucket(&site, &bucket);
}
