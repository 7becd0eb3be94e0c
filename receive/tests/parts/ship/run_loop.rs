//! The loop over all tenants, with a clock that jumps.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use weir::ship::{LoopOptions, Shipper, ShipperLoop, TenantShipState};

use crate::ship::{fault_store::*, outage::value, support::*};

/// Starts the loop; the token ends it.
fn run(shippers: &Arc<ShipperLoop>) -> (CancellationToken, JoinHandle<()>) {
    let (shippers, cancel) = (Arc::clone(shippers), CancellationToken::new());
    let token = cancel.clone();
    (cancel, tokio::spawn(async move { shippers.run(token).await }))
}

/// Waits until the one tenant's state is as wished.
async fn until(shippers: &ShipperLoop, wished: impl Fn(&TenantShipState) -> bool) -> TenantShipState {
    let wait = async {
        loop {
            if let Some(state) = shippers.states().into_iter().find(&wished) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(3600), wait).await {
        Ok(state) => state,
        Err(_) => panic!("never came: {:?}", shippers.states()),
    }
}

#[tokio::test(start_paused = true)]
async fn new_blocks_go_within_an_interval() {
    let tenant = Tenant::of("float-blocks");
    let aside = tenant.dir.parent().unwrap().join("aside");
    std::fs::rename(tenant.dir.join(BLOCK_2), &aside).unwrap();
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions::default());
    let uploaded = shippers.add(tenant.shipper(&store.bucket(&impatient())));
    assert!(!uploaded.contains(ulid(BLOCK_1)));
    let (cancel, task) = run(&shippers);

    let state = until(&shippers, |state| state.last_success.is_some()).await;
    assert_eq!((state.failed_rounds, state.last_error.as_deref(), state.pending), (0, None, 0));
    assert!(uploaded.contains(ulid(BLOCK_1)));
    assert!(shippers.uploaded("team-a").unwrap().contains(ulid(BLOCK_1)));
    assert!(shippers.uploaded("team-b").is_none());

    std::fs::rename(&aside, tenant.dir.join(BLOCK_2)).unwrap();
    let appeared = Instant::now();
    while !uploaded.contains(ulid(BLOCK_2)) {
        assert!(appeared.elapsed() <= Duration::from_secs(31), "not uploaded");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_tenant_waits_longer_and_comes_back() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let rounds = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&rounds);
    // Two questions a round.
    store.plan(move |number, _| {
        if number % 2 == 0 {
            noted.lock().unwrap().push(Instant::now());
        }
        Fault::Before
    });
    let shippers = ShipperLoop::new(LoopOptions::default());
    shippers.add(tenant.shipper(&store.bucket(&impatient())));
    let (cancel, task) = run(&shippers);

    let state = until(&shippers, |state| state.failed_rounds == 6 && !state.running).await;
    let error = format!("attributes {BLOCK_1}/meta.json: Generic test error: planned fault");
    assert_eq!(state.last_error, Some(error));
    assert_eq!((state.last_success, state.pending), (None, 2));
    let made_ms = i64::try_from(ulid(BLOCK_1).timestamp_ms()).unwrap();
    assert_eq!(state.oldest_not_uploaded_ms, Some(made_ms));
    let times = rounds.lock().unwrap().clone();
    let pauses: Vec<u64> =
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64().round() as u64).collect();
    assert_eq!(pauses, [60, 120, 240, 300, 300]);

    store.heal();
    let state = until(&shippers, |state| state.failed_rounds == 0).await;
    assert_eq!((state.last_error, state.pending, state.oldest_not_uploaded_ms), (None, 0, None));
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_does_not_slow_its_tenant() {
    let tenant = Tenant::of("float-blocks");
    std::fs::remove_file(tenant.dir.join(BLOCK_1).join("index")).unwrap();
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions::default());
    shippers.add(tenant.shipper(&store.bucket(&impatient())));
    let (cancel, task) = run(&shippers);
    let state = until(&shippers, |state| state.last_round.is_some() && !state.running).await;
    assert_eq!((state.failed_rounds, state.pending), (0, 1));
    let index = tenant.dir.join(BLOCK_1).join("index");
    assert_eq!(state.last_error, Some(format!("corrupted: {}: is missing", index.display())));
    assert!(state.next_round_in.unwrap() <= Duration::from_secs(30));
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hanging_tenant_holds_back_no_other_and_ages() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let hanging = Tenant::of("float-blocks");
    let stuck = FaultStore::new();
    stuck.plan(|_, _| Fault::Hang);
    let healthy: Vec<Tenant> = (0..3).map(|_| Tenant::of("float-blocks")).collect();
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions { tenants_at_once: 2, ..LoopOptions::default() });
    with_local_recorder(&recorder, || shippers.add(hanging.shipper(&stuck.bucket(&impatient()))));
    for (number, tenant) in healthy.iter().enumerate() {
        let mut config = tenant.config();
        config.tenant = format!("healthy-{number}");
        shippers.add(Shipper::new(config, store.bucket(&impatient())).unwrap());
    }
    let (cancel, task) = run(&shippers);
    for number in 0..3 {
        let name = format!("healthy-{number}");
        until(&shippers, |state| state.tenant == name && state.last_success.is_some()).await;
    }
    let states = shippers.states();
    let names: Vec<&str> = states.iter().map(|state| state.tenant.as_str()).collect();
    assert_eq!(names, ["healthy-0", "healthy-1", "healthy-2", "team-a"]);
    assert!(states[3].running && states[3].next_round_in.is_none());

    let age = || value(&handle, "weir_shipper_oldest_not_uploaded_seconds");
    let before = age();
    hanging.advance_clock(100_000);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(age(), before + 100.0);

    // Stopped in the middle, all the same at once.
    cancel.cancel();
    task.await.unwrap();
    assert!(!shippers.states()[3].running);
    stuck.heal();
    assert!(shippers.sync_now("team-a").await.unwrap().is_done());
    hanging.check_bucket(&contents(stuck.inner()).await, &[BLOCK_1, BLOCK_2]);
}

