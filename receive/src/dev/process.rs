//! A node as a child process.

use std::{
    env, fs,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    net::TcpListener,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{COPIES, NODES, NodeSpec};

/// How much of the end of a log is shown when a node dies.
const LOG_TAIL_BYTES: u64 = 4096;
const LOG_TAIL_LINES: usize = 10;

/// A running node. If it is dropped without [`NodeProcess::stop`], the process is killed.
#[derive(Debug)]
pub struct NodeProcess {
    spec: NodeSpec,
    child: Child,
    /// Held open: its end stops the node. Waiting for the child would close it were it still there.
    _lifeline: Option<ChildStdin>,
}

/// Says which of the node's ports is taken, if one is.
///
/// # Errors
/// The first port that cannot be bound.
pub fn check_ports(spec: &NodeSpec) -> anyhow::Result<()> {
    let ports = [
        ("remote write", spec.write_port),
        ("gRPC", spec.grpc_port),
        ("HTTP", spec.http_port),
        ("the cluster", spec.cluster_port),
    ];
    for (what, port) in ports {
        if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            bail!("port {port} for {what} cannot be used ({error}); choose others with --port-offset=N");
        }
    }
    Ok(())
}

impl NodeProcess {
    /// Starts this program as a node.
    ///
    /// # Errors
    /// If the log cannot be opened or the process cannot be started.
    pub fn start(spec: NodeSpec) -> anyhow::Result<Self> {
        let log_file = spec.log_file();
        let log = File::options().create(true).append(true).open(&log_file);
        let log = log.with_context(|| format!("cannot open {}", log_file.display()))?;
        let program = env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(arguments(&spec)?)
            // The node stops when this end of the pipe is closed, even by kill -9 of this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C goes to all of the terminal's group; this process tells the node itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a node")?;
        let lifeline = child.stdin.take();
        Ok(Self { spec, child, _lifeline: lifeline })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What the node is, to start it again.
    pub fn into_spec(self) -> NodeSpec {
        self.spec
    }

    /// Waits until the process ends by itself; what is returned tells how, and shows the end of its
    /// log. Safe to cancel.
    pub async fn died(&mut self) -> anyhow::Error {
        // Waiting fails only for a process that is not ours.
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let tail = log_tail(&self.spec.log_file()).unwrap_or_default();
        anyhow!("{} has ended by itself ({how}); the end of its log:\n{tail}", self.spec.name)
    }

    /// Asks the process to stop and waits for it; kills it after `limit`.
    ///
    /// # Errors
    /// If it had to be killed, or ended with a code that is not 0.
    pub async fn stop(mut self, limit: Duration) -> anyhow::Result<()> {
        if self.child.try_wait().context("cannot wait for the node")?.is_none() {
            self.terminate()?;
        }
        match timeout(limit, self.child.wait()).await {
            Ok(status) => self.judge(status.context("cannot wait for the node")?),
            Err(_) => {
                self.child.kill().await.context("cannot kill the node")?;
                bail!("{} did not stop within {limit:?} and was killed", self.spec.name);
            }
        }
    }

    fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("the node has no process id")?;
        kill_process(pid, Signal::TERM).context("cannot signal the node")
    }

    fn judge(&self, status: ExitStatus) -> anyhow::Result<()> {
        if status.success() {
            return Ok(());
        }
        bail!("{} stopped with {status}; see {}", self.spec.name, self.spec.log_file().display());
    }
}

