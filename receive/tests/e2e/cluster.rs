//! Several real nodes on a ring file: every copy where it belongs, whatever happens to nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use weir_hashring::static_ring::{Algorithm, RingFile, StaticRing, thanos_hash};
use weir_tsdb::Sample;

use super::{
    harness::{NodeSite, Process, now_ms, post, wait_for, write_request},
    load::{
        PATIENT, TENANT, Times, assert_copies, labels, note, read, request, restart_one_by_one, value, write,
    },
};

/// Nodes with one ring file.
struct Cluster {
    sites: Vec<NodeSite>,
    zones: Vec<&'static str>,
    ring: PathBuf,
}

impl Cluster {
    fn new(dir: &Path, zones: &[&'static str], flags: &[&str]) -> Self {
        let ring = dir.join("hashrings.json");
        let sites = (0..zones.len())
            .map(|index| {
                let site = NodeSite::new(&dir.join(format!("n{index}")));
                let endpoint = format!("127.0.0.1:{}", site.grpc_port);
                let site = site
                    .with_flag(format!("--receive.hashrings-file={}", ring.display()))
                    .with_flag(format!("--receive.local-endpoint={endpoint}"))
                    .with_flag("--receive.replication-factor=3")
                    .with_flag("--receive.hashrings-algorithm=ketama")
                    .with_flag("--receive.hashrings-file-refresh-interval=50ms")
                    // A machine that is busy with other tests may keep a living node waiting for long.
                    .with_flag("--replication.failure-timeout=2s");
                flags.iter().fold(site, |site, flag| site.with_flag(*flag))
            })
            .collect();
        let cluster = Self { sites, zones: zones.to_vec(), ring };
        fs::write(&cluster.ring, cluster.ring_of(zones.len())).unwrap();
        cluster
    }

    fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.sites[node].grpc_port)
    }

    /// A ring file of the first `count` nodes.
    fn ring_of(&self, count: usize) -> String {
        let endpoints: Vec<String> = (0..count)
            .map(|node| format!(r#"{{"address": "{}", "az": "{}"}}"#, self.endpoint(node), self.zones[node]))
            .collect();
        let labels = format!(r#"{{"region": "of-{count}"}}"#);
        format!(
            r#"[{{"hashring": "test", "external_labels": {labels}, "endpoints": [{}]}}]"#,
            endpoints.join(", ")
        )
    }

    async fn start(&self, nodes: std::ops::Range<usize>) -> Vec<Process> {
        let mut processes = Vec::new();
        for node in nodes.clone() {
            processes.push(self.sites[node].start().await);
        }
        self.wait_for_streams(nodes).await;
        processes
    }

    /// Waits until each of `nodes` has a stream to each other one.
    async fn wait_for_streams(&self, nodes: std::ops::Range<usize>) {
        for from in nodes.clone() {
            for to in nodes.clone().filter(|to| *to != from) {
                let up = format!("weir_replication_peer_up{{peer=\"{}\"}}", self.endpoint(to));
                wait_for("a stream between nodes", async || {
                    (self.sites[from].metric(&up).await? == 1.0).then_some(())
                })
                .await;
            }
        }
    }

    async fn write(&self, node: usize, series: impl Iterator<Item = usize>, t: i64) -> Result<(), String> {
        write(&self.sites[node], series, t).await
    }

    async fn read(&self, node: usize) -> Times {
        read(&self.sites[node]).await
    }

    /// Nodes that own a series, by a placement made here from the file.
    fn owners(&self, ring: &StaticRing, series: usize) -> BTreeSet<usize> {
        let labels = labels(series);
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let ring = ring.ring_for(TENANT).unwrap();
        let owners = ring.owners(thanos_hash(TENANT, pairs)).iter();
        owners
            .map(|owner| {
                let address = ring.endpoint(*owner).address();
                (0..self.sites.len()).find(|node| self.endpoint(*node) == address).unwrap()
            })
            .collect()
    }
}

fn build(text: &str) -> StaticRing {
    StaticRing::build(&RingFile::parse(text.as_bytes()).unwrap(), 3, Algorithm::Ketama).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_lies_on_its_three_owners() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(temp.path(), &["a", "b", "c", "a", "b"], &[PATIENT]);
    let processes = cluster.start(0..5).await;
    let first_t = now_ms() - 100_000;
    let times: Vec<i64> = (0..12).map(|step| first_t + step * 1000).collect();
    for (step, t) in times.iter().enumerate() {
        // Any node takes any series; the first times introduce them, the rest use their numbers.
        for part in 0..5 {
            let series = (0..500).filter(|series| series % 5 == part);
            cluster.write((part + step) % 5, series, *t).await.unwrap();
        }
    }
    let ring = build(&cluster.ring_of(5));
    let mut copies: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let all: BTreeSet<i64> = times.iter().copied().collect();
    for node in 0..5 {
        // Every owner gets what two others have made acknowledged, a little later maybe.
        let owned: BTreeSet<usize> =
            (0..500).filter(|series| cluster.owners(&ring, *series).contains(&node)).collect();
        let found = wait_for("all copies", async || {
            let found = cluster.read(node).await;
            (found.len() == owned.len() && found.values().all(|times| *times == all)).then_some(found)
        })
        .await;
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), owned, "node {node}");
        for series in found.into_keys() {
            copies.entry(series).or_default().insert(node);
        }
    }
    assert_eq!(copies.len(), 500);
    for (series, nodes) in copies {
        let zones: BTreeSet<_> = nodes.iter().map(|node| cluster.zones[*node]).collect();
        assert_eq!((nodes.len(), zones.len()), (3, 3), "series {series}");
    }
    // What is in conflict with what two owners have is told, the rest is stored.
    let too_old = first_t - 3_600_000;
    let body = [request([3].into_iter(), too_old), request([3, 4].into_iter(), now_ms())];
    let url = cluster.sites[0].write_url();
    let old = post(&url, Some(TENANT.as_bytes()), body[0].clone()).await.unwrap();
    assert_eq!((old.status, &old.headers["x-weir-error-id"]), (409, &"sample-too-old".parse().unwrap()));
    assert!(old.text().contains("series=\"3\""), "{}", old.text());
    assert_eq!(post(&url, Some(TENANT.as_bytes()), body[1].clone()).await.unwrap().status, 200);
    processes.into_iter().for_each(Process::stop);
}

