//! Drives the program `weir` from outside: exit codes, signals, the playground.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Five times what a stop promises.
const STOP_MAX: Duration = Duration::from_secs(25);
/// Far above what a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    weir().args(arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A running program, killed at the end of the test in any case, and the lines it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// A program of which the lines on standard error are read.
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let reader = child.stderr.take().expect("is piped");
        Self::reading(child, reader)
    }

    /// A program of which the lines on standard output are read; standard error goes to a file.
    fn start_with(mut command: Command, errors: File) -> Self {
        command.stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("starts");
        let reader = child.stdout.take().expect("is piped");
        Self::reading(child, reader)
    }

    fn reading(child: Child, reader: impl std::io::Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    fn node(data: &Path, extra: &[&str]) -> Self {
        let mut command = weir();
        command.args(["receive", "--label=replica=\"a\""]).arg(format!("--tsdb.path={}", data.display()));
        let ports = ["http-address", "grpc-address", "remote-write.address"];
        command.args(ports.map(|flag| format!("--{flag}=127.0.0.1:0"))).args(extra);
        if extra.contains(&"--debug.stop-on-stdin-eof") {
            command.stdin(Stdio::piped());
        }
        Self::start(command)
    }

    /// The next line that contains `part`; `None` if the program ends without one.
    fn line_with(&mut self, part: &str) -> Option<String> {
        let deadline = Instant::now() + START_MAX;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return Some(line);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no {part:?} in {:#?}", self.seen),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not zero");
        kill_process(pid, signal).expect("is there");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("is ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still runs; {:#?}", self.seen);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of `key` in a logfmt line.
fn field(line: &str, key: &str) -> String {
    let (_, rest) = line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split(' ').next().expect("a word").to_owned()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    answer
}

#[test]
fn what_cannot_be_used_is_told_at_once_and_all_of_it() {
    let refused = output(&[
        "receive",
        "--receive.relabel-config-file=x",
        "--tsdb.max-exemplars=1",
        "--tsdb.retention=1",
    ]);
    assert_eq!(refused.status.code(), Some(2));
    let stderr = text(&refused.stderr);
    for line in [
        "weir: --receive.relabel-config-file is known but not built yet",
        "weir: --tsdb.max-exemplars is known but not built yet",
        "weir: --tsdb.retention: \"1\" is not a duration such as 15d, 1h30m or 500ms",
    ] {
        assert!(stderr.lines().any(|own| own == line), "{line} is not in\n{stderr}");
    }
    assert!(stderr.contains("weir: --label: at least one external label is needed"), "{stderr}");
    assert_eq!(stderr.lines().count(), 4, "{stderr}");

    let unknown = output(&["receive", "--tsdb.pat=x"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("--tsdb.pat"), "{}", text(&unknown.stderr));
    assert_eq!(output(&[]).status.code(), Some(2));
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = output(&["--version"]);
    assert_eq!(
        (version.status.code(), text(&version.stdout)),
        (Some(0), format!("weir {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = output(&["receive", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--remote-write.address"));
}

#[test]
fn a_node_stops_on_either_signal_with_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let data = tempfile::tempdir().expect("a directory");
        let mut node = Running::node(data.path(), &["--tsdb.wal-compression", "--enable-auto-gomemlimit"]);
        let notice = node.line_with("has no effect").expect("a notice");
        assert_eq!(field(&notice, "level"), "warn");
        let start = node.line_with("\"node starts\"").expect("starts");
        node.line_with("\"node is ready\"").expect("becomes ready");
        let address = field(&start, "http");
        assert!(get(&address, "/-/ready").starts_with("HTTP/1.1 200 "));
        assert!(get(&address, "/metrics").contains("\nthanos_receive_replication_factor 1\n"));
        // An idle connection does not hold the stop back, and SIGHUP is none.
        let _idle = TcpStream::connect(field(&start, "write")).expect("connects");
        node.signal(Signal::HUP);
        assert!(get(&address, "/-/ready").starts_with("HTTP/1.1 200 "));

        node.signal(signal);
        assert_eq!(node.exit_code(), Some(0), "{:#?}", node.seen);
        node.line_with("\"node is stopped\"").expect("says so");
        assert!(TcpStream::connect(&address).is_err());
        assert!(!node.seen.iter().any(|line| line.contains("level=error")), "{:#?}", node.seen);
    }
}

#[test]
fn a_node_stops_with_its_parent_if_asked_to() {
    let data = tempfile::tempdir().expect("a directory");
    let mut node = Running::node(data.path(), &["--debug.stop-on-stdin-eof", "--log.format=json"]);
    node.line_with("\"msg\":\"node is ready\"").expect("becomes ready");
    drop(node.child.stdin.take());
    assert_eq!(node.exit_code(), Some(0), "{:#?}", node.seen);
}

#[test]
fn a_second_node_on_the_same_data_does_not_start() {
    let data = tempfile::tempdir().expect("a directory");
    let mut first = Running::node(data.path(), &[]);
    first.line_with("\"node is ready\"").expect("becomes ready");
    let mut second = Running::node(data.path(), &[]);
    let line = second.line_with("level=error").expect("an error");
    assert!(line.contains("is in use by another process"), "{line}");
    assert_eq!(second.exit_code(), Some(1));
}

/// Ports of one node, the one of its remote write first.
const PLAYGROUND_PORTS: [u16; 4] = [19291, 10901, 10902, 10903];

/// Their offsets: no other test of this program uses the ports that come of these, and the system does not
/// give them to connections.
const PLAYGROUND_OFFSETS: Range<u32> = 100..2700;

/// An offset at which all ports of a playground are free. No two tests of this process get the same.
fn free_offset() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..200 {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let step =
            (std::process::id() * 7 + next * 131) % (PLAYGROUND_OFFSETS.end - PLAYGROUND_OFFSETS.start);
        let offset = u16::try_from(PLAYGROUND_OFFSETS.start + step).expect("fits");
        let ports = (0..3).flat_map(|node| PLAYGROUND_PORTS.map(|port| port + offset + 100 * node));
        if ports.into_iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return offset;
        }
    }
    panic!("no free ports");
}

/// Starts the playground. Somebody may take a port between the look at it and the start, so it is tried
/// again, with other data each time.
fn playground(data: &Path) -> (Running, PathBuf, u16) {
    let mut said = Vec::new();
    for attempt in 0..5 {
        let data = data.join(format!("attempt-{attempt}"));
        std::fs::create_dir(&data).expect("is created");
        let offset = free_offset();
        let mut command = weir();
        command.args(["dev", "--scrape-interval=100ms", "--restart-pause=50ms"]);
        command.arg(format!("--port-offset={offset}")).arg(format!("--data={}", data.display()));
        let errors = data.join("stderr");
        let mut dev = Running::start_with(command, File::create(&errors).expect("is created"));
        if dev.line_with("Weir is ready:").is_some() {
            return (dev, data, offset);
        }
        let code = dev.exit_code();
        let errors = std::fs::read_to_string(&errors).expect("is there");
        said.push(format!("offset {offset}, exit code {code:?}, {:#?}, {errors}", dev.seen));
        assert!(errors.contains("Address already in use") && code == Some(1), "{said:#?}");
    }
    panic!("a port was taken each time: {said:#?}");
}

#[test]
fn the_playground_runs_three_nodes_and_takes_them_down() {
    let data = tempfile::tempdir().expect("a directory");
    let (mut dev, data, offset) = playground(data.path());
    dev.line_with(&format!("  - url: http://127.0.0.1:{}/api/v1/receive", 19291 + offset))
        .expect("a snippet");
    dev.line_with("its own metrics are written into it").expect("tells how the first write went");
    let http = |node: u16| format!("127.0.0.1:{}", 10902 + offset + 100 * node);
    for node in 0..3 {
        assert!(get(&http(node), "/-/ready").starts_with("HTTP/1.1 200 "));
        assert!(data.join(format!("n{}/tsdb", node + 1)).is_dir());
        // Three nodes, three copies: each has the metrics of all of them.
        let deadline = Instant::now() + START_MAX;
        while !get(&http(node), "/metrics").contains("prometheus_tsdb_head_series{tenant=\"default-tenant\"}")
        {
            assert!(Instant::now() < deadline, "node {node} stores nothing");
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(data.join("bucket").is_dir());

    // Somebody else wants the same ports.
    let other = output(&["dev", &format!("--port-offset={offset}"), "--data=/nonexistent"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("choose others with --port-offset=N"), "{}", text(&other.stderr));

    dev.signal(Signal::TERM);
    assert_eq!(dev.exit_code(), Some(0), "{:#?}", dev.seen);
    for node in 0..3 {
        assert!(TcpStream::connect(http(node)).is_err(), "node {node} is gone");
        let log = std::fs::read_to_string(data.join(format!("n{}/weir.log", node + 1))).expect("a log");
        assert!(log.contains(&format!("\"node is stopped\" name=n{}", node + 1)), "{log}");
    }
}

#[test]
fn the_playground_starts_a_killed_node_again_and_ends_with_its_own_end() {
    let data = tempfile::tempdir().expect("a directory");
    let (mut dev, _, offset) = playground(data.path());
    let http = |node: u16| format!("127.0.0.1:{}", 10902 + offset + 100 * node);
    let nodes = children(dev.child.id());
    assert_eq!(nodes.len(), 3);
    kill_process(nodes[1], Signal::KILL).expect("is there");
    dev.line_with("is started again in 50ms; the others go on").expect("tells that a node has ended");
    let deadline = Instant::now() + START_MAX;
    loop {
        let now = children(dev.child.id());
        let ready = |node: u16| {
            TcpStream::connect(http(node)).is_ok()
                && get(&http(node), "/-/ready").starts_with("HTTP/1.1 200 ")
        };
        if now.len() == 3 && now != nodes && (0..3).all(ready) {
            break;
        }
        assert!(Instant::now() < deadline, "the node does not come back");
        thread::sleep(Duration::from_millis(5));
    }
    dev.signal(Signal::KILL);
    assert_eq!(dev.exit_code(), None);
    let deadline = Instant::now() + STOP_MAX;
    while (0..3).any(|node| TcpStream::connect(http(node)).is_ok()) {
        assert!(Instant::now() < deadline, "the nodes outlive their parent");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Children of the process `parent`.
fn children(parent: u32) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("is there");
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let pids = lists.collect::<Vec<_>>().join(" ");
    pids.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
