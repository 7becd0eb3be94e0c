use std::path::Path;

use super::*;
use crate::{cli::Values, test_http::get};

fn config(path: &Path, extra: &[(&str, &str)]) -> Config {
    let mut values = Values::default();
    values.push("label", "replica=\"a\"");
    values.push("tsdb.path", path.to_str().expect("UTF-8"));
    for flag in ["http-address", "grpc-address", "remote-write.address"] {
        if !extra.iter().any(|(name, _)| *name == flag) {
            values.push(flag, "127.0.0.1:0");
        }
    }
    for (name, value) in extra {
        values.push(name, *value);
    }
    Config::judge(&values).expect("valid")
}

async fn ready(readiness: &Readiness) {
    readiness.watch().wait_for(|phase| *phase == Phase::Ready).await.expect("the node lives");
}

#[tokio::test]
async fn a_node_starts_serves_and_stops() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("data");
    let node = Node::bind(config(&path, &[])).await.expect("binds");
    let (addresses, readiness) = (node.addresses().expect("bound"), node.readiness());
    let stop = CancellationToken::new();
    let run = tokio::spawn(node.run(stop.clone()));
    ready(&readiness).await;

    assert_eq!(get(addresses.http, "/-/ready").await, (200, "OK".to_owned()));
    let (_, metrics) = get(addresses.http, "/metrics").await;
    for line in [
        "thanos_status{check=\"ready\",component=\"receive\"} 1",
        "thanos_receive_replication_factor 1",
        "thanos_receive_replications_total{result=\"error\"} 0",
        "weir_http_connections{port=\"write\"} 0",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("\nprocess_resident_memory_bytes "), "{metrics}");
    assert_eq!(get(addresses.write, "/nothing").await.0, 404);

    stop.cancel();
    run.await.expect("does not panic").expect("was asked to stop");
    assert_eq!(readiness.phase(), Phase::Stopping);
    let again = Node::bind(config(&path, &[("http-address", &addresses.http.to_string())])).await;
    assert!(again.is_ok(), "ports and data directory are free again");
}

#[tokio::test]
async fn a_stop_during_the_start_is_heeded() {
    let root = tempfile::tempdir().expect("a directory");
    let node = Node::bind(config(root.path(), &[])).await.expect("binds");
    let readiness = node.readiness();
    let stop = CancellationToken::new();
    stop.cancel();
    node.run(stop).await.expect("was asked to stop");
    assert_eq!(readiness.phase(), Phase::Stopping);
}

#[tokio::test]
async fn what_is_taken_is_named() {
    let root = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["http-address", "grpc-address", "remote-write.address"] {
        let error = Node::bind(config(root.path(), &[(flag, &address)])).await.expect_err("is taken");
        let text = error.to_string();
        assert!(text.starts_with(&format!("--{flag}: cannot listen on {address}: ")), "{text}");
    }
    let _first = Node::bind(config(root.path(), &[])).await.expect("binds");
    let error = Node::bind(config(root.path(), &[])).await.expect_err("same directory").to_string();
    assert!(error.ends_with("is in use by another process"), "{error}");
}

#[test]
fn the_shorter_of_grace_and_drain_limit_counts() {
    let path = Path::new("x");
    let short = config(path, &[("http-grace-period", "1s"), ("grpc-grace-period", "2s")]);
    assert_eq!(write_options(&short).grace, Duration::from_secs(1));
    assert_eq!(grpc_grace(&short), Duration::from_secs(2));
    let long = config(path, &[("stop.drain-max", "4s")]);
    assert_eq!(write_options(&long).grace, Duration::from_secs(4));
    assert_eq!(grpc_grace(&long), Duration::from_secs(4));
}

#[tokio::test]
async fn a_task_that_ends_stops_the_node_and_is_named() {
    let stop = CancellationToken::new();
    for index in 0..4 {
        let mut sets: [TaskSet; 4] = Default::default();
        sets.iter_mut().for_each(|set| set.spawn("for ever", std::future::pending::<()>()));
        sets[index].spawn("uploads", async {});
        let error = supervise(&stop, None, sets.each_mut()).await.expect_err("a task has ended");
        assert_eq!(error.to_string(), "task \"uploads\" ended unexpectedly");
    }
    stop.cancel();
    let mut sets: [TaskSet; 4] = Default::default();
    supervise(&stop, None, sets.each_mut()).await.expect("was asked to stop");
}
