use proptest::prelude::*;

use super::*;

/// The flags of `thanos receive` 0.43, with a value each may take. Written down apart from the
/// table, so that a flag that falls out of the table is missed here.
const UPSTREAM: &str = "
http-address=0.0.0.0:10902 http-grace-period=2m http.config=x
grpc-address=0.0.0.0:10901 grpc-grace-period=2m grpc-server-max-connection-age=60m
grpc-server-tls-cert=x grpc-server-tls-key=x grpc-server-tls-client-ca=x grpc-server-tls-min-version=1.2
grpc-server-tls-ciphers=x grpc-server-tls-curves=x
remote-write.address=0.0.0.0:19291
remote-write.server-tls-cert=x remote-write.server-tls-key=x remote-write.server-tls-client-ca=x
remote-write.server-tls-min-version=1.3 remote-write.server-tls-ciphers=x remote-write.server-tls-curves=x
remote-write.client-tls-secure=true remote-write.client-tls-skip-verify=true
remote-write.client-tls-cert=x remote-write.client-tls-key=x remote-write.client-tls-ca=x
remote-write.client-tls-min-version=1.3 remote-write.client-server-name=x
receive.hashrings-file=x receive.hashrings=[] receive.hashrings-algorithm=ketama
receive.hashrings-file-refresh-interval=5m receive.local-endpoint=a:1 receive.replication-factor=1
receive.replica-header=x receive.forward.async-workers=5 receive.grpc-compression=none
receive.grpc-service-config={} receive.replication-protocol=capnproto receive.capnproto-address=:1
receive-forward-timeout=5s receive-forward-max-backoff=5s receive.artificial-max-delay=0s
receive.relabel-config=x receive.relabel-config-file=x
receive.tenant-header=x receive.default-tenant-id=x receive.tenant-label-name=x
receive.tenant-certificate-field=organization receive.split-tenant-label-name=x
tsdb.path=x label=a=\"b\" tsdb.retention=15d tsdb.max-retention-bytes=1GB
tsdb.min-block-duration=2h tsdb.max-block-duration=2h tsdb.out-of-order.time-window=30m
tsdb.out-of-order.cap-max=32 tsdb.too-far-in-future.time-window=5m tsdb.max-exemplars=100
tsdb.wal-compression=true tsdb.no-lockfile=true tsdb.head.expanded-postings-cache-size=1
tsdb.block.expanded-postings-cache-size=1 tsdb.write-queue-size=1 tsdb.memory-snapshot-on-shutdown=true
tsdb.allow-overlapping-blocks=true tsdb.enable-native-histograms=true
objstore.config=x objstore.config-file=x hash-func=SHA256 shipper.upload-concurrency=1
shipper.allow-out-of-order-uploads=true shipper.skip-corrupted-blocks=true
receive.limits-config=x receive.limits-config-file=x receive.limits-config-reload-timer=1s
store.limits.request-series=1 store.limits.request-samples=1 matcher-cache-size=1
receive.lazy-retrieval-max-buffered-responses=20 receive.otlp-enable-target-info=false
receive.otlp-promote-resource-attributes=x enable-feature=metric-names-filter
request.logging-config=x request.logging-config-file=x tracing.config=x tracing.config-file=x
log.level=debug log.format=journald enable-auto-gomemlimit=true auto-gomemlimit.ratio=0.9
debug.name=x writer.intern=true shipper.ignore-unequal-block-size=true
";

/// Switches of `thanos receive`; each exists in a form with `--no-`.
const UPSTREAM_SWITCHES: &str = "
remote-write.client-tls-secure remote-write.client-tls-skip-verify tsdb.wal-compression tsdb.no-lockfile
tsdb.memory-snapshot-on-shutdown tsdb.allow-overlapping-blocks tsdb.enable-native-histograms
shipper.allow-out-of-order-uploads shipper.skip-corrupted-blocks receive.otlp-enable-target-info
enable-auto-gomemlimit writer.intern shipper.ignore-unequal-block-size
";

fn receive(flags: &[&str]) -> Result<Values, clap::Error> {
    let arguments = ["weir", "receive"].iter().chain(flags).copied();
    match parse(arguments)? {
        Invocation::Receive(values) => Ok(values),
        Invocation::Dev(_) | Invocation::Admin(_) => panic!("asked for receive"),
    }
}

