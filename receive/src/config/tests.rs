use std::io::Write as _;

use weir_hashring::{cluster::JoinPolicy, static_ring::Algorithm};

use super::*;
use crate::{
    cli::flags::{self, Flag, Kind, Standing},
    objstore::Secret,
};

const LABEL: (&str, &str) = ("label", "replica=\"a\"");

fn judge(given: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let mut values = Values::default();
    for (name, value) in given {
        values.push(name, *value);
    }
    Config::judge(&values).map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

fn judge_with_label(given: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let given: Vec<_> = [LABEL].into_iter().chain(given.iter().copied()).collect();
    judge(&given)
}

fn the_problem(given: &[(&str, &str)]) -> String {
    let problems = judge_with_label(given).expect_err("must be refused");
    assert_eq!(problems.len(), 1, "{given:?}: {problems:?}");
    problems[0].clone()
}

/// A value that differs from the flag's default but has the right form.
fn other_value(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Text => "x",
        Kind::Address => "127.0.0.1:1",
        Kind::Duration => "17s",
        Kind::Bytes => "17MB",
        Kind::Count => "17",
        Kind::Number => "0.17",
        Kind::Switch if flag.default == "true" => "false",
        Kind::Switch => "true",
        Kind::Choice(words) => {
            words.iter().find(|word| **word != flag.default).expect("a choice has two words")
        }
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = judge(&[LABEL]).expect("a label is all that is needed");
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    assert_eq!(config.http.address.to_string(), "0.0.0.0:10902");
    assert_eq!(config.http.grace, Duration::from_secs(120));
    assert_eq!(config.grpc.address.to_string(), "0.0.0.0:10901");
    assert_eq!(config.grpc.grace, Duration::from_secs(120));
    assert_eq!(config.grpc.max_connection_age, Some(hours(1)));
    assert_eq!(config.write.address.to_string(), "0.0.0.0:19291");
    assert_eq!(config.write.max_request_bytes, 32 << 20);
    assert!(config.write.max_bytes_in_flight >= 64 << 20);
    assert_eq!(config.tenancy.tenant_header, "thanos-tenant");
    assert_eq!(config.tenancy.replica_header, "thanos-replica");
    assert_eq!(config.tenancy.default_tenant, "default-tenant");
    assert_eq!(config.tenancy.tenant_label, "tenant_id");
    assert_eq!(config.tenancy.max_count, Some(10_000));
    let tsdb = TsdbConfig {
        path: "./data".into(),
        retention: Some(hours(15 * 24)),
        retention_bytes: None,
        block_duration: hours(2),
        out_of_order_window: Some(Duration::from_secs(30 * 60)),
        out_of_order_cap: 32,
        future_window: Some(Duration::from_secs(600)),
        wal_compression: true,
        lock_file: true,
        maintenance_interval: Duration::from_secs(60),
    };
    assert_eq!(config.tsdb, tsdb);
    assert_eq!(config.upload.objstore, None);
    assert!(!config.upload.hash_files);
    assert_eq!(config.upload.concurrency, 1);
    assert_eq!(config.read, ReadConfig { max_series: None, max_samples: None });
    let log = LogConfig { level: tracing::Level::INFO, format: LogFormat::Logfmt, name: String::new() };
    assert_eq!(config.log, log);
    assert_eq!(config.external_labels, Labels::from_pairs([("replica", "a")]));
    assert_eq!(config.replication_factor, 1);
    assert_eq!(config.drain_max, Duration::from_secs(3));
    assert_eq!(config.notices, [""; 0]);
}

#[test]
fn values_given_are_taken() {
    let config = judge(&[
        ("label", "b=\"2\""),
        ("label", "a=\"1\""),
        ("tsdb.retention", "0d"),
        ("tsdb.too-far-in-future.time-window", "0s"),
        ("tsdb.min-block-duration", "1m"),
        ("tsdb.max-block-duration", "60s"),
        ("tsdb.wal-compression", "false"),
        ("tsdb.no-lockfile", "true"),
        ("hash-func", "SHA256"),
        ("shipper.upload-concurrency", "4"),
        ("store.limits.request-series", "7"),
        ("write.max-bytes-in-flight", "100MB"),
        ("write.max-request-bytes", "100MB"),
        ("write.max-connection-age", "0s"),
        ("write.max-request-series", "8"),
        ("write.max-request-samples", "9"),
        ("write.max-label-names-per-series", "10"),
        ("write.max-label-name-length", "11"),
        ("write.max-label-value-length", "1KiB"),
        ("write.body-timeout", "12s"),
        ("write.queue-timeout", "13s"),
        ("write.concurrency", "14"),
        ("write.retry-after", "15s"),
        ("tenant.max-count", "0"),
        ("receive.tenant-header", "X-Scope-OrgID"),
        ("log.level", "warn"),
        ("log.format", "json"),
    ])
    .expect("all valid");
    assert_eq!(config.external_labels, Labels::from_pairs([("a", "1"), ("b", "2")]));
    assert_eq!(config.tsdb.retention, None);
    assert_eq!(config.tsdb.future_window, None);
    assert_eq!(config.tsdb.block_duration, Duration::from_secs(60));
    assert!(!config.tsdb.wal_compression && !config.tsdb.lock_file);
    assert!(config.upload.hash_files);
    assert_eq!(config.upload.concurrency, 4);
    assert_eq!(config.read.max_series, Some(7));
    assert_eq!(config.write.max_bytes_in_flight, 100 << 20);
    assert_eq!(config.write.max_request_bytes, 100 << 20);
    assert_eq!(config.write.max_connection_age, None);
    assert_eq!((config.write.max_request_series, config.write.max_request_samples), (8, 9));
    assert_eq!(config.write.max_label_names_per_series, 10);
    assert_eq!((config.write.max_label_name_length, config.write.max_label_value_length), (11, 1024));
    let timeouts = [config.write.body_timeout, config.write.queue_timeout, config.write.retry_after];
    assert_eq!(timeouts, [12, 13, 15].map(Duration::from_secs));
    assert_eq!(config.write.concurrency, Some(14));
    assert_eq!(config.tenancy.max_count, None);
    assert_eq!(config.tenancy.tenant_header, "x-scope-orgid");
    assert_eq!((config.log.level, config.log.format), (tracing::Level::WARN, LogFormat::Json));
}

#[test]
fn no_label_is_a_clear_refusal() {
    let problems = judge(&[]).expect_err("no label");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("--label: at least one external label is needed"), "{problems:?}");
}

