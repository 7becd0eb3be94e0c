//! `weir ring` and `weir node` as processes: exit codes, and what goes to standard output and standard error.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{
    harness::{free_port, wait_for},
    ring::RingCluster,
};

/// What a process left behind.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program to its end, without a terminal.
fn weir(arguments: &str, address: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments.split(' ')).arg(format!("--address={address}")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// It did what it was told: the report alone is on standard output.
fn report(arguments: &str, address: &str) -> Ended {
    let ended = weir(arguments, address);
    assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
    ended
}

/// It did nothing: nothing is on standard output, and standard error ends with why, in one line.
fn fails(arguments: &str, address: &str, code: i32, why: &str) -> String {
    let ended = weir(arguments, address);
    assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{arguments}: {ended:?}");
    let last = ended.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("weir: ") && last.contains(why), "{arguments}: {ended:?}");
    ended.err
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_shown_and_changed_from_the_command_line() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 1, &["--receive.replication-factor=1"]);
    let processes = cluster.start().await;
    let address = format!("127.0.0.1:{}", cluster.cluster_ports[0]);

    // The leader hears of itself a moment after it leads.
    wait_for("a cluster that is well", async || {
        let status = report("ring status --json", &address);
        assert_eq!(status.err, "");
        let json: Value = serde_json::from_str(&status.out).unwrap();
        assert_eq!((&json["leader"], &json["nodes"][0]["slots"]), (&"n0".into(), &4096.into()));
        (json["warnings"] == serde_json::json!([])).then_some(())
    })
    .await;
    let status = report("ring status", &address);
    assert_eq!(status.err, "");
    assert!(
        status.out.starts_with("cluster     ") && status.out.contains("\nleader      n0\n"),
        "{status:?}"
    );
    assert!(!status.out.contains("warning"), "{status:?}");
    let list = report("node list", &address);
    assert_eq!(list.err, "");
    let mut lines = list.out.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("NAME  UID")), "{list:?}");
    assert!(lines.next().is_some_and(|line| line.starts_with("n0 ") && line.contains(&address)), "{list:?}");
    assert_eq!(lines.next(), None);

    // A plan that is shown before a change is no report.
    let shown = fails("node weight n0 3", &address, 2, "--yes is needed");
    assert!(shown.starts_with("the weight of n0 is 3, from 1\n"), "{shown}");
    let dry = report("node weight n0 3 --dry-run --json", &address);
    assert_eq!(dry.err, "");
    assert_eq!(serde_json::from_str::<Value>(&dry.out).unwrap()["change"], "the weight of n0 is 3, from 1");
    let changed = report("node weight n0 3 --yes --json", &address);
    assert_eq!(serde_json::from_str::<Value>(&changed.out).unwrap()["changed"], true);
    assert!(changed.err.starts_with("the weight of n0 is 3, from 1\n"), "{changed:?}");

    // What the command sees itself, and what the leader refuses.
    let stays = "n0 cannot be drained, its slots would stay: 0 nodes may own slots, 1 are needed";
    fails("node drain n0 --yes", &address, 1, stays);
    fails("node forget n9 --yes", &address, 1, "there is no node \"n9\"; there are: n0");
    fails("ring raft demote n0 --yes", &address, 1, "the leader chooses the voters");
    let snapshot = report("ring raft snapshot", &address);
    assert_eq!(
        (snapshot.out.as_str(), snapshot.err.as_str()),
        ("done: the leader has taken a snapshot\n", "")
    );
    // Each change, and each attempt, is one line of the log.
    for (what, outcome) in [
        ("UpdateNode", "Done"),
        ("take a snapshot", "Done"),
        ("becomes no voter", "refused: the leader chooses the voters"),
    ] {
        let log = processes[0].log();
        let is_it = |line: &&str| line.contains("a command of an administrator") && line.contains(what);
        let lines: Vec<&str> = log.lines().filter(is_it).collect();
        assert!(
            matches!(lines[..], [line] if line.contains(outcome) && line.contains("127.0.0.1:")),
            "{what}: {log}"
        );
    }
    processes.into_iter().for_each(super::harness::Process::stop);
}

#[test]
fn without_a_cluster_there_is_an_error_and_nothing_else() {
    let nobody = format!("127.0.0.1:{}", free_port());
    for arguments in
        ["ring status", "ring status --json", "ring where up", "node list", "node forget a --yes"]
    {
        let err = fails(arguments, &nobody, 1, &format!("no connection to {nobody}: "));
        assert_eq!(err.lines().count(), 1, "{arguments}: {err}");
    }
    fails("ring status", "nowhere", 2, "\"nowhere\" is no address");
    for (arguments, why) in [
        ("ring what", "unrecognized subcommand 'what'"),
        ("node drain", "required arguments were not provided"),
        ("node weight a 0", "invalid value '0'"),
        ("ring status --timeout=3", "invalid value '3'"),
    ] {
        let ended = weir(arguments, &nobody);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments}: {ended:?}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains(why), "{arguments}: {ended:?}");
    }
    let help = report("ring --help", &nobody);
    assert!(
        help.out.contains("Exit codes: 0 done, 1 failed, 2 wrong usage.") && help.err.is_empty(),
        "{help:?}"
    );
}
