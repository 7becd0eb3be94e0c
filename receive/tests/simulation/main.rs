//! A deterministic simulation of the control plane, and of the write rule that depends on it.
//!
//! A few hosts run the real control plane of a node, each on a runtime of turmoil with a clock of its
//! own: founding and joining a cluster, Raft, planning and waves, watching the ring, fencing. Simulated
//! are what is around them: the network (`network`), the disks (`disk`), chance and time, all of which
//! follow from a seed; and a small data plane (`writes`) that stores samples by the program's own
//! placement, fencing and counting. Clients write all the time, while `faults` cuts links, loses and delays
//! messages, crashes hosts, takes their disks away, and has nodes join and leave. `oracle` knows all
//! that ever happened and says what is wrong. When the faults have ended, all must come together again.
//!
//! A simulation that finds nothing may be blind. So there are `mutant`s, bugs put in on purpose, and each
//! of them must be found.
//!
//! `WEIR_SIM_SEEDS` is the number of seeds, `WEIR_SIM_FIRST` the first, and with `WEIR_SIM_LOG` the logs of
//! all hosts are shown, by a filter like that of the program.

mod chance;
mod clients;
mod disk;
mod faults;
mod host;
mod mutant;
mod network;
mod operator;
mod options;
mod oracle;
mod run;
mod writes;

use std::{io::Write, time::Instant};

use mutant::Mutant;
use options::Options;
use oracle::Summary;

/// How many seeds a bug may stay hidden for.
const MUTANT_SEEDS_MAX: u64 = 200;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

fn prepare() {
    run::notice_panics();
    if let Ok(filter) = std::env::var("WEIR_SIM_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
}

/// Ends the process with a report that no capture of output hides; its last line repeats the run.
fn give_up(options: &Options, summary: Summary, what: &str) -> ! {
    let seed = options.seed;
    let report = format!(
        "seed {seed}\n{options:#?}\n{summary:?}\n{what}\n\
         WEIR_SIM_FIRST={seed} WEIR_SIM_SEEDS=1 cargo test -p weir --test simulation nothing_is_wrong\n"
    );
    // Nothing can be done about an output that is closed.
    let _ = std::io::stderr().write_all(report.as_bytes());
    std::process::exit(1)
}

#[test]
fn nothing_is_wrong() {
    prepare();
    let (first, count) = (number("WEIR_SIM_FIRST", 1), number("WEIR_SIM_SEEDS", 50));
    println!("seeds {first} to {}", first + count - 1);
    let started = Instant::now();
    let (mut acked, mut epochs, mut leaders) = (0, 0, 0);
    for seed in first..first + count {
        let options = Options::of(seed, None);
        let (summary, result) = run::run(options.clone());
        if let Err(what) = result {
            give_up(&options, summary, &what);
        }
        println!("seed {seed}: {summary:?} {:?}", started.elapsed());
        acked += summary.acked;
        epochs += summary.epochs;
        leaders += summary.leaders;
    }
    println!("{count} seeds in {:?}: {acked} samples, {epochs} epochs, {leaders} leaders", started.elapsed());
}

#[test]
fn a_seed_is_a_run() {
    prepare();
    for seed in [number("WEIR_SIM_FIRST", 1), 7, 8] {
        let once = || run::run(Options::of(seed, None)).0;
        assert_eq!(once(), once(), "seed {seed}");
    }
}

#[test]
fn bugs_are_found() {
    prepare();
    let first = number("WEIR_SIM_FIRST", 1);
    let only = std::env::var("WEIR_SIM_MUTANT").ok();
    let mut hidden = Vec::new();
    for mutant in Mutant::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        let found = (first..first + MUTANT_SEEDS_MAX)
            .find_map(|seed| Some((seed, run::run(Options::of(seed, Some(mutant))).1.err()?)));
        match found {
            Some((seed, what)) => {
                println!("{mutant:?} is found by seed {seed}: {}", what.lines().next().unwrap_or_default())
            }
            None => hidden.push(mutant),
        }
    }
    assert!(hidden.is_empty(), "not found within {MUTANT_SEEDS_MAX} seeds: {hidden:?}");
}
