//! What a client is told: one error type, one table to HTTP, one to gRPC.
//!
//! Clients act on the code alone, so the code says who can mend it (design, "Answers"):
//!
//! | Code | Meaning | What senders do |
//! |---|---|---|
//! | 409 | all refused samples conflict with what is stored | drop |
//! | 400 | no retry can mend it | drop |
//! | 415 | encoding or message not understood | try another one, or drop |
//! | 429 | a limit left nothing to store | wait, or drop |
//! | 503 | not now; `Retry-After` says when | wait and send again |
//! | 500 | a fault of ours | send again |
//!
//! 413 is never sent: some agents retry it for ever, and block. An agent that compresses with zstd
//! takes 400 as a refusal of zstd and falls back for good, hence 409 for what happens every day.

mod refusal;

pub use refusal::{FirstRefusal, Refusal, RefusalCounts, RefusalReport};

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::tenants::{InvalidTenantName, TenantName};

/// Header that carries the stable id of an error.
pub const ERROR_ID_HEADER: HeaderName = HeaderName::from_static("x-weir-error-id");

/// Why a write was not, or not wholly, accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Databases are still being opened, or the node is stopping.
    #[error("Service Unavailable: the node is not ready")]
    NotReady,
    /// The tenant named in the request is not a valid one.
    #[error("invalid tenant {name:?}: {cause}")]
    InvalidTenant {
        /// The name as it came, as far as it is text.
        name: String,
        /// What is wrong with it.
        cause: InvalidTenantName,
    },
    /// The tenant is new and there are as many as this node takes.
    #[error("tenant {tenant} is new and this node already holds its limit of {limit} tenants")]
    TooManyTenants {
        /// The new tenant.
        tenant: TenantName,
        /// The limit.
        limit: usize,
    },
    /// The tenant's database cannot be opened or written to.
    #[error("target not available: tenant {tenant}: {cause}")]
    TenantUnavailable {
        /// The tenant.
        tenant: TenantName,
        /// What is wrong with its database.
        cause: Arc<str>,
    },
    /// Too few owners have some of the series.
    #[error("Service Unavailable: {missed} of {series} series are not stored by enough nodes")]
    NoQuorum {
        /// Series that must be sent again.
        missed: usize,
        /// All series of the request.
        series: usize,
    },
    /// The ring file has no ring for the tenant.
    #[error("Service Unavailable: no ring takes tenant {0}")]
    NoRing(TenantName),
    /// The ring of the cluster names no owners yet.
    #[error(
        "Service Unavailable: the ring names no owners yet, it needs {needed} nodes that store and has {active}"
    )]
    NoOwners {
        /// Nodes that may own series.
        active: usize,
        /// Owners of each series.
        needed: usize,
    },
    /// The clock of this node is far off those of the others.
    #[error("Service Unavailable: the clock of this node is off")]
    ClockOff,
    /// The replica header counts more copies than there are.
    #[error(
        "could not parse replica header: {replica} is more than the {replication_factor} copies of a series"
    )]
    ReplicaTooHigh {
        /// What it says.
        replica: u64,
        /// Copies of each series.
        replication_factor: usize,
    },
    /// The replica header is not a number.
    #[error("could not parse replica header: {0:?} is not a number")]
    ReplicaHeader(String),
    /// The body is compressed in a way we do not know.
    #[error("unsupported content encoding {0:?}: send snappy")]
    ContentEncoding(String),
    /// The body is a message we do not know.
    #[error("unsupported content type {0:?}: send application/x-protobuf with prometheus.WriteRequest")]
    ContentType(String),
    /// A message of remote write 2.0.
    #[error("remote write 2.0 is not supported yet: send prometheus.WriteRequest (1.0)")]
    RemoteWrite2,
    /// The body, compressed or not, is larger than the limit.
    #[error("write request too large: {what} of {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Which of the two, as in "decoded body".
        what: &'static str,
        /// Bytes claimed, or seen until it was cut off.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
    /// More series in one request than the limit.
    #[error("too many timeseries: the request has more than {limit}")]
    TooManySeries {
        /// The limit.
        limit: usize,
    },
    /// More samples in one request than the limit.
    #[error("too many samples: the request has more than {limit}")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
    /// Requests under way hold as many bytes as the node gives them.
    #[error("too many bytes in flight: {wanted} more do not fit into {limit}")]
    Overloaded {
        /// Bytes asked for.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
    /// The request's time was up before work on it began.
    #[error("Service Unavailable: {0}")]
    Deadline(&'static str),
    /// The client closed the connection, or broke the protocol, while the body was read.
    #[error("could not read the body: {0}")]
    BodyRead(Arc<str>),
    /// The body is not a snappy block.
    #[error("could not decompress the body: {0}")]
    Snappy(Arc<str>),
    /// The body is not the message it should be.
    #[error("could not decode the body: {0}")]
    Protobuf(Arc<str>),
    /// Some samples were refused; all others are stored.
    #[error("{0}")]
    Refused(Box<RefusalReport>),
    /// The database failed to store; nothing of the request is acknowledged.
    #[error("tenant {tenant} could not store: {cause}")]
    Storage {
        /// The tenant.
        tenant: TenantName,
        /// What failed.
        cause: Arc<str>,
    },
    /// A fault of ours.
    #[error("internal error: {0}")]
    Internal(Arc<str>),
}

/// Code of the gRPC answer to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcCode {
    /// No retry can mend it.
    InvalidArgument,
    /// Conflicts with what is stored.
    AlreadyExists,
    /// A limit left nothing to store.
    ResourceExhausted,
    /// Not now.
    Unavailable,
    /// Not understood.
    Unimplemented,
    /// A fault of ours.
    Internal,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Stable name of the cause, for clients and the documentation.
    pub id: &'static str,
    /// HTTP code.
    pub status: StatusCode,
    /// gRPC code.
    pub grpc: GrpcCode,
}