/// Prometheus writes a series for each sample when it catches up. On a stream that does not know the
/// series yet it is introduced and named by its number in one message, several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_may_come_several_times_in_a_request() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(temp.path(), &["a", "b", "c"], &[PATIENT]);
    let mut processes: Vec<Option<Process>> = cluster.start(0..3).await.into_iter().map(Some).collect();
    let first_t = now_ms() - 100_000;
    let mut times = BTreeSet::new();
    let mut write = async |node: usize| {
        let labels = labels(3);
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let next = first_t + 1000 * times.len() as i64;
        let samples: Vec<Sample> =
            (0..4).map(|step| next + 1000 * step).map(|t| Sample::new(t, value(3, t))).collect();
        times.extend(samples.iter().map(|sample| sample.t));
        let body = write_request(samples.iter().map(|sample| (&labels[..], std::slice::from_ref(sample))));
        let answer = post(&cluster.sites[node].write_url(), Some(TENANT.as_bytes()), body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        times.clone()
    };
    write(0).await;
    // Now the node has a number for it, and the streams do not know that number.
    write(0).await;
    write(1).await;
    // The streams of a node that comes back know nothing, while the table of the others does.
    processes[2].take().unwrap().stop();
    processes[2] = Some(cluster.sites[2].start().await);
    let connects = format!("weir_replication_connects_total{{peer=\"{}\"}}", cluster.endpoint(2));
    wait_for("another stream", async || (cluster.sites[0].metric(&connects).await? >= 2.0).then_some(()))
        .await;
    cluster.wait_for_streams(0..3).await;
    let times = write(0).await;
    for node in 0..3 {
        wait_for("all copies", async || (cluster.read(node).await.get(&3) == Some(&times)).then_some(()))
            .await;
    }
    processes.into_iter().flatten().for_each(Process::stop);
}

