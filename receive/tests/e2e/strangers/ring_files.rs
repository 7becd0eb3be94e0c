//! Ring files with faults, and rings that few people have.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use weir_hashring::static_ring::{Algorithm, RingFile, StaticRing, thanos_hash};

use super::{
    super::{
        harness::{NodeSite, Process, now_ms, post, wait_for},
        load::{TENANT, labels, read, request, write},
    },
    PATIENT,
};

/// A node with a ring file.
fn on_ring(dir: &Path, ring: &Path, copies: usize, algorithm: &str) -> NodeSite {
    let site = NodeSite::new(dir);
    let own = format!("127.0.0.1:{}", site.grpc_port);
    site.with_flag(format!("--receive.hashrings-file={}", ring.display()))
        .with_flag(format!("--receive.replication-factor={copies}"))
        .with_flag(format!("--receive.hashrings-algorithm={algorithm}"))
        .with_flag(format!("--receive.local-endpoint={own}"))
        .with_flag("--receive.hashrings-file-refresh-interval=50ms")
        .with_flag(PATIENT)
}

/// Rings that cannot be used with two copies, and where in the file the fault is. `$a` and `$b` stand for
/// the endpoints of the nodes.
const BAD_RINGS: [(&str, &str); 9] = [
    (r#"[{"endpoints": ["$a", "$b"]"#, "hashring file: "),
    ("[]", "hashring file: has no hashring"),
    (r#"[{"hashring": "x", "endpoints": ["$a"]}]"#, r#"hashring 0 ("x")"#),
    (r#"[{"hashring": "x", "endpoints": []}]"#, r#"hashring 0 ("x"), "endpoints""#),
    (r#"[{"endpoints": ["$a", "$b", "$a"]}]"#, r#"hashring 0, "endpoints[2]""#),
    (r#"[{"endpoints": ["$a", "n1"]}]"#, r#"hashring 0, "endpoints[1]""#),
    (r#"[{"endpoints": ["$a", "::1:10901"]}]"#, r#"hashring 0, "endpoints[1]""#),
    (
        r#"[{"endpoints": ["$a", "$b"]}, {"hashring": "y", "endpoints": [7]}]"#,
        r#"hashring 1 ("y"), "endpoints[0]""#,
    ),
    (r#"[{"endpoints": ["$a", "$b"], "tenants": "x"}]"#, r#"hashring 0, "tenants""#),
];

/// A ring file with a fault ends a start, and changes nothing of a node that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_files_with_faults_are_refused_with_their_place() {
    let temp = tempfile::tempdir().unwrap();
    let ring = temp.path().join("ring.json");
    let sites = ["a", "b"].map(|name| on_ring(&temp.path().join(name), &ring, 2, "hashmod"));
    let endpoint = |node: usize| format!("127.0.0.1:{}", sites[node].grpc_port);
    let filled = |text: &str| text.replace("$a", &endpoint(0)).replace("$b", &endpoint(1));
    let put = |text: &str| {
        let next = temp.path().join("next");
        fs::write(&next, filled(text)).unwrap();
        fs::rename(next, &ring).unwrap();
    };
    let refused = |site: &NodeSite| {
        let mut process = site.spawn();
        assert_eq!(process.wait().code(), Some(2), "{}", process.log());
        let log = process.log();
        fs::remove_file(site.dir.join("weir.log")).unwrap();
        log
    };
    let log = refused(&sites[0]);
    assert!(log.contains(&format!("--receive.hashrings-file: cannot read {}: ", ring.display())), "{log}");
    for (text, place) in BAD_RINGS {
        put(text);
        let log = refused(&sites[0]);
        assert!(
            log.contains(&format!("weir: --receive.hashrings-file: {}: {place}", ring.display())),
            "{log}"
        );
        let mut inline = sites[0].clone().with_flag(format!("--receive.hashrings={}", filled(text)));
        inline.extra_flags.retain(|flag| !flag.starts_with("--receive.hashrings-file="));
        let log = refused(&inline);
        assert!(log.contains(&format!("weir: --receive.hashrings: {place}")), "{log}");
    }
    let elsewhere = r#"[{"endpoints": ["127.0.0.1:1", "$b"]}]"#;
    put(elsewhere);
    let log = refused(&sites[0]);
    let text = format!(
        "--receive.local-endpoint: no ring of --receive.hashrings-file has the endpoint {}",
        endpoint(0)
    );
    assert!(log.contains(&text), "{log}");

    let good = r#"[{"hashring": "good", "endpoints": ["$a", "$b"]}]"#;
    put(good);
    let processes = [sites[0].start().await, sites[1].start().await];
    let up = format!("weir_replication_peer_up{{peer=\"{}\"}}", endpoint(1));
    wait_for("a stream", async || (sites[0].metric(&up).await? == 1.0).then_some(())).await;
    let t = now_ms() - 100_000;
    let mut times = BTreeSet::new();
    let metric = async |name: &str| sites[0].metric(&format!("thanos_receive_{name}")).await.unwrap();
    let bad = BAD_RINGS.iter().map(|(text, _)| *text).chain([elsewhere]);
    for (index, text) in bad.enumerate() {
        put(text);
        wait_for("the fault is counted", async || {
            (metric("hashrings_file_errors_total").await == index as f64 + 1.0).then_some(())
        })
        .await;
        assert_eq!(metric("config_last_reload_successful").await, 0.0);
        let t = t + 1000 * index as i64;
        write(&sites[0], 0..20, t).await.unwrap();
        times.insert(t);
    }
    // One of two copies is acknowledged, the other comes a little later.
    for site in &sites {
        wait_for("all copies", async || {
            let found = read(site).await;
            (found.len() == 20 && found.values().all(|found| *found == times)).then_some(())
        })
        .await;
    }
    put(good);
    wait_for("the ring is good", async || {
        (metric("config_last_reload_successful").await == 1.0).then_some(())
    })
    .await;
    processes.into_iter().for_each(Process::stop);
}

/// Four copies over zones of four nodes and one: the small zone has one of each, and every node exactly
/// what the file says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_copies_over_uneven_zones_are_where_the_file_says() {
    let temp = tempfile::tempdir().unwrap();
    let ring = temp.path().join("ring.json");
    let zones = ["a", "a", "a", "a", "b"];
    let sites: Vec<NodeSite> =
        (0..5).map(|node| on_ring(&temp.path().join(format!("n{node}")), &ring, 4, "ketama")).collect();
    let endpoint = |node: usize| format!("127.0.0.1:{}", sites[node].grpc_port);
    let endpoints: Vec<String> = (0..5)
        .map(|node| format!(r#"{{"address": "{}", "az": "{}"}}"#, endpoint(node), zones[node]))
        .collect();
    let text = format!(r#"[{{"endpoints": [{}]}}]"#, endpoints.join(", "));
    fs::write(&ring, &text).unwrap();
    let mut processes = Vec::new();
    for site in &sites {
        processes.push(site.start().await);
    }
    for peer in 1..5 {
        let up = format!("weir_replication_peer_up{{peer=\"{}\"}}", endpoint(peer));
        wait_for("a stream", async || (sites[0].metric(&up).await? == 1.0).then_some(())).await;
    }
    write(&sites[0], 0..100, now_ms() - 10_000).await.unwrap();
    let placed = StaticRing::build(&RingFile::parse(text.as_bytes()).unwrap(), 4, Algorithm::Ketama).unwrap();
    let placed = placed.ring_for(TENANT).unwrap();
    let mut copies = 0;
    for (node, site) in sites.iter().enumerate() {
        let is_owner = |series: &usize| {
            let labels = labels(*series);
            let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let mut owners = placed.owners(thanos_hash(TENANT, pairs)).iter();
            owners.any(|owner| placed.endpoint(*owner).address() == endpoint(node))
        };
        let owned: BTreeSet<usize> = (0..100).filter(is_owner).collect();
        let found = wait_for("all its copies", async || {
            Some(read(site).await).filter(|found| found.len() >= owned.len())
        })
        .await;
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), owned, "node {node}");
        copies += owned.len();
        assert_eq!(owned.len() == 100, zones[node] == "b", "only the node of the small zone has all");
    }
    assert_eq!(copies, 400);
    processes.into_iter().for_each(Process::stop);
}

/// Nodes that listen on `[::1]` alone send each other their copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_travel_over_ipv6() {
    let temp = tempfile::tempdir().unwrap();
    let ring = temp.path().join("ring.json");
    let port_v6 = || {
        let listener = std::net::TcpListener::bind("[::1]:0").expect("this test needs the address ::1");
        listener.local_addr().unwrap().port()
    };
    let ports = [port_v6(), port_v6()];
    let list = format!(r#"[{{"endpoints": ["[::1]:{}", "[::1]:{}"]}}]"#, ports[0], ports[1]);
    fs::write(&ring, list).unwrap();
    let mut sites = Vec::new();
    let mut processes = Vec::new();
    for (node, port) in ports.into_iter().enumerate() {
        let own = format!("--receive.local-endpoint=[::1]:{port}");
        let site = on_ring(&temp.path().join(format!("n{node}")), &ring, 2, "hashmod").with_flag(own);
        fs::create_dir_all(&site.dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .arg("receive")
            .arg(format!("--tsdb.path={}", site.tsdb_path().display()))
            .arg(format!("--remote-write.address=[::1]:{}", port_v6()))
            .arg(format!("--grpc-address=[::1]:{port}"))
            .arg(format!("--http-address=127.0.0.1:{}", site.http_port))
            .arg("--label=receive_replica=\"a\"")
            .args(&site.extra_flags);
        let url = command.get_args().find_map(|flag| flag.to_str()?.strip_prefix("--remote-write.address="));
        let url = format!("http://{}/api/v1/receive", url.unwrap());
        processes.push(Process::start("weir", command, site.dir.join("weir.log")));
        // Reading goes by way of IPv4.
        let near = tokio::net::TcpListener::bind(("127.0.0.1", site.grpc_port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = near.accept().await {
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(("::1", port)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        sites.push((site, url));
    }
    for (node, (site, _)) in sites.iter().enumerate() {
        site.wait_ready(&mut processes[node]).await;
    }
    for (node, (site, _)) in sites.iter().enumerate() {
        let up = format!("weir_replication_peer_up{{peer=\"[::1]:{}\"}}", ports[1 - node]);
        wait_for("a stream over IPv6", async || (site.metric(&up).await? == 1.0).then_some(())).await;
    }
    let t = now_ms() - 10_000;
    for (node, (_, url)) in sites.iter().enumerate() {
        let body = request(node * 20..node * 20 + 20, t);
        let answer = post(url, Some(TENANT.as_bytes()), body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // One of two copies is acknowledged, the other comes a little later.
    for (site, _) in &sites {
        wait_for("all copies", async || (read(site).await.len() == 40).then_some(())).await;
    }
    processes.into_iter().for_each(Process::stop);
}
