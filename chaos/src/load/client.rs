//! One HTTP/1.1 connection that is kept, and made again when it broke.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Longest answer that is read, so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of an answer is kept to show.
const ANSWER_SHOWN_BYTES_MAX: usize = 300;

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    authority: String,
    address: String,
    path: Uri,
}

impl Target {
    /// Reads a URL with the scheme http.
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--url {url}"))?;
        ensure!(uri.scheme_str() == Some("http"), "--url {url}: only http:// is supported");
        let authority = uri.authority().context("--url has no host")?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        Ok(Self { authority: authority.as_str().to_owned(), address, path })
    }

    /// Headers of every request of a tenant.
    pub(super) fn headers(&self, tenant: Option<(&str, &str)>) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(&self.authority)?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static("0.1.0"));
        let agent = concat!("weir-chaos/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        if let Some((name, value)) = tenant {
            headers.insert(header::HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        Ok(headers)
    }
}

/// What came of one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer.
    Answer {
        /// Its status.
        status: StatusCode,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// The beginning of its body, if it is no success.
        text: String,
    },
    /// None in time. The request may have been carried out, or may yet be.
    Timeout,
    /// The connection could not be made, or broke. The request may have been carried out.
    Broken(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that connects with its first request.
    pub(super) fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout, sender: None }
    }

    /// Sends a request and waits for its answer. Must not be dropped half way if the connection is
    /// to be kept.
    pub(super) async fn post(&mut self, headers: HeaderMap, body: Bytes) -> Outcome {
        // Taken, so that whatever goes wrong leaves no broken connection behind.
        let kept = self.sender.take();
        match timeout(self.timeout, self.try_post(kept, headers, body)).await {
            Ok(Ok((sender, outcome))) => {
                self.sender = Some(sender);
                outcome
            }
            Ok(Err(error)) => Outcome::Broken(format!("{error:#}")),
            Err(_) => Outcome::Timeout,
        }
    }

    async fn try_post(
        &self,
        kept: Option<SendRequest<Full<Bytes>>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<(SendRequest<Full<Bytes>>, Outcome)> {
        // A connection that the server closed between two requests is no failure of the next one.
        let mut sender = match kept {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone();
        *request.headers_mut() = headers;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|e| anyhow::anyhow!("read the answer: {e}"))?.to_bytes();
        let text = if status.is_success() {
            String::new()
        } else {
            let shown = answer.get(..ANSWER_SHOWN_BYTES_MAX).unwrap_or(&answer);
            String::from_utf8_lossy(shown).trim().to_owned()
        };
        Ok((sender, Outcome::Answer { status, retry_after: retry_after.map(Duration::from_secs), text }))
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped; its errors come back through the sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}