fn arguments(spec: &NodeSpec) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(&spec.bucket).with_context(|| format!("cannot create {}", spec.bucket.display()))?;
    let bucket =
        fs::canonicalize(&spec.bucket).with_context(|| format!("cannot find {}", spec.bucket.display()))?;
    let bucket = bucket.to_str().context("the path of the bucket is not UTF-8")?;
    // A JSON string is a YAML string.
    let directory = serde_json::Value::from(bucket);
    let dir = spec.dir.to_str().context("the path of the data is not UTF-8")?;
    Ok(vec![
        "receive".to_owned(),
        format!("--remote-write.address=127.0.0.1:{}", spec.write_port),
        format!("--grpc-address=127.0.0.1:{}", spec.grpc_port),
        format!("--http-address=127.0.0.1:{}", spec.http_port),
        format!("--cluster.address=127.0.0.1:{}", spec.cluster_port),
        format!("--tsdb.path={dir}/tsdb"),
        format!("--data.path={dir}/node"),
        format!("--cluster.peers={}", spec.peers),
        format!("--cluster.bootstrap-expect={NODES}"),
        "--cluster.bootstrap-round=300ms".to_owned(),
        format!("--node.name={}", spec.name),
        format!("--node.zone=zone-{}", spec.name),
        format!("--receive.replication-factor={COPIES}"),
        format!("--objstore.config=type: FILESYSTEM\nconfig:\n  directory: {directory}\n"),
        format!("--debug.name={}", spec.name),
        "--debug.stop-on-stdin-eof".to_owned(),
    ])
}

fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli, config::Config};

    fn spec(root: &Path) -> NodeSpec {
        NodeSpec {
            name: "n1".to_owned(),
            dir: root.join("n \"1\""),
            bucket: root.join("bu\\ck et"),
            write_port: 1,
            grpc_port: 2,
            http_port: 3,
            cluster_port: 4,
            peers: "127.0.0.1:4,127.0.0.1:5".to_owned(),
        }
    }

    #[test]
    fn a_node_understands_its_arguments() {
        let root = tempfile::tempdir().expect("a directory");
        let spec = spec(root.path());
        let arguments = arguments(&spec).expect("paths are fine");
        let line = ["weir".to_owned()].into_iter().chain(arguments);
        let Ok(cli::Invocation::Receive(values)) = cli::parse(line) else {
            panic!("arguments parse");
        };
        let config = Config::judge(&values).expect("valid");
        assert_eq!(config.write.address.to_string(), "127.0.0.1:1");
        assert_eq!(config.grpc.address.to_string(), "127.0.0.1:2");
        assert_eq!(config.http.address.to_string(), "127.0.0.1:3");
        assert_eq!(config.tsdb.path, spec.dir.join("tsdb"));
        assert_eq!(config.external_labels.get("receive_replica"), Some("n1"));
        assert!(config.stop_on_stdin_eof);
        assert_eq!(config.replication_factor, 3);
        let ring = config.ring.expect("a ring");
        let cluster = ring.cluster().expect("a cluster");
        assert_eq!((&cluster.name, &cluster.zone), (&"n1".to_owned(), &"zone-n1".to_owned()));
        assert_eq!(cluster.peers, ["127.0.0.1:4", "127.0.0.1:5"]);
        assert_eq!((cluster.bootstrap_expect, cluster.advertise.as_str()), (3, "127.0.0.1"));
        assert_eq!(cluster.data_path, spec.dir.join("node"));
        let bucket = config.upload.objstore.expect("a bucket").yaml;
        let (_, directory) = bucket.reveal().split_once("directory: ").expect("has a directory");
        let directory: String = serde_json::from_str(directory.trim()).expect("is a string");
        assert_eq!(Path::new(&directory), fs::canonicalize(&spec.bucket).expect("is there"));
    }

    #[test]
    fn a_taken_port_is_told_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = taken.local_addr().expect("bound").port();
        let spec = NodeSpec {
            write_port: 0,
            grpc_port: port,
            http_port: 0,
            cluster_port: 0,
            ..spec(Path::new("x"))
        };
        let error = check_ports(&spec).expect_err("is taken").to_string();
        assert!(error.starts_with(&format!("port {port} for gRPC cannot be used (")), "{error}");
        assert!(error.ends_with("; choose others with --port-offset=N"), "{error}");
        drop(taken);
        check_ports(&spec).expect("is free");
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let lines: Vec<String> = (0..2000).map(|number| format!("line {number}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        assert_eq!(log_tail(&path).expect("is there"), lines[1990..].join("\n"));
        fs::write(&path, "short").expect("written");
        assert_eq!(log_tail(&path).expect("is there"), "short");
    }
}
