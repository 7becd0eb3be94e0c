//! A real vmagent, which does not sort the labels of what it scrapes.

use std::{fs, process::Command};

use weir_tsdb::Labels;

use super::harness::{NodeSite, Process, free_port, get, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vmagent_pushes_without_a_refusal() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(&temp.path().join("node"));
    let node = site.start().await;
    let port = free_port();
    let config = temp.path().join("scrape.yml");
    let text = format!(
        "scrape_configs:\n- job_name: weir\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['127.0.0.1:{}']\n    \
         labels: {{zz: last, aa: first, Zone: upper}}\n",
        site.http_port
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("vmagent");
    command
        .arg(format!("-promscrape.config={}", config.display()))
        .arg(format!("-remoteWrite.url={}", site.write_url()))
        .arg(format!("-remoteWrite.tmpDataPath={}", temp.path().join("vmagent").display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"));
    let agent = Process::start("vmagent", command, temp.path().join("vmagent.log"));

    let appended = "prometheus_tsdb_head_samples_appended_total{tenant=\"default-tenant\",type=\"float\"}";
    wait_for("five scrapes", async || (site.metric(appended).await? > 2000.0).then_some(())).await;
    let up = |content: &super::harness::Content| {
        let instance = format!("127.0.0.1:{}", site.http_port);
        let labels = [
            ("__name__", "up"),
            ("job", "weir"),
            ("instance", &instance),
            ("zz", "last"),
            ("aa", "first"),
            ("Zone", "upper"),
        ];
        content.get(&Labels::from_pairs(labels)).cloned().unwrap_or_default()
    };
    wait_for("five samples of up", async || {
        let content = site.read("default-tenant", i64::MIN, i64::MAX).await;
        (up(&content).iter().filter(|sample| sample.value() == 1.0).count() >= 5).then_some(())
    })
    .await;
    let metrics = get(&format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text();
    let dropped =
        metrics.lines().filter(|line| line.starts_with("vmagent_remotewrite_packets_dropped_total"));
    assert!(dropped.clone().all(|line| line.ends_with(" 0")), "{:?}", dropped.collect::<Vec<_>>());
    let log = agent.log();
    assert!(!log.contains("unexpected status code"), "{log}");
    agent.stop();
    node.stop();
}
