//! `weir dev`: a cluster on this machine, to try things out.
//!
//! The nodes are child processes with the flags real ones would have, on loopback ports, each in a
//! zone of its own, with their data below one directory. Their own metrics are read from them and
//! written into them, so that there is something to look at. What is printed to standard output is
//! for people; the nodes' logs go to files.

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
use futures::future::{join_all, select_all};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{client::HttpClient, process::NodeProcess, scrape::Scraper};
use crate::{cli::DevArgs, duration::DisplayDuration};

/// Nodes of the playground, each in a zone of its own.
const NODES: u16 = 3;
/// Copies of each sample.
const COPIES: u16 = 3;
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
    /// Port for Raft and the ring.
    pub cluster_port: u16,
    /// Where all nodes of the cluster are.
    pub peers: String,
}

impl NodeSpec {
    /// The nodes of a playground with these arguments.
    ///
    /// # Errors
    /// If a port would be above 65535.
    pub fn all(args: &DevArgs) -> anyhow::Result<Vec<Self>> {
        let mut specs = (0..NODES).map(|index| Self::new(args, index)).collect::<anyhow::Result<Vec<_>>>()?;
        let peers: Vec<String> = specs.iter().map(NodeSpec::cluster_address).collect();
        for spec in &mut specs {
            spec.peers = peers.join(",");
        }
        Ok(specs)
    }

    /// The node number `index` (from 0), without peers.
    fn new(args: &DevArgs, index: u16) -> anyhow::Result<Self> {
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
            cluster_port: port(10903)?,
            peers: String::new(),
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

    /// Where it serves Raft and the ring.
    pub fn cluster_address(&self) -> String {
        format!("127.0.0.1:{}", self.cluster_port)
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("weir.log")
    }
}

/// Runs the playground until `stop` is cancelled.
///
/// # Errors
/// If a port is taken, or a node does not become ready. A node that ends later is started again, so
/// that one can be killed to see what happens.
pub async fn run(args: DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let specs = NodeSpec::all(&args)?;
    for spec in &specs {
        process::check_ports(spec)?;
    }
    for spec in &specs {
        for dir in [&spec.dir, &spec.bucket] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
    }
    let mut nodes = specs.iter().cloned().map(NodeProcess::start).collect::<anyhow::Result<Vec<_>>>()?;
    say!("{NODES} nodes are starting…");
    let client = HttpClient::new();
    let ready = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        died = select_all(nodes.iter_mut().map(|node| Box::pin(node.died()))) => Err(died.0),
        ready = wait_until_ready(&client, &specs, args.ready_timeout) => ready,
    };
    let keepers = TaskTracker::new();
    let kept = CancellationToken::new();
    let outcome = match ready {
        Err(error) => {
            kept.cancel();
            keep_all(nodes, &args, &keepers, &kept);
            Err(error)
        }
        Ok(()) => {
            keep_all(nodes, &args, &keepers, &kept);
            if !stop.is_cancelled() {
                say!("{}", welcome(&args, &specs));
            }
            let scrapers = specs.iter().map(|spec| Scraper::new(client.clone(), spec, args.scrape_interval));
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = join_all(scrapers.map(Scraper::run)) => {}
            }
            Ok(())
        }
    };
    say!("\nthe nodes are stopping…");
    kept.cancel();
    keepers.close();
    keepers.wait().await;
    say!("stopped; data stays in {}", args.data.display());
    outcome
}

/// Keeps each of `nodes` running in a task of its own until `stop` is cancelled.
fn keep_all(nodes: Vec<NodeProcess>, args: &DevArgs, keepers: &TaskTracker, stop: &CancellationToken) {
    for node in nodes {
        let (pause, stop) = (args.restart_pause, stop.clone());
        keepers.spawn(async move {
            if let Err(error) = keep(node, pause, stop).await {
                say!("{error:#}");
            }
        });
    }
}

/// Starts a node again whenever it has ended, until `stop` is cancelled; then stops it.
async fn keep(mut node: NodeProcess, pause: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        let died = tokio::select! {
            biased;
            () = stop.cancelled() => return node.stop(STOP_MAX).await,
            died = node.died() => died,
        };
        say!("{died:#}\n{} is started again in {}; the others go on", node.name(), DisplayDuration(pause));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
        node = NodeProcess::start(node.into_spec())?;
    }
}

/// Waits until all nodes are ready, own their share of the ring and have streams to each other.
async fn wait_until_ready(client: &HttpClient, specs: &[NodeSpec], limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    for spec in specs {
        let poll = async {
            while !is_ready(client, spec, specs.len() - 1).await {
                sleep(PROBE_INTERVAL).await;
            }
        };
        if timeout_at(deadline, poll).await.is_err() {
            let limit = DisplayDuration(limit);
            bail!("{} is not ready after {limit}; see {}", spec.name, spec.log_file().display());
        }
    }
    Ok(())
}

/// True if the node is ready, owns slots and has streams to so many others.
async fn is_ready(client: &HttpClient, spec: &NodeSpec, peers: usize) -> bool {
    let get = async |path: &str| client.get(&format!("{}{path}", spec.http_url()), PROBE_TIMEOUT).await;
    if !matches!(get("/-/ready").await, Ok((200, _))) {
        return false;
    }
    let Ok((200, metrics)) = get("/metrics").await else { return false };
    let metrics = String::from_utf8_lossy(&metrics);
    let is_up = |line: &&str| line.starts_with("weir_replication_peer_up{") && line.ends_with(" 1");
    let owns = |line: &str| line.strip_prefix("weir_ring_own_slots ").is_some_and(|slots| slots != "0");
    metrics.lines().any(owns) && metrics.lines().filter(is_up).count() >= peers
}

fn welcome(args: &DevArgs, specs: &[NodeSpec]) -> String {
    let list = |of: &dyn Fn(&NodeSpec) -> String| specs.iter().map(of).collect::<Vec<_>>().join("   ");
    let write_url = specs.first().map(NodeSpec::write_url).unwrap_or_default();
    format!(
        "\
Weir is ready: {NODES} nodes, {COPIES} copies of each sample. Ctrl-C stops them; started again they find
their data. Kill one of them to see that the others go on.

  remote write   {write}
  StoreAPI       {grpc}
  metrics        {http}
  cluster        {cluster}
  logs           {data}/n*/weir.log
  blocks go to   {bucket}

Their own metrics are written into them every {interval}. To send yours to any of them, put this into
prometheus.yml:

remote_write:
  - url: {write_url}
    headers:
      THANOS-TENANT: team-a   # may be left out
",
        write = list(&|spec| format!("127.0.0.1:{}", spec.write_port)),
        grpc = list(&|spec| format!("127.0.0.1:{}", spec.grpc_port)),
        cluster = list(&NodeSpec::cluster_address),
        http = list(&|spec| format!("{}/metrics", spec.http_url())),
        data = args.data.display(),
        bucket = args.data.join("bucket").display(),
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
            restart_pause: Duration::from_secs(10),
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
        let specs = NodeSpec::all(&args(0)).expect("ports fit");
        let peers = "127.0.0.1:10903,127.0.0.1:11003,127.0.0.1:11103";
        assert!(specs.iter().all(|spec| spec.peers == peers));
        let text = welcome(&args(0), &specs);
        let snippet = "\nremote_write:\n  - url: http://127.0.0.1:19291/api/v1/receive\n    headers:\n      THANOS-TENANT: ";
        assert!(text.contains(snippet), "{text}");
        assert!(text.contains("every 15s"), "{text}");
    }
}
