//! A node's write path in one process, without sockets.

#![allow(dead_code, unused_imports)]

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::Service;
use weir::{
    tenants::{Tenants, TenantsConfig},
    write::{self, WriteConfig, WriteState},
};
use weir_tsdb::{db::DbOptions, fs::StdFs, types::BLOCK_RANGE_MS};

#[path = "../../src/write/test_message.rs"]
mod test_message;
pub use test_message::{Message, series_fields};

/// A time at the start of a block's range, far from any clock's now.
pub const START_MS: i64 = 1_700_000_000_000 / BLOCK_RANGE_MS * BLOCK_RANGE_MS;

/// Options of databases in tests.
pub fn db_options() -> DbOptions {
    DbOptions {
        block_range_ms: BLOCK_RANGE_MS,
        retention_ms: None,
        wal_compression: true,
        wal_segment_bytes: 1 << 20,
        lock_file: true,
        ..DbOptions::default()
    }
}

/// Tenants below `path` with the defaults.
pub fn tenants_config(path: &Path) -> TenantsConfig {
    TenantsConfig::new(path.to_owned(), Arc::new(StdFs), db_options())
}

/// A node that takes writes.
pub struct Node {
    pub dir: TempDir,
    pub tenants: Arc<Tenants>,
    pub state: Arc<WriteState>,
    pub router: Router,
}

/// An answer, read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn error_id(&self) -> &str {
        self.header("x-weir-error-id")
    }
}

impl Node {
    pub async fn start() -> Self {
        Self::with(WriteConfig::default()).await
    }

    pub async fn with(config: WriteConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_dir(dir, config, |tenants| tenants).await
    }

    pub async fn in_dir(
        dir: TempDir,
        config: WriteConfig,
        change: impl FnOnce(TenantsConfig) -> TenantsConfig,
    ) -> Self {
        let tenants = Tenants::open(change(tenants_config(dir.path()))).await.unwrap();
        let state = WriteState::new(config, tenants.clone());
        let router = write::router(state.clone());
        Self { dir, tenants, state, router }
    }

    /// Stops in order and gives the directory back.
    pub async fn stop(self) -> TempDir {
        self.state.drain().await;
        self.tenants.close().await;
        self.dir
    }

    pub async fn call(&self, request: Request<Body>) -> Reply {
        send(self.router.clone(), request).await
    }

    /// Writes `message` for the default tenant.
    pub async fn write(&self, message: &Message) -> Reply {
        self.call(request(message.compress())).await
    }

    /// Writes and expects all to be stored.
    pub async fn store(&self, message: &Message) {
        let reply = self.write(message).await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""));
    }

    /// Names of directories below the data directory.
    pub fn directories(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap);
        let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<String> =
            directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Samples stored for `tenant` since it was opened.
    pub fn stored(&self, tenant: &str) -> u64 {
        self.tenants.get(tenant).map_or(0, |tenant| tenant.db.stats().samples_appended)
    }
}

/// Sends a request to a router.
pub async fn send(mut router: Router, request: Request<Body>) -> Reply {
    let response = router.call(request).await.unwrap();
    let (head, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Reply { status: head.status, headers: head.headers, text }
}

/// A request of remote write 1.0 as Prometheus sends it.
pub fn request(body: Vec<u8>) -> Request<Body> {
    request_with(body, &[])
}

/// The same with further headers, which replace the usual ones.
pub fn request_with(body: Vec<u8>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/api/v1/receive").body(Body::from(body)).unwrap();
    let usual = [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    for (name, value) in usual.iter().chain(headers) {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Waits until `state` holds, for at most ten seconds.
pub async fn wait_for(what: &str, mut state: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if state() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}
