//! Figures for people.

use std::time::Duration;

use crate::duration::DisplayDuration;

/// A part of a whole, in per cent.
pub fn share(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// How long ago something was.
pub fn ago(ms: u64) -> String {
    const MINUTE: u64 = 60_000;
    match ms {
        0..10_000 => format!("{}.{}s ago", ms / 1000, ms % 1000 / 100),
        10_000..MINUTE => format!("{}s ago", ms / 1000),
        _ => format!("{} ago", DisplayDuration(Duration::from_millis(ms / MINUTE * MINUTE))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([share(0.0), share(0.24996), share(1.0)], ["0.0%", "25.0%", "100.0%"]);
        let check = |ms, expected: &str| assert_eq!(ago(ms), expected);
        check(0, "0.0s ago");
        check(9_999, "9.9s ago");
        check(10_000, "10s ago");
        check(59_999, "59s ago");
        check(60_000, "1m ago");
        check(3_661_000, "1h1m ago");
        check(u64::MAX, "213503982334d14h25m ago");
    }
}
