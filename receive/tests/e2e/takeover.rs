//! One directory, two programs: Prometheus 2.42 opens what the node leaves, and the node takes over
//! what Prometheus leaves.

use std::{fs, path::Path, process::Command};

use weir_tsdb::Sample;

use super::{
    copy_dir::copy_dir,
    harness::{
        Content, NodeSite, Process, assert_same, free_port, get, now_ms, post, wait_for, write_request,
    },
    prometheus::{promtool_dump, read_directory, with_one_nan},
};

const STEP_MS: i64 = 15_000;
const SERIES: usize = 25;

fn sample(series: usize, t: i64) -> Sample {
    // Floats whose bits are easy to lose: many digits, both zeros, infinities.
    let value = match (series, (t / STEP_MS) % 50) {
        (0, 1) => -0.0,
        (0, 2) => f64::INFINITY,
        (0, 3) => f64::NEG_INFINITY,
        (0, 4) => f64::MIN_POSITIVE / 3.0,
        _ => series as f64 * 1e-3 + (t as f64 * 0.001).sin(),
    };
    Sample::new(t, value)
}

/// In which order samples are sent.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Ascending,
    /// Every third sample comes after those of the minutes that follow, the latest first.
    SomeLate,
}

/// Writes `steps` samples of each series to `url`, up to 50 per request, and returns what was sent.
async fn write_history(url: &str, first_t: i64, steps: i64, order: Order) -> Content {
    let mut sent = Content::new();
    for first in (0..steps).step_by(50) {
        let steps = first..(first + 50).min(steps);
        let is_late = |step: &i64| order == Order::SomeLate && step % 3 == 1;
        let times = |steps: Vec<i64>| steps.iter().map(|step| first_t + step * STEP_MS).collect::<Vec<_>>();
        let in_order = times(steps.clone().filter(|step| !is_late(step)).collect());
        let late = times(steps.rev().filter(is_late).collect());
        for times in [in_order, late].into_iter().filter(|times| !times.is_empty()) {
            send_samples(url, &times, &mut sent).await;
        }
    }
    sent.values_mut().for_each(|samples| samples.sort_by_key(|sample| sample.t));
    sent
}

/// Sends a sample of each series at each of `times`.
async fn send_samples(url: &str, times: &[i64], sent: &mut Content) {
    let names: Vec<String> = (0..SERIES).map(|series| series.to_string()).collect();
    let labels: Vec<[(&str, &str); 3]> =
        names.iter().map(|name| [("__name__", "takeover"), ("number", name), ("zone", "\"a\"\\b")]).collect();
    let samples: Vec<Vec<Sample>> =
        (0..SERIES).map(|series| times.iter().map(|&t| sample(series, t)).collect()).collect();
    let body =
        write_request(labels.iter().zip(&samples).map(|(labels, samples)| (&labels[..], &samples[..])));
    let answer = post(url, None, body).await.unwrap();
    assert!(answer.status / 100 == 2, "{}: {}", answer.status, answer.text());
    for (labels, samples) in labels.iter().zip(samples) {
        sent.entry(weir_tsdb::Labels::from_pairs(*labels)).or_default().extend(samples);
    }
}

fn prometheus(data: &Path, port: u16, log: &Path) -> Process {
    let config = log.with_extension("yml");
    fs::write(&config, "storage: {tsdb: {out_of_order_time_window: 30m}}\n").unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg("--web.enable-remote-write-receiver")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Process::start("prometheus", command, log.to_owned())
}

