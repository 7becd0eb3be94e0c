//! What a run is made of, all of it by its seed.

use std::time::Duration;

use crate::{chance::Chance, mutant::Mutant};

/// Hosts that there may be.
pub const HOSTS_MAX: usize = 6;

/// What can go wrong, or is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Some hosts hear nothing of the others, and the others nothing of them.
    Partition,
    /// One link is cut in one direction.
    OneWay,
    /// Messages are lost.
    Loss,
    /// Messages take long.
    Slow,
    /// A host crashes and comes back.
    Crash,
    /// Some hosts crash at the same moment, maybe all.
    CrashMany,
    /// A host comes back at another address.
    Move,
    /// A host loses its disk, and comes back as another node under its name.
    Wipe,
    /// A host joins.
    Join,
    /// A host that joined leaves.
    Drain,
}

impl Fault {
    const ALL: [Fault; 10] = [
        Fault::Partition,
        Fault::OneWay,
        Fault::Loss,
        Fault::Slow,
        Fault::Crash,
        Fault::CrashMany,
        Fault::Move,
        Fault::Wipe,
        Fault::Join,
        Fault::Drain,
    ];
}

/// All of a run that is decided before it begins.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub mutant: Option<Mutant>,
    pub founders: usize,
    /// Only some, so that runs are different from each other.
    pub faults: Vec<Fault>,
    /// Milliseconds between two faults at most.
    pub fault_pause_max: u64,
    /// How long there are faults.
    pub faulty: Duration,
    /// Milliseconds that a message takes at most in good weather.
    pub delay_max: u64,
    /// Milliseconds that a sync takes at most.
    pub sync_max: u64,
}

impl Options {
    pub fn of(seed: u64, mutant: Option<Mutant>) -> Options {
        let mut chance = Chance::of(seed, &[0x0b7]);
        let founders = if chance.one_in(4) { 5 } else { 3 };
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| !chance.one_in(3)).collect();
        if faults.is_empty() {
            faults.push(Fault::Crash);
        }
        Options {
            seed,
            mutant,
            founders,
            faults,
            fault_pause_max: [1500, 3000, 6000][chance.between(0, 3) as usize],
            faulty: Duration::from_secs(chance.between(20, 50)),
            delay_max: [5, 30, 120][chance.between(0, 3) as usize],
            sync_max: [2, 10, 60][chance.between(0, 3) as usize],
        }
    }
}
