//! The validated configuration: plain structs of typed values, one per subsystem.
//!
//! [`Config::judge`] turns what was typed into what is built, before a port is bound or a file is
//! opened, and reports everything that is wrong at once.

pub mod address;
pub mod external_labels;
mod judge;
pub mod memory;
pub mod objstore_text;
pub mod problem;
pub mod ring;

use std::{path::PathBuf, time::Duration};

use weir_tsdb::Labels;

pub use self::{
    address::ListenAddress,
    objstore_text::ObjstoreText,
    problem::{ConfigError, Problem},
    ring::{ClusterSettings, RingConfig, RingFileConfig, RingSource, RingText},
};
use self::{judge::Judge, memory::Machine};
use crate::cli::Values;

/// Everything a node needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port for metrics and probes.
    pub http: HttpConfig,
    /// The port for StoreAPI.
    pub grpc: GrpcConfig,
    /// The port for remote write, and how much of it is taken at once.
    pub write: WriteConfig,
    /// Whose data it is.
    pub tenancy: TenancyConfig,
    /// Where and how data is stored.
    pub tsdb: TsdbConfig,
    /// What is uploaded, and where to.
    pub upload: UploadConfig,
    /// Bounds of one read.
    pub read: ReadConfig,
    /// Other nodes; `None` for a node on its own.
    pub ring: Option<RingConfig>,
    /// Log lines.
    pub log: LogConfig,
    /// Labels that tell this node's data from others'; never empty.
    pub external_labels: Labels,
    /// Copies of each series; 1 without a ring.
    pub replication_factor: usize,
    /// Upper bound of the grace periods of both servers at a stop.
    pub drain_max: Duration,
    /// Whether the end of standard input stops the node.
    pub stop_on_stdin_eof: bool,
    /// What is worth a line in the log: flags without effect, values that were adjusted.
    pub notices: Vec<String>,
}

/// The port for metrics and probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen.
    pub address: ListenAddress,
    /// How long requests may go on after a stop was asked for.
    pub grace: Duration,
}

/// The port for StoreAPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where to listen.
    pub address: ListenAddress,
    /// How long calls may go on after a stop was asked for.
    pub grace: Duration,
    /// Age at which a connection is asked to reconnect; `None` for never.
    pub max_connection_age: Option<Duration>,
}

/// The port for remote write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteConfig {
    /// Where to listen.
    pub address: ListenAddress,
    /// Connections at once.
    pub max_connections: usize,
    /// Age at which a connection is asked to reconnect; `None` for never.
    pub max_connection_age: Option<Duration>,
    /// Decoded bytes of all requests being worked on.
    pub max_bytes_in_flight: u64,
    /// Decoded bytes of one request; at most `max_bytes_in_flight`.
    pub max_request_bytes: u64,
    /// Series of one request.
    pub max_request_series: usize,
    /// Samples of one request, histograms included.
    pub max_request_samples: usize,
    /// Labels of one series.
    pub max_label_names_per_series: usize,
    /// Bytes of a label name.
    pub max_label_name_length: usize,
    /// Bytes of a label value.
    pub max_label_value_length: usize,
    /// Longest time for reading a body.
    pub body_timeout: Duration,
    /// Longest wait for a turn.
    pub queue_timeout: Duration,
    /// Requests decoded and appended at once; `None` for as many as there are cores.
    pub concurrency: Option<usize>,
    /// What senders that were answered 503 are told to wait.
    pub retry_after: Duration,
    /// Entries of a tenant's table of known series.
    pub series_table_size: u64,
}

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyConfig {
    /// Header that names the tenant, lower case.
    pub tenant_header: http::HeaderName,
    /// Tenant of requests that name none.
    pub default_tenant: String,
    /// Label that carries the tenant.
    pub tenant_label: String,
    /// Header with the number of a copy, lower case.
    pub replica_header: http::HeaderName,
    /// Tenants at most; `None` for no limit.
    pub max_count: Option<u64>,
}

/// Where and how data is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsdbConfig {
    /// The data directory.
    pub path: PathBuf,
    /// How long data is kept; `None` for ever.
    pub retention: Option<Duration>,
    /// Bytes that a tenant may have before its oldest blocks go; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// Length of a block; a whole number of milliseconds, at least one.
    pub block_duration: Duration,
    /// How much older than the newest sample of its tenant a late sample may be; `None`: none may be.
    pub out_of_order_window: Option<Duration>,
    /// Late samples of a series that become a chunk together, 1 to 255.
    pub out_of_order_cap: u8,
    /// How far ahead of the clock a sample may be; `None` for no check.
    pub future_window: Option<Duration>,
    /// Whether log records are compressed.
    pub wal_compression: bool,
    /// Whether a tenant's directory is locked.
    pub lock_file: bool,
    /// Time between rounds of upkeep.
    pub maintenance_interval: Duration,
}

/// What is uploaded, and where to.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    /// The bucket configuration as given; `None` means that nothing is uploaded.
    pub objstore: Option<ObjstoreText>,
    /// Whether SHA-256 hashes of files are noted in meta.json.
    pub hash_files: bool,
    /// Files uploaded at once, at least one.
    pub concurrency: usize,
    /// Time between rounds.
    pub interval: Duration,
}