#[test]
fn what_is_not_built_is_refused_by_name_and_all_at_once() {
    let not_built: Vec<_> = flags::all().filter(|flag| flag.standing == Standing::NotBuilt).collect();
    let mut expected = Vec::new();
    let mut all = Vec::new();
    for flag in not_built {
        let value = other_value(flag);
        let text = format!("--{} is known but not built yet", flag.name);
        assert_eq!(the_problem(&[(flag.name, value)]), text);
        expected.push(text);
        all.push((flag.name, value));
    }
    expected.sort();
    let mut found = judge_with_label(&all).expect_err("not built");
    found.sort();
    assert_eq!(found, expected);
    for name in [
        "receive.relabel-config-file",
        "receive.limits-config",
        "receive.split-tenant-label-name",
        "receive.tenant-certificate-field",
        "receive.replication-protocol",
        "remote-write.server-tls-cert",
        "grpc-server-tls-client-ca",
        "http.config",
        "tsdb.max-exemplars",
        "tsdb.wal-sync",
        "tracing.config",
        "receive.otlp-promote-resource-attributes",
    ] {
        assert_eq!(flags::find(name).standing, Standing::NotBuilt, "{name}");
    }
    assert_eq!(
        the_problem(&[("log.format", "journald")]),
        "--log.format=journald is known but not built yet"
    );
}

#[test]
fn defaults_given_explicitly_are_fine() {
    for flag in flags::all().filter(|flag| !flag.default.is_empty()) {
        let config = judge_with_label(&[(flag.name, flag.default)])
            .unwrap_or_else(|problems| panic!("--{}={}: {problems:?}", flag.name, flag.default));
        let expected = usize::from(matches!(flag.standing, Standing::NoEffect(_)));
        assert_eq!(config.notices.len(), expected, "{}", flag.name);
    }
    judge_with_label(&[("receive.artificial-max-delay", "0")]).expect("the same value in other words");
}

