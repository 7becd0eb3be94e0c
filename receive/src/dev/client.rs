//! A small HTTP client for loopback.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// Most bytes of an answer that are taken.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or a header is not valid.
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    /// The connection failed.
    #[error("{0}")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off or is too long.
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The client; clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpClient {
    /// A client without connections.
    #[expect(clippy::new_without_default, reason = "a client is nothing one takes by default")]
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Asks for `url`; returns the status code and the body.
    ///
    /// # Errors
    /// If there is no whole answer within `limit`.
    pub async fn get(&self, url: &str, limit: Duration) -> Result<(u16, Bytes), ClientError> {
        self.send(Request::get(url).body(Full::default())?, limit).await
    }

    /// Posts `body` to `url` as one remote write 1.0 request; returns the status code and the
    /// answer's body.
    ///
    /// # Errors
    /// If there is no whole answer within `limit`.
    pub async fn remote_write(
        &self,
        url: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(u16, Bytes), ClientError> {
        let request = Request::post(url)
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .header("User-Agent", concat!("weir-dev/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))?;
        self.send(request, limit).await
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<(u16, Bytes), ClientError> {
        let exchange = async {
            let answer = self.client.request(request).await?;
            let code = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
            Ok((code, body.map_err(ClientError::Body)?.to_bytes()))
        };
        timeout(limit, exchange).await.unwrap_or(Err(ClientError::Timeout(limit)))
    }
}
