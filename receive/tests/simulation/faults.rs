//! What goes wrong, and when.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use turmoil::Sim;
use weir_hashring::{ids::PoolName, ring::NodeState};

use crate::{
    chance::Chance,
    disk::HostDisk,
    host::{Host, name},
    network::{Sky, Weather},
    operator::{Hosts, Job, Jobs, newest},
    options::{Fault, HOSTS_MAX, Options},
    oracle::Oracle,
};

/// Does harm, and undoes it.
pub struct Nemesis {
    pub options: Arc<Options>,
    pub oracle: Arc<Oracle>,
    pub hosts: Hosts,
    pub jobs: Arc<Jobs>,
    pub sky: Arc<Mutex<Sky>>,
    chance: Chance,
    dir: std::path::PathBuf,
    next: Duration,
    undo: Vec<(Duration, Undo)>,
    down: BTreeSet<usize>,
    has_moved: bool,
    has_wiped: bool,
}

#[derive(Clone, Debug)]
enum Undo {
    Partition(usize, usize),
    OneWay(usize, usize),
    Weather,
    Link(IpAddr, IpAddr),
    Down(usize),
}

impl Nemesis {
    pub fn new(
        options: Arc<Options>,
        oracle: Arc<Oracle>,
        hosts: Hosts,
        jobs: Arc<Jobs>,
        sky: Arc<Mutex<Sky>>,
        dir: std::path::PathBuf,
    ) -> Nemesis {
        let mut chance = Chance::of(options.seed, &[0xfa]);
        let next = Duration::from_millis(chance.between(500, 12_000));
        sky.lock().everywhere = Weather { lost: 0, delay_max: options.delay_max };
        Nemesis {
            options,
            oracle,
            hosts,
            jobs,
            sky,
            chance,
            dir,
            next,
            undo: Vec::new(),
            down: BTreeSet::new(),
            has_moved: false,
            has_wiped: false,
        }
    }

    /// Starts the next host.
    pub fn start_host(&mut self, sim: &mut Sim<'_>) {
        let index = self.hosts.lock().len();
        let options = &self.options;
        let chance = Chance::of(options.seed, &[0xd15c, index as u64]);
        let disk = HostDisk::new(self.dir.join(name(index)), chance, options.sync_max, options.mutant);
        let sky = Arc::clone(&self.sky);
        let host = Arc::new(Host::new(index, disk, Arc::clone(&self.oracle), Arc::clone(options), sky));
        self.hosts.lock().push(Arc::clone(&host));
        sim.host(name(index), move || Arc::clone(&host).run());
    }