impl WriteError {
    /// The table: what each cause is answered with.
    pub fn answer(&self) -> Answer {
        use GrpcCode::{
            AlreadyExists, Internal, InvalidArgument, ResourceExhausted, Unavailable, Unimplemented,
        };
        let (id, status, grpc) = match self {
            Self::NotReady => ("not-ready", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::InvalidTenant { .. } => ("tenant-invalid", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::TooManyTenants { .. } => ("tenant-limit", StatusCode::TOO_MANY_REQUESTS, ResourceExhausted),
            Self::TenantUnavailable { .. } => {
                ("tenant-unavailable", StatusCode::SERVICE_UNAVAILABLE, Unavailable)
            }
            Self::ReplicaHeader(_) | Self::ReplicaTooHigh { .. } => {
                ("replica-invalid", StatusCode::BAD_REQUEST, InvalidArgument)
            }
            Self::NoQuorum { .. } => ("no-quorum", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::ClockOff => ("clock-off", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::NoOwners { .. } => ("no-owners", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::NoRing(_) => ("no-ring", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::ContentEncoding(_) => {
                ("encoding-unsupported", StatusCode::UNSUPPORTED_MEDIA_TYPE, Unimplemented)
            }
            Self::ContentType(_) => {
                ("content-type-unsupported", StatusCode::UNSUPPORTED_MEDIA_TYPE, Unimplemented)
            }
            Self::RemoteWrite2 => {
                ("remote-write-2-unsupported", StatusCode::UNSUPPORTED_MEDIA_TYPE, Unimplemented)
            }
            Self::TooLarge { .. } => ("request-too-large", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::TooManySeries { .. } => ("request-series-limit", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::TooManySamples { .. } => {
                ("request-samples-limit", StatusCode::BAD_REQUEST, InvalidArgument)
            }
            Self::Overloaded { .. } => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::Deadline(_) => ("deadline", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::BodyRead(_) => ("body-incomplete", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::Snappy(_) => ("snappy-invalid", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::Protobuf(_) => ("protobuf-invalid", StatusCode::BAD_REQUEST, InvalidArgument),
            Self::Refused(report) if report.is_conflict() => {
                (report.id(), StatusCode::CONFLICT, AlreadyExists)
            }
            Self::Refused(report) => (report.id(), StatusCode::BAD_REQUEST, InvalidArgument),
            Self::Storage { .. } => ("storage-failed", StatusCode::SERVICE_UNAVAILABLE, Unavailable),
            Self::Internal(_) => ("internal", StatusCode::INTERNAL_SERVER_ERROR, Internal),
        };
        Answer { id, status, grpc }
    }

    /// The HTTP answer. `retry_after` is told with 429 and 503, in whole seconds, at least one.
    pub fn response(&self, retry_after: Duration) -> Response {
        let answer = self.answer();
        let mut response = (answer.status, format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(ERROR_ID_HEADER, HeaderValue::from_static(answer.id));
        if matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.min(u64::MAX.into()) as u64));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantName {
        TenantName::new("a").unwrap()
    }

    fn refused(reasons: &[Refusal]) -> WriteError {
        let mut counts = RefusalCounts::default();
        for reason in reasons {
            counts.add(*reason, 1);
        }
        let first = FirstRefusal { reason: reasons[0], series: "{a=\"1\"}".into(), time_ms: Some(5) };
        WriteError::Refused(Box::new(RefusalReport::new(counts, 10, first).unwrap()))
    }

    #[test]
    fn codes_ids_and_texts() {
        use GrpcCode::*;
        let cause: Arc<str> = "why".into();
        let invalid = InvalidTenantName::Empty;
        let cases: Vec<(WriteError, u16, GrpcCode, &str, &str)> = vec![
            (WriteError::NotReady, 503, Unavailable, "not-ready", "Service Unavailable"),
            (
                WriteError::ClockOff,
                503,
                Unavailable,
                "clock-off",
                "Service Unavailable: the clock of this node is off",
            ),
            (
                WriteError::NoOwners { active: 2, needed: 3 },
                503,
                Unavailable,
                "no-owners",
                "Service Unavailable: the ring names no owners yet, it needs 3 nodes that store and has 2",
            ),
            (
                WriteError::InvalidTenant { name: String::new(), cause: invalid },
                400,
                InvalidArgument,
                "tenant-invalid",
                "invalid tenant \"\": it is empty",
            ),
            (
                WriteError::TooManyTenants { tenant: tenant(), limit: 3 },
                429,
                ResourceExhausted,
                "tenant-limit",
                "limit of 3 tenants",
            ),
            (
                WriteError::TenantUnavailable { tenant: tenant(), cause: cause.clone() },
                503,
                Unavailable,
                "tenant-unavailable",
                "target not available: tenant a: why",
            ),
            (
                WriteError::ReplicaHeader("x".into()),
                400,
                InvalidArgument,
                "replica-invalid",
                "could not parse replica header",
            ),
            (
                WriteError::ContentEncoding("zstd".into()),
                415,
                Unimplemented,
                "encoding-unsupported",
                "\"zstd\"",
            ),
            (
                WriteError::ContentType("text/html".into()),
                415,
                Unimplemented,
                "content-type-unsupported",
                "\"text/html\"",
            ),
            (WriteError::RemoteWrite2, 415, Unimplemented, "remote-write-2-unsupported", "2.0"),
            (
                WriteError::TooLarge { what: "decoded body", bytes: 9, limit: 8 },
                400,
                InvalidArgument,
                "request-too-large",
                "write request too large: decoded body of 9 bytes, 8 are allowed",
            ),
            (
                WriteError::TooManySeries { limit: 8 },
                400,
                InvalidArgument,
                "request-series-limit",
                "too many timeseries",
            ),
            (
                WriteError::TooManySamples { limit: 8 },
                400,
                InvalidArgument,
                "request-samples-limit",
                "too many samples",
            ),
            (
                WriteError::Overloaded { wanted: 1, limit: 2 },
                503,
                Unavailable,
                "overloaded",
                "bytes in flight",
            ),
            (WriteError::Deadline("late"), 503, Unavailable, "deadline", "late"),
            (WriteError::BodyRead(cause.clone()), 400, InvalidArgument, "body-incomplete", "why"),
            (WriteError::Snappy(cause.clone()), 400, InvalidArgument, "snappy-invalid", "why"),
            (WriteError::Protobuf(cause.clone()), 400, InvalidArgument, "protobuf-invalid", "why"),
            (
                WriteError::Storage { tenant: tenant(), cause: cause.clone() },
                503,
                Unavailable,
                "storage-failed",
                "why",
            ),
            (WriteError::Internal(cause), 500, Internal, "internal", "why"),
            (
                refused(&[Refusal::OutOfOrder, Refusal::OutOfBounds]),
                409,
                AlreadyExists,
                "sample-out-of-order",
                "conflict: 2 of 10 samples refused",
            ),
            (
                refused(&[Refusal::OutOfOrder, Refusal::TooFarInFuture]),
                400,
                InvalidArgument,
                "sample-too-far-in-future",
                "2 of 10 samples refused",
            ),
            (
                refused(&[Refusal::HistogramUnsupported]),
                400,
                InvalidArgument,
                "histogram-unsupported",
                "histogram",
            ),
        ];
        for (error, status, grpc, id, text) in cases {
            let answer = error.answer();
            assert_eq!((answer.status.as_u16(), answer.grpc, answer.id), (status, grpc, id), "{error}");
            assert!(error.to_string().contains(text), "{error}");
            let response = error.response(Duration::from_millis(1500));
            assert_eq!(response.status(), answer.status);
            assert_eq!(response.headers()[ERROR_ID_HEADER], id);
            let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(retry, matches!(status, 429 | 503).then_some("2"), "{error}");
        }
    }

    #[test]
    fn conflict_stands_first_exactly_with_409() {
        assert!(refused(&[Refusal::DuplicateTimestamp]).to_string().starts_with("conflict"));
        let mixed = refused(&[Refusal::DuplicateTimestamp, Refusal::LabelNameEmpty]).to_string();
        assert!(!mixed.starts_with("conflict"), "{mixed}");
    }

    #[test]
    fn retry_after_is_at_least_a_second() {
        let response = WriteError::NotReady.response(Duration::ZERO);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
