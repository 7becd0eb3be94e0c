//! `weir dev`: a node on this machine, to try things out.
//!
//! The node is a child process with the flags a real one would have, on loopback ports, with its
//! data below one directory. Its own metrics are read from it and written into it, so that there is
//! something to look at. What is printed to standard output is for people; the node's log goes to a
//! file.

/// Prints a line for people. That nobody reads it any more is no reason to stop.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

pub mod client;
pub mod exposition;
pub mod process;
pub mod remote_write;
pub mod scrape;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::{client::HttpClient, process::NodeProcess, scrape::Scraper};
use crate::{cli::DevArgs, duration::DisplayDuration};

/// How often a node is asked whether it is ready.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to stop; twice what it promises.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Where one node of the playground lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name, also the value of its external label.
    pub name: String,
    /// Directory of its data and its log.
    pub dir: PathBuf,
    /// Directory that stands in for the bucket, shared by all nodes.
    pub bucket: PathBuf,
    /// Port for remote write.
    pub write_port: u16,
    /// Port for StoreAPI.
    pub grpc_port: u16,
    /// Port for metrics and probes.
    pub http_port: u16,
}

impl NodeSpec {
    /// The node number `index` (from 0) of a playground with these arguments.
    ///
    /// # Errors
    /// If a port would be above 65535.
    pub fn new(args: &DevArgs, index: u16) -> anyhow::Result<Self> {
        let port = |base: u16| {
            let offset = index.checked_mul(100).and_then(|of_node| of_node.checked_add(args.port_offset));
            offset.and_then(|offset| base.checked_add(offset)).context("--port-offset is too large")
        };
        let name = format!("n{}", u32::from(index) + 1);
        Ok(Self {
            dir: args.data.join(&name),
            name,
            bucket: args.data.join("bucket"),
            write_port: port(19291)?,
            grpc_port: port(10901)?,
            http_port: port(10902)?,
        })
    }

    /// Base of the node's HTTP addresses for metrics and probes.
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Where the node takes remote write.
    pub fn write_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/receive", self.write_port)
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("weir.log")
    }
}

/// Runs the playground until `stop` is cancelled.
///
/// # Errors
/// If a port is taken, the node does not become ready, or it ends by itself.
pub async fn run(args: DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let spec = NodeSpec::new(&args, 0)?;
    process::check_ports(&spec)?;
    for dir in [&spec.dir, &spec.bucket] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut node = NodeProcess::start(spec.clone())?;
    say!("{} is starting…", spec.name);
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        died = node.died() => return Err(died),
        outcome = attend(&args, &spec) => outcome,
    };
    say!("\n{} is stopping…", spec.name);
    node.stop(STOP_MAX).await?;
    say!("stopped; data stays in {}", args.data.display());
    outcome
}

/// Waits until the node is ready, tells people about it, then writes its metrics for ever.
async fn attend(args: &DevArgs, spec: &NodeSpec) -> anyhow::Result<()> {
    let client = HttpClient::new();
    wait_until_ready(&client, spec, args.ready_timeout).await?;
    say!("{}", welcome(args, spec));
    Scraper::new(client, spec, args.scrape_interval).run().await
}

async fn wait_until_ready(client: &HttpClient, spec: &NodeSpec, limit: Duration) -> anyhow::Result<()> {
    let url = format!("{}/-/ready", spec.http_url());
    let deadline = Instant::now() + limit;
    let poll = async {
        while !matches!(client.get(&url, PROBE_TIMEOUT).await, Ok((200, _))) {
            sleep(PROBE_INTERVAL).await;
        }
    };
    if timeout_at(deadline, poll).await.is_err() {
        let limit = DisplayDuration(limit);
        bail!("{} is not ready after {limit}; see {}", spec.name, spec.log_file().display());
    }
    Ok(())
}

fn welcome(args: &DevArgs, spec: &NodeSpec) -> String {
    format!(
        "\
Weir is ready. Ctrl-C stops it; started again it finds its data.

  remote write   {write}
  StoreAPI       127.0.0.1:{grpc}   (thanos query --endpoint=127.0.0.1:{grpc})
  metrics        {http}/metrics
  log            {log}
  blocks go to   {bucket}

Its own metrics are written into it every {interval}. To send yours, put this into prometheus.yml:

remote_write:
  - url: {write}
    headers:
      THANOS-TENANT: team-a   # may be left out
",
        write = spec.write_url(),
        grpc = spec.grpc_port,
        http = spec.http_url(),
        log = spec.log_file().display(),
        bucket = spec.bucket.display(),
        interval = DisplayDuration(args.scrape_interval),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(port_offset: u16) -> DevArgs {
        DevArgs {
            data: "weir-data".into(),
            port_offset,
            scrape_interval: Duration::from_secs(15),
            ready_timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn nodes_lie_a_hundred_ports_apart() {
        let first = NodeSpec::new(&args(0), 0).expect("ports fit");
        assert_eq!((first.write_port, first.grpc_port, first.http_port), (19291, 10901, 10902));
        assert_eq!((first.name.as_str(), first.dir.to_str()), ("n1", Some("weir-data/n1")));
        let third = NodeSpec::new(&args(1000), 2).expect("ports fit");
        assert_eq!((third.write_port, third.grpc_port, third.http_port), (20491, 12101, 12102));
        assert_eq!((third.name.as_str(), third.bucket.to_str()), ("n3", Some("weir-data/bucket")));
        assert!(NodeSpec::new(&args(65_000), 0).is_err());
    }

    #[test]
    fn the_welcome_has_a_snippet_to_paste() {
        let spec = NodeSpec::new(&args(0), 0).expect("ports fit");
        let text = welcome(&args(0), &spec);
        let snippet = "\nremote_write:\n  - url: http://127.0.0.1:19291/api/v1/receive\n    headers:\n      THANOS-TENANT: ";
        assert!(text.contains(snippet), "{text}");
        assert!(text.contains("every 15s"), "{text}");
    }
}