    /// Does what it is time for.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Duration, Undo)> = due;
        due.into_iter().for_each(|(_, undo)| self.undo(sim, undo));
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(self.chance.between(200, self.options.fault_pause_max));
        let fault = self.chance.pick(&self.options.faults).expect("there are faults");
        let until = now + Duration::from_millis(self.chance.between(200, 9000));
        self.oracle.note(HOSTS_MAX, (format!("{fault:?}"), until));
        tracing::info!(?fault, ?now, ?until, "a fault");
        self.harm(sim, fault, until);
    }

    /// Ends all harm.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        let undo = std::mem::take(&mut self.undo);
        undo.into_iter().for_each(|(_, undo)| self.undo(sim, undo));
    }

    fn up(&self) -> Vec<usize> {
        let hosts = self.hosts.lock();
        hosts
            .iter()
            .filter(|host| !self.down.contains(&host.index) && !host.is_gone() && host.running().is_some())
            .map(|host| host.index)
            .collect()
    }

    fn host(&self, index: usize) -> Arc<Host> {
        Arc::clone(&self.hosts.lock()[index])
    }

    fn harm(&mut self, sim: &mut Sim<'_>, fault: Fault, until: Duration) {
        let count = self.hosts.lock().len();
        let up = self.up();
        match fault {
            Fault::Partition => {
                let side: Vec<bool> = (0..count).map(|_| self.chance.one_in(2)).collect();
                for one in 0..count {
                    for other in (0..one).filter(|other| side[one] != side[*other]) {
                        sim.partition(name(one), name(other));
                        self.undo.push((until, Undo::Partition(one, other)));
                    }
                }
            }
            Fault::OneWay => {
                let from = self.chance.between(0, count as u64) as usize;
                let to = self.chance.between(0, count as u64) as usize;
                if from != to {
                    sim.partition_oneway(name(from), name(to));
                    self.undo.push((until, Undo::OneWay(from, to)));
                }
            }
            Fault::Loss => {
                let lost = self.chance.between(10, 300);
                self.sky.lock().everywhere.lost = lost;
                self.undo.push((until, Undo::Weather));
            }
            Fault::Slow => {
                let from = sim.lookup(name(self.chance.between(0, count as u64) as usize));
                let to = sim.lookup(name(self.chance.between(0, count as u64) as usize));
                let delay_max = self.chance.between(200, 3000);
                self.sky.lock().links.insert((from, to), Weather { lost: 0, delay_max });
                self.undo.push((until, Undo::Link(from, to)));
            }
            Fault::Crash => {
                if let Some(host) = self.chance.pick(&up) {
                    self.crash(sim, host, until);
                }
            }
            Fault::CrashMany => {
                let share = self.chance.between(1, 4);
                for host in up {
                    if share == 1 || !self.chance.one_in(share) {
                        let more = Duration::from_millis(self.chance.between(0, 500));
                        self.crash(sim, host, until.min(sim.elapsed() + Duration::from_secs(2)) + more);
                    }
                }
            }
            Fault::Move => {
                // The others hear of it by the ring, so one at a time.
                let all_up = up.len() == count;
                if let Some(host) =
                    self.chance.pick(&up).filter(|_| all_up && !self.has_moved && self.is_founded())
                {
                    self.has_moved = true;
                    self.crash(sim, host, until);
                    self.host(host).move_away();
                }
            }
            Fault::Wipe => self.wipe(sim, &up, until),
            Fault::Join => {
                if count < HOSTS_MAX && self.is_founded() {
                    self.start_host(sim);
                }
            }
            Fault::Drain => self.drain(&up),
        }
    }

    /// Copies of a disk that is lost come from nowhere, so it happens once.
    fn wipe(&mut self, sim: &mut Sim<'_>, up: &[usize], until: Duration) {
        let Some(ring) = newest(&self.hosts).filter(|_| !self.has_wiped && self.is_founded()) else { return };
        let Some(index) = self.chance.pick(up) else { return };
        let host = self.host(index);
        let Some(uid) = host.running().map(|running| running.node.uid()) else { return };
        // What leaves is left in peace; it may have told that it is uploaded.
        let is_active = ring.state.node(uid).is_some_and(|node| node.state == NodeState::Active);
        if !is_active || self.jobs.open() > 0 {
            return;
        }
        self.has_wiped = true;
        self.crash(sim, index, until);
        host.disk.wipe();
        if self.options.mutant != Some(crate::mutant::Mutant::IdReused) {
            self.jobs.add(Job::Replace(uid, index));
        }
    }

    fn drain(&mut self, up: &[usize]) {
        let Some(ring) = newest(&self.hosts).filter(|_| self.jobs.open() == 0) else { return };
        let active = ring.state.nodes().filter(|node| node.state == NodeState::Active).count();
        let joined: Vec<usize> = up.iter().copied().filter(|host| *host >= self.options.founders).collect();
        let Some(index) = self.chance.pick(&joined) else { return };
        let Some(running) = self.host(index).running() else { return };
        let uid = running.node.uid();
        let is_active = ring.state.node(uid).is_some_and(|node| node.state == NodeState::Active);
        if is_active && active > 3 {
            self.jobs.add(Job::Drain(uid, index));
        }
    }

    /// True once all founders know who owns what.
    fn is_founded(&self) -> bool {
        let pool = PoolName::from(PoolName::DEFAULT);
        newest(&self.hosts).is_some_and(|ring| {
            let has_table = ring.state.mapping().pools.get(&pool).is_some_and(|pool| !pool.table.is_empty());
            has_table && ring.state.nodes().count() >= self.options.founders
        })
    }

    fn crash(&mut self, sim: &mut Sim<'_>, index: usize, until: Duration) {
        let host = self.host(index);
        host.stopped();
        sim.crash(name(index));
        host.disk.crash();
        self.down.insert(index);
        self.undo.push((until, Undo::Down(index)));
    }

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        tracing::info!(?undo, now = ?sim.elapsed(), "the end of a fault");
        match undo {
            Undo::Partition(one, other) => sim.repair(name(one), name(other)),
            Undo::OneWay(from, to) => sim.repair_oneway(name(from), name(to)),
            Undo::Weather => self.sky.lock().everywhere.lost = 0,
            Undo::Link(from, to) => drop(self.sky.lock().links.remove(&(from, to))),
            Undo::Down(index) => {
                self.down.remove(&index);
                sim.bounce(name(index));
            }
        }
    }
}