#[test]
fn what_has_no_effect_is_accepted_and_noted() {
    for flag in flags::all() {
        if let Standing::NoEffect(why) = flag.standing {
            let config = judge_with_label(&[(flag.name, other_value(flag))]).expect(flag.name);
            assert_eq!(config.notices, [format!("--{} has no effect: {why}", flag.name)]);
        }
    }
}

#[test]
fn a_ring_is_read_from_a_file_or_from_the_flag() {
    let ring = |given: &[(&str, &str)]| judge_with_label(given).expect("all valid").ring;
    assert!(ring(&[]).is_none());
    let mut on_disk = tempfile::NamedTempFile::new().expect("a file");
    on_disk.write_all(br#"[{"endpoints": ["n1:10901", "n2:10901", "[::1]:10901"]}]"#).expect("written");
    let path = on_disk.path().to_str().expect("UTF-8");
    let given = ring(&[
        ("receive.hashrings", "[]"),
        ("receive.hashrings-file", path),
        ("receive.hashrings-algorithm", "ketama"),
        ("receive.local-endpoint", "n1:10901"),
        ("receive.replication-factor", "3"),
        ("receive-forward-timeout", "4s"),
        ("replication.window-bytes", "1MiB"),
    ])
    .expect("a ring");
    let file = given.file().expect("a ring file");
    assert_eq!(file.text, RingText::File(path.into()), "the file goes first");
    assert_eq!(file.algorithm, Algorithm::Ketama);
    assert_eq!(file.local_endpoint.as_deref(), Some("n1:10901"));
    assert_eq!((given.forward_timeout, given.window_bytes), (Duration::from_secs(4), 1 << 20));
    let one = r#"[{"endpoints": ["n1:10901"]}]"#;
    let router = ring(&[("receive.hashrings", one)]).expect("a ring");
    let file = router.file().expect("a ring file");
    assert_eq!((&file.text, &file.local_endpoint), (&RingText::Inline(one.to_owned()), &None));
    assert!(router.is_router());

    let check =
        |given: &[(&str, &str)], expected: &str| assert_eq!(the_problem(given), expected, "{given:?}");
    check(
        &[("receive.replication-factor", "2")],
        "--receive.replication-factor: needs a ring: see --cluster.peers and --receive.hashrings-file",
    );
    let timeout = ("replication.failure-timeout", "0s");
    check(&[("receive.hashrings", one), timeout], "--replication.failure-timeout: must be more than 0");
    let none = ("receive.replication-factor", "0");
    check(&[none], "--receive.replication-factor: must be more than 0");
    check(&[("receive.hashrings", one), none], "--receive.replication-factor: must be more than 0");
}

/// The text says by which flag and file the ring came, and where in it the fault is.
#[test]
fn a_ring_that_cannot_be_used_is_named() {
    let check =
        |given: &[(&str, &str)], expected: &str| assert_eq!(the_problem(given), expected, "{given:?}");
    check(&[("receive.hashrings", "[]")], "--receive.hashrings: hashring file: has no hashring");
    check(
        &[("receive.hashrings-file", "/nowhere/ring.json")],
        "--receive.hashrings-file: cannot read /nowhere/ring.json: No such file or directory (os error 2)",
    );
    let mut on_disk = tempfile::NamedTempFile::new().expect("a file");
    on_disk.write_all(br#"[{"hashring": "a", "endpoints": ["n1:1", "n2:1"]}]"#).expect("written");
    let path = on_disk.path().to_str().expect("UTF-8");
    let file = ("receive.hashrings-file", path);
    let problem = the_problem(&[file, ("receive.replication-factor", "3")]);
    let start = format!("--receive.hashrings-file: {path}: hashring 0 (\"a\")");
    assert!(problem.starts_with(&start), "{problem}");
    check(
        &[file, ("receive.local-endpoint", "n3:1")],
        "--receive.local-endpoint: no ring of --receive.hashrings-file has the endpoint n3:1",
    );
    judge_with_label(&[file, ("receive.local-endpoint", "n2:1"), ("receive.replication-factor", "2")])
        .expect("as many endpoints as copies");
}

/// Without `--cluster.peers` a node would start on its own and drop what it was told of its cluster.
#[test]
fn flags_of_a_cluster_need_one() {
    let cluster = flags::GROUPS.iter().find(|group| group.heading == "Cluster").expect("the group");
    for flag in cluster.flags {
        let value = other_value(flag);
        let given = [(flag.name, value), ("tsdb.path", "/t")];
        match flag.name {
            "cluster.peers" | "cluster.bootstrap-expect" => {}
            "data.path" | "node.name" => assert!(judge_with_label(&given).is_ok(), "{}", flag.name),
            name => {
                let cause = "needs --cluster.peers or --cluster.bootstrap-expect: this node is in no cluster";
                assert_eq!(the_problem(&given), format!("--{name}: {cause}"));
            }
        }
    }
    let problems =
        judge_with_label(&[("node.role", "router"), ("cluster.id", "x"), ("cluster.bootstrap-expect", "0")]);
    assert_eq!(problems.expect_err("no cluster").len(), 2);
}

/// Joining is open by itself only where nobody but this machine reaches the node.
#[test]
fn who_may_join_is_judged_by_all_addresses() {
    let check = |given: &[(&str, &str)], expected: JoinPolicy| {
        let all = [&[("data.path", "/d"), ("cluster.bootstrap-expect", "1")], given].concat();
        let config = judge(&all).expect("all valid");
        let ring = config.ring.as_ref().expect("a ring");
        assert_eq!(ring.cluster().expect("a cluster").policies.join, expected, "{given:?}");
    };
    check(&[], JoinPolicy::Token);
    for (address, expected) in [
        ("127.0.0.1:1", JoinPolicy::Open),
        ("127.8.0.1:1", JoinPolicy::Open),
        ("[::1]:1", JoinPolicy::Open),
        ("localhost:1", JoinPolicy::Open),
        ("0.0.0.0:1", JoinPolicy::Token),
        ("[::]:1", JoinPolicy::Token),
        (":1", JoinPolicy::Token),
        ("10.0.0.1:1", JoinPolicy::Token),
        ("n1:1", JoinPolicy::Token),
    ] {
        check(&[("cluster.address", address)], expected);
        check(&[("cluster.address", address), ("cluster.peers", "localhost:1,[::1]:2")], expected);
        check(&[("cluster.address", address), ("cluster.peers", "localhost:1,n2:1")], JoinPolicy::Token);
    }
    check(&[("cluster.join", "open")], JoinPolicy::Open);
    check(&[("cluster.join", "token"), ("cluster.address", "127.0.0.1:1")], JoinPolicy::Token);
}

#[test]
fn founding_with_fewer_nodes_than_copies_is_noted() {
    let notices = |expect: &str, more: &[(&str, &str)]| {
        let given = [("data.path", "/d"), ("cluster.peers", "a:1"), ("cluster.bootstrap-expect", expect)];
        judge(&[&given, more].concat()).expect("all valid").notices
    };
    let two = notices("2", &[]);
    let flags =
        ["--cluster.bootstrap-expect=2", "--receive.replication-factor=3", "--cluster.rf-allow-degraded"];
    assert!(two.len() == 1 && flags.iter().all(|flag| two[0].contains(flag)), "{two:?}");
    assert_eq!(notices("1", &[]).len(), 1);
    for (expect, more) in [
        ("0", ("cluster.name", "x")),
        ("3", ("cluster.name", "x")),
        ("2", ("receive.replication-factor", "2")),
        ("2", ("cluster.rf-allow-degraded", "true")),
    ] {
        assert_eq!(notices(expect, &[more]), [""; 0], "{expect} {more:?}");
    }
}

#[test]
fn a_cluster_is_read() {
    let cluster = |given: &[(&str, &str)]| {
        let all = [&[("data.path", "/var/lib/weir")], given].concat();
        let config = judge(&all).expect("all valid");
        let ring = config.ring.clone().expect("a ring");
        (ring.cluster().expect("a cluster").clone(), ring, config)
    };
    let (own, ring, config) = cluster(&[
        ("cluster.peers", "a:10903,b:10903"),
        ("cluster.peers", "c:10903"),
        ("node.name", "n1"),
        ("node.zone", "z1"),
    ]);
    assert_eq!(own.peers, ["a:10903", "b:10903", "c:10903"]);
    assert_eq!((own.name.as_str(), own.zone.as_str(), own.advertise.as_str()), ("n1", "z1", "n1"));
    assert_eq!((own.replicas.get(), config.replication_factor, own.slots.get()), (3, 3, 4096));
    assert_eq!(config.external_labels.get("receive_replica"), Some("n1"), "the name tells nodes apart");
    assert!(!ring.is_router());
    let expect = ("cluster.bootstrap-expect", "1");
    let given =
        [expect, ("receive.replication-factor", "1"), ("grpc-address", "10.0.0.7:1"), ("node.name", "x")];
    let (own, _, config) = cluster(&given);
    assert_eq!((own.bootstrap_expect, own.replicas.get(), config.replication_factor), (1, 1, 1));
    assert_eq!(own.advertise, "10.0.0.7");
    let (own, ..) = cluster(&[expect, ("node.advertise", "[fe80::1]"), ("label", "receive_replica=\"r\"")]);
    assert_eq!(own.advertise, "fe80::1");
    let (_, _, config) = cluster(&[expect, ("label", "receive_replica=\"r\"")]);
    assert_eq!(config.external_labels.get("receive_replica"), Some("r"));
    let (_, ring, _) = cluster(&[("cluster.peers", "a:1"), ("node.role", "router")]);
    assert!(ring.is_router());

    let check = |given: &[(&str, &str)], start: &str| {
        let all = [&[("cluster.peers", "a:1"), ("data.path", "/d"), ("tsdb.path", "/t")], given].concat();
        let problems = judge(&all).expect_err(start);
        assert!(problems.len() == 1 && problems[0].starts_with(start), "{given:?}: {problems:?}");
    };
    check(&[("receive.hashrings", "[]")], "--receive.hashrings: does not go with --cluster.peers");
    check(&[("receive.local-endpoint", "a:1")], "--receive.local-endpoint: does not go with");
    check(&[("cluster.peers", "nowhere")], "--cluster.peers: ");
    check(&[("cluster.peers", "dns+")], "--cluster.peers: ");
    check(&[("cluster.name", "a/b")], "--cluster.name: \"a/b\" is not a name of a cluster");
    check(&[("raft.max-voters", "4")], "--raft.max-voters: must be 1, 3 or 5");
    check(&[("data.path", "")], "--data.path: must not be empty");
    check(&[("data.path", "/t/x")], "--data.path: must not be --tsdb.path or in it");
    check(&[("data.path", "/t")], "--data.path: must not be --tsdb.path or in it");
    check(&[("receive.replication-factor", "8")], "--receive.replication-factor: must be from 1 to 7");
    check(&[("receive.replication-factor", "0")], "--receive.replication-factor: must be from 1 to 7");
    check(&[("cluster.slots", "255")], "--cluster.slots: must be from 256 to 65536");
    check(&[("cluster.id", "x")], "--cluster.id: \"x\" is not the id of a cluster");
    check(&[("node.weight", "0")], "--node.weight: must be more than 0");
    check(&[("node.advertise", "a:1")], "--node.advertise: \"a:1\" is not a host");
    check(&[("cluster.join-token-file", "/nowhere")], "--cluster.join-token-file: cannot read /nowhere");
    check(&[("raft.election-timeout-min", "4s")], "--raft.election-timeout-min: must be less than");
    check(&[("raft.heartbeat-interval", "1s")], "--raft.heartbeat-interval: must be at most half");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let check = |given: &[(&str, &str)], start: &str| {
        let problem = the_problem(given);
        assert!(problem.starts_with(start), "{given:?}: {problem}");
    };
    check(&[("tsdb.retention", "15")], "--tsdb.retention: \"15\" is not a duration");
    check(&[("http-address", "x")], "--http-address: \"x\" is not host:port");
    check(&[("tsdb.max-exemplars", "-1")], "--tsdb.max-exemplars: \"-1\" is not a whole number");
    check(&[("tsdb.no-lockfile", "yes")], "--tsdb.no-lockfile: \"yes\" is neither true nor false");
    check(&[("hash-func", "MD5")], "--hash-func: \"MD5\" is none of");
    check(&[("log.level", "trace")], "--log.level: \"trace\" is none of");
    check(&[("write.max-request-bytes", "0")], "--write.max-request-bytes: must be more than 0");
    check(
        &[("write.max-request-bytes", "2MB"), ("write.max-bytes-in-flight", "1MB")],
        "--write.max-request-bytes: must not exceed --write.max-bytes-in-flight",
    );
    for name in [
        "write.max-connections",
        "write.max-request-series",
        "write.max-request-samples",
        "write.max-label-names-per-series",
        "write.max-label-name-length",
        "write.max-label-value-length",
    ] {
        check(&[(name, "0")], &format!("--{name}: must be more than 0"));
    }
    check(&[("write.body-timeout", "0s")], "--write.body-timeout: must be more than 0");
    check(&[("write.queue-timeout", "0s")], "--write.queue-timeout: must be more than 0");
    check(&[("write.concurrency", "1048577")], "--write.concurrency: must not exceed");
    check(&[("write.max-connections", "1048577")], "--write.max-connections: must not exceed");
    check(&[("tsdb.min-block-duration", "1h")], "--tsdb.max-block-duration: must equal");
    check(
        &[("tsdb.min-block-duration", "0s"), ("tsdb.max-block-duration", "0s")],
        "--tsdb.min-block-duration: must be more than 0",
    );
    check(&[("tsdb.path", "")], "--tsdb.path: must not be empty");
    check(&[("label", "replica=\"b\"")], "--label: replica is given twice");
    check(&[("label", "x=y")], "--label: the value of x must be quoted");
    check(&[("receive.tenant-header", "a b")], "--receive.tenant-header: is not the name of a header");
    check(&[("receive.tenant-label-name", "a-b")], "--receive.tenant-label-name: \"a-b\" is not a label");
    for tenant in ["", ".", "..", "a/b", "a\\b"] {
        check(&[("receive.default-tenant-id", tenant)], "--receive.default-tenant-id: ");
    }
}

#[test]
fn a_label_that_the_tenant_overrides_is_noted() {
    let config = judge(&[LABEL, ("label", "tenant_id=\"x\"")]).expect("accepted");
    assert_eq!(config.notices, ["--label tenant_id gives way to the tenant's name"]);
}

#[test]
fn the_bucket_configuration_comes_from_flag_or_file_but_not_both() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    // CARGO_PKG_NAME is set whenever cargo runs a test.
    file.write_all(b"type: FILESYSTEM\nname: $(CARGO_PKG_NAME)\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");

    let config = judge_with_label(&[("objstore.config", "type: $(CARGO_PKG_NAME)")]).expect("inline");
    let expected = ObjstoreText { yaml: Secret::new("type: weir"), file: None };
    assert_eq!(config.upload.objstore, Some(expected));

    let config = judge_with_label(&[("objstore.config-file", path)]).expect("from a file");
    let expected =
        ObjstoreText { yaml: Secret::new("type: FILESYSTEM\nname: weir\n"), file: Some(file.path().into()) };
    assert_eq!(config.upload.objstore, Some(expected));

    let both = the_problem(&[("objstore.config", "secret"), ("objstore.config-file", path)]);
    assert_eq!(both, "--objstore.config: and --objstore.config-file must not both be given");
    let missing = the_problem(&[("objstore.config-file", "/nonexistent/bucket.yml")]);
    assert!(missing.starts_with("--objstore.config-file: cannot read /nonexistent/bucket.yml"), "{missing}");
    let unset = the_problem(&[("objstore.config", "key: $(WEIR_TEST_IS_NOT_SET)")]);
    assert_eq!(unset, "--objstore.config: environment variable WEIR_TEST_IS_NOT_SET is not set");
    assert_eq!(judge_with_label(&[("objstore.config", " \n")]).expect("empty").upload.objstore, None);
}

#[test]
fn problems_are_told_together_one_a_line() {
    let mut values = Values::default();
    values.push("tsdb.retention", "x");
    values.push("receive.relabel-config", "[]");
    let text = Config::judge(&values).expect_err("three problems").to_string();
    let starts: Vec<_> = text.lines().map(|line| line.split([':', ' ']).next().expect("a word")).collect();
    assert_eq!(starts, ["--tsdb.retention", "--receive.relabel-config", "--label"]);
}
