//! Several real nodes that agree on their ring: forming a cluster, losing and restarting nodes, Raft
//! without a quorum.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use weir_hashring::{
    cluster::Outcome,
    ids::{TenantName, TenantSlots},
    ring::{Command, RingState, Setting},
};
use weir_proto::weir_cluster::{
    ProposeRequest, WatchRequest, answer::Outcome as AnswerOutcome, cluster_client::ClusterClient,
};

use super::{
    harness::{NodeSite, Process, difference, free_port, now_ms, post_with, wait_for},
    load::{PATIENT, TENANT, Times, assert_copies, note, read, request, restart_one_by_one, write},
    network::Network,
    prometheus::EdgePrometheus,
};

/// Nodes of one cluster.
pub struct RingCluster {
    pub sites: Vec<NodeSite>,
    /// Ports of `--cluster.address`.
    pub cluster_ports: Vec<u16>,
}

impl RingCluster {
    /// Founders, each in a zone of its own.
    pub fn new(dir: &Path, founders: usize, flags: &[&str]) -> Self {
        let mut cluster = Self { sites: Vec::new(), cluster_ports: Vec::new() };
        cluster.cluster_ports = (0..founders).map(|_| free_port()).collect();
        for node in 0..founders {
            let site = cluster.site(dir, node, cluster.cluster_ports[node], flags);
            cluster.sites.push(site.with_flag(format!("--cluster.bootstrap-expect={founders}")));
        }
        cluster
    }

    /// A node that joins later.
    pub fn add(&mut self, dir: &Path, flags: &[&str]) -> usize {
        let node = self.sites.len();
        let port = free_port();
        let site = self.site(dir, node, port, flags);
        self.cluster_ports.push(port);
        self.sites.push(site);
        node
    }

    fn site(&self, dir: &Path, node: usize, port: u16, flags: &[&str]) -> NodeSite {
        let peers: Vec<String> = self.cluster_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut site = NodeSite::new(&dir.join(format!("n{node}")));
        let data_path = site.dir.join("node");
        for flag in [
            format!("--cluster.address=127.0.0.1:{port}"),
            format!("--cluster.peers={}", peers.join(",")),
            format!("--data.path={}", data_path.display()),
            format!("--node.name=n{node}"),
            format!("--node.zone=z{}", node % 3),
            "--cluster.bootstrap-round=100ms".to_owned(),
            "--cluster.heartbeat-interval=200ms".to_owned(),
            "--cluster.retry-interval=100ms".to_owned(),
            "--raft.heartbeat-interval=100ms".to_owned(),
            "--raft.election-timeout-min=1s".to_owned(),
            "--raft.election-timeout-max=2s".to_owned(),
            "--ring.step-interval=100ms".to_owned(),
            "--ring.join-read-grace=500ms".to_owned(),
            // A machine that is busy with other tests may keep a living node waiting for long.
            "--replication.failure-timeout=2s".to_owned(),
        ] {
            site = site.with_flag(flag);
        }
        for flag in flags {
            site = site.with_flag(*flag);
        }
        site
    }

    /// Starts all nodes at once and waits until they have a ring with owners, and streams.
    pub async fn start(&self) -> Vec<Process> {
        let mut processes: Vec<Process> = self.sites.iter().map(NodeSite::spawn).collect();
        for (site, process) in self.sites.iter().zip(&mut processes) {
            site.wait_ready(process).await;
        }
        for node in 0..self.sites.len() {
            self.wait_for_ring(node).await;
        }
        processes
    }

    /// Waits until the node owns slots and has a stream to each other node.
    pub async fn wait_for_ring(&self, node: usize) {
        let site = &self.sites[node];
        wait_for("slots of a node", async || (site.metric("weir_ring_own_slots").await? > 0.0).then_some(()))
            .await;
        for peer in (0..self.sites.len()).filter(|peer| *peer != node) {
            let up = format!("weir_replication_peer_up{{peer=\"n{peer}\"}}");
            wait_for("a stream between nodes", async || (site.metric(&up).await? == 1.0).then_some(())).await;
        }
    }

