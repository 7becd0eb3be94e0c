//! Opening, quarantine, limits and end of tenants, with real databases.

use std::{fs, sync::Arc, time::Duration};

use crate::common::{Message, Node, START_MS, request_with, tenants_config};
use http::StatusCode;
use tokio_util::sync::CancellationToken;
use weir::{
    answer::WriteError,
    tenants::{TenantName, TenantState, Tenants, TenantsError},
    write::WriteConfig,
};
use weir_tsdb::labels::Labels;

fn name(text: &str) -> TenantName {
    TenantName::new(text).unwrap()
}

/// Makes a tenant directory whose database cannot be opened.
fn make_broken(path: &std::path::Path, tenant: &str) {
    fs::create_dir_all(path.join(tenant)).unwrap();
    fs::write(path.join(tenant).join("wal"), "a file, not a directory").unwrap();
}

#[tokio::test]
async fn opens_what_is_there_and_reports_what_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    for tenant in ["a", "b", "lost+found"] {
        fs::create_dir(dir.path().join(tenant)).unwrap();
    }
    fs::write(dir.path().join("a file"), "").unwrap();
    make_broken(dir.path(), "broken");
    let node = Node::in_dir(dir, WriteConfig::default(), |config| config).await;

    let open: Vec<_> = node.tenants.list().iter().map(|tenant| tenant.name.clone()).collect();
    assert_eq!(open, [name("a"), name("b")]);
    let states = node.tenants.states();
    assert_eq!(states[0], (name("a"), TenantState::Serving));
    assert_eq!(states[1], (name("b"), TenantState::Serving));
    let (broken, TenantState::Quarantined(cause)) = &states[2] else { panic!("{states:?}") };
    assert_eq!(broken, &name("broken"));
    assert_eq!(states.len(), 3);

    // Its writes are told why, those of others are taken.
    let body = Message::default().sample("x", START_MS, 1.0).compress();
    let reply = node.call(request_with(body.clone(), &[("thanos-tenant", "broken")])).await;
    assert_eq!((reply.status, reply.error_id()), (StatusCode::SERVICE_UNAVAILABLE, "tenant-unavailable"));
    assert!(reply.text.contains(&**cause), "{}", reply.text);
    assert_eq!(reply.header("retry-after"), "1");
    let reply = node.call(request_with(body, &[("thanos-tenant", "b")])).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(node.stored("b"), 1);
}

#[tokio::test]
async fn a_failed_tenant_is_tried_again_after_its_pause() {
    let dir = tempfile::tempdir().unwrap();
    make_broken(dir.path(), "t");
    let path = dir.path().join("t").join("wal");
    let node = Node::in_dir(dir, WriteConfig::default(), |mut config| {
        config.reopen_pause = Duration::from_secs(3600);
        config
    })
    .await;
    fs::remove_file(&path).unwrap();
    let refused = node.tenants.get_or_open(&name("t")).await;
    assert!(matches!(refused, Err(WriteError::TenantUnavailable { .. })), "the pause is not over");

    let dir = node.stop().await;
    make_broken(dir.path(), "t");
    let node = Node::in_dir(dir, WriteConfig::default(), |mut config| {
        config.reopen_pause = Duration::ZERO;
        config
    })
    .await;
    assert!(node.tenants.get_or_open(&name("t")).await.is_err());
    fs::remove_file(&path).unwrap();
    let opened = node.tenants.get_or_open(&name("t")).await.unwrap();
    assert_eq!(opened.name, name("t"));
    assert_eq!(node.tenants.states(), [(name("t"), TenantState::Serving)]);
}

#[tokio::test]
async fn upkeep_reopens_too() {
    let dir = tempfile::tempdir().unwrap();
    make_broken(dir.path(), "t");
    let path = dir.path().join("t").join("wal");
    let node = Node::in_dir(dir, WriteConfig::default(), |mut config| {
        config.reopen_pause = Duration::ZERO;
        config.maintenance_interval = Duration::from_millis(5);
        config
    })
    .await;
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(node.tenants.clone().maintain(Arc::new(|_, _| true), stop.clone()));
    fs::remove_file(&path).unwrap();
    crate::common::wait_for("the tenant is open", || node.tenants.get("t").is_some()).await;
    stop.cancel();
    upkeep.await.unwrap();
}

