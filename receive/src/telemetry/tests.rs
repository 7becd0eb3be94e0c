use super::*;
use crate::readiness::{Phase, Readiness};

/// What is rendered after `record` ran with a recorder of its own.
fn rendered(record: impl FnOnce(&Telemetry)) -> String {
    let (telemetry, recorder) = Telemetry::build().expect("buckets are valid");
    metrics::with_local_recorder(&recorder, || record(&telemetry));
    telemetry.render()
}

fn bucket_bounds(text: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name}_bucket{{");
    text.lines()
        .filter(|line| line.starts_with(&prefix))
        .map(|line| {
            line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("le").to_owned()
        })
        .collect()
}

#[test]
fn what_alerts_divide_by_is_there_from_the_start() {
    let text = rendered(|_| catalog::register_at_start(1));
    for line in [
        "# TYPE thanos_receive_replication_factor gauge\nthanos_receive_replication_factor 1\n",
        "thanos_receive_replications_total{result=\"success\"} 0\n",
        "thanos_receive_replications_total{result=\"error\"} 0\n",
        "thanos_receive_forward_requests_total{result=\"success\"} 0\n",
        "thanos_receive_forward_requests_total{result=\"error\"} 0\n",
        "# TYPE thanos_receive_replications_total counter\n",
        "# HELP thanos_receive_replications_total Replications of write requests.\n",
        "thanos_receive_multi_db_updates_attempted_total 0\n",
        "weir_panics_total 0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn histograms_have_the_buckets_of_the_contract() {
    let names = [
        "http_request_duration_seconds",
        "http_request_size_bytes",
        "http_response_size_bytes",
        "thanos_receive_write_timeseries",
        "thanos_receive_write_samples",
        "grpc_server_handling_seconds",
        "thanos_objstore_bucket_operation_duration_seconds",
        "weir_something_else_seconds",
        "weir_something_else_bytes",
    ];
    let text = rendered(|_| names.iter().for_each(|name| metrics::histogram!(*name).record(3.0)));
    for name in names {
        assert!(text.contains(&format!("# TYPE {name} histogram\n")), "{name} is no histogram in\n{text}");
        assert!(text.contains(&format!("{name}_count 1\n")), "{name}");
    }
    let check = |name: &str, first: &str, last: &str, count: usize| {
        let bounds = bucket_bounds(&text, name);
        assert_eq!(bounds.len(), count + 1, "{name}: {bounds:?}");
        assert_eq!((bounds[0].as_str(), bounds[count - 1].as_str()), (first, last), "{name}");
        assert_eq!(bounds[count], "+Inf");
    };
    check("http_request_duration_seconds", "0.001", "30", 22);
    check("http_request_size_bytes", "64", "32768", 10);
    check("http_response_size_bytes", "64", "32768", 10);
    check("thanos_receive_write_timeseries", "10", "10000", 7);
    check("thanos_receive_write_samples", "10", "10000", 7);
    check("grpc_server_handling_seconds", "0.001", "120", 14);
    check("thanos_objstore_bucket_operation_duration_seconds", "0.001", "120", 14);
    check("weir_something_else_bytes", "256", "268435456", 11);
}

#[test]
fn recorded_and_collected_metrics_are_rendered_in_order() {
    let readiness = Readiness::default();
    readiness.advance(Phase::Ready);
    let text = rendered(|telemetry| {
        telemetry.add_collector(status::StatusCollector { readiness: readiness.clone() });
        catalog::register_at_start(3);
        metrics::counter!("http_requests_total", "code" => "200", "tenant" => "a\"b").increment(2);
    });
    assert!(text.contains("thanos_status{check=\"ready\",component=\"receive\"} 1\n"), "{text}");
    assert!(text.contains("thanos_status{check=\"healthy\",component=\"receive\"} 1\n"), "{text}");
    assert!(
        text.contains(concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")),
        "{text}"
    );
    assert!(text.contains("http_requests_total{code=\"200\",tenant=\"a\\\"b\"} 2\n"), "{text}");
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.len() > 5 && names.is_sorted(), "{names:?}");
    assert!(!text.contains("\n\n"), "{text}");

    readiness.advance(Phase::Stopping);
    let mut out = Exposition::default();
    status::StatusCollector { readiness }.collect(&mut out);
    assert!(out.into_text().contains("check=\"ready\",component=\"receive\"} 0\n"));
}