#[test]
fn every_upstream_flag_parses_in_both_forms() {
    for pair in UPSTREAM.split_whitespace() {
        let (name, value) = pair.split_once('=').expect("name=value");
        let joined = receive(&[&format!("--{pair}")]).unwrap_or_else(|error| panic!("--{pair}: {error}"));
        assert_eq!(joined.given(name), [value], "--{pair}");
        if flags::find(name).kind != Kind::Switch {
            let apart =
                receive(&[&format!("--{name}"), value]).unwrap_or_else(|error| panic!("--{pair}: {error}"));
            assert_eq!(apart.given(name), [value], "--{name} {value}");
        }
    }
}

#[test]
fn switches_have_four_forms_and_the_last_one_counts() {
    for name in UPSTREAM_SWITCHES.split_whitespace() {
        let (on, off) = (format!("--{name}"), format!("--no-{name}"));
        let (on_long, off_long) = (format!("--{name}=true"), format!("--{name}=false"));
        let check = |flags: &[&str], value: &str| {
            assert_eq!(
                receive(flags).expect("parses").given(name).last().map(String::as_str),
                Some(value),
                "{flags:?}"
            );
        };
        check(&[&on], "true");
        check(&[&off], "false");
        check(&[&on_long], "true");
        check(&[&off_long], "false");
        check(&[&on, &off], "false");
        check(&[&off, &on], "true");
        check(&[&off_long, &on], "true");
    }
    // A switch does not swallow the next word.
    assert!(receive(&["--tsdb.wal-compression", "false"]).is_err());
}

#[test]
fn an_unknown_flag_is_named() {
    for flag in ["--tsdb.pth=x", "--bogus", "--no-tsdb.path"] {
        let error = receive(&[flag]).expect_err(flag).to_string();
        let name = flag.split('=').next().expect("a first part");
        assert!(error.contains(name), "{error}");
    }
    assert!(receive(&["stray"]).is_err());
}

#[test]
fn only_repeatable_flags_repeat() {
    let values = receive(&["--label=a=\"1\"", "--label", "b=\"2\""]).expect("parses");
    assert_eq!(values.given("label"), ["a=\"1\"", "b=\"2\""]);
    let error = receive(&["--tsdb.path=a", "--tsdb.path=b"]).expect_err("given twice").to_string();
    assert!(error.contains("--tsdb.path"), "{error}");
}

#[test]
fn what_is_not_given_is_empty() {
    let values = receive(&[]).expect("parses");
    assert!(flags::all().all(|flag| values.given(flag.name).is_empty()));
}

#[test]
fn help_lists_each_flag_that_is_not_hidden() {
    let error = receive(&["--help"]).expect_err("prints help");
    assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp);
    let long = error.to_string();
    let short = receive(&["-h"]).expect_err("prints help").to_string();
    for flag in flags::all() {
        let name =
            format!("--{} ", flag.name).replace(" ", if flag.kind == Kind::Switch { "[" } else { " " });
        assert_eq!(long.contains(&name), !flag.hidden, "{name}");
        let in_short = !flag.hidden && flag.standing == Standing::Built;
        assert_eq!(short.contains(&name), in_short, "{name} in -h");
    }
}

#[test]
fn the_table_is_well_formed() {
    let mut names: Vec<_> = flags::all().map(|flag| flag.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), flags::all().count(), "a name stands twice");
    for flag in flags::all() {
        assert!(flag.help.ends_with('.'), "{}: help is a sentence", flag.name);
        if let Kind::Choice(words) = flag.kind {
            assert!(words.contains(&flag.default), "{}: the default is a choice", flag.name);
        }
        assert_eq!(flag.kind == Kind::Switch, matches!(flag.default, "true" | "false"), "{}", flag.name);
    }
}

#[test]
fn dev_has_defaults() {
    let Ok(Invocation::Dev(args)) = parse(["weir", "dev", "--port-offset=100", "--data", "x"]) else {
        panic!("dev parses");
    };
    let expected = DevArgs {
        data: "x".into(),
        port_offset: 100,
        scrape_interval: Duration::from_secs(15),
        ready_timeout: Duration::from_secs(60),
        restart_pause: Duration::from_secs(10),
    };
    assert_eq!(args, expected);
    assert!(parse(["weir", "dev", "--scrape-interval=15"]).is_err());
    assert!(parse(["weir"]).is_err());
    assert!(parse(["weir", "--version"]).expect_err("prints").to_string().starts_with("weir 0."));
}

proptest! {
    #[test]
    fn any_text_is_a_value(value in "[^\\x00]{0,20}") {
        let values = receive(&[&format!("--receive.hashrings={value}")]).expect("text is text");
        prop_assert_eq!(values.given("receive.hashrings"), std::slice::from_ref(&value));
    }
}