/// A node that was given the name of another one counts for nobody but itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_under_a_wrong_name_gets_no_copies() {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(temp.path(), &["a", "b", "c"], &[]);
    let (right, wrong) = (cluster.endpoint(1), cluster.endpoint(0));
    for flag in &mut cluster.sites[1].extra_flags {
        *flag = flag.replace(&right, &wrong);
    }
    let node = cluster.sites[1].start().await;
    let up = format!("weir_replication_peer_up{{peer=\"{right}\"}}");
    wait_for("its stream to itself is refused", async || {
        (cluster.sites[1].metric("weir_replication_streams_refused_total").await? > 0.0).then_some(())
    })
    .await;
    assert_eq!(cluster.sites[1].metric(&up).await, Some(0.0));
    let alone = cluster.write(1, 0..3, now_ms()).await.unwrap_err();
    assert!(alone.starts_with("503"), "{alone}");
    node.stop();
}

/// One of three nodes is killed and comes back, again and again, while series come and go faster than
/// the tables hold them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_fails_no_request() {
    let temp = tempfile::tempdir().unwrap();
    // So small a table, whose minutes are so short, gives numbers of series to others all the time.
    let flags = ["--write.series-table-size=150", "--tsdb.maintenance-interval=2ms", PATIENT];
    let cluster = Cluster::new(temp.path(), &["a", "b", "c"], &flags);
    let mut processes: Vec<Option<Process>> = cluster.start(0..3).await.into_iter().map(Some).collect();
    let mut t = now_ms() - 3_000_000;
    let mut acknowledged: Times = BTreeMap::new();
    for round in 0..6 {
        let victim = round % 3;
        let alive: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
        for step in 0..60 {
            t += 1000;
            if step == 15 {
                processes[victim].take().unwrap().kill();
            }
            if step == 40 {
                processes[victim] = Some(cluster.sites[victim].start().await);
            }
            for (index, node) in alive.iter().enumerate() {
                let first = (round * 40 + step * 3 + index * 150) % 300;
                let series = first..first + 90;
                let written = cluster.write(*node, series.clone(), t).await;
                written.unwrap_or_else(|error| panic!("round {round}, step {step}: {error}"));
                series.for_each(|series| note(&mut acknowledged, series, t));
            }
        }
        cluster.wait_for_streams(0..3).await;
        let missed = cluster.sites[alive[0]]
            .metric(&format!(
                "weir_replication_missed_samples_total{{peer=\"{}\"}}",
                cluster.endpoint(victim)
            ))
            .await
            .unwrap();
        assert!(missed > 0.0, "what the node missed is counted");
    }
    // The union of the nodes has all that was acknowledged, and each at least twice; no node has
    // anything that was not sent.
    let found = [cluster.read(0).await, cluster.read(1).await, cluster.read(2).await];
    assert_copies(&acknowledged, &found, 2);
    processes.into_iter().flatten().for_each(Process::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_file_is_changed_under_load() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(temp.path(), &["a", "b", "c", "a"], &[]);
    // As a mounted ConfigMap: the name is a link that is swapped.
    let put = |name: &str, text: &str| {
        let (file, link) = (temp.path().join(name), temp.path().join("next"));
        fs::write(&file, text).unwrap();
        symlink(&file, &link).unwrap();
        fs::rename(link, &cluster.ring).unwrap();
    };
    put("three.json", &cluster.ring_of(3));
    let mut processes = cluster.start(0..3).await;
    let mut t = now_ms() - 1_000_000;
    let mut step = async |nodes: usize| {
        t += 1000;
        for node in 0..nodes {
            let series = (0..200).filter(|series| series % nodes == node);
            cluster.write(node, series, t).await.unwrap();
        }
        t
    };
    let mut sent = BTreeSet::new();
    for _ in 0..5 {
        sent.insert(step(3).await);
    }
    let epoch = async |node: usize, name: &str| {
        cluster.sites[node].metric(&format!("thanos_receive_hashrings_file_{name}_total")).await.unwrap()
    };
    // A ring that cannot be used changes nothing and is seen.
    put("broken.json", r#"[{"endpoints": ["127.0.0.1:1", "127.0.0.1:1"]}]"#);
    for node in 0..3 {
        wait_for("the broken ring is noticed", async || (epoch(node, "errors").await == 1.0).then_some(()))
            .await;
        let successful = cluster.sites[node].metric("thanos_receive_config_last_reload_successful").await;
        assert_eq!(successful, Some(0.0));
    }
    sent.insert(step(3).await);
    put("four.json", &cluster.ring_of(4));
    processes.extend(cluster.start(3..4).await);
    for node in 0..3 {
        wait_for("the new ring is in force", async || {
            let nodes = cluster.sites[node].metric("thanos_receive_hashring_nodes{name=\"test\"}").await?;
            (nodes == 4.0).then_some(())
        })
        .await;
    }
    cluster.wait_for_streams(0..4).await;
    for _ in 0..5 {
        sent.insert(step(4).await);
    }
    for site in &cluster.sites {
        assert_eq!(site.external_label("region").await, "of-4", "the labels of the ring in force");
    }
    let mut union: Times = BTreeMap::new();
    for node in 0..4 {
        for (series, times) in cluster.read(node).await {
            union.entry(series).or_default().extend(times);
        }
    }
    assert_eq!(union.len(), 200);
    assert!(union.values().all(|times| *times == sent), "all that was sent is on some node");
    assert!(cluster.read(3).await.len() > 40, "the new node has its share, which is about 100");
    processes.into_iter().for_each(Process::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_stores_nothing_and_too_few_nodes_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(temp.path(), &["a", "b", "c"], &[]);
    let mut processes: Vec<Option<Process>> = cluster.start(0..3).await.into_iter().map(Some).collect();
    let router = NodeSite::new(&temp.path().join("router"))
        .with_flag(format!("--receive.hashrings-file={}", cluster.ring.display()))
        .with_flag("--receive.replication-factor=3")
        .with_flag("--receive.hashrings-algorithm=ketama");
    let router_process = router.start().await;
    let up = |node: usize| format!("weir_replication_peer_up{{peer=\"{}\"}}", cluster.endpoint(node));
    for node in 0..3 {
        wait_for("a stream of the router", async || (router.metric(&up(node)).await? == 1.0).then_some(()))
            .await;
    }
    let write =
        async |t: i64| post(&router.write_url(), Some(TENANT.as_bytes()), request(0..100, t)).await.unwrap();
    let t = now_ms() - 10_000;
    for step in 0..3 {
        let answer = write(t + step).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for node in 0..3 {
        wait_for("all copies", async || {
            let found = cluster.read(node).await;
            (found.len() == 100 && found.values().all(|times| times.len() == 3)).then_some(())
        })
        .await;
    }
    let made: Vec<_> =
        fs::read_dir(router.tsdb_path()).map(|entries| entries.flatten().collect()).unwrap_or_default();
    assert!(made.iter().all(|entry| !entry.path().is_dir()), "a router keeps no database: {made:?}");

    // With one of three nodes there is no quorum: 503, and the sender is told when to come back.
    for node in [1, 2] {
        processes[node].take().unwrap().kill();
    }
    for node in [1, 2] {
        wait_for("the router notices", async || (router.metric(&up(node)).await? == 0.0).then_some(())).await;
    }
    let answer = write(t + 5000).await;
    assert_eq!((answer.status, &answer.headers["x-weir-error-id"]), (503, &"no-quorum".parse().unwrap()));
    assert!(answer.headers.contains_key("retry-after"));
    // Of two nodes each series has its quorum again, and what was tried before is no obstacle.
    processes[1] = Some(cluster.sites[1].start().await);
    wait_for("the router notices", async || (router.metric(&up(1)).await? == 1.0).then_some(())).await;
    let answer = write(t + 5000).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    router_process.stop();
    processes.into_iter().flatten().for_each(Process::stop);
}

/// All nodes are restarted, one after the other, while a client writes. No answer is a 5xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_gives_no_5xx() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(temp.path(), &["a", "b", "c"], &[]);
    let mut processes: Vec<Option<Process>> = cluster.start(0..3).await.into_iter().map(Some).collect();
    let acknowledged = restart_one_by_one(&cluster.sites, &mut processes).await;
    let found = [cluster.read(0).await, cluster.read(1).await, cluster.read(2).await];
    assert_copies(&acknowledged, &found, 2);
    processes.into_iter().flatten().for_each(Process::stop);
}
