//! Tenants made of golden blocks, and what a bucket must hold of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use ulid::Ulid;
use weir::{
    objstore::{Bucket, BucketOptions},
    ship::{BlockMeta, Clock, Shipper, ShipperConfig},
};

/// The first block of each golden case, made first.
pub const BLOCK_1: &str = "01M7VZGC0014FJ1NHY383WMJ24";
/// The second one.
pub const BLOCK_2: &str = "01M7VZGCZ8EW4WVTSWSGKBMQM7";
/// The third one, of float-checkpoint alone.
pub const BLOCK_3: &str = "01M7VZGDYG10DA60198NS4EC9C";

pub fn ulid(name: &str) -> Ulid {
    Ulid::from_string(name).unwrap()
}

pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tsdb/testdata/golden").join(case)
}

/// A tenant's directory with a copy of a golden case, and a clock that stands until it is moved.
pub struct Tenant {
    _temp: TempDir,
    pub dir: PathBuf,
    now_ms: Arc<AtomicI64>,
}

/// Where the clocks of tests begin: a second after the last golden block was made.
pub const START_MS: i64 = 1_795_200_000_000;

impl Tenant {
    pub fn of(case: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("team-a");
        crate::copy_dir::copy_dir(&golden(case).join("data"), &dir);
        Self { _temp: temp, dir, now_ms: Arc::new(AtomicI64::new(START_MS)) }
    }

    pub fn advance_clock(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub fn config(&self) -> ShipperConfig {
        let now_ms = Arc::clone(&self.now_ms);
        let mut config = ShipperConfig::new(&self.dir, "team-a", labels());
        config.clock =
            Clock::new(move || jiff::Timestamp::from_millisecond(now_ms.load(Ordering::Relaxed)).unwrap());
        config
    }

    pub fn shipper(&self, bucket: &Bucket) -> Shipper {
        Shipper::new(self.config(), bucket.clone()).unwrap()
    }

    /// Names of the blocks in the directory, ascending.
    pub fn blocks(&self) -> Vec<String> {
        let mut blocks: Vec<String> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Ulid::from_string(name).is_ok())
            .collect();
        blocks.sort();
        blocks
    }

    /// All files of the directory but the shipper's own, with their contents.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = files_below(&self.dir);
        files.remove("thanos.shipper.json");
        files
    }

    /// The list of uploaded blocks as it is on disk.
    pub fn listed(&self) -> Vec<String> {
        let data = fs::read(self.dir.join("thanos.shipper.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(value["version"], 1);
        let names = value["uploaded"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    pub fn is_staging_empty(&self) -> bool {
        fs::read_dir(self.dir.join("thanos/upload")).map_or(true, |mut entries| entries.next().is_none())
    }

    /// The bucket holds these blocks, each whole, and nothing else.
    pub fn check_bucket(&self, contents: &BTreeMap<String, Vec<u8>>, blocks: &[&str]) {
        let mut expected_names = Vec::new();
        for block in blocks {
            let dir = self.dir.join(block);
            for name in files_below(&dir).into_keys().filter(|name| name != "tombstones") {
                expected_names.push(format!("{block}/{name}"));
            }
        }
        let names: Vec<&String> = contents.keys().collect();
        assert_eq!(names, expected_names.iter().collect::<Vec<_>>());
        for (name, data) in contents {
            let local = fs::read(self.dir.join(name)).unwrap();
            if name.ends_with("/meta.json") {
                let mut meta = BlockMeta::parse(data).unwrap();
                let thanos = meta.thanos.take().unwrap();
                assert_eq!(meta, BlockMeta::parse(&local).unwrap(), "{name}");
                assert_eq!(thanos.labels, labels());
                for file in thanos.files.iter().filter(|file| file.rel_path != "meta.json") {
                    let object = format!("{}/{}", meta.ulid, file.rel_path);
                    assert_eq!(file.size_bytes, Some(contents[&object].len() as u64), "{object}");
                }
            } else {
                assert!(data == &local, "{name} differs");
            }
        }
    }
}

pub fn labels() -> BTreeMap<String, String> {
    [("cluster", "a"), ("receive_replica", "r0"), ("tenant_id", "team-a")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// All files below a directory by their paths, with their contents.
pub fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files
}

/// All objects of a store by their names.
pub async fn contents(store: &dyn ObjectStore) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut contents = BTreeMap::new();
    for meta in listed {
        let data = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        let doubled = contents.insert(meta.location.to_string(), data.to_vec());
        assert!(doubled.is_none(), "{} is listed twice", meta.location);
    }
    contents
}

/// Options with which tests do not wait for retries of the library.
pub fn impatient() -> BucketOptions {
    BucketOptions {
        retry_timeout: std::time::Duration::ZERO,
        retry_delay: std::time::Duration::from_millis(1),
        ..Default::default()
    }
}
