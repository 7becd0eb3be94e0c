//! How far clocks of nodes are apart.
//!
//! Each heartbeat carries the time by the clock of who sends it, and how long the last one took to be
//! answered. The leader takes half of that for the way of this one, and so knows how far the clock is
//! ahead of its own; what lies in the middle of all is right, and nobody's clock alone.

/// What lies in the middle of some clocks: one time if they are odd in number, or else all times
/// between two, for then none of the two is more right than the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Median {
    from: i64,
    to: i64,
}

impl Median {
    /// The middle of these offsets in milliseconds, in any order; none of none.
    pub fn of(offsets: &[i64]) -> Option<Median> {
        let mut sorted = offsets.to_vec();
        sorted.sort_unstable();
        let from = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        let to = *sorted.get(sorted.len() / 2)?;
        Some(Median { from, to })
    }

    /// How far an offset lies ahead of the middle, or behind it if negative; 0 within.
    pub fn off(self, offset: i64) -> i64 {
        offset.saturating_sub(offset.clamp(self.from, self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_off_the_middle() {
        let check = |offsets: &[i64], expected: &[i64]| {
            let median = Median::of(offsets).expect("there is one");
            let off: Vec<i64> = offsets.iter().map(|&offset| median.off(offset)).collect();
            assert_eq!(off, expected, "{offsets:?}");
        };
        assert_eq!(Median::of(&[]), None);
        check(&[5], &[0]);
        // One of two is wrong, and nobody knows which.
        check(&[0, 90_000], &[0, 0]);
        check(&[90_000, 0, 10], &[89_990, -10, 0]);
        check(&[0, -90_000, 20], &[0, -90_000, 20]);
        check(&[0, 10, 20, 90_000], &[-10, 0, 0, 89_980]);
        check(&[3, 1, 2, 5, 4], &[0, -2, -1, 2, 1]);
        check(&[i64::MIN, 0, i64::MAX], &[i64::MIN, 0, i64::MAX]);
        check(&[7, 7, 7, 7], &[0, 0, 0, 0]);
    }
}