/// The databases take a lock file, so a second opening would fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_first_writes_open_once() {
    let node = Node::start().await;
    let openings = (0..32).map(|_| {
        let tenants = node.tenants.clone();
        tokio::spawn(async move { tenants.get_or_open(&name("t")).await.unwrap() })
    });
    let opened: Vec<_> = futures::future::join_all(openings.collect::<Vec<_>>()).await;
    let first = node.tenants.get("t").unwrap();
    assert!(opened.iter().all(|tenant| Arc::ptr_eq(tenant.as_ref().unwrap(), &first)));

    let writes = (0..32).map(|number| {
        let message = Message::default().sample(&number.to_string(), START_MS, 1.0);
        tokio::spawn(crate::common::send(node.router.clone(), crate::common::request(message.compress())))
    });
    for reply in futures::future::join_all(writes.collect::<Vec<_>>()).await {
        assert_eq!(reply.unwrap().status, StatusCode::OK);
    }
    assert_eq!(node.stored("default-tenant"), 32);
    assert_eq!(node.tenants.list().len(), 2);
}

#[tokio::test]
async fn cancelled_openings_go_on() {
    let node = Node::start().await;
    let tenants = node.tenants.clone();
    let waiting = tokio::spawn(async move { tenants.get_or_open(&name("t")).await.map(drop) });
    tokio::task::yield_now().await;
    waiting.abort();
    drop(waiting.await);
    // Whether it was cancelled before or while it opened, the next one finds it well.
    assert!(node.tenants.get_or_open(&name("t")).await.is_ok());
}

#[tokio::test]
async fn the_number_of_tenants_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    for tenant in ["a", "b"] {
        fs::create_dir(dir.path().join(tenant)).unwrap();
    }
    let limit = |limit| {
        move |mut config: weir::tenants::TenantsConfig| {
            config.tenants_max = limit;
            config
        }
    };
    let node = Node::in_dir(dir, WriteConfig::default(), limit(3)).await;
    assert!(node.tenants.get_or_open(&name("c")).await.is_ok());
    let body = Message::default().sample("x", START_MS, 1.0).compress();
    let reply = node.call(request_with(body.clone(), &[("thanos-tenant", "d")])).await;
    assert_eq!((reply.status, reply.error_id()), (StatusCode::TOO_MANY_REQUESTS, "tenant-limit"));
    assert_eq!(reply.header("retry-after"), "1");
    let reply = node.call(request_with(body, &[("thanos-tenant", "a")])).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(node.directories(), ["a", "b", "c"]);

    // What is on disk is served in any case.
    let node = Node::in_dir(node.stop().await, WriteConfig::default(), limit(1)).await;
    assert_eq!(node.tenants.list().len(), 3);
    assert!(node.tenants.get_or_open(&name("d")).await.is_err());
}

#[tokio::test]
async fn external_labels_hold_the_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::in_dir(dir, WriteConfig::default(), |mut config| {
        config.external_labels =
            Labels::from_pairs([("replica", "r1"), ("team", "from a flag"), ("z", "last")]);
        config.tenant_label = "team".to_owned();
        config
    })
    .await;
    let tenant = node.tenants.get_or_open(&name("blue")).await.unwrap();
    assert_eq!(tenant.external_labels.to_string(), r#"{replica="r1", team="blue", z="last"}"#);
    assert_eq!(tenant.dir, node.dir.path().join("blue"));
}

#[tokio::test]
async fn a_data_directory_is_made_if_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x").join("y");
    let tenants = Tenants::open(tenants_config(&path)).await.unwrap();
    assert!(tenants.list().is_empty());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is left of the probe");
}

#[tokio::test]
async fn a_data_directory_that_cannot_serve_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Tenants::open(tenants_config(&file)).await.unwrap_err();
    assert!(matches!(error, TenantsError::Path { action: "make", .. }), "{error}");
    assert!(error.to_string().contains("--tsdb.path"), "{error}");

    // The probe cannot be written. (Permissions would not stop a superuser.)
    let blocked = dir.path().join("blocked");
    fs::create_dir_all(blocked.join(".weir-write-probe")).unwrap();
    let error = Tenants::open(tenants_config(&blocked)).await.unwrap_err();
    assert!(matches!(error, TenantsError::Path { action: "write to", .. }), "{error}");

    let prometheus = dir.path().join("prometheus");
    fs::create_dir_all(prometheus.join("wal")).unwrap();
    fs::write(prometheus.join("wal").join("00000003"), "").unwrap();
    let error = Tenants::open(tenants_config(&prometheus)).await.unwrap_err();
    assert!(error.to_string().contains("itself a database"), "{error}");
    assert!(error.to_string().contains("wal/00000003"), "{error}");

    // A tenant of that name is fine.
    let tenant = dir.path().join("tenant");
    fs::create_dir_all(tenant.join("wal").join("wal")).unwrap();
    assert_eq!(Tenants::open(tenants_config(&tenant)).await.unwrap().list().len(), 1);
}