    /// The whole ring, as a voter tells it.
    pub async fn state(&self, node: usize) -> RingState {
        let mut client = self.client(node).await;
        // Not before it hears of a leader.
        let update = wait_for("a voter that tells the ring", async || {
            let request = WatchRequest { version: 1, ..WatchRequest::default() };
            client.watch_ring(request).await.ok()?.into_inner().message().await.ok()?
        })
        .await;
        serde_json::from_slice(&update.state).unwrap()
    }

    /// Has a command applied by way of a node.
    pub async fn propose(&self, node: usize, command: &Command) -> Result<(), String> {
        let command = serde_json::to_vec(command).unwrap();
        let request = ProposeRequest { version: 1, command, forward: true, ..ProposeRequest::default() };
        let answer = self.client(node).await.propose(request).await.map_err(|status| status.to_string())?;
        let Some(AnswerOutcome::Answer(answer)) = answer.into_inner().outcome else {
            return Err("no answer".to_owned());
        };
        let outcome: Outcome = serde_json::from_slice(&answer).unwrap();
        outcome.map(drop).map_err(|rejected| rejected.to_string())
    }

    async fn client(&self, node: usize) -> ClusterClient<tonic::transport::Channel> {
        let url = format!("http://127.0.0.1:{}", self.cluster_ports[node]);
        ClusterClient::connect(url).await.unwrap().max_decoding_message_size(64 << 20)
    }

    /// The epoch of the ring that a node has in force, and its digest.
    pub async fn ring(&self, node: usize) -> (u64, u64) {
        let site = &self.sites[node];
        let epoch = site.metric("weir_ring_epoch").await.unwrap();
        (epoch as u64, site.metric("weir_ring_digest").await.unwrap() as u64)
    }
}

/// A real Prometheus pushes to each of three nodes, and each of them has all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_writes_to_any_of_three_nodes() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 3, &[PATIENT]);
    let processes = cluster.start().await;
    let rings = [cluster.ring(0).await, cluster.ring(1).await, cluster.ring(2).await];
    assert!(rings[0].0 > 0 && rings.iter().all(|ring| *ring == rings[0]), "one ring: {rings:?}");

    let urls: Vec<String> = cluster.sites.iter().map(NodeSite::write_url).collect();
    let targets: Vec<u16> = cluster.sites.iter().map(|site| site.http_port).collect();
    let prometheus = EdgePrometheus::start(&temp.path().join("edge"), &urls, &targets);
    prometheus.has_scraped(30_000.0).await;
    let sent = prometheus.settle(temp.path()).await;
    let samples: usize = sent.values().map(Vec::len).sum();
    assert!(sent.len() > 1000 && samples > 10_000, "{} series, {samples} samples", sent.len());
    let mut replicas = BTreeSet::new();
    for (node, site) in cluster.sites.iter().enumerate() {
        // The third copy may come a little after the answer.
        let mut last = None;
        wait_for("all copies", async || {
            let found = difference(&site.read("default-tenant", i64::MIN, i64::MAX).await, &sent);
            if found != last {
                println!("node {node}: {found:?}");
                last.clone_from(&found);
            }
            found.is_none().then_some(())
        })
        .await;
        replicas.insert(site.external_label("receive_replica").await);
    }
    assert_eq!(replicas, ["n0", "n1", "n2"].map(str::to_owned).into(), "each node names itself");
    processes.into_iter().for_each(Process::stop);
}

