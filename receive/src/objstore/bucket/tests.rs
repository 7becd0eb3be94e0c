use std::{collections::BTreeMap, sync::Arc};

use ::metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use object_store::memory::InMemory;

use super::*;

fn memory(prefix: &str) -> (Arc<InMemory>, Bucket) {
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::from_store(store.clone(), "test", prefix, &BucketOptions::default());
    (store, bucket)
}

async fn contents(store: &InMemory) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut contents = BTreeMap::new();
    for meta in listed {
        let data = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        contents.insert(meta.location.to_string(), data.to_vec());
    }
    contents
}

#[tokio::test]
async fn names_get_the_prefix_and_lose_it_again() {
    for (prefix, whole) in [("", "d/x"), ("p", "p/d/x"), ("/p/q/", "p/q/d/x")] {
        let (store, bucket) = memory(prefix);
        bucket.put_small("d/x", Bytes::from_static(b"abc")).await.unwrap();
        bucket.put_small("dd", Bytes::new()).await.unwrap();
        assert_eq!(contents(&store).await.get(whole), Some(&b"abc".to_vec()), "{prefix}");
        assert!(bucket.exists("d/x").await.unwrap());
        assert!(!bucket.exists("d/y").await.unwrap());
        assert_eq!(bucket.size("d/x").await.unwrap(), Some(3));
        assert_eq!(bucket.size("d/y").await.unwrap(), None);
        assert_eq!(bucket.get("d/x", 3).await.unwrap().as_ref(), b"abc");
        let x = ListedObject { name: "d/x".to_owned(), size: 3 };
        let dd = ListedObject { name: "dd".to_owned(), size: 0 };
        assert_eq!(bucket.list("d").await.unwrap(), std::slice::from_ref(&x));
        assert_eq!(bucket.list("").await.unwrap(), [x, dd]);
        bucket.delete("d/x").await.unwrap();
        bucket.delete("d/x").await.unwrap();
        assert!(!bucket.exists("d/x").await.unwrap());
    }
}

#[tokio::test]
async fn errors_name_operation_and_object() {
    let (_, bucket) = memory("p");
    bucket.put_small("x", Bytes::from_static(b"abcd")).await.unwrap();
    let error = bucket.get("gone", 10).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().starts_with("get p/gone: "), "{error}");
    let error = bucket.get("x", 3).await.unwrap_err();
    assert!(!error.is_not_found());
    assert_eq!(error.to_string(), "get p/x: it has 4 bytes, more than the 3 allowed here");
    let error = bucket.exists("../x").await.unwrap_err();
    assert!(matches!(error, BucketError::Name { .. }), "{error}");
    let error = bucket.upload_file(Path::new("/nowhere/file"), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/file: No such file or directory (os error 2)");
}

/// Files around the borders of one part, and of the memory bound.
#[tokio::test]
async fn files_arrive_whole_in_one_piece_or_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let options = BucketOptions { part_bytes: 1000, in_flight_bytes: 1, ..Default::default() };
    for size in [0_u64, 1, 999, 1000, 1001, 1999, 2000, 2001, 25_003] {
        let store = Arc::new(InMemory::new());
        let bucket = Bucket::from_store(store.clone(), "test", "", &options);
        let file = dir.path().join("file");
        let data: Vec<u8> = (0..size).map(|at| (at * 7 / 3) as u8).collect();
        std::fs::write(&file, &data).unwrap();
        assert_eq!(bucket.upload_file(&file, "x").await.unwrap(), size);
        assert_eq!(contents(&store).await, BTreeMap::from([("x".to_owned(), data)]));
        assert_eq!(bucket.inner.in_flight.available_permits(), bucket.inner.in_flight_units as usize);
    }
}

#[tokio::test]
async fn a_directory_as_bucket_is_made_and_cleaned_of_partial_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let config = BucketConfig::parse(&format!(
        "type: FILESYSTEM\nconfig: {{directory: {}}}\nprefix: p\n",
        root.display()
    ));
    let bucket = Bucket::open(&config.unwrap(), &BucketOptions::default()).unwrap();
    assert_eq!(bucket.name(), format!("fs: {}", root.display()));
    bucket.put_small("d/c/x", Bytes::from_static(b"x")).await.unwrap();
    for name in ["d/x#1", "d/c/x#22", "d/c/#1", "d/c/x#", "d/c/x#1a", "e#1"] {
        std::fs::write(root.join("p").join(name), "").unwrap();
    }
    assert_eq!(bucket.remove_partial_files("d").await, 2);
    assert_eq!(bucket.remove_partial_files("no").await, 0);
    let mut left: Vec<_> = std::fs::read_dir(root.join("p/d/c"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["#1", "x", "x#", "x#1a"]);
    assert!(root.join("p/e#1").exists());
}

#[test]
fn operations_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    with_local_recorder(&recorder, || {
        let (_, bucket) = memory("");
        runtime.block_on(async {
            bucket.put_small("x", Bytes::new()).await.unwrap();
            bucket.put_small("y", Bytes::new()).await.unwrap();
            bucket.exists("x").await.unwrap();
            bucket.exists("gone").await.unwrap();
            bucket.get("x", 1).await.unwrap();
            bucket.get("gone", 1).await.unwrap_err();
            bucket.upload_file(Path::new("/nowhere"), "z").await.unwrap_err();
            bucket.list("").await.unwrap();
            bucket.delete("x").await.unwrap();
        });
    });
    let rendered = handle.render();
    let value = |metric: &str, operation: &str| {
        let series = format!("{metric}{{bucket=\"test\",operation=\"{operation}\"}} ");
        let line = rendered.lines().find(|line| line.starts_with(&series));
        line.unwrap_or_else(|| panic!("{series} in\n{rendered}"))[series.len()..].parse::<u64>().unwrap()
    };
    let counts = |operation: &str| {
        (
            value("thanos_objstore_bucket_operations_total", operation),
            value("thanos_objstore_bucket_operation_failures_total", operation),
        )
    };
    assert_eq!(counts("upload"), (3, 1));
    assert_eq!(counts("exists"), (2, 0));
    assert_eq!(counts("get"), (2, 0));
    assert_eq!(counts("iter"), (1, 0));
    assert_eq!(counts("delete"), (1, 0));
    assert_eq!(counts("attributes"), (0, 0));
    assert_eq!(counts("get_range"), (0, 0));
    assert!(rendered.contains("thanos_objstore_bucket_last_successful_upload_time{bucket=\"test\"} 1"));
    assert!(rendered.contains(
        "thanos_objstore_bucket_operation_duration_seconds_count{bucket=\"test\",operation=\"upload\"} 2"
    ));
}