/// Bounds of one read; `None` for no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadConfig {
    /// Series.
    pub max_series: Option<u64>,
    /// Samples.
    pub max_samples: Option<u64>,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Least important level that is written.
    pub level: tracing::Level,
    /// Their form.
    pub format: LogFormat,
    /// Added to each line as `name`, if not empty.
    pub name: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Validates what was given on the command line of `weir receive`. Reads the files that flags
    /// name, the environment variables they refer to, and the memory limit of the machine.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn judge(values: &Values) -> Result<Self, ConfigError> {
        let mut judge = Judge::new(values);
        judge.check_all_flags();
        let config = Self::read(&mut judge);
        judge.finish(config)
    }

    fn read(judge: &mut Judge<'_>) -> Self {
        Self {
            http: HttpConfig {
                address: judge.address("http-address"),
                grace: judge.duration("http-grace-period"),
            },
            grpc: GrpcConfig {
                address: judge.address("grpc-address"),
                grace: judge.duration("grpc-grace-period"),
                max_connection_age: judge.duration_unless_zero("grpc-server-max-connection-age"),
            },
            write: Self::read_write(judge),
            tenancy: TenancyConfig {
                tenant_header: judge.header("receive.tenant-header"),
                default_tenant: judge.default_tenant(),
                tenant_label: judge.label_name("receive.tenant-label-name"),
                replica_header: judge.header("receive.replica-header"),
                max_count: judge.count_unless_zero("tenant.max-count"),
            },
            tsdb: TsdbConfig {
                path: judge.path("tsdb.path"),
                retention: judge.duration_unless_zero("tsdb.retention"),
                retention_bytes: Some(judge.bytes("tsdb.max-retention-bytes")).filter(|bytes| *bytes > 0),
                block_duration: judge.block_duration(),
                out_of_order_window: judge.duration_unless_zero("tsdb.out-of-order.time-window"),
                out_of_order_cap: judge.out_of_order_cap(),
                future_window: judge.duration_unless_zero("tsdb.too-far-in-future.time-window"),
                wal_compression: judge.switch("tsdb.wal-compression"),
                lock_file: !judge.switch("tsdb.no-lockfile"),
                maintenance_interval: judge.interval("tsdb.maintenance-interval"),
            },
            upload: UploadConfig {
                objstore: judge.objstore(),
                hash_files: judge.text("hash-func") == "SHA256",
                concurrency: judge.size("shipper.upload-concurrency").max(1),
                interval: judge.interval("shipper.interval"),
            },
            read: ReadConfig {
                max_series: judge.count_unless_zero("store.limits.request-series"),
                max_samples: judge.count_unless_zero("store.limits.request-samples"),
            },
            ring: judge.ring(),
            log: LogConfig {
                level: judge.log_level(),
                format: judge.log_format(),
                name: judge.text("debug.name").to_owned(),
            },
            external_labels: judge.external_labels(),
            replication_factor: judge.replication_factor(),
            drain_max: judge.duration("stop.drain-max"),
            stop_on_stdin_eof: judge.switch("debug.stop-on-stdin-eof"),
            notices: Vec::new(),
        }
    }

    fn read_write(judge: &mut Judge<'_>) -> WriteConfig {
        let max_request_bytes = judge.bytes("write.max-request-bytes");
        let max_bytes_in_flight = match judge.text("write.max-bytes-in-flight") {
            "" => Machine::read().default_bytes_in_flight().max(max_request_bytes),
            _ => judge.bytes("write.max-bytes-in-flight"),
        };
        if max_request_bytes == 0 {
            judge.invalid("write.max-request-bytes", "must be more than 0");
        } else if max_request_bytes > max_bytes_in_flight {
            judge.invalid("write.max-request-bytes", "must not exceed --write.max-bytes-in-flight");
        }
        let max_connections = judge.size("write.max-connections");
        if max_connections == 0 {
            judge.invalid("write.max-connections", "must be more than 0");
        }
        WriteConfig {
            address: judge.address("remote-write.address"),
            max_connections,
            max_connection_age: judge.duration_unless_zero("write.max-connection-age"),
            max_bytes_in_flight,
            max_request_bytes,
            max_request_series: judge.limit("write.max-request-series"),
            max_request_samples: judge.limit("write.max-request-samples"),
            max_label_names_per_series: judge.limit("write.max-label-names-per-series"),
            max_label_name_length: judge.bytes_limit("write.max-label-name-length"),
            max_label_value_length: judge.bytes_limit("write.max-label-value-length"),
            body_timeout: judge.interval("write.body-timeout"),
            queue_timeout: judge.interval("write.queue-timeout"),
            concurrency: Some(judge.size("write.concurrency")).filter(|concurrency| *concurrency > 0),
            retry_after: judge.duration("write.retry-after"),
            series_table_size: judge.count("write.series-table-size"),
        }
    }
}

#[cfg(test)]
mod tests;
