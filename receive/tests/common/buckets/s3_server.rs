//! An S3 server on loopback: s3s-fs on a temporary directory, behind a layer that counts requests and
//! does to them what a test has planned.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// It is served.
    Serve,
    /// It is answered 503 and not looked at.
    Unavailable,
    /// The connection is cut after some of the request's body was read; nothing is stored.
    CutRequest,
    /// It is served, and the connection is cut before the answer.
    LoseAnswer,
    /// It is served, and the connection is cut within the answer.
    CutAnswer,
    /// It is answered 200, and nothing is done.
    PretendSuccess,
    /// It is served after a while that is shorter than any timeout.
    Slow,
    /// It is never answered.
    Hang,
}

/// A request as plans see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub target: String,
}

impl Asked {
    /// True for requests that store something.
    pub fn is_put(&self) -> bool {
        self.method == Method::PUT
    }
}

type Plan = Box<dyn Fn(usize, &Asked) -> Wire + Send + Sync>;

struct State {
    asked: Vec<Asked>,
    plan: Plan,
}

/// A running server; it ends with the runtime.
pub struct S3Server {
    pub root: TempDir,
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

pub const ACCESS_KEY: &str = "access";
pub const SECRET_KEY: &str = "hunter2";
pub const BUCKET: &str = "blocks";

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl S3Server {
    /// A server with an empty bucket; `signed` if requests must be signed with the keys above, else it
    /// does not look at who asks.
    pub async fn start(signed: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        if signed {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = builder.build();
        let state = Arc::new(Mutex::new(State { asked: Vec::new(), plan: Box::new(|_, _| Wire::Serve) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, service, Arc::clone(&state), signed));
        Self { root, address, state }
    }

    /// Forgets what was asked, and does to further requests, counted from 0, what `plan` says.
    pub fn plan(&self, plan: impl Fn(usize, &Asked) -> Wire + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        state.asked.clear();
        state.plan = Box::new(plan);
    }

    pub fn heal(&self) {
        self.plan(|_, _| Wire::Serve);
    }

    /// What was asked since the plan was made.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// A Thanos configuration for this server, with further lines below `config`.
    pub fn yaml(&self, more: &str) -> String {
        format!(
            "type: S3\nconfig:\n  bucket: {BUCKET}\n  endpoint: {}\n  insecure: true\n  \
             access_key: {ACCESS_KEY}\n  secret_key: {SECRET_KEY}\n{more}",
            self.address
        )
    }
}

async fn accept(listener: TcpListener, service: S3Service, state: Arc<Mutex<State>>, signed: bool) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (service, state) = (service.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let handler = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                if !signed {
                    request.headers_mut().remove("authorization");
                }
                handle(request, service.clone(), Arc::clone(&state))
            });
            // Planned cuts end connections in errors.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), handler)
                .await;
        });
    }
}

async fn handle(
    mut request: Request<Incoming>,
    service: S3Service,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, io::Error> {
    let wire = {
        let mut state = state.lock().unwrap();
        let target = request.uri().path_and_query().unwrap().to_string();
        let asked = Asked { method: request.method().clone(), target };
        let wire = (state.plan)(state.asked.len(), &asked);
        state.asked.push(asked);
        wire
    };
    match wire {
        Wire::Serve => serve(request, service).await,
        Wire::Slow => {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            serve(request, service).await
        }
        Wire::Unavailable => Ok(answer(StatusCode::SERVICE_UNAVAILABLE)),
        Wire::PretendSuccess => {
            while request.body_mut().frame().await.is_some() {}
            Ok(answer(StatusCode::OK))
        }
        Wire::CutRequest => {
            let _ = request.body_mut().frame().await;
            Err(io::Error::other("planned cut"))
        }
        Wire::LoseAnswer => {
            serve(request, service).await?;
            Err(io::Error::other("planned cut"))
        }
        Wire::CutAnswer => {
            let (parts, _) = serve(request, service).await?.into_parts();
            let frames = [Ok(Frame::data(Bytes::from_static(b"<"))), Err(io::Error::other("planned cut"))];
            let body = StreamBody::new(futures::stream::iter(frames));
            Ok(Response::from_parts(parts, body.boxed_unsync()))
        }
        Wire::Hang => std::future::pending().await,
    }
}

async fn serve(request: Request<Incoming>, service: S3Service) -> Result<Response<Body>, io::Error> {
    let response = service.call(request.map(s3s::Body::from)).await;
    let response = response.map_err(|error| io::Error::other(format!("{error:?}")))?;
    Ok(response.map(|body| body.map_err(|error| io::Error::other(error.to_string())).boxed_unsync()))
}

fn answer(status: StatusCode) -> Response<Body> {
    let body = Full::new(Bytes::new()).map_err(|never: Infallible| match never {});
    Response::builder().status(status).header("etag", "\"0\"").body(body.boxed_unsync()).unwrap()
}
