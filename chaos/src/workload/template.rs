//! The 64 series of a pod.

/// How the values of a series come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Grows by up to `per_second`.
    Counter {
        /// At most, a second.
        per_second: u64,
    },
    /// Goes up and down around `mean` steps.
    Gauge {
        /// In steps; at least 2.
        mean: u64,
        /// Size of a step.
        step: f64,
    },
    /// `value` times 1 to 4, for good.
    Constant {
        /// The least.
        value: f64,
    },
    /// Always 1.
    Info,
    /// A bucket, cumulative.
    Bucket {
        /// Which of the pod's histograms.
        histogram: u64,
        /// Index of its upper bound.
        bucket: usize,
    },
    /// The count of a histogram.
    Count {
        /// Which.
        histogram: u64,
    },
    /// The sum of a histogram.
    Sum {
        /// Which.
        histogram: u64,
    },
}

/// A metric of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

pub(super) const SERIES_PER_POD: usize = 64;

/// Upper bounds of the buckets of a histogram.
pub(super) const BUCKET_LES: [&str; BUCKET_COUNT] =
    ["0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "10.0", "+Inf"];
pub(super) const BUCKET_COUNT: usize = 12;

/// The share of all observations at or below each bound, in thousandths.
pub(super) const BUCKET_SHARES: [u64; BUCKET_COUNT] =
    [40, 220, 410, 640, 780, 890, 950, 980, 992, 998, 999, 1000];

/// Names of workloads, and of the container that does the work.
pub(super) const APPS: &[(&str, &str)] = &[
    ("checkout-api", "checkout"),
    ("cart-service", "cart"),
    ("payments-worker", "worker"),
    ("catalog-search", "search"),
    ("frontend-web", "nginx"),
    ("user-profile", "profile"),
    ("order-history", "orders"),
    ("notification-mailer", "mailer"),
    ("inventory-sync", "sync"),
    ("fraud-scoring", "scoring"),
    ("image-resizer", "resizer"),
    ("session-store", "redis"),
    ("ingress-nginx", "controller"),
    ("recommendations", "model"),
];

pub(super) const NAMESPACES: &[&str] =
    &["payments", "storefront", "identity", "logistics", "platform", "ml-serving", "monitoring"];

const fn counter(name: &'static str, per_second: u64) -> Template {
    Template { name, kind: Kind::Counter { per_second } }
}

const fn gauge(name: &'static str, mean: u64, step: f64) -> Template {
    Template { name, kind: Kind::Gauge { mean, step } }
}

const fn constant(name: &'static str, value: f64) -> Template {
    Template { name, kind: Kind::Constant { value } }
}

const HISTOGRAMS: [[&str; 3]; 2] = [
    [
        "http_request_duration_seconds_bucket",
        "http_request_duration_seconds_sum",
        "http_request_duration_seconds_count",
    ],
    [
        "grpc_server_handling_seconds_bucket",
        "grpc_server_handling_seconds_sum",
        "grpc_server_handling_seconds_count",
    ],
];

/// Metrics beside the histograms.
const PLAIN: [Template; 36] = [
    counter("container_cpu_usage_seconds_total", 4),
    counter("container_cpu_cfs_periods_total", 10),
    counter("container_cpu_cfs_throttled_periods_total", 2),
    counter("container_network_receive_bytes_total", 2_000_000),
    counter("container_network_transmit_bytes_total", 3_000_000),
    counter("container_network_receive_packets_total", 4_000),
    counter("container_network_transmit_packets_total", 4_000),
    counter("container_fs_reads_bytes_total", 500_000),
    counter("container_fs_writes_bytes_total", 800_000),
    counter("process_cpu_seconds_total", 4),
    counter("go_memstats_alloc_bytes_total", 30_000_000),
    counter("go_memstats_frees_total", 200_000),
    counter("go_memstats_mallocs_total", 200_000),
    counter("http_requests_total", 400),
    counter("http_response_size_bytes_total", 900_000),
    counter("grpc_server_msg_received_total", 300),
    counter("grpc_server_msg_sent_total", 300),
    counter("rest_client_requests_total", 20),
    gauge("container_memory_working_set_bytes", 60_000, 4096.0),
    gauge("container_memory_rss", 50_000, 4096.0),
    gauge("container_memory_cache", 20_000, 4096.0),
    gauge("process_resident_memory_bytes", 55_000, 4096.0),
    gauge("process_open_fds", 120, 1.0),
    gauge("go_goroutines", 400, 1.0),
    gauge("go_memstats_heap_inuse_bytes", 4_000, 8192.0),
    gauge("go_memstats_next_gc_bytes", 60_000_000, 1.0),
    gauge("http_requests_in_flight", 40, 1.0),
    gauge("workqueue_depth", 12, 1.0),
    gauge("node_load1_ratio", 4_000, 0.001),
    gauge("request_queue_utilization_ratio", 700, 0.001),
    constant("kube_pod_container_resource_limits_memory", 268_435_456.0),
    constant("kube_pod_container_resource_requests_cpu", 0.25),
    constant("process_start_time_seconds", 425_000_000.5),
    constant("process_max_fds", 1_048_576.0),
    Template { name: "kube_pod_status_ready", kind: Kind::Info },
    Template { name: "app_build_info", kind: Kind::Info },
];

/// All metrics of a pod.
pub(super) const TEMPLATES: [Template; SERIES_PER_POD] = {
    let mut all = [Template { name: "", kind: Kind::Info }; SERIES_PER_POD];
    let mut next = 0;
    while next < PLAIN.len() {
        all[next] = PLAIN[next];
        next += 1;
    }
    let mut histogram = 0;
    while histogram < HISTOGRAMS.len() {
        let [bucket_name, sum_name, count_name] = HISTOGRAMS[histogram];
        let id = histogram as u64;
        let mut bucket = 0;
        while bucket < BUCKET_COUNT {
            all[next] = Template { name: bucket_name, kind: Kind::Bucket { histogram: id, bucket } };
            next += 1;
            bucket += 1;
        }
        all[next] = Template { name: sum_name, kind: Kind::Sum { histogram: id } };
        all[next + 1] = Template { name: count_name, kind: Kind::Count { histogram: id } };
        next += 2;
        histogram += 1;
    }
    assert!(next == SERIES_PER_POD);
    all
};
