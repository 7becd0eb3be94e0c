//! What other nodes, clusters and operators may do wrong, each with its answer: the cluster that runs
//! stays as it is, and what it has acknowledged is read back.

mod copies;
mod later;
mod messages;
mod ring_files;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use tonic::Code;
use weir_hashring::ids::Uid;
use weir_proto::{replication::FRAME_VERSION, weir_replication::Hello};

use self::copies::{Stream, hello};
use super::{
    copy_dir::copy_dir,
    harness::{NodeSite, Process, free_port, get, now_ms, post, wait_for},
    load::{PATIENT, TENANT, Times, assert_copies, note, read, request, write},
    ring::RingCluster,
};

const FEW_SLOTS: &str = "--cluster.slots=256";
const ONE_COPY: &str = "--receive.replication-factor=1";

/// Sum of the metrics whose line has all of `parts`.
async fn sum(site: &NodeSite, parts: &[&str]) -> f64 {
    let body = get(&format!("http://127.0.0.1:{}/metrics", site.http_port)).await.unwrap().text();
    let lines =
        body.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

async fn wait_for_log(process: &Process, text: &str) -> String {
    wait_for(&format!("{text:?} in the log"), async || Some(process.log()).filter(|log| log.contains(text)))
        .await
}

async fn is_ready(site: &NodeSite) -> bool {
    let answer = get(&format!("http://127.0.0.1:{}/-/ready", site.http_port)).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Runs the program to its end.
fn weir(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap()
}

/// Bytes by chance, the same in each run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// A cluster that runs, and what it has acknowledged.
struct Witness<'c> {
    cluster: &'c RingCluster,
    nodes: Vec<usize>,
    copies: usize,
    ring: (u64, u64),
    /// Who is in the ring.
    known: BTreeSet<Uid>,
    acknowledged: Times,
    t: i64,
}

impl<'c> Witness<'c> {
    async fn new(cluster: &'c RingCluster, copies: usize) -> Self {
        let (nodes, ring) = ((0..cluster.sites.len()).collect(), cluster.ring(0).await);
        let known = cluster.state(0).await.nodes().map(|node| node.uid).collect();
        let t = now_ms() - 100_000;
        let mut witness = Self { cluster, nodes, copies, ring, known, acknowledged: Times::new(), t };
        witness.write().await;
        witness
    }

    async fn write(&mut self) {
        self.t += 1000;
        write(&self.cluster.sites[0], 0..50, self.t).await.unwrap();
        (0..50).for_each(|series| note(&mut self.acknowledged, series, self.t));
    }

    /// Nothing has changed, the cluster takes more, and has all that it took.
    async fn check(&mut self) {
        let state = self.cluster.state(0).await;
        assert_eq!(state.nodes().map(|node| node.uid).collect::<BTreeSet<_>>(), self.known);
        assert_eq!(self.cluster.ring(0).await, self.ring);
        self.write().await;
        let mut found = Vec::new();
        for site in self.nodes.iter().map(|node| &self.cluster.sites[*node]) {
            found.push(read(site).await);
            assert_eq!(sum(site, &["weir_panics_total"]).await, 0.0);
        }
        assert_copies(&self.acknowledged, &found, self.copies);
    }
}

/// Two nodes are no cluster of three copies: they say so at the start and to each writer, until there is
/// a third one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_nodes_than_copies_take_no_writes() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = RingCluster::new(temp.path(), 2, &[FEW_SLOTS, PATIENT]);
    let mut processes: Vec<Process> = cluster.sites.iter().map(NodeSite::spawn).collect();
    for (site, process) in cluster.sites.iter().zip(&mut processes) {
        site.wait_ready(process).await;
        let log = process.log();
        let warning = log.lines().find(|line| line.contains("--cluster.bootstrap-expect=2"));
        let warning = warning.expect("a warning");
        for text in ["level=warn", "--receive.replication-factor=3", "--cluster.rf-allow-degraded"] {
            assert!(warning.contains(text), "{warning}");
        }
    }
    let t = now_ms() - 10_000;
    let body = request(0..50, t);
    let refused = ["http_requests_total", "code=\"503\"", "handler=\"receive\""];
    for site in &cluster.sites {
        let answer = post(&site.write_url(), Some(TENANT.as_bytes()), body.clone()).await.unwrap();
        assert_eq!((answer.status, &answer.headers["x-weir-error-id"]), (503, &"no-owners".parse().unwrap()));
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(sum(site, &refused).await, 1.0);
    }
    cluster.add(temp.path(), &[FEW_SLOTS, PATIENT]);
    processes.push(cluster.sites[2].start().await);
    for node in 0..3 {
        cluster.wait_for_ring(node).await;
    }
    let answer = post(&cluster.sites[0].write_url(), Some(TENANT.as_bytes()), body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    for site in &cluster.sites {
        wait_for("its copy", async || (read(site).await.len() == 50).then_some(())).await;
    }
    processes.into_iter().for_each(Process::stop);

    let dir = temp.path().join("degraded");
    let cluster = RingCluster::new(&dir, 2, &[FEW_SLOTS, PATIENT, "--cluster.rf-allow-degraded"]);
    let processes = cluster.start().await;
    assert!(!processes[0].log().contains("--cluster.bootstrap-expect"), "{}", processes[0].log());
    write(&cluster.sites[1], 0..50, t).await.unwrap();
    for site in &cluster.sites {
        wait_for("its copy", async || (read(site).await.len() == 50).then_some(())).await;
    }
    processes.into_iter().for_each(Process::stop);
}

/// A node belongs to the cluster of its disk, whatever its flags say, and tells when they say something
/// else. What is of another cluster is not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_that_meet_stay_apart() {
    let temp = tempfile::tempdir().unwrap();
    let found = |name: &str| RingCluster::new(&temp.path().join(name), 1, &[FEW_SLOTS, ONE_COPY]);
    let (mut a, b) = (found("a"), found("b"));
    let (mut of_a, of_b) = (a.start().await, b.start().await);
    let mut of_other = Witness::new(&b, 1).await;
    let id = async |cluster: &RingCluster| cluster.state(0).await.cluster().unwrap().id;
    let (id_a, id_b) = (id(&a).await, id(&b).await);
    let ring = a.ring(0).await;
    let t = now_ms() - 10_000;
    write(&a.sites[0], 0..50, t).await.unwrap();

    of_a.pop().unwrap().stop();
    a.sites[0] = a.sites[0].clone().with_flag(format!("--cluster.peers=127.0.0.1:{}", b.cluster_ports[0]));
    let process = a.sites[0].start().await;
    a.wait_for_ring(0).await;
    assert_eq!((a.ring(0).await, id(&a).await), (ring, id_a));
    assert_eq!(read(&a.sites[0]).await.len(), 50);
    of_other.check().await;

    // Each greeting with one thing wrong, and what is told of it. The right one is welcome.
    let uid = a.state(0).await.nodes().next().unwrap().uid;
    let right = hello(id_a.0.to_vec(), uid);
    let site = &a.sites[0];
    let check = async |wrong: Hello, code: Code, text: &str| {
        let before = sum(site, &["weir_replication_streams_refused_total"]).await;
        let status = Stream::open(site, wrong.clone()).await.err().expect("refused");
        assert_eq!(status.code(), code, "{wrong:?}: {status}");
        assert!(status.message().contains(text), "{wrong:?}: {status}");
        assert_eq!(sum(site, &["weir_replication_streams_refused_total"]).await, before + 1.0);
    };
    let other = Hello { cluster_id: id_b.0.to_vec(), ..right.clone() };
    check(other, Code::FailedPrecondition, "another cluster").await;
    check(Hello { cluster_id: vec![], ..right.clone() }, Code::FailedPrecondition, "another cluster").await;
    let later = Hello { version: FRAME_VERSION + 1, ..right.clone() };
    check(later, Code::Unimplemented, "frames of version 2 are not read, only 1").await;
    let not_me = Hello { target: "somebody".to_owned(), ..right.clone() };
    check(not_me, Code::FailedPrecondition, &format!("this node is {uid} of its ring, not somebody")).await;
    let itself = Hello { sender: uid.to_string(), ..right.clone() };
    check(itself, Code::FailedPrecondition, "sends to itself").await;
    Stream::open(site, right).await.expect("welcome");
    process.stop();

    // Told to be in the other cluster only, it does not start, and is not lost by it.
    let mut refused = a.sites[0].clone().with_flag(format!("--cluster.id={id_b}")).spawn();
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(log.contains(&format!("is of cluster {id_a}, and the node may be in {id_b} only")), "{log}");
    let process = a.sites[0].start().await;
    a.wait_for_ring(0).await;
    assert_eq!(read(&a.sites[0]).await.len(), 50);

    // A new node that finds both joins neither.
    let mut new = RingCluster::new(&temp.path().join("new"), 1, &[ONE_COPY]);
    let both = format!("--cluster.peers=127.0.0.1:{},127.0.0.1:{}", a.cluster_ports[0], b.cluster_ports[0]);
    let site = new.sites.remove(0).with_flag(both).with_flag("--cluster.bootstrap-expect=0");
    let mut refused = site.spawn();
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(log.contains("the peers are in different clusters"), "{log}");
    assert!(log.contains(&id_a.to_string()) && log.contains(&id_b.to_string()), "{log}");
    of_other.check().await;
    process.stop();
    of_b.into_iter().for_each(Process::stop);
}