/// With more nodes than copies each series is on three nodes, one of each zone, whoever took it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sample_lies_on_three_nodes_of_three_zones() {
    const SERIES: usize = 310;
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 6, &["--cluster.slots=256", PATIENT]);
    let processes = cluster.start().await;
    let first_t = now_ms() - 100_000;
    let times: BTreeSet<i64> = (0..6).map(|step| first_t + step * 1000).collect();
    for (step, t) in times.iter().enumerate() {
        for part in 0..6 {
            let series = (0..300).filter(|series| series % 6 == part);
            write(&cluster.sites[(part + step) % 6], series, *t).await.unwrap();
        }
    }
    // No sender can ask for fewer copies by saying that it has a part in replication.
    for t in &times {
        let headers = [("thanos-tenant", TENANT), ("thanos-replica", "3")];
        let sent = post_with(&cluster.sites[0].write_url(), &headers, request(300..SERIES, *t)).await;
        assert_eq!(sent.unwrap().status, 200);
    }
    let owners = wait_for("three copies of everything", async || {
        let mut owners: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (node, site) in cluster.sites.iter().enumerate() {
            for (series, found) in read(site).await {
                assert!(found.is_subset(&times), "nothing is invented");
                if found == times {
                    owners.entry(series).or_default().insert(node);
                }
            }
        }
        (owners.len() == SERIES && owners.values().all(|owners| owners.len() >= 3)).then_some(owners)
    })
    .await;
    for (series, owners) in &owners {
        let zones: BTreeSet<usize> = owners.iter().map(|node| node % 3).collect();
        assert_eq!((owners.len(), zones.len()), (3, 3), "series {series} is on {owners:?}");
    }
    for site in &cluster.sites {
        let refused = site.metric("weir_replication_batches_refused_total{reason=\"not_owner\"}").await;
        assert_eq!(refused, Some(0.0));
    }
    processes.into_iter().for_each(Process::stop);
}

/// Nodes are killed under load and come back, once at other addresses: no ring changes, nothing is lost,
/// and no request fails, not even in the moment of the kill: two owners have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_changes_no_ring_and_fails_no_request() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = RingCluster::new(temp.path(), 3, &[PATIENT]);
    let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
    let ring = cluster.ring(0).await;
    let mut t = now_ms() - 3_000_000;
    let mut acknowledged = Times::new();
    for victim in [0, 1, 2] {
        let alive: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
        for step in 0..80 {
            t += 1000;
            if step == 15 {
                processes[victim].take().unwrap().kill();
            }
            if step == 40 {
                if victim == 1 {
                    cluster.cluster_ports[victim] = free_port();
                    let address = format!("--cluster.address=127.0.0.1:{}", cluster.cluster_ports[victim]);
                    let mut site = cluster.sites[victim].clone().with_flag(address);
                    (site.grpc_port, site.write_port, site.http_port) =
                        (free_port(), free_port(), free_port());
                    cluster.sites[victim] = site;
                }
                processes[victim] = Some(cluster.sites[victim].start().await);
            }
            for (index, node) in alive.iter().enumerate() {
                let series = index * 100..index * 100 + 100;
                let written = write(&cluster.sites[*node], series.clone(), t).await;
                written.unwrap_or_else(|error| panic!("victim {victim}, step {step}: {error}"));
                series.for_each(|series| note(&mut acknowledged, series, t));
            }
        }
        for node in 0..3 {
            cluster.wait_for_ring(node).await;
            assert_eq!(cluster.ring(node).await, ring, "node {node} after victim {victim}");
        }
        let missed = format!("weir_replication_missed_samples_total{{peer=\"n{victim}\"}}");
        let missed = cluster.sites[alive[0]].metric(&missed).await.unwrap();
        assert!(missed > 0.0, "what the node missed is counted");
    }
    let found = [read(&cluster.sites[0]).await, read(&cluster.sites[1]).await, read(&cluster.sites[2]).await];
    assert_copies(&acknowledged, &found, 2);
    processes.into_iter().flatten().for_each(Process::stop);
}

/// All nodes are restarted, one after the other, while a client writes. No answer is a 5xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_gives_no_5xx() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 3, &[]);
    let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
    let ring = cluster.ring(0).await;
    let acknowledged = restart_one_by_one(&cluster.sites, &mut processes).await;
    let found = [read(&cluster.sites[0]).await, read(&cluster.sites[1]).await, read(&cluster.sites[2]).await];
    assert_copies(&acknowledged, &found, 2);
    for node in 0..3 {
        assert_eq!(cluster.ring(node).await, ring);
    }
    processes.into_iter().flatten().for_each(Process::stop);
}

/// Gives a tenant so many slots, so that its series are on all nodes.
pub fn wide_tenant(tenant: &str, slots: u32) -> Command {
    let (tenant, slots) = (TenantName::from(tenant), Setting::Set(TenantSlots::new(slots).unwrap()));
    Command::SetTenant { tenant, pool: Setting::Keep, slots, limits: Setting::Keep }
}

