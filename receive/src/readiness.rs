//! Whether the node is ready: one state that probes, servers and metrics look at.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::RETRY_AFTER},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tokio::sync::watch;

/// Where a node is in its life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Databases are being opened; nothing is taken or served.
    Starting,
    /// In service.
    Ready,
    /// A stop was asked for. Probes say not ready, so that nothing new is sent here, but what
    /// arrives on connections still open is served until they are drained.
    Stopping,
}

/// The shared state; clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Starting)) }
    }
}

impl Readiness {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// True in [`Phase::Ready`]: what a readiness probe asks.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// True if requests are served: ready, or stopping and not drained.
    pub fn serves(&self) -> bool {
        self.phase() != Phase::Starting
    }

    /// Moves on to `phase`. A step back is ignored: a node that is asked to stop while it starts
    /// does not become ready.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|own| {
            let moves = *own < phase;
            if moves {
                *own = phase;
            }
            moves
        });
    }

    /// Sees every later change.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Puts a gate before `router`: until the node serves, each request on any path is answered
    /// 503 with `Retry-After`.
    pub fn gate(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), refuse_until_serving))
    }
}

async fn refuse_until_serving(State(readiness): State<Readiness>, request: Request, next: Next) -> Response {
    if readiness.serves() {
        return next.run(request).await;
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], "Service Unavailable: target not ready\n")
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn phases_only_move_forward() {
        let readiness = Readiness::default();
        let mut watch = readiness.watch();
        assert_eq!(
            (readiness.phase(), readiness.is_ready(), readiness.serves()),
            (Phase::Starting, false, false)
        );
        readiness.advance(Phase::Ready);
        assert!(watch.has_changed().expect("a sender is alive"));
        assert_eq!(*watch.borrow_and_update(), Phase::Ready);
        assert!(readiness.is_ready() && readiness.serves());
        readiness.advance(Phase::Starting);
        assert!(!watch.has_changed().expect("a sender is alive"));
        readiness.clone().advance(Phase::Stopping);
        readiness.advance(Phase::Ready);
        assert_eq!(
            (readiness.phase(), readiness.is_ready(), readiness.serves()),
            (Phase::Stopping, false, true)
        );
    }

    #[tokio::test]
    async fn the_gate_is_shut_until_the_node_serves() {
        let readiness = Readiness::default();
        let router = readiness.gate(Router::new().route("/known", get(|| async { "inside" })));
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            router.clone().oneshot(request).await.expect("routers do not fail")
        };
        for path in ["/known", "/unknown"] {
            let answer = ask(path).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
        }
        readiness.advance(Phase::Ready);
        assert_eq!(ask("/known").await.status(), StatusCode::OK);
        assert_eq!(ask("/unknown").await.status(), StatusCode::NOT_FOUND);
        readiness.advance(Phase::Stopping);
        assert_eq!(ask("/known").await.status(), StatusCode::OK);
    }
}