#[tokio::test(start_paused = true)]
async fn tenants_come_and_go() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions::default());
    let (cancel, task) = run(&shippers);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(shippers.states(), []);
    // One that comes while the loop sleeps is looked at at once.
    let added = Instant::now();
    shippers.add(tenant.shipper(&store.bucket(&impatient())));
    until(&shippers, |state| state.last_success.is_some()).await;
    assert!(added.elapsed() < Duration::from_secs(5));
    shippers.remove("team-a").await;
    assert_eq!(shippers.states(), []);
    assert!(shippers.sync_now("team-a").await.is_none());
    store.heal();
    std::fs::remove_file(tenant.dir.join("thanos.shipper.json")).unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.ops(), []);
    cancel.cancel();
    task.await.unwrap();
}

/// Of two shippers of a tenant, which work in one directory, the new one goes on where the old one gave up.
#[tokio::test(start_paused = true)]
async fn a_new_shipper_ends_the_round_of_the_old_one() {
    let tenant = Tenant::of("float-blocks");
    let (stuck, store) = (FaultStore::new(), FaultStore::new());
    stuck.plan(|_, _| Fault::Hang);
    let shippers = ShipperLoop::new(LoopOptions { tenants_at_once: 4, ..LoopOptions::default() });
    shippers.add(tenant.shipper(&stuck.bucket(&impatient())));
    let (cancel, task) = run(&shippers);
    until(&shippers, |state| state.running).await;
    shippers.add(tenant.shipper(&store.bucket(&impatient())));
    until(&shippers, |state| state.last_success.is_some()).await;
    // Nobody asks the old one's bucket any more, though it answers again.
    stuck.heal();
    let asked = stuck.ops().len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(stuck.ops().len(), asked);
    assert_eq!(shippers.states().len(), 1);
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
    cancel.cancel();
    task.await.unwrap();
}

/// Whoever asks for a round may go away; the tenant's rounds go on.
#[tokio::test(start_paused = true)]
async fn a_round_that_is_given_up_is_done_later() {
    let tenant = Tenant::of("float-blocks");
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions::default());
    shippers.add(tenant.shipper(&store.bucket(&impatient())));
    store.plan(|_, _| Fault::Hang);
    let given_up = tokio::time::timeout(Duration::from_secs(10), shippers.sync_now("team-a")).await;
    assert!(given_up.is_err());
    store.heal();
    let began = Instant::now();
    let (cancel, task) = run(&shippers);
    until(&shippers, |state| state.last_success.is_some()).await;
    assert!(began.elapsed() <= Duration::from_secs(31));
    tenant.check_bucket(&contents(store.inner()).await, &[BLOCK_1, BLOCK_2]);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_tenants_take_turns() {
    let store = FaultStore::new();
    let shippers = ShipperLoop::new(LoopOptions { tenants_at_once: 2, ..LoopOptions::default() });
    let tenant = Tenant::of("float-wal-only");
    for number in 0..200 {
        let mut config = tenant.config();
        config.tenant_dir = tenant.dir.join(format!("no-{number}"));
        config.tenant = format!("tenant-{number}");
        shippers.add(Shipper::new(config, store.bucket(&impatient())).unwrap());
    }
    let (cancel, task) = run(&shippers);
    tokio::time::sleep(Duration::from_secs(95)).await;
    // Rounds at 0, 30, 60 and 90 seconds: each tenant had its last one less than 31 s ago.
    for state in shippers.states() {
        assert!(state.last_success.is_some(), "{state:?}");
        assert!(state.next_round_in.unwrap() >= Duration::from_secs(24), "{state:?}");
    }
    cancel.cancel();
    task.await.unwrap();
}
