//! What clients and disks may do wrong, each with its answer; nothing good is lost by it.

use std::{fs, os::unix::fs::PermissionsExt};

use weir_tsdb::{Labels, Sample, types::STALE_NAN_BITS};

use super::{
    copy_dir::copy_dir,
    harness::{Content, NodeSite, assert_same, compress, get, now_ms, post, send, wait_for, write_request},
};

/// Adds up what must be readable at the end.
#[derive(Default)]
struct Stored(Content);

impl Stored {
    fn add(&mut self, labels: &[(&str, &str)], samples: &[Sample]) {
        let stored = self.0.entry(Labels::from_pairs(labels.iter().copied())).or_default();
        stored.extend_from_slice(samples);
        stored.sort_by_key(|sample| sample.t);
        // What was sent twice is stored once.
        stored.dedup();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_their_answers_and_good_samples_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(temp.path()).with_flag("--write.max-request-bytes=1MiB");
    let node = site.start().await;
    let url = site.write_url();
    let now = now_ms();
    let mut stored = Stored::default();
    let good = |t: i64| [Sample::new(t, t as f64 / 3.0)];

    // Bodies that are no request at all.
    let check_body = async |what: &str, body: Vec<u8>, status: u16, id: &str| {
        let answer = post(&url, None, body).await.unwrap();
        assert_eq!(
            (answer.status, answer.headers["x-weir-error-id"].to_str().unwrap()),
            (status, id),
            "{what}: {}",
            answer.text()
        );
    };
    check_body("not snappy", b"\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), 400, "snappy-invalid").await;
    check_body("claims 4 GiB", b"\xff\xff\xff\xff\x0f\x00\x00".to_vec(), 400, "request-too-large").await;
    check_body("empty", Vec::new(), 400, "snappy-invalid").await;
    let whole = write_request([(&[("__name__", "cut")][..], &good(now)[..])]);
    let plain = snap::raw::Decoder::new().decompress_vec(&whole).unwrap();
    for len in 1..plain.len() {
        check_body("truncated protobuf", compress(&plain[..len]).to_vec(), 400, "protobuf-invalid").await;
    }
    check_body("random protobuf", compress(&[0x0f; 64]).to_vec(), 400, "protobuf-invalid").await;
    let answer = post(&url, None, compress(&vec![0; (1 << 20) + 1])).await.unwrap();
    assert_eq!(
        (answer.status, &answer.headers["x-weir-error-id"]),
        (400, &"request-too-large".parse().unwrap())
    );
    // Exactly at the limit the size is no reason: field number 0 is.
    check_body("at the limit", compress(&vec![0; 1 << 20]).to_vec(), 400, "protobuf-invalid").await;

    // One series each, beside a good one that must be stored.
    let check_series = async |stored: &mut Stored,
                              what: &str,
                              labels: &[(&str, &str)],
                              samples: &[Sample],
                              status: u16,
                              text: &str| {
        let witness = [("__name__", "witness"), ("beside", what)];
        let witness_samples = good(now);
        let body = write_request([(&witness[..], &witness_samples[..]), (labels, samples)]);
        let answer = post(&url, None, body).await.unwrap();
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(text), "{what}: {}", answer.text());
        stored.add(&witness, &witness_samples);
    };
    let name = ("__name__", "bad_input");
    check_series(&mut stored, "no labels", &[], &good(now), 400, "label").await;
    check_series(
        &mut stored,
        "duplicate names",
        &[name, ("a", "1"), ("a", "2")],
        &good(now),
        400,
        "occurs twice",
    )
    .await;
    check_series(&mut stored, "empty name", &[name, ("", "1")], &good(now), 400, "empty").await;
    let year = 365 * 24 * 3600 * 1000;
    check_series(&mut stored, "a year ahead", &[name, ("t", "future")], &good(now + year), 400, "future")
        .await;

    check_series(&mut stored, "no name", &[("job", "nameless")], &good(now), 200, "").await;
    stored.add(&[("job", "nameless")], &good(now));
    check_series(&mut stored, "unsorted", &[("z", "1"), name, ("a", "2")], &good(now), 200, "").await;
    stored.add(&[("z", "1"), name, ("a", "2")], &good(now));
    check_series(&mut stored, "empty value", &[name, ("gone", ""), ("kept", "1")], &good(now), 200, "").await;
    stored.add(&[name, ("kept", "1")], &good(now));

    // Values whose bits matter.
    let special = [
        STALE_NAN_BITS,
        0x7ff8_0000_0000_0001,
        0xfff8_0000_0000_1234,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        (-0.0f64).to_bits(),
        0,
        1,
    ];
    let special: Vec<Sample> =
        (0i64..).zip(special).map(|(step, bits)| Sample { t: now - 10_000 + step, bits }).collect();
    check_series(&mut stored, "special values", &[name, ("values", "special")], &special, 200, "").await;
    stored.add(&[name, ("values", "special")], &special);

    // Times that conflict.
    let ordered = [name, ("t", "ordered")];
    check_series(&mut stored, "first", &ordered, &good(now), 200, "").await;
    stored.add(&ordered, &good(now));
    check_series(&mut stored, "repeat", &ordered, &good(now), 200, "").await;
    check_series(&mut stored, "other value", &ordered, &[Sample::new(now, -1.0)], 409, "conflict").await;
    let window = 30 * 60 * 1000;
    for late in [now - 1, now - window / 2, now - window + 60_000] {
        check_series(&mut stored, "out of order", &ordered, &good(late), 200, "").await;
        stored.add(&ordered, &good(late));
        check_series(&mut stored, "late and repeated", &ordered, &good(late), 200, "").await;
        let other = [Sample::new(late, -1.0)];
        check_series(&mut stored, "late, other value", &ordered, &other, 409, "duplicate sample").await;
    }
    let too_old = now - window - 1;
    check_series(&mut stored, "too old", &ordered, &good(too_old), 409, "too old sample").await;
    let of_new_series = [name, ("t", "old")];
    check_series(&mut stored, "too old, new series", &of_new_series, &good(now - 4 * window), 409, "too old")
        .await;
    let mixed = [Sample::new(too_old, 1.0), Sample::new(now + 1, 2.0)];
    check_series(&mut stored, "one good, one bad", &ordered, &mixed, 409, "conflict").await;
    stored.add(&ordered, &mixed[1..]);
    let guard = 600_000;
    check_series(
        &mut stored,
        "within the future guard",
        &[name, ("t", "soon")],
        &good(now + guard - 60_000),
        200,
        "",
    )
    .await;
    stored.add(&[name, ("t", "soon")], &good(now + guard - 60_000));

    // Invalid UTF-8, by hand: prost would not send it.
    let mut body = plain.clone();
    let at = body.windows(3).position(|window| window == b"cut").unwrap();
    body[at] = 0xff;
    let answer = post(&url, None, compress(&body)).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("UTF-8"), "{}", answer.text());

