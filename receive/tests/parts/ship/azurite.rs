//! Against Azurite.

use weir::objstore::{Bucket, BucketConfig, BucketOptions};

use crate::{
    buckets::{
        azurite::{ACCOUNT, Azurite, CONTAINER, KEY},
        contents,
    },
    ship::support::*,
};

fn open(yaml: &str, options: &BucketOptions) -> Bucket {
    Bucket::open_with_env(&BucketConfig::parse(yaml).unwrap(), options, &|_| None).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_arrive() {
    let azurite = Azurite::start();
    let by_string = format!(
        "type: AZURE\nconfig:\n  container: {CONTAINER}\n  storage_connection_string: \
         DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={};\n",
        azurite.url
    );
    let by_endpoint = format!("{}prefix: p\n", azurite.yaml());

    // The container is not there yet.
    let tenant = Tenant::of("float-blocks");
    let report = tenant.shipper(&open(&by_string, &impatient())).sync().await;
    assert_eq!((report.failed.len(), report.pending), (2, 2));
    let error = report.first_error().unwrap().to_string();
    assert!(error.starts_with(&format!("upload {BLOCK_1}/chunks/000001: ")), "{error}");
    azurite.create_container().await;

    for yaml in [by_string, by_endpoint] {
        let tenant = Tenant::of("float-blocks");
        let bucket = open(&yaml, &BucketOptions { part_bytes: 1200, ..impatient() });
        assert_eq!(bucket.name(), CONTAINER);
        let report = tenant.shipper(&bucket).sync().await;
        assert!(report.is_done() && report.failed.is_empty(), "{report:?}");
        let mut objects = contents(&bucket).await;
        // The first round's bucket has no prefix, so it sees the second one's objects.
        objects.retain(|name, _| !name.starts_with("p/"));
        tenant.check_bucket(&objects, &[BLOCK_1, BLOCK_2]);

        std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
        assert_eq!(tenant.shipper(&bucket).sync().await.already_there.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_told() {
    let azurite = Azurite::start();
    let yaml = azurite.yaml().replace(KEY, "aHVudGVyMg==");
    let tenant = Tenant::of("float-blocks");
    let report = tenant.shipper(&open(&yaml, &impatient())).sync().await;
    let error = report.first_error().unwrap().to_string();
    assert!(error.contains("403") && !error.contains("aHVudGVyMg"), "{error}");
    assert_eq!(report.pending, 2);
}
