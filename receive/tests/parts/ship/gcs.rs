//! Type GCS, spoken to the S3 server: the XML interface of GCS has the same requests for what is used
//! here, signatures apart, and a service account may name another address.

use weir::objstore::{Bucket, BucketConfig};

use crate::{buckets::s3_server::*, ship::support::*};

#[tokio::test]
async fn blocks_arrive() {
    let server = S3Server::start(false).await;
    let tenant = Tenant::of("float-blocks");
    let account = format!(
        r#"{{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true,"gcs_base_url":"http://{}"}}"#,
        server.address
    );
    let yaml = format!("type: GCS\nconfig:\n  bucket: {BUCKET}\n  service_account: '{account}'\n");
    let bucket =
        Bucket::open_with_env(&BucketConfig::parse(&yaml).unwrap(), &impatient(), &|_| None).unwrap();
    let report = tenant.shipper(&bucket).sync().await;
    assert!(report.is_done() && report.failed.is_empty(), "{report:?}");
    tenant.check_bucket(&crate::buckets::contents(&bucket).await, &[BLOCK_1, BLOCK_2]);
    std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
    assert_eq!(tenant.shipper(&bucket).sync().await.already_there.len(), 2);

    let file = tenant.dir.join("large");
    std::fs::write(&file, vec![3; 17 << 20]).unwrap();
    bucket.upload_file(&file, "large").await.unwrap();
    assert!(bucket.get("large", u64::MAX).await.unwrap() == vec![3; 17 << 20]);
}
