//! Metric handles of one tenant, made once and kept: looking a metric up by its labels costs more
//! than counting.
//!
//! Only tenants that were accepted have handles of their own, so that a stranger cannot fill the
//! metrics with made-up names. All other requests are counted without a tenant.

use std::sync::OnceLock;

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::answer::Refusal;

/// Codes a write is answered with.
const CODES: [StatusCode; 8] = [
    StatusCode::OK,
    StatusCode::NO_CONTENT,
    StatusCode::BAD_REQUEST,
    StatusCode::CONFLICT,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What is counted of each answered request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFigures {
    /// Code of the answer.
    pub status: StatusCode,
    /// Seconds from the head of the request to the answer.
    pub seconds: f64,
    /// Bytes of the body as it came.
    pub request_bytes: usize,
    /// Bytes of the answer's body.
    pub response_bytes: usize,
    /// Series and samples, if the body could be decoded.
    pub content: Option<(u64, u64)>,
}

#[derive(Debug)]
struct CodeMetrics {
    requests: Counter,
    seconds: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    series: Histogram,
    samples: Histogram,
}

impl CodeMetrics {
    fn new(tenant: &str, status: StatusCode) -> Self {
        let code = status.as_str().to_owned();
        let labels = [
            ("code", code.clone()),
            ("handler", "receive".to_owned()),
            ("method", "post".to_owned()),
            ("tenant", tenant.to_owned()),
        ];
        let content_labels = [("code", code), ("tenant", tenant.to_owned())];
        Self {
            requests: counter!("http_requests_total", &labels),
            seconds: histogram!("http_request_duration_seconds", &labels),
            request_bytes: histogram!("http_request_size_bytes", &labels),
            response_bytes: histogram!("http_response_size_bytes", &labels),
            series: histogram!("thanos_receive_write_timeseries", &content_labels),
            samples: histogram!("thanos_receive_write_samples", &content_labels),
        }
    }
}

/// Figures of the write path for one tenant, or for all requests without an accepted one.
#[derive(Debug)]
pub struct WriteMetrics {
    tenant: String,
    by_code: [OnceLock<CodeMetrics>; CODES.len()],
    refused: [OnceLock<Counter>; Refusal::ALL.len()],
    /// Requests under way.
    pub inflight: Gauge,
    /// Exemplars that were dropped, as exemplar storage is off.
    pub dropped_exemplars: Counter,
    /// Look-ups in the series table that found their key.
    pub table_hits: Counter,
    /// Look-ups that did not.
    pub table_misses: Counter,
    /// New keys that found the table full.
    pub table_full: Counter,
    /// Hits that were decoded in full and did not match. More than 0 is an alarm.
    pub table_mismatches: Counter,
    /// Keys of the table now.
    pub table_entries: Gauge,
    /// Memory of the table.
    pub table_bytes: Gauge,
}

impl WriteMetrics {
    /// Handles for `tenant`; the empty name stands for requests without an accepted tenant. Made
    /// after the metrics recorder is installed, or they count nothing.
    pub fn new(tenant: &str) -> Self {
        let own = [("tenant", tenant.to_owned())];
        let inflight =
            [("handler", "receive".to_owned()), ("method", "post".to_owned()), ("tenant", tenant.to_owned())];
        Self {
            tenant: tenant.to_owned(),
            by_code: Default::default(),
            refused: Default::default(),
            inflight: gauge!("http_inflight_requests", &inflight),
            dropped_exemplars: counter!("weir_write_dropped_exemplars_total", &own),
            table_hits: counter!("weir_series_table_hits_total", &own),
            table_misses: counter!("weir_series_table_misses_total", &own),
            table_full: counter!("weir_series_table_full_total", &own),
            table_mismatches: counter!("weir_series_table_mismatches_total", &own),
            table_entries: gauge!("weir_series_table_entries", &own),
            table_bytes: gauge!("weir_series_table_bytes", &own),
        }
    }

    /// Counts an answered request.
    pub fn count_request(&self, figures: &RequestFigures) {
        let Some(index) = CODES.iter().position(|code| *code == figures.status) else {
            tracing::error!(
                code = figures.status.as_u16(),
                "a write was answered with a code that is not counted"
            );
            return;
        };
        let handles = self.by_code[index].get_or_init(|| CodeMetrics::new(&self.tenant, figures.status));
        handles.requests.increment(1);
        handles.seconds.record(figures.seconds);
        handles.request_bytes.record(figures.request_bytes as f64);
        handles.response_bytes.record(figures.response_bytes as f64);
        if let Some((series, samples)) = figures.content {
            handles.series.record(series as f64);
            handles.samples.record(samples as f64);
        }
    }

    /// Counts refused samples.
    pub fn count_refused(&self, reason: Refusal, samples: u64) {
        let counter = self.refused[reason as usize].get_or_init(|| {
            let labels = [("tenant", self.tenant.clone()), ("reason", reason.id().to_owned())];
            counter!("weir_write_refused_samples_total", &labels)
        });
        counter.increment(samples);
    }
}
