//! A real Prometheus scrapes real targets and pushes to a node that is restarted under way.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_tsdb::{
    Labels, Sample,
    chunkenc::decode_floats,
    db::{Db, DbOptions},
    fs::StdFs,
    query::Query,
};

use super::{
    copy_dir::copy_dir,
    harness::{Content, NodeSite, Process, free_port, get, wait_for},
};

/// Time that samples are collected; the node is restarted in the middle.
const COLLECT: Duration = Duration::from_secs(120);

/// All float samples of a Prometheus data directory, bit by bit. Works on a copy.
pub fn read_directory(dir: &Path, scratch: &Path) -> Content {
    copy_dir(dir, scratch);
    let options = DbOptions { retention_ms: None, ..DbOptions::default() };
    let db = Db::open(Arc::new(StdFs), scratch.to_owned(), options).unwrap();
    let query = Query { mint: i64::MIN, maxt: i64::MAX, matchers: Vec::new(), series_limit: None };
    let selection = db.select(&query).unwrap();
    let mut content = Content::new();
    for index in 0..selection.len() {
        let samples = content.entry(selection.labels(index).clone()).or_default();
        for chunk in selection.chunks(index).unwrap() {
            samples.extend(decode_floats(chunk.encoding, &chunk.data).unwrap().map(Result::unwrap));
        }
    }
    content
}

/// What promtool of Prometheus 2.42 finds in a data directory: a judge that nobody here wrote. Its
/// text tells all floats apart but NaNs. Works on a copy.
pub fn promtool_dump(dir: &Path, scratch: &Path) -> Content {
    copy_dir(dir, scratch);
    fs::create_dir_all(scratch.join("wal")).unwrap();
    let output = Command::new("promtool").args(["tsdb", "dump"]).arg(scratch).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut content = Content::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        // {__name__="up", job="x"} 1 1700000000000
        let (series, rest) = line.rsplit_once("} ").unwrap();
        let (value, t) = rest.split_once(' ').unwrap();
        let labels =
            series.trim_start_matches('{').split("\", ").filter(|pair| !pair.is_empty()).map(|pair| {
                let (name, value) = pair.split_once("=\"").unwrap();
                (name, value.trim_end_matches('"').replace("\\\"", "\"").replace("\\\\", "\\"))
            });
        let sample = Sample::new(t.parse().unwrap(), value.parse().unwrap());
        content.entry(Labels::from_pairs(labels)).or_default().push(sample);
    }
    for samples in content.values_mut() {
        samples.sort_by_key(|sample| sample.t);
    }
    content
}

/// The same content with one bit pattern for all NaNs.
pub fn with_one_nan(content: &Content) -> Content {
    let one_nan = |sample: &Sample| match sample.value().is_nan() {
        true => Sample { t: sample.t, bits: f64::NAN.to_bits() },
        false => *sample,
    };
    content.iter().map(|(labels, samples)| (labels.clone(), samples.iter().map(one_nan).collect())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_of_a_real_prometheus_arrives_through_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(&temp.path().join("node"));
    let node = site.start().await;

    let port = free_port();
    let config = temp.path().join("prometheus.yml");
    let remote_write = format!(
        "global:\n  scrape_interval: 1s\n  external_labels:\n    edge: one\n\
         remote_write:\n- url: {url}\n  queue_config:\n    min_backoff: 30ms\n    max_backoff: 500ms\n",
        url = site.write_url(),
    );
    let scrapes = format!(
        "scrape_configs:\n\
         - job_name: prometheus\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n\
         - job_name: weir\n  static_configs:\n  - targets: ['127.0.0.1:{http}']\n\
         - job_name: absent\n  static_configs:\n  - targets: ['127.0.0.1:1']\n",
        http = site.http_port,
    );
    fs::write(&config, format!("{remote_write}{scrapes}")).unwrap();
    let data = temp.path().join("prometheus");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let begin = Instant::now();
    let prometheus = Process::start("prometheus", command, temp.path().join("prometheus.log"));

    while begin.elapsed() * 2 < COLLECT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.stop();
    let node = site.start().await;
    while begin.elapsed() < COLLECT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Without targets nothing new comes, but for the stale markers of the end. All of it has been
    // sent when the queue's count has caught up: it counts every attempt, so less those tried again.
    fs::write(&config, &remote_write).unwrap();
    prometheus.signal(rustix::process::Signal::HUP);
    let metrics_url = format!("http://127.0.0.1:{port}/metrics");
    let mut last_count = 0.0;
    let metrics = wait_for("the end of the queue", async || {
        let metrics = get(&metrics_url).await.unwrap().text();
        let value = |name: &str| -> f64 {
            let is_it = |line: &&str| line.split(['{', ' ']).next() == Some(name);
            metrics
                .lines()
                .filter(is_it)
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum()
        };
        let taken = value("prometheus_remote_storage_samples_in_total");
        let tried = value("prometheus_remote_storage_samples_total");
        let again = value("prometheus_remote_storage_samples_retried_total");
        let pending = value("prometheus_remote_storage_samples_pending");
        println!("queue: {taken} samples in, {tried} tried, {again} of them again, {pending} pending");
        let settled = taken == tried - again
            && pending == 0.0
            && taken == last_count
            && metrics.contains("prometheus_config_last_reload_successful 1");
        last_count = taken;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        settled.then_some(metrics)
    })
    .await;
    let dropped = metrics.lines().filter(|line| {
        let name = line.split('{').next().unwrap_or_default();
        ["prometheus_remote_storage_samples_dropped_total", "prometheus_remote_storage_samples_failed_total"]
            .contains(&name)
            && !line.ends_with(" 0")
    });
    assert_eq!(dropped.collect::<Vec<_>>(), [""; 0]);
    prometheus.stop();

    let sent = read_directory(&data, &temp.path().join("copy-1"));
    let judged = promtool_dump(&data, &temp.path().join("copy-2"));
    assert!(
        with_one_nan(&sent) == with_one_nan(&judged),
        "our reader and promtool agree about what was scraped"
    );
    let samples: usize = sent.values().map(Vec::len).sum();
    let stale =
        sent.values().flatten().filter(|sample| sample.bits == weir_tsdb::types::STALE_NAN_BITS).count();
    println!("{} series, {samples} samples, {stale} stale markers", sent.len());
    assert!(sent.len() > 500 && samples > 50_000, "{} series, {samples} samples", sent.len());

    // External labels are added by the sender, not kept in its own database.
    let sent: Content = sent
        .into_iter()
        .map(|(labels, samples)| {
            let mut builder = weir_tsdb::LabelsBuilder::from_labels(&labels);
            builder.set("edge", "one");
            (builder.build(), samples)
        })
        .collect();
    let found = site.read("default-tenant", i64::MIN, i64::MAX).await;
    super::harness::assert_same(&found, &sent, "read through StoreAPI");
    node.stop();
}
