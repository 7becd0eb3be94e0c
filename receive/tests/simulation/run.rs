//! One run: faults for a while, then healing, and all must be well again.

use std::{cell::RefCell, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use turmoil::{Builder, Sim};
use weir_hashring::{
    cluster::{ClusterStatus, RingRecord},
    ring::NodeState,
};

use crate::{
    chance::Chance,
    clients::{self, LastAcks},
    faults::Nemesis,
    network::Sky,
    operator::{self, Hosts, Jobs},
    options::{HOSTS_MAX, Options},
    oracle::{Oracle, Summary},
};

const TICK: Duration = Duration::from_millis(10);
/// How many ticks are between two looks at terms and leaders.
const TICKS_PER_LOOK: u64 = 5;
/// How many ticks are between two copies of the ring on disk, for a disk that forgets.
const TICKS_PER_COPY: u64 = 700;
/// All must be one again so soon after the last fault.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// Nothing changes for so long when the leader has nothing more to do.
const STILL: Duration = Duration::from_secs(4);
/// A write to any host succeeds within this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

thread_local! {
    /// What a task of this thread panicked with.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Tells runs of panics, which tasks keep to themselves.
pub fn notice_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANIC.with(|kept| *kept.borrow_mut() = Some(panic.to_string()));
            before(panic);
        }));
    });
}

/// Runs a seed; what was wrong, if anything was.
pub fn run(options: Options) -> (Summary, Result<(), String>) {
    PANIC.with(|kept| kept.borrow_mut().take());
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("there is room for small files");
    let mut run = Run::new(options, dir.path());
    let result = run.all();
    (run.oracle.summary(), result)
}

struct Run<'a> {
    sim: Sim<'a>,
    oracle: Arc<Oracle>,
    hosts: Hosts,
    jobs: Arc<Jobs>,
    acks: LastAcks,
    nemesis: Nemesis,
    seen: BTreeMap<usize, Arc<RingRecord>>,
    ticks: u64,
}

impl Run<'_> {
    fn new(options: Options, dir: &Path) -> Run<'static> {
        let mut sim = Builder::new()
            .rng_seed(options.seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(1))
            .udp_capacity(65_536)
            .build();
        let options = Arc::new(options);
        let (oracle, hosts) = (Arc::new(Oracle::default()), Hosts::default());
        let (jobs, acks, sky) =
            (Arc::new(Jobs::default()), LastAcks::default(), Arc::new(Mutex::new(Sky::default())));
        let mut chance = Chance::of(options.seed, &[0xc1]);
        let mut nemesis = Nemesis::new(
            Arc::clone(&options),
            Arc::clone(&oracle),
            Arc::clone(&hosts),
            Arc::clone(&jobs),
            Arc::clone(&sky),
            dir.to_owned(),
        );
        for _ in 0..options.founders {
            nemesis.start_host(&mut sim);
        }
        sim.client(
            "clients",
            clients::run(Arc::clone(&hosts), Arc::clone(&acks), Arc::clone(&sky), chance.next()),
        );
        sim.client("operator", operator::run(Arc::clone(&hosts), Arc::clone(&jobs), sky, chance.next()));
        Run { sim, oracle, hosts, jobs, acks, nemesis, seen: BTreeMap::new(), ticks: 0 }
    }

    fn all(&mut self) -> Result<(), String> {
        let faulty = self.nemesis.options.faulty;
        while self.sim.elapsed() < faulty {
            self.nemesis.step(&mut self.sim);
            self.tick()?;
        }
        self.nemesis.heal(&mut self.sim);
        self.until_healed()?;
        self.until_written()?;
        self.oracle.check_samples(&self.alive());
        self.oracle.wrong().map_or(Ok(()), Err)
    }

    fn tick(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("the simulation ends: {error}"))?;
        self.ticks += 1;
        let hosts = self.hosts.lock().clone();
        for host in &hosts {
            let Some(running) = host.running() else { continue };
            let record = running.record();
            let is_new = self.seen.get(&host.index).is_none_or(|seen| !Arc::ptr_eq(seen, &record));
            if is_new && record.state.cluster().is_some() {
                self.oracle.sees(host.index, running.node.uid(), &record);
                self.seen.insert(host.index, record);
            }
            if self.ticks.is_multiple_of(TICKS_PER_LOOK) {
                self.oracle.hears(host.index, &running.node.status());
            }
            if self.ticks.is_multiple_of(TICKS_PER_COPY) {
                host.disk.remember_ring();
            }
        }
        if let Some(panic) = PANIC.with(|kept| kept.borrow_mut().take()) {
            return Err(format!("a panic: {panic}"));
        }
        self.oracle.wrong().map_or(Ok(()), Err)
    }

    /// The hosts that did not leave.
    fn alive(&self) -> Vec<usize> {
        self.hosts.lock().iter().filter(|host| !host.is_gone()).map(|host| host.index).collect()
    }

    fn until_healed(&mut self) -> Result<(), String> {
        let deadline = self.sim.elapsed() + HEALED_WITHIN;
        let mut still_since = self.sim.elapsed();
        let mut last = None;
        loop {
            self.tick()?;
            let now = self.sim.elapsed();
            let common = self.common_ring();
            if common.is_none() || common != last || self.jobs.open() > 0 {
                (last, still_since) = (common, now);
            }
            if now - still_since > STILL {
                return Ok(());
            }
            if now > deadline {
                let hosts = self.hosts.lock().clone();
                let status: Vec<Option<ClusterStatus>> =
                    hosts.iter().map(|host| Some(host.running()?.node.status())).collect();
                return Err(format!(
                    "not one cluster within {HEALED_WITHIN:?}, with {} open jobs: {status:#?}",
                    self.jobs.open()
                ));
            }
        }
    }

    /// What names the ring that all use, if there is one leader and every node has settled.
    fn common_ring(&self) -> Option<(u64, u64, u64)> {
        let hosts = self.hosts.lock().clone();
        let mut names = Vec::new();
        let mut leaders = 0;
        for host in hosts.iter().filter(|host| !host.is_gone()) {
            let running = host.running()?;
            let record = running.record();
            let ring = &record.state;
            ring.node(running.node.uid()).filter(|node| node.state == NodeState::Active)?;
            names.push((ring.epoch().0, ring.digest().0, ring.nodes_version().0));
            let is_leader = running.node.status().raft.is_some_and(|raft| raft.is_leader);
            leaders += usize::from(is_leader);
        }
        names.dedup();
        match names[..] {
            [name] if leaders == 1 => Some(name),
            _ => None,
        }
    }

    fn until_written(&mut self) -> Result<(), String> {
        let start = self.sim.elapsed();
        loop {
            self.tick()?;
            let acks = self.acks.lock().clone();
            let open: Vec<usize> =
                self.alive().into_iter().filter(|host| acks.get(host).is_none_or(|at| *at < start)).collect();
            if open.is_empty() {
                return Ok(());
            }
            if self.sim.elapsed() > start + WRITTEN_WITHIN {
                return Err(format!("writes to hosts {open:?} do not succeed within {WRITTEN_WITHIN:?}"));
            }
        }
    }
}

const _: () = assert!(HOSTS_MAX >= 5, "there are up to five founders");
