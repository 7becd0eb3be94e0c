//! kill -9 at every request of an upload, with a real process and a real server.

use std::process::{Command, Stdio};

use weir::{
    objstore::{Bucket, BucketConfig},
    ship::{Shipper, ShipperConfig},
};

use crate::{
    buckets::s3_server::*,
    ship::{s3::small_tenant, support::*},
};

const CHILD_DIR: &str = "WEIR_TEST_SHIP_CHILD_DIR";
const CHILD_CONFIG: &str = "WEIR_TEST_SHIP_CHILD_CONFIG";

/// Not a test of its own: the process that the test below starts and kills. Elsewhere it does nothing.
#[test]
fn child() {
    let (Ok(dir), Ok(yaml)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_CONFIG)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bucket = Bucket::open(&BucketConfig::parse(&yaml).unwrap(), &impatient()).unwrap();
        Shipper::new(ShipperConfig::new(dir, "team-a", labels()), bucket).unwrap().sync().await;
    });
}

#[tokio::test]
async fn killed_at_every_request() {
    for number in 0.. {
        let (tenant, requests) = small_tenant();
        if number == requests {
            break;
        }
        let server = S3Server::start(true).await;
        server.plan(move |asked, _| if asked == number { Wire::Hang } else { Wire::Serve });
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ship::kill::child"])
            .env(CHILD_DIR, &tenant.dir)
            .env(CHILD_CONFIG, server.yaml(""))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while server.asked().len() <= number {
            assert_eq!(child.try_wait().unwrap(), None, "ended before request {number}");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        server.heal();
        let config = BucketConfig::parse(&server.yaml("")).unwrap();
        let bucket = Bucket::open(&config, &impatient()).unwrap();
        let before = crate::buckets::contents(&bucket).await;
        server.heal();
        let report = tenant.shipper(&bucket).sync().await;
        assert!(report.is_done() && report.failed.is_empty(), "killed at {number}: {report:?}");
        let mut sent: Vec<String> = server
            .asked()
            .into_iter()
            .filter(Asked::is_put)
            .map(|asked| asked.target.trim_start_matches(&format!("/{BUCKET}/")).to_owned())
            .collect();
        sent.sort();
        let after = crate::buckets::contents(&bucket).await;
        tenant.check_bucket(&after, &[BLOCK_1]);
        let missing: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
        assert_eq!(sent.iter().collect::<Vec<_>>(), missing, "killed at {number}");
        assert_eq!(tenant.listed(), [BLOCK_1]);
        assert!(tenant.is_staging_empty());
    }
}
