//! When a request is decided: a pure count of what the owners of each series answered.
//!
//! Each series is decided by itself, by the owners of one ring epoch:
//!
//! - *stored* as soon as [`copies_needed`] owners have it in their logs;
//! - *refused* as soon as so many owners refused it for a reason that no retry can mend that it
//!   cannot be stored any more, whatever the others say;
//! - *missed* as soon as neither can come about: then an outage is in the mix, and the sender must
//!   try again.
//!
//! A request is decided when all its series are. What an owner answers after that changes nothing.

/// Copies that make a series of `owners` copies acknowledged: more than half of them, but one of two,
/// as Thanos has it.
pub fn copies_needed(owners: usize) -> usize {
    if owners == 2 { 1 } else { owners / 2 + 1 }
}

/// What one owner says of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It is in its log.
    Stored,
    /// Samples of it are in conflict with what it has.
    Refused,
    /// It did not answer, or could not store it.
    Missed,
}

/// What becomes of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Enough owners have it.
    Stored,
    /// So many owners refused it that it cannot be stored.
    Refused,
    /// It may be stored when it is sent again.
    Missed,
}

/// The votes on one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    owners: u8,
    needed: u8,
    stored: u8,
    refused: u8,
    missed: u8,
}

impl Tally {
    fn decision(self) -> Option<Decision> {
        let open = self.owners - self.stored - self.refused - self.missed;
        // More refusals than this leave too few owners.
        let spare = self.owners - self.needed;
        if self.stored >= self.needed {
            Some(Decision::Stored)
        } else if self.refused > spare {
            Some(Decision::Refused)
        } else if self.stored + open < self.needed && self.refused + open <= spare {
            Some(Decision::Missed)
        } else {
            None
        }
    }
}

/// The votes on all series of a request.
#[derive(Clone, Debug, Default)]
pub struct Votes {
    series: Vec<Tally>,
    undecided: usize,
}

impl Votes {
    /// Forgets all series, keeps memory.
    pub fn clear(&mut self) {
        self.series.clear();
        self.undecided = 0;
    }

    /// Adds a series with `owners` owners, `needed` of which must store it.
    ///
    /// # Panics
    /// If `needed` is 0 or more than `owners`, or `owners` more than 255.
    pub fn push(&mut self, owners: usize, needed: usize) {
        assert!(0 < needed && needed <= owners && owners <= 255, "{needed} of {owners} owners");
        let (owners, needed) = (owners as u8, needed as u8);
        self.series.push(Tally { owners, needed, stored: 0, refused: 0, missed: 0 });
        self.undecided += 1;
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// True if there are no series.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Counts what one owner says of one series. Each owner is counted once per series; a vote too
    /// many is ignored.
    #[inline]
    pub fn vote(&mut self, series: usize, vote: Vote) {
        let Some(tally) = self.series.get_mut(series) else { return };
        if tally.stored + tally.refused + tally.missed == tally.owners {
            debug_assert!(false, "series {series} has more votes than owners");
            return;
        }
        let was_open = tally.decision().is_none();
        match vote {
            Vote::Stored => tally.stored += 1,
            Vote::Refused => tally.refused += 1,
            Vote::Missed => tally.missed += 1,
        }
        self.undecided -= usize::from(was_open && tally.decision().is_some());
    }

    /// True if further votes change nothing.
    pub fn is_decided(&self) -> bool {
        self.undecided == 0
    }

    /// Decisions by series; a series that is still open counts as missed.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        self.series.iter().map(|tally| tally.decision().unwrap_or(Decision::Missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTES: [Vote; 3] = [Vote::Stored, Vote::Refused, Vote::Missed];

    /// The rule in other words, for all votes given.
    fn expected(owners: usize, votes: &[Vote]) -> Decision {
        let count = |wanted| votes.iter().filter(|vote| **vote == wanted).count();
        let needed = if owners == 2 { 1 } else { (owners + 2) / 2 };
        if count(Vote::Stored) >= needed {
            Decision::Stored
        } else if owners - count(Vote::Refused) < needed {
            Decision::Refused
        } else {
            Decision::Missed
        }
    }

    /// All outcomes of 1 to 5 owners, in all orders: a decision is right, comes as early as it can,
    /// and stays.
    #[test]
    fn every_outcome() {
        for owners in 1..=5usize {
            for number in 0..3usize.pow(owners as u32) {
                let votes: Vec<Vote> =
                    (0..owners).map(|at| VOTES[number / 3usize.pow(at as u32) % 3]).collect();
                let mut counted = Votes::default();
                counted.push(owners, copies_needed(owners));
                for given in 0..=owners {
                    // What all ways to go on from here lead to.
                    let ends: Vec<Decision> = (0..3usize.pow((owners - given) as u32))
                        .map(|rest| {
                            let mut all = votes[..given].to_vec();
                            all.extend((0..owners - given).map(|at| VOTES[rest / 3usize.pow(at as u32) % 3]));
                            expected(owners, &all)
                        })
                        .collect();
                    let settled = ends.iter().all(|end| *end == ends[0]);
                    assert_eq!(counted.is_decided(), settled, "{owners} owners: {:?}", &votes[..given]);
                    let decision = if settled { ends[0] } else { Decision::Missed };
                    assert_eq!(counted.decisions().collect::<Vec<_>>(), [decision], "{:?}", &votes[..given]);
                    if let Some(vote) = votes.get(given) {
                        counted.vote(0, *vote);
                    }
                }
            }
        }
    }

    #[test]
    fn named_cases() {
        use Vote::{Missed, Refused, Stored};
        let decide = |votes: &[Vote]| {
            let mut counted = Votes::default();
            counted.push(votes.len(), copies_needed(votes.len()));
            votes.iter().for_each(|vote| counted.vote(0, *vote));
            counted.decisions().next()
        };
        // Two copies: one refusal and one outage can be mended by trying again.
        assert_eq!(decide(&[Refused, Missed]), Some(Decision::Missed));
        assert_eq!(decide(&[Refused, Refused]), Some(Decision::Refused));
        assert_eq!(decide(&[Missed, Stored]), Some(Decision::Stored));
        assert_eq!(decide(&[Stored, Stored, Missed]), Some(Decision::Stored));
        assert_eq!(decide(&[Stored, Refused, Missed]), Some(Decision::Missed));
        assert_eq!(decide(&[Refused, Refused, Stored]), Some(Decision::Refused));
        // Four copies need three.
        assert_eq!(decide(&[Stored, Stored, Missed, Missed]), Some(Decision::Missed));
        assert_eq!(decide(&[Stored, Stored, Refused, Refused]), Some(Decision::Refused));
    }

    #[test]
    fn a_request_is_decided_when_all_its_series_are() {
        let mut votes = Votes::default();
        votes.push(3, 2);
        votes.push(3, 2);
        votes.vote(0, Vote::Stored);
        votes.vote(1, Vote::Stored);
        assert!(!votes.is_decided());
        votes.vote(0, Vote::Stored);
        assert!(!votes.is_decided(), "one series is not all");
        votes.vote(1, Vote::Missed);
        votes.vote(1, Vote::Stored);
        votes.vote(0, Vote::Missed);
        assert!(votes.is_decided());
        assert_eq!(votes.decisions().collect::<Vec<_>>(), [Decision::Stored; 2]);
        votes.clear();
        assert!(votes.is_decided() && votes.is_empty());
    }
}
