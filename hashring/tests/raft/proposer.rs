//! A process with a node that is a cluster alone, and proposes until it is ended.

use std::path::Path;

use weir_hashring::raft::{Identity, InitializeFailed, RaftId, RaftNode, memory::MemoryNetwork};

use crate::{
    cluster::{Ledger, peer, quick_config},
    writer::{child_dir, tell},
};

/// Runs `work` with a node that leads.
fn with_node<T>(path: &Path, work: impl AsyncFnOnce(&RaftNode<Ledger>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = Identity { id: RaftId(1), cluster: "test".to_owned(), generation: 1 };
        let network = MemoryNetwork::default();
        let node = RaftNode::start(quick_config(), identity, path, network).await.unwrap();
        let founded = node.initialize(&[peer(1)]).await;
        assert!(matches!(founded, Ok(()) | Err(InitializeFailed::AlreadyMember)), "{founded:?}");
        node.wait_for_status(|status| status.is_leader).await.unwrap();
        node.read_barrier().await.unwrap();
        let result = work(&node).await;
        node.shutdown().await;
        result
    })
}

/// How many commands a node finds in a directory. The n-th must say so.
pub fn commands_in(path: &Path) -> u64 {
    with_node(path, async |node| {
        let machine = node.watch().borrow().machine.clone();
        for (number, line) in machine.lines.iter().enumerate() {
            assert_eq!(*line, number.to_string());
        }
        machine.lines.len() as u64
    })
}

/// Proposes so many commands, and reports how many there are with each answer.
fn propose(path: &Path, commands: u64, report: impl Fn(&str, u64)) {
    report("opening", 0);
    with_node(path, async |node| {
        let first = node.watch().borrow().machine.lines.len() as u64;
        for number in first..first.saturating_add(commands) {
            let count = node.propose(&number.to_string()).await.unwrap();
            assert_eq!(count as u64, number + 1);
            report("entry", number + 1);
        }
    });
}

/// As a test of its own: what is answered is found. As another process: proposes until it is ended.
#[test]
fn proposes() {
    if let Some(path) = child_dir() {
        return propose(&path, u64::MAX, tell);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        propose(dir.path(), 30, |_, _| ());
        assert_eq!(commands_in(dir.path()), round * 30);
    }
}
