//! Nodes come and go under load: what moves, and that nothing that was acknowledged is out of reach at
//! any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_hashring::{
    ids::{NodeNumber, PoolName, Uid},
    ring::{Command, NodeState, RingState},
};

use super::{
    blocks::complete_blocks_in,
    copy_dir::copy_dir,
    harness::{NodeSite, Process, now_ms, wait_for},
    load::{TENANT, Times, assert_copies, by_series, note, read, write},
    prometheus::read_directory,
    ring::{RingCluster, wide_tenant},
};

const SLOTS: u32 = 256;
const SERIES: usize = 120;

/// Nodes that are written to and read from, and what they have acknowledged.
struct Load {
    sites: Mutex<Vec<Arc<NodeSite>>>,
    acknowledged: Mutex<Times>,
    bucket: PathBuf,
    /// How often all was read.
    rounds: AtomicUsize,
}

impl Load {
    /// Writes until `end`, to one node after the other. No request may fail.
    async fn write(self: Arc<Self>, end: watch::Receiver<bool>) {
        let mut t = now_ms() - 3_000_000;
        let mut turn = 0;
        while !*end.borrow() {
            t += 500;
            let sites = self.sites.lock().clone();
            for part in 0..2 {
                turn += 1;
                let series = (0..SERIES).filter(|series| series % 2 == part);
                write(&sites[turn % sites.len()], series.clone(), t).await.unwrap();
                let mut acknowledged = self.acknowledged.lock();
                series.for_each(|series| note(&mut acknowledged, series, t));
            }
        }
    }