/// Nothing gets through between the nodes but data: no leader, no new ring. Writes go on, and nodes that
/// are restarted serve by the ring they know.
#[test]
fn without_a_quorum_of_raft_everything_but_changes_goes_on() {
    Network::run(async |network| {
        let temp = tempfile::tempdir().unwrap();
        let cluster = RingCluster::new(temp.path(), 3, &[]);
        let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
        let ring = cluster.ring(0).await;
        let mut acknowledged = Times::new();
        let mut t = now_ms() - 1_000_000;
        let mut write_to = async |nodes: &[usize]| {
            for _ in 0..10 {
                t += 1000;
                for (part, node) in nodes.iter().enumerate() {
                    let series = (0..60).filter(|series| series % nodes.len() == part);
                    write(&cluster.sites[*node], series.clone(), t).await.unwrap();
                    series.for_each(|series| note(&mut acknowledged, series, t));
                }
            }
        };
        write_to(&[0, 1, 2]).await;
        for port in &cluster.cluster_ports {
            network.block(*port);
        }
        let metric = async |node: usize, name: &str| cluster.sites[node].metric(name).await.unwrap();
        for node in 0..3 {
            wait_for("the loss of the leader", async || {
                (metric(node, "weir_raft_quorum").await == 0.0).then_some(())
            })
            .await;
        }
        write_to(&[0, 1, 2]).await;
        for node in [0, 1, 2] {
            processes[node].take().unwrap().stop();
            let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
            write_to(&others).await;
            processes[node] = Some(cluster.sites[node].start().await);
            cluster.wait_for_ring(node).await;
            assert_eq!(cluster.ring(node).await, ring);
            for other in others {
                cluster.wait_for_ring(other).await;
            }
            write_to(&[0, 1, 2]).await;
        }
        network.heal();
        wait_for("one leader", async || {
            let mut leaders = 0.0;
            for node in 0..3 {
                leaders += metric(node, "weir_raft_is_leader").await;
                if metric(node, "weir_raft_quorum").await == 0.0 {
                    return None;
                }
            }
            (leaders == 1.0).then_some(())
        })
        .await;
        cluster.propose(1, &wide_tenant(TENANT, 16)).await.unwrap();
        for node in 0..3 {
            wait_for("the next ring", async || (cluster.ring(node).await.0 == ring.0 + 1).then_some(()))
                .await;
        }
        let rings = [cluster.ring(0).await, cluster.ring(1).await, cluster.ring(2).await];
        assert!(rings.iter().all(|ring| *ring == rings[0]), "one digest: {rings:?}");
        write_to(&[0, 1, 2]).await;
        let found =
            [read(&cluster.sites[0]).await, read(&cluster.sites[1]).await, read(&cluster.sites[2]).await];
        assert_copies(&acknowledged, &found, 2);
        processes.into_iter().flatten().for_each(Process::stop);
    });
}

/// Nodes that lost all their disks do not found a cluster over the data of the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_once() {
    let temp = tempfile::tempdir().unwrap();
    let bucket = temp.path().join("bucket");
    let objstore =
        format!("--objstore.config=type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    let mut cluster = RingCluster::new(temp.path(), 1, &[&objstore, "--receive.replication-factor=1"]);
    cluster.start().await.into_iter().for_each(Process::stop);
    let ring = {
        // Its disk knows better.
        let node = cluster.start().await;
        let ring = cluster.ring(0).await;
        node.into_iter().for_each(Process::stop);
        ring
    };
    std::fs::remove_dir_all(&cluster.sites[0].dir).unwrap();
    let mut refused = cluster.sites[0].spawn();
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(log.contains("no cluster is founded, for another one has the name"), "{log}");
    assert!(log.contains("cluster/weir.json in the bucket is of cluster "), "{log}");
    let site = cluster.sites.remove(0).with_flag("--cluster.force-new");
    cluster.sites.push(site);
    let processes = cluster.start().await;
    assert_ne!(cluster.ring(0).await.1, ring.1, "it is another cluster");
    processes.into_iter().for_each(Process::stop);
}
