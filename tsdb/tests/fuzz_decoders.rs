//! A short run of the fuzz bodies; the example of the same name runs them for longer.

mod fuzz_bodies;

/// Cases per body.
const CASES: u64 = 300;

#[test]
fn decoders_bear_damaged_input() {
    for body in fuzz_bodies::BODIES {
        for seed in 0..CASES {
            // Shown only if the case fails.
            println!("{} {seed}", body.0);
            fuzz_bodies::run(body, seed);
        }
    }
}