    /// Reads until `end`, and looks each time whether all is there that was acknowledged before.
    async fn read(self: Arc<Self>, scratch: PathBuf, end: watch::Receiver<bool>) {
        loop {
            let (is_last, rounds) = (*end.borrow(), self.rounds.load(Ordering::Relaxed));
            // The nodes that a reader knows when it begins.
            let (acknowledged, sites) = (self.acknowledged.lock().clone(), self.sites.lock().clone());
            let mut found = Times::new();
            for site in &sites {
                merge(&mut found, read(site).await);
            }
            merge(&mut found, self.read_bucket(&scratch.join(rounds.to_string()), |_| true));
            for (series, times) in &acknowledged {
                let of_series = found.get(series);
                let missing: Vec<&i64> =
                    times.iter().filter(|t| !of_series.is_some_and(|found| found.contains(t))).collect();
                assert!(missing.is_empty(), "round {rounds}: series {series} lacks {missing:?}");
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
            if is_last {
                return;
            }
        }
    }

    /// What the bucket has from the nodes that are wanted, by their names.
    fn read_bucket(&self, scratch: &Path, is_wanted: impl Fn(&str) -> bool) -> Times {
        let mut blocks = complete_blocks_in(&self.bucket);
        blocks.retain(|block| {
            let meta = fs::read(self.bucket.join(block).join("meta.json")).unwrap();
            let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
            is_wanted(meta["thanos"]["labels"]["receive_replica"].as_str().unwrap())
        });
        for block in &blocks {
            copy_dir(&self.bucket.join(block), &scratch.join("blocks").join(block));
        }
        let mut found = Times::new();
        // Each block by itself: a database takes overlapping ones for compacted.
        for block in blocks {
            let alone = scratch.join("alone").join(&block);
            copy_dir(&scratch.join("blocks").join(&block), &alone.join(&block));
            merge(&mut found, by_series(&read_directory(&alone, &scratch.join("copy").join(&block))));
        }
        fs::remove_dir_all(scratch).unwrap_or_default();
        found
    }
}

fn merge(into: &mut Times, other: Times) {
    for (series, times) in other {
        into.entry(series).or_default().extend(times);
    }
}

fn owners(state: &RingState) -> Vec<BTreeSet<NodeNumber>> {
    let table = &state.mapping().pools[&PoolName::from(PoolName::DEFAULT)].table;
    table.rows().map(|(_, owners)| owners.iter().copied().collect()).collect()
}

fn slots(owners: &[BTreeSet<NodeNumber>]) -> BTreeMap<NodeNumber, usize> {
    let mut slots = BTreeMap::new();
    owners.iter().flatten().for_each(|owner| *slots.entry(*owner).or_default() += 1);
    slots
}

/// Checks the change of a ring: balanced within each zone to one slot, and hardly more moved than what
/// nodes have more than before.
fn check_change(before: &RingState, after: &RingState, what: &str) {
    let (old, new) = (owners(before), owners(after));
    let (had, has) = (slots(&old), slots(&new));
    let moved: usize = old.iter().zip(&new).map(|(old, new)| new.difference(old).count()).sum();
    let gained = |(node, slots): (&NodeNumber, &usize)| {
        slots.saturating_sub(had.get(node).copied().unwrap_or_default())
    };
    let least: usize = has.iter().map(gained).sum();
    println!("{what}: {moved} of {} placements moved, {least} at least; {has:?}", 3 * SLOTS);
    assert!(least > 0 && moved * 10 <= least * 11, "{what}: {moved} moved instead of {least}");
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for node in after.nodes() {
        if let Some(slots) = has.get(&node.number) {
            zones.entry(&node.zone).or_default().push(*slots);
        }
    }
    assert_eq!(zones.len(), 3);
    for (zone, slots) in zones {
        let (least, most) = (slots.iter().min().unwrap(), slots.iter().max().unwrap());
        assert!(most - least <= 1, "{what}: zone {zone} has {slots:?}");
        assert_eq!(slots.iter().sum::<usize>(), SLOTS as usize, "one owner of each slot in zone {zone}");
    }
}

fn uid_of(state: &RingState, name: &str) -> Uid {
    state.nodes().find(|node| node.name == name && !node.state.is_final()).unwrap().uid
}

/// 3 ▸ 4 ▸ 6 ▸ 5 nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_under_load() {
    let temp = tempfile::tempdir().unwrap();
    let bucket = temp.path().join("bucket");
    let objstore =
        format!("--objstore.config=type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    let slots_flag = format!("--cluster.slots={SLOTS}");
    let flags = [
        slots_flag.as_str(),
        objstore.as_str(),
        "--shipper.interval=200ms",
        "--ring.drain-read-grace=500ms",
        "--ring.leave-grace=1s",
    ];
    let mut cluster = RingCluster::new(temp.path(), 3, &flags);
    let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
    cluster.propose(0, &wide_tenant(TENANT, SLOTS)).await.unwrap();

    let shared = |cluster: &RingCluster, nodes: &[usize]| {
        nodes.iter().map(|node| Arc::new(cluster.sites[*node].clone())).collect::<Vec<_>>()
    };
    let load = Arc::new(Load {
        sites: Mutex::new(shared(&cluster, &[0, 1, 2])),
        acknowledged: Mutex::default(),
        bucket: bucket.clone(),
        rounds: AtomicUsize::new(0),
    });
    let (end, ended) = watch::channel(false);
    let writer = tokio::spawn(load.clone().write(ended.clone()));
    let reader = tokio::spawn(load.clone().read(temp.path().join("scratch"), ended));
    // Some requests with each ring.
    let some_requests = async || {
        let wanted = load.acknowledged.lock().values().map(BTreeSet::len).sum::<usize>() + 20 * SERIES;
        wait_for("requests", async || {
            (load.acknowledged.lock().values().map(BTreeSet::len).sum::<usize>() >= wanted).then_some(())
        })
        .await;
    };
    // Until the planner has nothing to do any more.
    let settled = async |cluster: &RingCluster, nodes: &[usize]| {
        wait_for("balance", async || {
            let state = cluster.state(0).await;
            let active = state.nodes().filter(|node| node.state == NodeState::Active).count();
            let has = slots(&owners(&state));
            let by_zone = |zone: &str| -> Vec<usize> {
                let of_zone = state.nodes().filter(|node| node.zone == zone);
                of_zone.filter_map(|node| has.get(&node.number).copied()).collect()
            };
            let is_even = |zone: &str| {
                let slots = by_zone(zone);
                slots.iter().max().zip(slots.iter().min()).is_some_and(|(most, least)| most - least <= 1)
            };
            let is_done = active == nodes.len()
                && has.len() == nodes.len()
                && ["z0", "z1", "z2"].iter().all(|zone| is_even(zone));
            is_done.then_some(state)
        })
        .await
    };
    some_requests().await;
    let three = cluster.state(0).await;

    cluster.add(temp.path(), &flags);
    processes.push(Some(cluster.sites[3].start().await));
    load.sites.lock().extend(shared(&cluster, &[3]));
    let four = settled(&cluster, &[0, 1, 2, 3]).await;
    check_change(&three, &four, "3 to 4 nodes");
    some_requests().await;

    for node in [4, 5] {
        cluster.add(temp.path(), &flags);
        processes.push(Some(cluster.sites[node].start().await));
        load.sites.lock().extend(shared(&cluster, &[node]));
    }
    let six = settled(&cluster, &[0, 1, 2, 3, 4, 5]).await;
    check_change(&four, &six, "4 to 6 nodes");
    some_requests().await;

    // One of the first three goes, and its disk with it.
    let leaver = uid_of(&six, "n2");
    let drain = Command::SetNodeState {
        uid: leaver,
        from: NodeState::Active,
        to: NodeState::Draining,
        reason: "test".to_owned(),
    };
    cluster.propose(0, &drain).await.unwrap();
    let state_of =
        async |cluster: &RingCluster, uid: Uid| cluster.state(0).await.node(uid).map(|node| node.state);
    wait_for("safe to delete", async || {
        (state_of(&cluster, leaver).await == Some(NodeState::Drained)).then_some(())
    })
    .await;
    let five = cluster.state(0).await;
    check_change(&six, &five, "6 to 5 nodes");
    let held = read(&cluster.sites[2]).await;
    assert_eq!(held.len(), SERIES, "it had slots of all series at some time");
    let uploaded = load.read_bucket(&temp.path().join("of-n2"), |node| node == "n2");
    assert_eq!(uploaded, held, "all that it held is in the bucket");
    load.sites.lock().retain(|site| site.grpc_port != cluster.sites[2].grpc_port);
    some_requests().await;
    // The round that had begun with this node, and one without it.
    let rounds = load.rounds.load(Ordering::Relaxed);
    wait_for("reads without the node", async || {
        (load.rounds.load(Ordering::Relaxed) >= rounds + 2).then_some(())
    })
    .await;
    processes[2].take().unwrap().stop();
    fs::remove_dir_all(&cluster.sites[2].dir).unwrap();
    wait_for("the node has left", async || {
        let state = cluster.state(0).await;
        state.tombstone(leaver).is_some().then_some(())
    })
    .await;
    some_requests().await;

    end.send(true).unwrap();
    writer.await.unwrap();
    reader.await.unwrap();
    let rounds = load.rounds.load(Ordering::Relaxed);
    assert!(rounds >= 5, "{rounds} rounds of reading");
    let sites = load.sites.lock().clone();
    for site in sites {
        let refused = site.metric("weir_replication_batches_refused_total{reason=\"not_owner\"}").await;
        assert_eq!(refused, Some(0.0));
    }
    processes.into_iter().flatten().for_each(Process::stop);
}

/// A node dies, and one with its name and an empty disk takes its place by itself. No request fails, also
/// none that was split by the ring before: the new ring takes no such batch any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_under_load() {
    let temp = tempfile::tempdir().unwrap();
    let slots = format!("--cluster.slots={SLOTS}");
    // Nodes other than the leader hear of a new ring with its next heartbeat, later than an owner waits for it.
    let late = "--raft.heartbeat-interval=400ms";
    let flags = [&*slots, late, "--ring.replace-grace=1s", "--replication.failure-timeout=30s"];
    let cluster = RingCluster::new(temp.path(), 3, &flags);
    let mut processes: Vec<Option<Process>> = cluster.start().await.into_iter().map(Some).collect();
    cluster.propose(0, &wide_tenant(TENANT, SLOTS)).await.unwrap();
    let before = cluster.state(0).await;
    let old = uid_of(&before, "n1");