    // Tenants.
    let body = write_request([(&[name, ("tenant", "test")][..], &good(now)[..])]);
    let long = vec![b'a'; 10_000];
    for tenant in [&b"."[..], b"..", b"a/b", b"lost+found", &long, b"\xff"] {
        let answer = post(&url, Some(tenant), body.clone()).await.unwrap();
        assert_eq!(answer.status, 400, "{tenant:?}: {}", answer.text());
        assert_eq!(answer.headers["x-weir-error-id"], "tenant-invalid");
    }
    let on_disk = || {
        fs::read_dir(site.tsdb_path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(on_disk(), ["default-tenant"], "refused tenants leave nothing on disk");

    // Paths and methods.
    let answer = get(&url).await.unwrap();
    assert_eq!(answer.status, 405);
    let unknown = http::Request::post(url.replace("receive", "nothing")).body(Default::default()).unwrap();
    assert_eq!(send(unknown).await.unwrap().status, 404);
    let zstd = http::Request::post(&url).header("content-encoding", "zstd").body(Default::default()).unwrap();
    assert_eq!(send(zstd).await.unwrap().status, 415);
    for (path, status) in [("push", 200), ("write", 204)] {
        let labels = [name, ("path", path)];
        let body = write_request([(&labels[..], &good(now)[..])]);
        assert_eq!(post(&url.replace("receive", path), None, body).await.unwrap().status, status);
        stored.add(&labels, &good(now));
    }

    let found = site.read("default-tenant", i64::MIN, i64::MAX).await;
    assert_same(&found, &stored.0, "after all of it");
    node.kill();
    let node = site.start().await;
    assert_same(&site.read("default-tenant", i64::MIN, i64::MAX).await, &stored.0, "after a kill");
    node.stop();
}

/// Each limit of the write path, at it and one beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_the_write_path_hold_exactly() {
    let temp = tempfile::tempdir().unwrap();
    let mut site = NodeSite::new(temp.path());
    for flag in [
        "--write.max-request-series=3",
        "--write.max-request-samples=4",
        "--write.max-label-names-per-series=3",
        "--write.max-label-name-length=8",
        "--write.max-label-value-length=10",
    ] {
        site = site.with_flag(flag);
    }
    let node = site.start().await;
    let now = now_ms();
    let mut stored = Stored::default();
    // A request of some series, each with labels and a number of samples. What is refused is whole
    // requests or one series; `kept` tells how many series from the first on are stored.
    let mut step = 0;
    let mut check = async |series: &[(&[(&str, &str)], usize)], status: u16, id: &str, kept: usize| {
        step += 10;
        let samples: Vec<Vec<Sample>> = series
            .iter()
            .map(|(_, count)| {
                (0..*count).map(|at| Sample::new(now - 5_000 + step + at as i64, 1.5)).collect()
            })
            .collect();
        let body =
            write_request(series.iter().zip(&samples).map(|((labels, _), samples)| (*labels, &samples[..])));
        let answer = post(&site.write_url(), None, body).await.unwrap();
        let found_id = answer.headers.get("x-weir-error-id").map_or("", |id| id.to_str().unwrap());
        assert_eq!((answer.status, found_id), (status, id), "{series:?}: {}", answer.text());
        for ((labels, _), samples) in series.iter().zip(&samples).take(kept) {
            stored.add(labels, samples);
        }
    };
    let (a, b, c, d) = ([("n", "a")], [("n", "b")], [("n", "c")], [("n", "d")]);
    check(&[(&a, 1), (&b, 1), (&c, 1)], 200, "", 3).await;
    check(&[(&a, 1), (&b, 1), (&c, 1), (&d, 1)], 400, "request-series-limit", 0).await;
    check(&[(&a, 3), (&b, 1)], 200, "", 2).await;
    check(&[(&a, 3), (&b, 2)], 400, "request-samples-limit", 0).await;
    check(&[(&[("n", "a"), ("o", "1"), ("p", "1")], 1)], 200, "", 1).await;
    check(&[(&a, 1), (&[("n", "a"), ("o", "1"), ("p", "1"), ("q", "1")], 1)], 400, "label-count-limit", 1)
        .await;
    check(&[(&[("n2345678", "a")], 1)], 200, "", 1).await;
    check(&[(&a, 1), (&[("n23456789", "a")], 1)], 400, "label-name-length-limit", 1).await;
    check(&[(&[("n", "a234567890")], 1)], 200, "", 1).await;
    check(&[(&a, 1), (&[("n", "a2345678901")], 1)], 400, "label-value-length-limit", 1).await;
    let found = site.read("default-tenant", now - 10_000, now).await;
    assert_same(&found, &stored.0, "within the limits");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_tenants_are_reported_and_the_others_serve() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(temp.path());
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tsdb/testdata/golden");
    for (tenant, case) in
        [("log", "wal-uncompressed"), ("block", "float-blocks"), ("chunks", "chunks-head-damaged")]
    {
        copy_dir(&golden.join(case).join("data"), &site.tenant_path(tenant));
    }
    // Damage in the middle of a log, under records that are good.
    let segment = site.tenant_path("log").join("wal/00000000");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    // A block without its index.
    let block = fs::read_dir(site.tenant_path("block"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("index").exists())
        .unwrap();
    fs::write(block.join("index"), b"damaged").unwrap();

    let node = site.start().await;
    let body = write_request([(&[("__name__", "good")][..], &[Sample::new(now_ms(), 1.0)][..])]);
    let answer = post(&site.write_url(), Some(b"healthy"), body.clone()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(site.read("healthy", i64::MIN, i64::MAX).await.len(), 1);
    let answer = post(&site.write_url(), Some(b"log"), body).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.headers.contains_key("retry-after"));
    assert!(answer.text().contains("00000000"), "names the file: {}", answer.text());
    assert_eq!(site.metric("weir_tenant_quarantined{tenant=\"log\"}").await, Some(1.0));
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was cut away");
    // The tenant with the bad block serves what is left, and says that something is missing.
    assert_eq!(site.metric("weir_tsdb_corrupt_blocks{tenant=\"block\"}").await, Some(1.0));
    assert!(!site.read("block", i64::MIN, i64::MAX).await.is_empty());
    assert!(block.join("meta.json").exists(), "the damaged block is left as it is");
    assert_eq!(
        site.metric("prometheus_tsdb_mmap_chunk_corruptions_total{tenant=\"chunks\"}").await,
        Some(1.0)
    );
    assert!(!site.read("chunks", i64::MIN, i64::MAX).await.is_empty());
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_path_that_cannot_be_used_is_named() {
    let temp = tempfile::tempdir().unwrap();

    // Locked: the whole directory by another node, a tenant's by another program.
    let first = NodeSite::new(&temp.path().join("locked"));
    fs::create_dir_all(first.tenant_path("default-tenant")).unwrap();
    let lock = fs::File::create(first.tenant_path("default-tenant").join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let node = first.start().await;
    let body = write_request([(&[("__name__", "up")][..], &[Sample::new(now_ms(), 1.0)][..])]);
    let answer = post(&first.write_url(), None, body.clone()).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("lock"), "{}", answer.text());
    assert_eq!(post(&first.write_url(), Some(b"other"), body).await.unwrap().status, 200);
    let mut second = NodeSite::new(&temp.path().join("locked")).spawn();
    assert!(!second.wait().success());
    assert!(second.log().contains("--tsdb.path") && second.log().contains("in use"), "{}", second.log());
    node.stop();

    // A file where the directory should be.
    let blocked = NodeSite::new(&temp.path().join("blocked"));
    fs::create_dir_all(temp.path().join("blocked")).unwrap();
    fs::write(blocked.tsdb_path(), "not a directory").unwrap();
    let mut process = blocked.spawn();
    assert!(!process.wait().success());
    assert!(process.log().contains("--tsdb.path"), "{}", process.log());

    // Read-only. Permissions do not hold root, a mount does.
    let read_only = NodeSite::new(&temp.path().join("read-only"));
    fs::create_dir_all(read_only.tsdb_path()).unwrap();
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new("mount").args(arguments).arg(read_only.tsdb_path()).status();
        assert!(status.unwrap().success(), "mount {arguments:?}");
    };
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        mount(&["-t", "tmpfs", "-o", "ro,size=1m", "none"]);
    } else {
        fs::set_permissions(read_only.tsdb_path(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let mut process = read_only.spawn();
    let ended = process.wait();
    if is_root {
        assert!(std::process::Command::new("umount").arg(read_only.tsdb_path()).status().unwrap().success());
    }
    assert!(!ended.success());
    assert!(process.log().contains("--tsdb.path"), "{}", process.log());

    // No external label.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("receive").arg(format!("--tsdb.path={}", temp.path().join("no-label").display()));
    let mut process = super::harness::Process::start("weir", command, temp.path().join("no-label.log"));
    assert!(!process.wait().success());
    assert!(process.log().contains("--label"), "{}", process.log());
    wait_for("nothing left behind", async || (!temp.path().join("no-label").exists()).then_some(())).await;
}
