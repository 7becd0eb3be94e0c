//! The port for metrics and probes (10902).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Semaphore;

use crate::{readiness::Readiness, telemetry::Telemetry};

/// Scrapes rendered at once; more wait. Each holds the whole text in memory.
const SCRAPES_MAX: usize = 2;

const INDEX: &str = concat!(
    "Weir ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/metrics    metrics of this node\n/-/healthy  200 while the process runs\n/-/ready    200 while the node serves\n",
);

#[derive(Clone)]
struct AdminState {
    telemetry: Telemetry,
    readiness: Readiness,
    scrapes: Arc<Semaphore>,
}

/// The routes of the port: `/metrics`, `/-/healthy`, `/-/ready` and an index at `/`.
pub fn admin_router(telemetry: Telemetry, readiness: Readiness) -> Router {
    let state = AdminState { telemetry, readiness, scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)) };
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { probe(true) }))
        .route(
            "/-/ready",
            get(|State(state): State<AdminState>| async move { probe(state.readiness.is_ready()) }),
        )
        .with_state(state)
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let Ok(_turn) = state.scrapes.acquire().await else {
        unreachable!("the semaphore is never closed");
    };
    let telemetry = state.telemetry;
    match tokio::task::spawn_blocking(move || telemetry.render()).await {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        // A collector panicked, which the panic hook has logged, or the process is on its way out.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn probe(passes: bool) -> Response {
    if passes {
        (StatusCode::OK, "OK").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "NOT OK").into_response()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        http_serve::{ServeOptions, serve_http},
        readiness::Phase,
        telemetry::{catalog, status::StatusCollector},
        test_http::get as ask,
    };

    #[tokio::test]
    async fn endpoints_answer_over_a_socket() {
        let (telemetry, recorder) = Telemetry::build().expect("valid buckets");
        metrics::with_local_recorder(&recorder, || catalog::register_at_start(1));
        let readiness = Readiness::default();
        telemetry.add_collector(StatusCollector { readiness: readiness.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let stop = CancellationToken::new();
        let router = admin_router(telemetry, readiness.clone());
        let server = tokio::spawn(serve_http(listener, router, ServeOptions::new("admin"), stop.clone()));

        assert_eq!(ask(address, "/-/healthy").await, (200, "OK".to_owned()));
        assert_eq!(ask(address, "/-/ready").await, (503, "NOT OK".to_owned()));
        readiness.advance(Phase::Ready);
        assert_eq!(ask(address, "/-/ready").await, (200, "OK".to_owned()));
        let (code, text) = ask(address, "/metrics").await;
        assert_eq!(code, 200);
        assert!(text.contains("thanos_status{check=\"ready\",component=\"receive\"} 1\n"), "{text}");
        assert!(text.contains("\nthanos_receive_replication_factor 1\n"), "{text}");
        readiness.advance(Phase::Stopping);
        assert_eq!(ask(address, "/-/ready").await, (503, "NOT OK".to_owned()));
        assert_eq!(ask(address, "/-/healthy").await, (200, "OK".to_owned()));
        assert_eq!(ask(address, "/").await, (200, INDEX.to_owned()));
        assert_eq!(ask(address, "/nothing").await.0, 404);

        stop.cancel();
        assert_eq!(server.await.expect("does not panic"), 0);
    }
}
