//! Over HTTP to an S3 server that misbehaves.

use std::{path::Path, time::Duration};

use weir::objstore::{Bucket, BucketConfig, BucketOptions};

use crate::{buckets::s3_server::*, ship::support::*};

fn open(server: &S3Server, more: &str, options: &BucketOptions) -> Bucket {
    let config = BucketConfig::parse(&server.yaml(more)).unwrap();
    Bucket::open_with_env(&config, options, &|_| None).unwrap()
}

/// Retries inside a call, with short pauses.
fn patient() -> BucketOptions {
    BucketOptions {
        retry_timeout: Duration::from_secs(30),
        retry_delay: Duration::from_millis(1),
        ..Default::default()
    }
}

#[tokio::test]
async fn blocks_arrive_below_the_prefix() {
    let server = S3Server::start(true).await;
    let tenant = Tenant::of("float-blocks");
    let bucket = open(&server, "prefix: team/blocks\n", &impatient());
    assert_eq!(bucket.name(), BUCKET);
    let report = tenant.shipper(&bucket).sync().await;
    assert!(report.is_done() && report.failed.is_empty(), "{report:?}");
    tenant.check_bucket(&crate::buckets::contents(&bucket).await, &[BLOCK_1, BLOCK_2]);
    assert!(server.root.path().join(BUCKET).join("team/blocks").join(BLOCK_1).join("meta.json").exists());
    bucket.delete(&format!("{BLOCK_1}/meta.json")).await.unwrap();
    assert!(!bucket.exists(&format!("{BLOCK_1}/meta.json")).await.unwrap());
}

#[tokio::test]
async fn wrong_keys_are_told() {
    let server = S3Server::start(true).await;
    let tenant = Tenant::of("float-blocks");
    let yaml = server.yaml("").replace(SECRET_KEY, "other");
    let config = BucketConfig::parse(&yaml).unwrap();
    let bucket = Bucket::open_with_env(&config, &impatient(), &|_| None).unwrap();
    let report = tenant.shipper(&bucket).sync().await;
    assert_eq!(report.uploaded, []);
    let error = report.first_error().unwrap().to_string();
    assert!(error.contains("403"), "{error}");
    assert!(!error.contains("other"), "{error}");
}

#[tokio::test]
async fn credentials_come_from_the_environment() {
    let server = S3Server::start(true).await;
    let yaml = format!(
        "type: S3\nconfig: {{bucket: {BUCKET}, endpoint: '{}', insecure: true, aws_sdk_auth: true}}\n",
        server.address
    );
    let env = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET_KEY.to_owned()),
        _ => None,
    };
    let config = BucketConfig::parse(&yaml).unwrap();
    let bucket = Bucket::open_with_env(&config, &impatient(), &env).unwrap();
    bucket.put_small("x", "data".into()).await.unwrap();
    assert_eq!(bucket.size("x").await.unwrap(), Some(4));
}

#[tokio::test]
async fn short_outages_are_retried_inside_a_call() {
    for wire in [Wire::Unavailable, Wire::Slow] {
        let server = S3Server::start(true).await;
        let tenant = Tenant::of("float-blocks");
        let bucket = open(&server, "", &patient());
        // Two of three requests fail.
        server.plan(move |number, _| if number % 3 == 2 { Wire::Serve } else { wire });
        let report = tenant.shipper(&bucket).sync().await;
        assert!(report.is_done() && report.failed.is_empty(), "{wire:?} {report:?}");
        server.heal();
        tenant.check_bucket(&crate::buckets::contents(&bucket).await, &[BLOCK_1, BLOCK_2]);
    }
}

#[tokio::test]
async fn no_retries_when_none_are_wanted() {
    let server = S3Server::start(true).await;
    let bucket = open(&server, "  max_retries: -1\n", &patient());
    server.plan(|_, _| Wire::Unavailable);
    assert!(bucket.exists("x").await.is_err());
    assert_eq!(server.asked().len(), 1);
    server.heal();
    let bucket = open(&server, "  max_retries: 2\n", &patient());
    server.plan(|_, _| Wire::Unavailable);
    assert!(bucket.exists("x").await.is_err());
    assert_eq!(server.asked().len(), 3);
}

/// A tenant with one block of five files, and the number of requests of a round in which nothing
/// fails: is the block there; for each of four files is it there, put, what size; meta.json put, what
/// size.
pub fn small_tenant() -> (Tenant, usize) {
    let tenant = Tenant::of("float-blocks");
    std::fs::remove_dir_all(tenant.dir.join(BLOCK_2)).unwrap();
    (tenant, 1 + 4 * 3 + 2)
}

#[tokio::test]
async fn faults_at_every_request_are_mended_by_the_next_round() {
    for wire in [
        Wire::Serve,
        Wire::Unavailable,
        Wire::CutRequest,
        Wire::LoseAnswer,
        Wire::CutAnswer,
        Wire::PretendSuccess,
    ] {
        for number in 0.. {
            let server = S3Server::start(true).await;
            let (tenant, requests) = small_tenant();
            if number == requests {
                break;
            }
            let bucket = open(&server, "", &impatient());
            server.plan(move |asked, _| if asked == number { wire } else { Wire::Serve });
            let report = tenant.shipper(&bucket).sync().await;
            if wire == Wire::Serve {
                assert!(report.is_done());
                assert_eq!(server.asked().len(), requests);
                break;
            }

            // Whatever happened, what shows is whole, and only that is listed.
            server.heal();
            let objects = crate::buckets::contents(&bucket).await;
            if objects.contains_key(&format!("{BLOCK_1}/meta.json")) {
                tenant.check_bucket(&objects, &[BLOCK_1]);
            } else {
                assert!(!tenant.dir.join("thanos.shipper.json").exists(), "{wire:?} at {number}");
            }
            let report = tenant.shipper(&bucket).sync().await;
            assert!(report.is_done() && report.failed.is_empty(), "{wire:?} at {number}: {report:?}");
            assert_eq!(tenant.listed(), [BLOCK_1]);
            tenant.check_bucket(&crate::buckets::contents(&bucket).await, &[BLOCK_1]);
        }
    }
}

