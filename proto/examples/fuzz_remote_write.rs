//! Fuzzes the decoder of the write path for a while.
//!
//! `cargo run --release -p weir-proto --example fuzz_remote_write -- SEED SECONDS` runs the cases
//! SEED, SEED + 1 and so on, the same ones the tests run a few thousand of. It ends after SECONDS,
//! or at the first case that fails, and prints that case's seed: give it as SEED with 0 seconds to
//! run it alone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

#[path = "../tests/support/differential.rs"]
mod differential;
#[path = "../tests/support/fuzz.rs"]
mod fuzz;
#[path = "../tests/support/generate.rs"]
mod generate;

fn main() -> ExitCode {
    let numbers: Vec<Option<u64>> = std::env::args().skip(1).map(|arg| arg.parse().ok()).collect();
    let [Some(seed), Some(seconds)] = numbers[..] else {
        eprintln!("usage: fuzz_remote_write SEED SECONDS");
        return ExitCode::FAILURE;
    };
    let start = Instant::now();
    let mut tally = fuzz::Tally::default();
    let mut case = seed;
    loop {
        tally.run(case);
        if start.elapsed() >= Duration::from_secs(seconds) {
            println!("seeds {seed} to {case}: {tally:?}");
            return ExitCode::SUCCESS;
        }
        case = case.wrapping_add(1);
    }
}