/// An empty disk under the name of a node that lives is not let in, and of the disk of a node that does
/// not lead and its copy only one may run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_and_cloned_disks_are_told_from_nodes_that_live() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = RingCluster::new(temp.path(), 3, &[FEW_SLOTS, PATIENT]);
    let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
    let mut impostors = [3, 4].map(|node| {
        assert_eq!(cluster.add(temp.path(), &[FEW_SLOTS]), node);
        cluster.sites[node].clone()
    });
    cluster.sites.truncate(3);
    cluster.cluster_ports.truncate(3);
    let mut witness = Witness::new(&cluster, 2).await;
    let (leader, follower) = wait_for("one of three leads", async || {
        let mut leads = Vec::new();
        for site in &cluster.sites {
            leads.push(site.metric("weir_raft_is_leader").await?);
        }
        let leaders: Vec<usize> = (0..3).filter(|node| leads[*node] == 1.0).collect();
        (leaders.len() == 1).then(|| (leaders[0], (leaders[0] + 1) % 3))
    })
    .await;
    let name = format!("n{follower}");
    let uid_of =
        async |name: &str| cluster.state(leader).await.nodes().find(|node| node.name == name).unwrap().uid;
    let uid = uid_of(&name).await;
    impostors = impostors.map(|site| site.with_flag(format!("--node.name={name}")));
    let [wiped, cloned] = impostors;

    let process = wiped.spawn();
    wait_for_log(&process, &format!("node {uid} has the same name")).await;
    assert!(!is_ready(&wiped).await);
    process.stop();
    witness.check().await;

    // A copy finds the original at its address and ends; of the leader too, which would lead on otherwise.
    let ring = cluster.ring(0).await;
    for node in [follower, leader] {
        let copied = cloned.clone().with_flag(format!("--node.name=n{node}"));
        copy_dir(&cluster.sites[node].dir.join("node"), &copied.dir.join("node"));
        let mut clone = copied.spawn();
        assert_eq!(clone.wait().code(), Some(1));
        let log = clone.log();
        let address = format!("127.0.0.1:{}", cluster.cluster_ports[node]);
        let uid = uid_of(&format!("n{node}")).await;
        assert!(log.contains(&format!("another process runs as node {uid}, at {address}")), "{log}");
        assert!(log.contains("only one of them may run"), "{log}");
        witness.check().await;
        fs::remove_dir_all(&copied.dir).unwrap();
    }
    // Where the original cannot be asked, one of both is told to end by the leader, which knows both.
    let mut elsewhere = processes[follower].take().unwrap();
    elsewhere.signal(rustix::process::Signal::STOP);
    copy_dir(&cluster.sites[follower].dir.join("node"), &cloned.dir.join("node"));
    let mut clone = cloned.spawn();
    cloned.wait_ready(&mut clone).await;
    elsewhere.signal(rustix::process::Signal::CONT);
    wait_for("the end of one of both", async || (clone.has_ended() || elsewhere.has_ended()).then_some(()))
        .await;
    let (mut ended, left) = if clone.has_ended() { (clone, elsewhere) } else { (elsewhere, clone) };
    assert_eq!(ended.wait().code(), Some(1));
    let log = ended.log();
    assert!(log.contains(&format!("another process runs as node {uid}")), "{log}");
    assert!(log.contains("only one of them may run"), "{log}");
    left.stop();
    assert_eq!(cluster.ring(leader).await, ring);
    // The others go on without either: each series has an owner among them that has it.
    witness.nodes = [0, 1, 2].into_iter().filter(|node| *node != follower).collect();
    witness.copies = 1;
    witness.check().await;
    processes.into_iter().flatten().for_each(Process::stop);
}

