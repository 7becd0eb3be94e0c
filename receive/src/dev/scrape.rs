//! Reads a node's metrics and writes them into it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{MissedTickBehavior, interval};

use super::{NodeSpec, client::HttpClient, exposition, exposition::ParsedSample, remote_write};

/// How long a scrape and a write may take each.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and writes the metrics of one node.
#[derive(Debug)]
pub struct Scraper {
    client: HttpClient,
    metrics_url: String,
    write_url: String,
    name: String,
    instance: String,
    interval: Duration,
}

impl Scraper {
    /// A scraper of the node `spec` into itself.
    pub fn new(client: HttpClient, spec: &NodeSpec, interval: Duration) -> Self {
        Self {
            client,
            metrics_url: format!("{}/metrics", spec.http_url()),
            write_url: spec.write_url(),
            name: spec.name.clone(),
            instance: format!("127.0.0.1:{}", spec.http_port),
            // The timer refuses zero.
            interval: interval.max(Duration::from_millis(1)),
        }
    }

    /// Goes on for ever. A failure is told once, and its end.
    pub async fn run(self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut works: Option<bool> = None;
        loop {
            ticks.tick().await;
            match self.scrape_once().await {
                Ok(series) if works != Some(true) => {
                    works = Some(true);
                    say!("{}: its own metrics are written into it, {series} series", self.name);
                }
                Err(error) if works != Some(false) => {
                    works = Some(false);
                    say!("{}: its own metrics cannot be written into it: {error:#}", self.name);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// One scrape, one write; returns how many series were written.
    ///
    /// # Errors
    /// If the node does not answer as it should.
    pub async fn scrape_once(&self) -> anyhow::Result<usize> {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let (code, body) = self.client.get(&self.metrics_url, TIMEOUT).await.context("scrape")?;
        ensure!(code == 200, "scrape: status {code}");
        let text = std::str::from_utf8(&body).context("scrape")?;
        let mut samples = exposition::parse(text).context("scrape")?;
        // As a scraping Prometheus adds it.
        let up = ParsedSample { name: "up".to_owned(), labels: Vec::new(), value: 1.0, timestamp_ms: None };
        samples.push(up);
        let added = [("instance", self.instance.as_str()), ("job", "weir")];
        let request = remote_write::encode(&samples, &added, now_ms);
        let (code, answer) =
            self.client.remote_write(&self.write_url, request, TIMEOUT).await.context("write")?;
        ensure!(code / 100 == 2, "write: status {code}: {}", String::from_utf8_lossy(&answer).trim());
        Ok(samples.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Router, body::Bytes, http::HeaderMap, routing};
    use parking_lot::Mutex;
    use tokio::net::TcpListener;

    use super::*;

    type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

    /// A stand-in for a node, and what was written into it.
    async fn fake_node(metrics: &'static str) -> (u16, Received) {
        let received = Received::default();
        let sink = received.clone();
        let write = move |headers: HeaderMap, body: Bytes| {
            sink.lock().push((headers, body));
            async {}
        };
        let router = Router::new()
            .route("/metrics", routing::get(move || async move { metrics }))
            .route("/api/v1/receive", routing::post(write));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let options = crate::http_serve::ServeOptions::new("test");
        tokio::spawn(crate::http_serve::serve_http(listener, router, options, Default::default()));
        (port, received)
    }

    fn scraper(port: u16) -> Scraper {
        let spec = NodeSpec {
            name: "n1".to_owned(),
            dir: "x".into(),
            bucket: "x".into(),
            write_port: port,
            grpc_port: 1,
            http_port: port,
            cluster_port: 4,
            peers: String::new(),
        };
        Scraper::new(HttpClient::new(), &spec, Duration::from_secs(15))
    }

    #[tokio::test]
    async fn what_is_scraped_is_written() {
        let (port, received) = fake_node("# TYPE a gauge\na{x=\"y\"} 2\n").await;
        assert_eq!(scraper(port).scrape_once().await.expect("works"), 2);
        let (headers, body) = received.lock().pop().expect("one write");
        assert_eq!(headers["content-encoding"], "snappy");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-prometheus-remote-write-version"], "0.1.0");
        let message = snap::raw::Decoder::new().decompress_vec(&body).expect("is snappy");
        let text = String::from_utf8_lossy(&message);
        for part in ["__name__", "job", "weir", "instance", &format!("127.0.0.1:{port}"), "up"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told() {
        let (port, _) = fake_node("not a metric line at all").await;
        let error = format!("{:#}", scraper(port).scrape_once().await.expect_err("no metrics"));
        assert_eq!(error, "scrape: line 1: a value is expected");
        let error = format!("{:#}", scraper(1).scrape_once().await.expect_err("nobody listens"));
        assert!(error.starts_with("scrape: "), "{error}");
    }
}