    let alive: Vec<_> = [0, 2].map(|node| Arc::new(cluster.sites[node].clone())).into();
    let (end, ended) = watch::channel(false);
    // Several requests are under way whenever the ring changes.
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (ended, alive) = (ended.clone(), alive.clone());
            tokio::spawn(async move {
                let series = writer * SERIES..(writer + 1) * SERIES;
                let mut acknowledged = Times::new();
                let mut t = now_ms() - 3_000_000;
                while !*ended.borrow() {
                    t += 500;
                    for site in &alive {
                        t += 1;
                        write(site, series.clone(), t).await.unwrap();
                        series.clone().for_each(|series| note(&mut acknowledged, series, t));
                    }
                }
                acknowledged
            })
        })
        .collect();
    processes[1].take().unwrap().kill();
    fs::remove_dir_all(&cluster.sites[1].dir).unwrap();
    processes[1] = Some(cluster.sites[1].start().await);
    let after = wait_for("the new node has the place of the old one", async || {
        let state = cluster.state(0).await;
        let new = state.nodes().find(|node| node.name == "n1" && node.uid != old)?.number;
        let owners = owners(&state);
        owners.iter().all(|owners| owners.contains(&new)).then_some(state)
    })
    .await;
    assert!(after.tombstone(old).is_some() && after.min_write_epoch() > before.epoch());
    cluster.wait_for_ring(1).await;
    let t = now_ms();
    end.send(true).unwrap();
    let mut acknowledged = Times::new();
    for writer in writers {
        merge(&mut acknowledged, writer.await.unwrap());
    }
    write(&cluster.sites[1], 0..SERIES, t).await.unwrap();
    (0..SERIES).for_each(|series| note(&mut acknowledged, series, t));
    let found = [read(&cluster.sites[0]).await, read(&cluster.sites[1]).await, read(&cluster.sites[2]).await];
    assert_copies(&acknowledged, &found, 2);
    assert!((0..SERIES).all(|series| found[1].get(&series).is_some_and(|times| times.contains(&t))));
    processes.into_iter().flatten().for_each(Process::stop);
}