#[tokio::test]
async fn after_the_end_nothing_is_opened_or_written() {
    let node = Node::start().await;
    let message = Message::default().sample("x", START_MS, 1.0);
    node.store(&message).await;
    let tenants = node.tenants.clone();
    let router = node.router.clone();
    let dir = node.stop().await;

    assert!(tenants.list().is_empty());
    assert!(matches!(tenants.get_or_open(&name("default-tenant")).await, Err(WriteError::NotReady)));
    assert!(matches!(tenants.get_or_open(&name("new")).await, Err(WriteError::NotReady)));
    let reply = crate::common::send(router, crate::common::request(message.compress())).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);

    // The lock is free, and what was acknowledged is there.
    let node = Node::in_dir(dir, WriteConfig::default(), |config| config).await;
    assert_eq!(node.tenants.states(), [(name("default-tenant"), TenantState::Serving)]);
    assert_eq!(node.tenants.list()[0].db.stats().head_series, 1);
}

#[tokio::test]
async fn upkeep_ages_the_series_table_and_stops() {
    let node = Node::start().await;
    node.store(&Message::default().sample("x", START_MS, 1.0)).await;
    let tenant = node.tenants.get("default-tenant").unwrap();
    assert_eq!(tenant.series.len(), 1);
    let (may_delete, stop): (weir::tenants::MayDelete, _) = (Arc::new(|_, _| true), CancellationToken::new());
    for _ in 0..80 {
        node.tenants.maintain_once(&may_delete, &stop).await;
    }
    assert_eq!(tenant.series.len(), 0);
    // The series itself is still there.
    assert_eq!(tenant.db.stats().head_series, 1);
    node.store(&Message::default().sample("x", START_MS + 1, 1.0)).await;
    assert_eq!(tenant.db.stats().head_series, 1);
    assert_eq!(tenant.series.len(), 1);
}

/// As long as a tenant is written to, its newest samples stay in the head; then they leave it.
#[tokio::test]
async fn the_head_of_an_idle_tenant_is_cut() {
    const RANGE_MS: i64 = 1000;
    let short_ranges = |mut config: weir::tenants::TenantsConfig| {
        config.db.block_range_ms = RANGE_MS;
        config
    };
    let node = Node::in_dir(tempfile::tempdir().unwrap(), WriteConfig::default(), short_ranges).await;
    let (may_delete, stop): (weir::tenants::MayDelete, _) = (Arc::new(|_, _| true), CancellationToken::new());
    let begin = std::time::Instant::now();
    let mut t = START_MS;
    // The head never spans so much that it is cut anyway.
    while begin.elapsed() < Duration::from_millis(2 * RANGE_MS as u64) {
        t += 1;
        node.store(&Message::default().sample("x", t, 1.0)).await;
        node.tenants.maintain_once(&may_delete, &stop).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let tenant = node.tenants.get("default-tenant").unwrap();
        assert_eq!(tenant.db.stats().head_series, 1, "after {:?}", begin.elapsed());
    }
    let tenant = node.tenants.get("default-tenant").unwrap();
    let samples = tenant.db.stats().samples_appended;
    assert_eq!(samples, (t - START_MS) as u64);
    while tenant.db.stats().head_series > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the head is never cut");
        tokio::time::sleep(Duration::from_millis(10)).await;
        node.tenants.maintain_once(&may_delete, &stop).await;
    }
    let stats = tenant.db.stats();
    assert!(stats.blocks >= 1);
    assert_eq!(tenant.db.oldest_unsafe(&|_| true), None);
    assert!(tenant.db.oldest_unsafe(&|_| false).is_some_and(|oldest| oldest == START_MS + 1));
}
