//! Buckets that are away, or that lie.

use metrics::with_local_recorder;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::ship::{fault_store::*, support::*};

/// The value of a series without other labels than the tenant.
pub fn value(handle: &PrometheusHandle, name: &str) -> f64 {
    let rendered = handle.render();
    let series = format!("{name}{{tenant=\"team-a\"}} ");
    let line = rendered.lines().find(|line| line.starts_with(&series));
    line.unwrap_or_else(|| panic!("no {series} in\n{rendered}"))[series.len()..].parse().unwrap()
}

#[test]
fn an_outage_shows_and_passes() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tenant = Tenant::of("float-checkpoint");
    let store = FaultStore::new();
    let mut shipper = with_local_recorder(&recorder, || tenant.shipper(&store.bucket(&impatient())));
    let age = || value(&handle, "weir_shipper_oldest_not_uploaded_seconds");
    let count = |name: &str| value(&handle, &format!("thanos_shipper_{name}"));
    assert_eq!(count("uploads_total"), 0.0);
    let made_ms = i64::try_from(ulid(BLOCK_1).timestamp_ms()).unwrap();

    runtime.block_on(async {
        store.plan(|_, _| Fault::Before);
        let report = shipper.sync().await;
        // Two blocks got no answer, the third was not tried.
        assert_eq!(report.failed.len(), 2, "{report:?}");
        assert_eq!(store.ops().len(), 2);
        assert_eq!((report.pending, report.oldest_not_uploaded_ms), (3, Some(made_ms)));
        assert!(!report.is_done() && report.corrupted() == 0);
        let error = report.first_error().unwrap().to_string();
        assert_eq!(error, format!("attributes {BLOCK_1}/meta.json: Generic test error: planned fault"));
        let first_age = age();
        assert_eq!(first_age, (START_MS - made_ms) as f64 / 1000.0);

        tenant.advance_clock(60_000);
        shipper.sync().await;
        assert_eq!(age(), first_age + 60.0);
        assert_eq!((count("dir_syncs_total"), count("dir_sync_failures_total")), (2.0, 2.0));
        assert_eq!((count("uploads_total"), count("upload_failures_total")), (0.0, 4.0));
        assert!(shipper.uploaded_set().is_empty());

        store.heal();
        let report = shipper.sync().await;
        assert_eq!(report.uploaded, [BLOCK_1, BLOCK_2, BLOCK_3].map(ulid));
        assert_eq!((report.pending, report.oldest_not_uploaded_ms), (0, None));
        assert_eq!(age(), 0.0);
        assert_eq!((count("uploads_total"), count("upload_failures_total")), (3.0, 4.0));
        assert_eq!((count("dir_syncs_total"), count("dir_sync_failures_total")), (3.0, 2.0));
        assert_eq!((count("corrupted_blocks_total"), count("upload_compacted_done")), (0.0, 0.0));
        tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2, BLOCK_3]);
    });
}

#[tokio::test]
async fn one_block_that_cannot_be_sent_holds_back_no_other() {
    for failing in [BLOCK_1, BLOCK_2, BLOCK_3] {
        let tenant = Tenant::of("float-checkpoint");
        let store = FaultStore::new();
        store.plan(move |_, op| {
            if op.kind == "put" && op.path == format!("{failing}/index") {
                Fault::Before
            } else {
                Fault::None
            }
        });
        let mut shipper = tenant.shipper(&store.bucket(&impatient()));
        let others: Vec<_> =
            [BLOCK_1, BLOCK_2, BLOCK_3].into_iter().filter(|block| *block != failing).collect();
        let report = shipper.sync().await;
        assert_eq!(report.uploaded, others.iter().map(|block| ulid(block)).collect::<Vec<_>>());
        assert_eq!(report.failed.len(), 1);
        let made_ms = i64::try_from(ulid(failing).timestamp_ms()).unwrap();
        assert_eq!((report.pending, report.oldest_not_uploaded_ms), (1, Some(made_ms)));
        assert_eq!(tenant.listed(), others);
        // Nor does it when it goes on failing, and it is sent when it can be.
        assert_eq!(shipper.sync().await.failed.len(), 1);
        store.heal();
        assert_eq!(shipper.sync().await.uploaded, [ulid(failing)]);
    }
}

#[tokio::test]
async fn a_store_that_keeps_less_than_it_was_given_is_found_out() {
    let name = format!("{BLOCK_1}/chunks/000001");
    let size = std::fs::metadata(golden("float-blocks/data").join(&name)).unwrap().len();
    let told = |found: u64| format!("upload {name}: the bucket has {found} bytes of it, the file has {size}");
    for (kind, found) in [("put", size / 2), ("head", size + 1)] {
        let tenant = Tenant::of("float-blocks");
        let store = FaultStore::new();
        let lying = name.clone();
        store.plan(move |_, op| if op.kind == kind && op.path == lying { Fault::Lie } else { Fault::None });
        let mut shipper = tenant.shipper(&store.bucket(&impatient()));
        let report = shipper.sync().await;
        assert_eq!(report.uploaded, [ulid(BLOCK_2)], "{kind}");
        assert_eq!(report.failed[0].1.to_string(), told(found), "{kind}");
        let shown = contents(store.inner()).await;
        assert!(!shown.contains_key(&format!("{BLOCK_1}/meta.json")), "{kind}");
        store.heal();
        assert_eq!(shipper.sync().await.uploaded, [ulid(BLOCK_1)], "{kind}");
        tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
    }
}

#[tokio::test]
async fn a_full_local_disk_does_not_make_a_block_uploaded() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let mut shipper = tenant.shipper(&store.bucket(&impatient()));
    // The list cannot be written where a directory has its temporary name.
    let aside = tenant.dir.join("thanos.shipper.json.tmp");
    std::fs::create_dir(&aside).unwrap();
    let report = shipper.sync().await;
    assert_eq!(report.failed.len(), 2, "{report:?}");
    assert!(report.uploaded.is_empty() && shipper.uploaded_set().is_empty());
    std::fs::remove_dir(&aside).unwrap();
    let report = shipper.sync().await;
    assert_eq!(report.already_there, [ulid(BLOCK_1), ulid(BLOCK_2)]);
    assert_eq!(tenant.listed(), [BLOCK_1, BLOCK_2]);
}
