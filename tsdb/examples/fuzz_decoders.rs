//! Feeds damaged input to every decoder: `fuzz_decoders SECONDS [SEED [BODY]]`.
//!
//! Runs the bodies in turn, each case with a seed of its own that counts up from SEED. A case that
//! panics ends the run; its body and seed are the last line. With 0 seconds one case of each body is
//! run: that is how to run a failed case again.

#[path = "../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let first = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(now);
    let chosen = arguments.next();
    let bodies =
        fuzz_bodies::BODIES.iter().filter(|body| chosen.as_deref().is_none_or(|name| name == body.0));
    let bodies: Vec<_> = bodies.collect();
    if bodies.is_empty() {
        let names: Vec<_> = fuzz_bodies::BODIES.iter().map(|body| body.0).collect();
        eprintln!("no such body; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    println!("seed {first}, {seconds} s");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed: u64 = first;
    let mut cases = 0;
    loop {
        for body in &bodies {
            if std::panic::catch_unwind(|| fuzz_bodies::run(body, seed)).is_err() {
                eprintln!("failed; again by: fuzz_decoders 0 {seed} {}", body.0);
                return ExitCode::FAILURE;
            }
            cases += 1;
        }
        seed = seed.wrapping_add(1);
        if Instant::now() >= end {
            println!("{cases} cases of {} bodies are borne", bodies.len());
            return ExitCode::SUCCESS;
        }
    }
}