/// Whoever has no token, a wrong one or one that was used is told so and stays outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_the_right_token_only() {
    let temp = tempfile::tempdir().unwrap();
    let flags = [FEW_SLOTS, ONE_COPY, "--cluster.join=token"];
    let mut cluster = RingCluster::new(temp.path(), 1, &flags);
    let founder = cluster.start().await;
    let newcomer = cluster.add(temp.path(), &flags);
    let newcomer = cluster.sites.remove(newcomer);
    cluster.cluster_ports.pop();
    let mut witness = Witness::new(&cluster, 1).await;

    let file = temp.path().join("token");
    let with_file =
        |site: &NodeSite| site.clone().with_flag(format!("--cluster.join-token-file={}", file.display()));
    let mut refused = with_file(&newcomer).spawn();
    assert_eq!(refused.wait().code(), Some(2));
    let text = format!("--cluster.join-token-file: cannot read {}", file.display());
    assert!(refused.log().contains(&text), "{}", refused.log());
    fs::write(&file, "no token").unwrap();
    let mut refused = with_file(&newcomer).spawn();
    assert_eq!(refused.wait().code(), Some(2));
    let text = format!("--cluster.join-token-file: {}: the join token is not understood", file.display());
    assert!(refused.log().contains(&text), "{}", refused.log());

    let arguments = ["node", "token", "create", "--ttl=1h", "--json"].map(str::to_owned).into_iter();
    let made = weir(
        &arguments.chain([format!("--address=127.0.0.1:{}", cluster.cluster_ports[0])]).collect::<Vec<_>>(),
    );
    assert!(made.status.success(), "{made:?}");
    let token: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let (token, id) = (token["token"].as_str().unwrap(), token["id"].as_str().unwrap());

    let check = async |site: NodeSite, reason: String| {
        let process = site.spawn();
        let log = wait_for_log(&process, &reason).await;
        assert!(log.contains("the cluster refuses the node"), "{log}");
        assert!(!is_ready(&site).await);
        process.stop();
    };
    check(newcomer.clone(), "a join token is needed, and the node has none".to_owned()).await;
    fs::write(&file, "other.secret").unwrap();
    check(with_file(&newcomer), "there is no join token other".to_owned()).await;
    fs::write(&file, format!("{id}.wrong")).unwrap();
    check(with_file(&newcomer), format!("the secret of join token {id} is wrong")).await;
    let refused = sum(&cluster.sites[0], &["weir_cluster_joins_refused_total"]).await;
    assert!(refused >= 3.0, "each attempt is counted, not {refused}");
    witness.check().await;

    fs::write(&file, token).unwrap();
    let joined = with_file(&newcomer).start().await;
    assert!(!joined.log().contains(token.split_once('.').unwrap().1), "a secret is in no log");
    let named = cluster.state(0).await.nodes().map(|node| node.name.clone()).collect::<BTreeSet<_>>();
    assert_eq!(named, ["n0", "n1"].map(str::to_owned).into());
    let mut late = newcomer.clone().with_flag("--node.name=late");
    late = late.with_flag(format!("--data.path={}", temp.path().join("late").display()));
    (late.dir, late.grpc_port, late.http_port, late.write_port) =
        (temp.path().join("late-site"), free_port(), free_port(), free_port());
    late = late.with_flag(format!("--cluster.address=127.0.0.1:{}", free_port()));
    check(with_file(&late), format!("join token {id} is used up")).await;
    assert_eq!(read(&cluster.sites[0]).await.len(), 50);
    joined.stop();
    founder.into_iter().for_each(Process::stop);
}

