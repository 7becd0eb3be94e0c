//! Real servers of buckets, and what lies in them.

#![allow(dead_code)]

pub mod azurite;
pub mod s3_server;

use std::collections::BTreeMap;

use weir::objstore::Bucket;

/// All objects of a bucket by their names.
pub async fn contents(bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for object in bucket.list("").await.unwrap() {
        let data = bucket.get(&object.name, u64::MAX).await.unwrap();
        assert_eq!(data.len() as u64, object.size);
        contents.insert(object.name, data.to_vec());
    }
    contents
}
