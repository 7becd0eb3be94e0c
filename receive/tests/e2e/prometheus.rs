//! A real Prometheus scrapes real targets and pushes to a node that is restarted under way.

use std::{
    fs,
    path::{Path, PathBuf},
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

/// A real Prometheus that scrapes itself and others, and pushes.
pub struct EdgePrometheus {
    process: Process,
    port: u16,
    config: PathBuf,
    data: PathBuf,
    /// The part of the configuration that stays when nothing is scraped any more.
    remote_write: String,
    queues: usize,
}

impl EdgePrometheus {
    /// Pushes to each of `urls`, and scrapes `targets` on this machine. What is sent to the first of them
    /// gets the label `via="0"`, to the second `via="1"`, and so on.
    pub fn start(dir: &Path, urls: &[String], targets: &[u16]) -> Self {
        fs::create_dir_all(dir).unwrap();
        let port = free_port();
        let mut remote_write = "global:\n  scrape_interval: 1s\nremote_write:\n".to_owned();
        for (via, url) in urls.iter().enumerate() {
            remote_write += &format!(
                "- url: {url}\n  write_relabel_configs:\n  - target_label: via\n    replacement: '{via}'\n  \
                 queue_config:\n    min_backoff: 30ms\n    max_backoff: 500ms\n"
            );
        }
        let mut scrapes = format!(
            "scrape_configs:\n- job_name: prometheus\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n\
             - job_name: absent\n  static_configs:\n  - targets: ['127.0.0.1:1']\n"
        );
        for target in targets {
            scrapes += &format!(
                "- job_name: weir-{target}\n  static_configs:\n  - targets: ['127.0.0.1:{target}']\n"
            );
        }
        let (config, data) = (dir.join("prometheus.yml"), dir.join("data"));
        fs::write(&config, format!("{remote_write}{scrapes}")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("prometheus", command, dir.join("prometheus.log"));
        Self { process, port, config, data, remote_write, queues: urls.len() }
    }

    /// The sum of a metric over all its series.
    async fn metric(&self, name: &str) -> Option<f64> {
        let metrics = get(&format!("http://127.0.0.1:{}/metrics", self.port)).await.ok()?.text();
        Some(sum_of(&metrics, name))
    }

    /// Waits until so many samples have been scraped.
    pub async fn has_scraped(&self, samples: f64) {
        wait_for("scraped samples", async || {
            (self.metric("prometheus_remote_storage_samples_in_total").await? >= samples).then_some(())
        })
        .await;
    }

    /// Stops scraping, waits until all is pushed, and stops. Returns all that was sent, by its own data
    /// directory, which promtool reads in the same way.
    pub async fn settle(self, scratch: &Path) -> Content {
        // Without targets nothing new comes, but for the stale markers of the end. All of it has been
        // sent when the queues' count has caught up: it counts every attempt, so less those tried again.
        fs::write(&self.config, &self.remote_write).unwrap();
        self.process.signal(rustix::process::Signal::HUP);
        let metrics_url = format!("http://127.0.0.1:{}/metrics", self.port);
        let mut last_count = 0.0;
        let metrics = wait_for("the end of the queue", async || {
            let metrics = get(&metrics_url).await.ok()?.text();
            let value = |name: &str| sum_of(&metrics, name);
            let taken = value("prometheus_remote_storage_samples_in_total") * self.queues as f64;
            let tried = value("prometheus_remote_storage_samples_total");
            let again = value("prometheus_remote_storage_samples_retried_total");
            let pending = value("prometheus_remote_storage_samples_pending");
            println!("queues: {taken} samples in, {tried} tried, {again} of them again, {pending} pending");
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
            [
                "prometheus_remote_storage_samples_dropped_total",
                "prometheus_remote_storage_samples_failed_total",
            ]
            .contains(&name)
                && !line.ends_with(" 0")
        });
        assert_eq!(dropped.collect::<Vec<_>>(), [""; 0]);
        self.process.stop();

        let sent = read_directory(&self.data, &scratch.join("copy-1"));
        let judged = promtool_dump(&self.data, &scratch.join("copy-2"));
        assert!(
            with_one_nan(&sent) == with_one_nan(&judged),
            "our reader and promtool agree about what was scraped"
        );
        let samples: usize = sent.values().map(Vec::len).sum();
        let is_stale = |sample: &&Sample| sample.bits == weir_tsdb::types::STALE_NAN_BITS;
        let stale = sent.values().flatten().filter(is_stale).count();
        println!("{} series, {samples} samples, {stale} stale markers", sent.len());
        let mut all = Content::new();
        for via in 0..self.queues {
            all.extend(sent.iter().map(|(labels, samples)| {
                let mut builder = weir_tsdb::LabelsBuilder::from_labels(labels);
                builder.set("via", &via.to_string());
                (builder.build(), samples.clone())
            }));
        }
        all
    }
}

/// The sum of a metric over all its series.
fn sum_of(metrics: &str, name: &str) -> f64 {
    let of_name = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    of_name.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

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
    let begin = Instant::now();
    let urls = [site.write_url()];
    let prometheus = EdgePrometheus::start(&temp.path().join("edge"), &urls, &[site.http_port]);
    while begin.elapsed() * 2 < COLLECT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.stop();
    let node = site.start().await;
    while begin.elapsed() < COLLECT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = prometheus.settle(temp.path()).await;
    let samples: usize = sent.values().map(Vec::len).sum();
    assert!(sent.len() > 500 && samples > 50_000, "{} series, {samples} samples", sent.len());
    let found = site.read("default-tenant", i64::MIN, i64::MAX).await;
    super::harness::assert_same(&found, &sent, "read through StoreAPI");
    node.stop();
}
