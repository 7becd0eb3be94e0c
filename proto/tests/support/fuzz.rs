//! Fuzz cases, each from one number.

use super::differential::{Outcome, compare};
use super::generate::{Rng, body};

/// How many cases came out how.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub accepted: u64,
    pub refused: u64,
    pub not_utf8: u64,
    pub group: u64,
}

impl Tally {
    /// Runs the case of `seed`; prints the seed if it panics.
    pub fn run(&mut self, seed: u64) {
        let _announcement = Announcement(seed);
        let count = match compare(&body(&mut Rng::new(seed))) {
            Outcome::Accepted => &mut self.accepted,
            Outcome::Refused => &mut self.refused,
            Outcome::NotUtf8 => &mut self.not_utf8,
            Outcome::Group => &mut self.group,
        };
        *count += 1;
    }
}

struct Announcement(u64);

impl Drop for Announcement {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case that failed has the seed {}", self.0);
        }
    }
}
