//! What is counted for a bucket. Handles are made once per bucket.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Kinds of operations, in the words of the label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Iter,
    Get,
    Exists,
    Upload,
    Delete,
    Attributes,
}

/// All values of the label, so that each series is there from the start. `get_range` is never done,
/// but dashboards ask for it.
const LABELS: [&str; 7] = ["iter", "get", "exists", "upload", "delete", "attributes", "get_range"];

impl Operation {
    pub(crate) fn label(self) -> &'static str {
        LABELS[self as usize]
    }
}

/// Handles of one bucket.
#[derive(Debug)]
pub(crate) struct BucketMetrics {
    operations: Vec<OperationMetrics>,
    last_successful_upload: Gauge,
}

#[derive(Debug)]
struct OperationMetrics {
    total: Counter,
    failures: Counter,
    duration: Histogram,
}

impl BucketMetrics {
    pub(crate) fn new(bucket: &str) -> Self {
        let operations = LABELS
            .iter()
            .map(|&operation| {
                let labels = [("bucket", bucket.to_owned()), ("operation", operation.to_owned())];
                let failures = counter!("thanos_objstore_bucket_operation_failures_total", &labels);
                failures.increment(0);
                let total = counter!("thanos_objstore_bucket_operations_total", &labels);
                total.increment(0);
                let duration = histogram!("thanos_objstore_bucket_operation_duration_seconds", &labels);
                OperationMetrics { total, failures, duration }
            })
            .collect();
        let last_successful_upload = gauge!(
            "thanos_objstore_bucket_last_successful_upload_time", "bucket" => bucket.to_owned()
        );
        Self { operations, last_successful_upload }
    }

    /// Counts an operation that begins now.
    pub(crate) fn begin(&self, operation: Operation) -> Running<'_> {
        let metrics = self.operations.get(operation as usize);
        if let Some(metrics) = metrics {
            metrics.total.increment(1);
        }
        Running { all: self, metrics, operation, began: Instant::now() }
    }
}

/// An operation under way. One that is dropped without a word was given up, and counts as neither.
pub(crate) struct Running<'a> {
    all: &'a BucketMetrics,
    metrics: Option<&'a OperationMetrics>,
    operation: Operation,
    began: Instant,
}

impl Running<'_> {
    /// The operation ended: well, or because the object was not there, which is an answer too.
    pub(crate) fn succeeded(self) {
        if let Some(metrics) = self.metrics {
            metrics.duration.record(self.began.elapsed().as_secs_f64());
        }
        if self.operation == Operation::Upload {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.all.last_successful_upload.set(now.as_secs_f64());
        }
    }

    /// The operation failed.
    pub(crate) fn failed(self) {
        if let Some(metrics) = self.metrics {
            metrics.failures.increment(1);
        }
    }
}