/// Peers that lead back to the node, under two names and twice, are itself once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_find_itself_among_its_peers() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = RingCluster::new(temp.path(), 2, &[FEW_SLOTS, "--receive.replication-factor=2"]);
    let (first, second) = (cluster.cluster_ports[0], cluster.cluster_ports[1]);
    let peers = format!(
        "127.0.0.1:{first},localhost:{first},127.0.0.1:{first},dns+localhost:{first},127.0.0.1:{second}"
    );
    cluster.sites[0] = cluster.sites[0].clone().with_flag(format!("--cluster.peers={peers}"));
    let mut first = cluster.sites[0].spawn();
    let log = wait_for_log(&first, "waiting for a cluster").await;
    assert!(log.contains("without_cluster=1") && !log.contains("without_cluster=2"), "{log}");
    let mut second = cluster.sites[1].spawn();
    cluster.sites[0].wait_ready(&mut first).await;
    cluster.sites[1].wait_ready(&mut second).await;
    for node in 0..2 {
        cluster.wait_for_ring(node).await;
    }
    let state = cluster.state(0).await;
    assert_eq!((state.nodes().count(), state.cluster().unwrap().founders.len()), (2, 2));
    // One of two copies is acknowledged.
    Witness::new(&cluster, 1).await.check().await;
    first.stop();
    second.stop();
}