#[tokio::test]
async fn an_answer_that_pretends_is_found_out() {
    let server = S3Server::start(true).await;
    let tenant = Tenant::of("float-blocks");
    let bucket = open(&server, "", &impatient());
    let index = format!("/{BUCKET}/{BLOCK_1}/index");
    server.plan(move |_, asked| {
        if asked.is_put() && asked.target.starts_with(&index) { Wire::PretendSuccess } else { Wire::Serve }
    });
    let report = tenant.shipper(&bucket).sync().await;
    assert_eq!(report.uploaded, [ulid(BLOCK_2)]);
    assert_eq!(
        report.failed[0].1.to_string(),
        format!("upload {BLOCK_1}/index: the bucket has 0 bytes of it, the file has 2063")
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = S3Server::start(true).await;
    let tenant = Tenant::of("float-blocks");
    let options = BucketOptions { response_timeout: Duration::from_millis(100), ..impatient() };
    let bucket = open(&server, "", &options);
    server.plan(|_, _| Wire::Hang);
    let report = tenant.shipper(&bucket).sync().await;
    assert_eq!((report.failed.len(), report.pending), (2, 2));
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let tenant = Tenant::of("float-blocks");
    let server = S3Server::start(true).await;
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yaml = server.yaml("").replace(&server.address.to_string(), &free.to_string());
    let config = BucketConfig::parse(&yaml).unwrap();
    let bucket = Bucket::open_with_env(&config, &impatient(), &|_| None).unwrap();
    let report = tenant.shipper(&bucket).sync().await;
    assert_eq!((report.failed.len(), report.pending), (2, 2));
    let error = report.first_error().unwrap().to_string();
    assert!(error.starts_with(&format!("attributes {BLOCK_1}/meta.json: ")), "{error}");
}

/// Files larger than a part go in parts of at least 5 MiB, each object is whole, and parts that cannot
/// be sent are given up.
#[tokio::test]
async fn large_files_go_in_parts() {
    let server = S3Server::start(true).await;
    let bucket = open(&server, "  part_size: 5242880\n", &impatient());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let data: Vec<u8> = (0..(12_u32 << 20) + 5).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    std::fs::write(&file, &data).unwrap();
    let count = |method: http::Method, part: &str| {
        let asked = server.asked();
        asked.iter().filter(|asked| asked.method == method && asked.target.contains(part)).count()
    };

    server.heal();
    assert_eq!(bucket.upload_file(&file, "big").await.unwrap(), data.len() as u64);
    assert!(bucket.get("big", u64::MAX).await.unwrap() == data);
    assert_eq!((count(http::Method::POST, "uploads"), count(http::Method::PUT, "partNumber")), (1, 3));

    server.plan(
        |_, asked| {
            if asked.target.contains("partNumber=2") { Wire::CutRequest } else { Wire::Serve }
        },
    );
    assert!(bucket.upload_file(&file, "bigger").await.is_err());
    assert_eq!(count(http::Method::DELETE, "uploadId"), 1);
    assert!(!bucket.exists("bigger").await.unwrap());

    // One request at a time, parts included.
    let narrow = "  part_size: 5242880\n  http_config: {max_conns_per_host: 1}\n";
    let narrow = open(&server, narrow, &impatient());
    server.heal();
    narrow.upload_file(&file, "narrow").await.unwrap();
    assert_eq!(count(http::Method::PUT, "partNumber"), 3);
    assert!(narrow.get("narrow", u64::MAX).await.unwrap() == data);

    let whole = open(&server, "  disable_multipart: true\n", &impatient());
    server.heal();
    whole.upload_file(&file, "whole").await.unwrap();
    assert_eq!((count(http::Method::POST, "uploads"), count(http::Method::PUT, "whole")), (0, 1));
    assert!(whole.get("whole", u64::MAX).await.unwrap() == data);
}

#[tokio::test]
async fn an_upload_that_is_dropped_gives_up_its_parts() {
    let server = S3Server::start(true).await;
    let bucket = open(&server, "  part_size: 5242880\n", &impatient());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, vec![7; 11 << 20]).unwrap();
    server.plan(|_, asked| if asked.target.contains("partNumber=3") { Wire::Hang } else { Wire::Serve });
    let seen = |text: &str| server.asked().iter().any(|asked| asked.target.contains(text));
    tokio::select! {
        result = bucket.upload_file(Path::new(&file), "big") => panic!("ended: {result:?}"),
        () = async { while !seen("partNumber=3") { tokio::task::yield_now().await } } => {}
    }
    let aborted = || {
        server
            .asked()
            .iter()
            .any(|asked| asked.method == http::Method::DELETE && asked.target.contains("uploadId"))
    };
    let wait = async {
        while !aborted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the parts were not given up");
}