async fn wait_prometheus(port: u16) {
    wait_for("readiness of Prometheus", async || {
        let answer = get(&format!("http://127.0.0.1:{port}/-/ready")).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// All samples that a Prometheus server finds, asked for through its query API.
async fn query_prometheus(port: u16) -> Content {
    let url = format!("http://127.0.0.1:{port}/api/v1/query?query=%7B__name__%3D~%22.%2B%22%7D%5B30h%5D");
    let answer: serde_json::Value = serde_json::from_slice(&get(&url).await.unwrap().body).unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    let mut content = Content::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let labels = series["metric"].as_object().unwrap().iter();
        let labels =
            weir_tsdb::Labels::from_pairs(labels.map(|(name, value)| (name, value.as_str().unwrap())));
        let samples = series["values"].as_array().unwrap().iter().map(|pair| {
            let t = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            let value = match pair[1].as_str().unwrap() {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                number => number.parse().unwrap(),
            };
            Sample::new(t, value)
        });
        content.insert(labels, samples.collect());
    }
    content
}

/// Samples of a series in seven hours: enough for blocks, `chunks_head`, a checkpoint and log.
const SEVEN_HOURS_STEPS: i64 = 7 * 3600 * 1000 / STEP_MS;

/// Writes seven hours up to now, and waits until blocks are cut.
async fn write_seven_hours(site: &NodeSite, order: Order) -> Content {
    let first_t = now_ms() - SEVEN_HOURS_STEPS * STEP_MS;
    let sent = write_history(&site.write_url(), first_t, SEVEN_HOURS_STEPS, order).await;
    wait_for("blocks", async || {
        let blocks = site.metric("prometheus_tsdb_blocks_loaded{tenant=\"default-tenant\"}").await?;
        (blocks >= 2.0).then_some(())
    })
    .await;
    sent
}

/// Prometheus as the owner of a copy of the directory: it replays, maps, and may compact.
async fn check_prometheus_as_owner(data: &Path, temp: &Path, sent: &Content) {
    let copy = temp.join("prometheus-data");
    copy_dir(data, &copy);
    let port = free_port();
    let log = temp.join("prometheus.log");
    let server = prometheus(&copy, port, &log);
    wait_prometheus(port).await;
    assert_same(&query_prometheus(port).await, sent, "Prometheus as owner of the directory");
    server.stop();
    let log = fs::read_to_string(log).unwrap();
    let complaints = log.lines().filter(|line| {
        let is_loud =
            line.contains("level=error") || line.contains("level=warn") || line.contains("corruption");
        is_loud && !line.contains("Received SIGTERM")
    });
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_opens_the_directory_of_a_stopped_node() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(&temp.path().join("node")).with_flag("--tsdb.maintenance-interval=20ms");
    let node = site.start().await;
    let sent = write_seven_hours(&site, Order::Ascending).await;
    assert_same(&site.read("default-tenant", i64::MIN, i64::MAX).await, &sent, "StoreAPI before the stop");
    node.stop();

    let data = site.tenant_path("default-tenant");
    let dumped = promtool_dump(&data, &temp.path().join("dump"));
    assert_same(&dumped, &sent, "promtool tsdb dump");

    let list = Command::new("promtool").args(["tsdb", "list"]).arg(&data).output().unwrap();
    assert!(list.status.success());
    let listed = String::from_utf8(list.stdout).unwrap();
    let ids: Vec<&str> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(ids.len() >= 2, "{listed}");
    for id in ids {
        let analyze = Command::new("promtool").args(["tsdb", "analyze"]).arg(&data).arg(id).output().unwrap();
        assert!(analyze.status.success(), "{}", String::from_utf8_lossy(&analyze.stderr));
        let text = String::from_utf8(analyze.stdout).unwrap();
        assert!(text.contains(&format!("Series: {SERIES}")), "{text}");
        assert!(text.contains("Label names: 3"), "{text}");
    }

    check_prometheus_as_owner(&data, temp.path(), &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_over_the_directory_of_a_prometheus() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("prometheus");
    let port = free_port();
    let server = prometheus(&data, port, &temp.path().join("prometheus.log"));
    wait_prometheus(port).await;
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let steps = 5 * 3600 * 1000 / STEP_MS;
    let first_t = now_ms() - steps * STEP_MS;
    let mut sent = write_history(&url, first_t, steps, Order::Ascending).await;
    wait_for("a block of Prometheus", async || {
        let is_block = |name: &str| name.len() == 26 && name.starts_with("01");
        let names =
            fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.into_iter().any(|name| is_block(&name)).then_some(())
    })
    .await;
    server.stop();
    let kept = read_directory(&data, &temp.path().join("copy"));
    assert_same(&with_one_nan(&kept), &with_one_nan(&sent), "our reader on the directory of Prometheus");

    let site = NodeSite::new(&temp.path().join("node"));
    copy_dir(&data, &site.tenant_path("edge"));
    let node = site.start().await;
    assert_same(&site.read("edge", i64::MIN, i64::MAX).await, &sent, "taken over");

    // It goes on where Prometheus stopped, and everything is still there after kill -9.
    let t = first_t + steps * STEP_MS;
    let labels = [("__name__", "takeover"), ("number", "3"), ("zone", "\"a\"\\b")];
    let next = [sample(3, t)];
    let answer =
        post(&site.write_url(), Some(b"edge"), write_request([(&labels[..], &next[..])])).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    sent.get_mut(&weir_tsdb::Labels::from_pairs(labels)).unwrap().push(next[0]);
    node.kill();
    let node = site.start().await;
    assert_same(&site.read("edge", i64::MIN, i64::MAX).await, &sent, "taken over, written to, killed");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_the_late_samples_of_a_stopped_node() {
    let temp = tempfile::tempdir().unwrap();
    let site = NodeSite::new(&temp.path().join("node")).with_flag("--tsdb.maintenance-interval=20ms");
    let node = site.start().await;
    // Late samples in blocks, in chunks and in the log of their own.
    let sent = write_seven_hours(&site, Order::SomeLate).await;
    let name =
        "prometheus_tsdb_head_out_of_order_samples_appended_total{tenant=\"default-tenant\",type=\"float\"}";
    // All but those that nothing was sent before.
    assert!(site.metric(name).await.unwrap() > (SERIES as i64 * SEVEN_HOURS_STEPS) as f64 * 0.3);
    assert_same(&site.read("default-tenant", i64::MIN, i64::MAX).await, &sent, "StoreAPI before the stop");
    node.stop();

    check_prometheus_as_owner(&site.tenant_path("default-tenant"), temp.path(), &sent).await;

    let node = site.start().await;
    assert_same(&site.read("default-tenant", i64::MIN, i64::MAX).await, &sent, "after a restart");
    node.kill();
    let node = site.start().await;
    assert_same(&site.read("default-tenant", i64::MIN, i64::MAX).await, &sent, "after a kill");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_over_the_late_samples_of_a_prometheus() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("prometheus");
    let port = free_port();
    let server = prometheus(&data, port, &temp.path().join("prometheus.log"));
    wait_prometheus(port).await;
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let steps = 2 * 3600 * 1000 / STEP_MS;
    let sent = write_history(&url, now_ms() - steps * STEP_MS, steps, Order::SomeLate).await;
    server.stop();
    assert!(data.join("wbl").is_dir(), "Prometheus has taken samples out of order");

    let site = NodeSite::new(&temp.path().join("node"));
    copy_dir(&data, &site.tenant_path("edge"));
    let node = site.start().await;
    assert_same(&site.read("edge", i64::MIN, i64::MAX).await, &sent, "taken over");
    node.kill();
    let node = site.start().await;
    assert_same(&site.read("edge", i64::MIN, i64::MAX).await, &sent, "taken over and killed");
    node.stop();
}
