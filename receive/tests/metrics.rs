//! What writes leave in the metrics. Installs a recorder for the whole process, hence alone in its
//! binary.

mod common;

use std::{collections::BTreeMap, sync::Arc};

use common::{Message, Node, START_MS, request, request_with, series_fields};
use tokio_util::sync::CancellationToken;
use weir::{telemetry::Telemetry, tenants::MayDelete, write::WriteConfig};

/// Values by name and labels, these sorted.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse_line = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        labels.sort_unstable();
        (format!("{name}{{{}}}", labels.join(",")), value.parse().unwrap())
    };
    lines.map(parse_line).collect()
}

#[tokio::test]
async fn writes_are_counted() {
    let telemetry = Telemetry::install().unwrap();

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("broken")).unwrap();
    std::fs::write(dir.path().join("broken").join("wal"), "").unwrap();
    let node = Node::in_dir(dir, WriteConfig::default(), |config| config).await;

    let message = Message::default().sample("x", START_MS, 1.0).sample("y", START_MS, 1.0);
    node.store(&message).await;
    node.store(&message).await;
    let histogram = [series_fields(&[(b"h", b"1")], &[]), vec![0x22, 0x02, 0x08, 0x01]].concat();
    let bad = Message::default().sample("x", START_MS - 1, 1.0).sample("y", START_MS - 1, 1.0);
    let reply = node.write(&bad.raw_series(&histogram)).await;
    assert_eq!(reply.status.as_u16(), 400);
    let exemplar = [series_fields(&[(b"h", b"1")], &[]), vec![0x1a, 0x02, 0x18, 0x01]].concat();
    node.store(&Message::default().raw_series(&exemplar)).await;
    let body = message.compress();
    let strangers = [("../x", 400), ("broken", 503)];
    for (tenant, status) in strangers {
        let reply = node.call(request_with(body.clone(), &[("thanos-tenant", tenant)])).await;
        assert_eq!(reply.status.as_u16(), status);
    }
    let reply = node.call(request_with(b"?".to_vec(), &[("thanos-tenant", "never-stored")])).await;
    assert_eq!(reply.status.as_u16(), 400);
    node.state.drain().await;
    assert_eq!(node.call(request(body.clone())).await.status.as_u16(), 503);
    // Figures of the table are set by upkeep.
    let may_delete: MayDelete = Arc::new(|_, _| true);
    node.tenants.maintain_once(&may_delete, &CancellationToken::new()).await;

    let text = telemetry.render();
    let found = parse(&text);
    let check = |series: &str, value: f64| {
        assert_eq!(found.get(series), Some(&value), "{series} in\n{text}");
    };
    let request = |name: &str, code: u16, tenant: &str| {
        format!("{name}{{code=\"{code}\",handler=\"receive\",method=\"post\",tenant=\"{tenant}\"}}")
    };
    check(&request("http_requests_total", 200, "default-tenant"), 3.0);
    check(&request("http_requests_total", 400, "default-tenant"), 1.0);
    check(&request("http_requests_total", 400, ""), 2.0);
    check(&request("http_requests_total", 503, ""), 2.0);
    check(&request("http_request_duration_seconds_count", 200, "default-tenant"), 3.0);
    check(&request("http_response_size_bytes_sum", 200, "default-tenant"), 0.0);
    check(&request("http_request_size_bytes_sum", 503, ""), 2.0 * body.len() as f64);
    check("http_inflight_requests{handler=\"receive\",method=\"post\",tenant=\"default-tenant\"}", 0.0);
    check("thanos_receive_write_samples_sum{code=\"200\",tenant=\"default-tenant\"}", 4.0);
    check("thanos_receive_write_samples_sum{code=\"400\",tenant=\"default-tenant\"}", 3.0);
    check("thanos_receive_write_timeseries_sum{code=\"200\",tenant=\"default-tenant\"}", 5.0);
    check("thanos_receive_write_samples_bucket{code=\"200\",le=\"10\",tenant=\"default-tenant\"}", 3.0);
    let refused = |reason: &str| {
        format!("weir_write_refused_samples_total{{reason=\"{reason}\",tenant=\"default-tenant\"}}")
    };
    check(&refused("sample-out-of-order"), 2.0);
    check(&refused("histogram-unsupported"), 1.0);
    check("weir_write_dropped_exemplars_total{tenant=\"default-tenant\"}", 1.0);
    check("weir_series_table_hits_total{tenant=\"default-tenant\"}", 4.0);
    check("weir_series_table_misses_total{tenant=\"default-tenant\"}", 2.0);
    check("weir_series_table_mismatches_total{tenant=\"default-tenant\"}", 0.0);
    check("weir_series_table_entries{tenant=\"default-tenant\"}", 2.0);
    check("weir_tenant_quarantined{tenant=\"broken\"}", 1.0);
    check("weir_write_bytes_in_flight{}", 0.0);
    // Strangers have no names here.
    assert!(!text.contains("../x") && !text.contains("never-stored"), "{text}");
}
