//! Help texts and histogram buckets of what is counted through the `metrics` crate.
//!
//! Names, labels and buckets are those of Thanos Receive wherever it has them, so that its
//! dashboards and alerts find what they look for. Whoever counts uses the name as a literal; here
//! is what all of them have in common.

use metrics::{KeyName, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::Matcher;

/// Buckets in seconds of histograms that have none of their own.
pub const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// As upstream up to 5; beyond that so that an alert on requests above 10 seconds can fire.
const HTTP_SECONDS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0,
    4.0, 5.0, 10.0, 30.0,
];
const HTTP_BYTES: [f64; 10] = [64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];
const WRITE_COUNTS: [f64; 7] = [10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0];
/// Of gRPC calls and bucket operations, which may take minutes.
const LONG_SECONDS: [f64; 14] =
    [0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0];
/// 256 bytes to 256 MiB.
const BYTES: [f64; 11] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];

/// Which histograms have which buckets.
pub(super) fn buckets() -> Vec<(Matcher, &'static [f64])> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    vec![
        (full("http_request_duration_seconds"), &HTTP_SECONDS),
        (full("http_request_size_bytes"), &HTTP_BYTES),
        (full("http_response_size_bytes"), &HTTP_BYTES),
        (full("thanos_receive_write_timeseries"), &WRITE_COUNTS),
        (full("thanos_receive_write_samples"), &WRITE_COUNTS),
        (full("grpc_server_handling_seconds"), &LONG_SECONDS),
        (full("thanos_objstore_bucket_operation_duration_seconds"), &LONG_SECONDS),
        (Matcher::Suffix("_bytes".to_owned()), &BYTES),
    ]
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

const HELP: &[(Kind, &str, &str)] = &[
    (Counter, "http_requests_total", "HTTP requests answered."),
    (Histogram, "http_request_duration_seconds", "Time from a request's head to its answer."),
    (Histogram, "http_request_size_bytes", "Size of requests as sent, compressed."),
    (Histogram, "http_response_size_bytes", "Size of answers."),
    (Gauge, "http_inflight_requests", "HTTP requests being worked on."),
    (Histogram, "thanos_receive_write_timeseries", "Series per write request."),
    (Histogram, "thanos_receive_write_samples", "Samples per write request."),
    (Counter, "thanos_receive_replications_total", "Replications of write requests."),
    (Counter, "thanos_receive_forward_requests_total", "Requests forwarded to peers."),
    (Gauge, "thanos_receive_replication_factor", "Copies made of each series."),
    (Counter, "thanos_receive_multi_db_updates_attempted_total", "Attempts to open a tenant's database."),
    (Counter, "thanos_receive_multi_db_updates_completed_total", "Tenants' databases opened."),
    (Gauge, "thanos_receive_write_limits", "Limits on write requests."),
    (Gauge, "thanos_receive_head_series_limit", "Limit on series in the head."),
    (
        Counter,
        "thanos_receive_head_series_limited_requests_total",
        "Requests refused by the limit on series in the head.",
    ),
    (Counter, "thanos_shipper_uploads_total", "Blocks uploaded."),
    (Counter, "thanos_shipper_upload_failures_total", "Uploads of blocks that failed."),
    (Counter, "thanos_shipper_dir_syncs_total", "Rounds of looking for blocks to upload."),
    (
        Counter,
        "thanos_shipper_dir_sync_failures_total",
        "Rounds of looking for blocks to upload that failed.",
    ),
    (Counter, "thanos_shipper_corrupted_blocks_total", "Blocks that are damaged and not uploaded."),
    (Gauge, "thanos_shipper_upload_compacted_done", "1 if all compacted blocks are uploaded."),
    (
        Gauge,
        "thanos_objstore_bucket_last_successful_upload_time",
        "Unix time of the last upload that worked.",
    ),
    (Counter, "thanos_objstore_bucket_operations_total", "Operations on the bucket."),
    (Counter, "thanos_objstore_bucket_operation_failures_total", "Operations on the bucket that failed."),
    (Histogram, "thanos_objstore_bucket_operation_duration_seconds", "Time of operations on the bucket."),
    (Counter, "thanos_store_selects_dropped_total", "Reads refused because they exceed a limit."),
    (Counter, "grpc_server_started_total", "gRPC calls begun."),
    (Counter, "grpc_server_handled_total", "gRPC calls answered."),
    (Histogram, "grpc_server_handling_seconds", "Time of gRPC calls."),
    (Gauge, "weir_http_connections", "Connections open."),
    (Counter, "weir_http_connections_refused_total", "Connections refused because too many were open."),
    (Counter, "weir_http_connections_cut_total", "Connections cut at a stop with a request in flight."),
    (Counter, "weir_http_accept_errors_total", "Failures to accept a connection."),
    (Counter, "weir_panics_total", "Bugs that made a task panic."),
];

/// Tells `recorder` the help of each name.
pub(super) fn describe(recorder: &impl Recorder) {
    for (kind, name, help) in HELP {
        let (name, help) = (KeyName::from_const_str(name), SharedString::const_str(help));
        let unit: Option<Unit> = None;
        match kind {
            Counter => recorder.describe_counter(name, unit, help),
            Gauge => recorder.describe_gauge(name, unit, help),
            Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}

/// Sets what must be there before anything happened: alerts divide by these. A node without a
/// ring forwards nothing, but each write it stores is a replication of one.
pub fn register_at_start(replication_factor: usize) {
    metrics::gauge!("thanos_receive_replication_factor").set(replication_factor as f64);
    for result in ["success", "error"] {
        metrics::counter!("thanos_receive_replications_total", "result" => result).increment(0);
        metrics::counter!("thanos_receive_forward_requests_total", "result" => result).increment(0);
    }
    for name in [
        "thanos_receive_multi_db_updates_attempted_total",
        "thanos_receive_multi_db_updates_completed_total",
        "weir_panics_total",
    ] {
        metrics::counter!(name).increment(0);
    }
}
