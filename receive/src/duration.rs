//! Durations and sizes as people write them on a Prometheus or Thanos command line.
//!
//! Both grammars are Prometheus' own and differ from the usual crates: a year is 365 days, a
//! week seven, the order of units is fixed, and a bare number has no meaning (except `0`).
//! Sizes are powers of two whether written `KB` or `KiB`.

use std::{fmt, time::Duration};

/// Why a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// A number without a unit, or the other way round, or text that is neither.
    #[error("{0:?} is not {1}")]
    Malformed(String, &'static str),
    /// A unit stands after a smaller one, or twice.
    #[error("{0:?} has its units in the wrong order or twice; larger units come first")]
    Order(String),
    /// More than can be stored: 292 years, or 16 EiB.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Units of a duration in milliseconds, in the order they must be written in. The flag tells
/// whether the unit is used when a duration is written out only if it divides the rest exactly,
/// so that 10 days stay `10d` and do not turn into `1w3d`.
const DURATION_UNITS: [(&str, u64, bool); 7] = [
    ("y", 365 * 24 * 3_600_000, true),
    ("w", 7 * 24 * 3_600_000, true),
    ("d", 24 * 3_600_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1_000, false),
    ("ms", 1, false),
];

/// Longest duration in milliseconds: what fits into 63 bits of nanoseconds, as upstream has it.
const DURATION_MAX_MS: u64 = i64::MAX as u64 / 1_000_000;

/// Reads a duration such as `15d`, `1h30m` or `500ms`; `0` needs no unit.
///
/// # Errors
/// If the text is empty, has a number without unit, unknown units, units that do not descend, or
/// stands for more than about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let malformed = || UnitError::Malformed(text.to_owned(), "a duration such as 15d, 1h30m or 500ms");
    let mut rest = text;
    let mut next_unit = 0;
    let mut total_ms = 0_u64;
    while !rest.is_empty() {
        let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
        let (name, after) = split_while(after, |c| !c.is_ascii_digit());
        if digits.is_empty() {
            return Err(malformed());
        }
        let index = DURATION_UNITS.iter().position(|(own, ..)| *own == name).ok_or_else(malformed)?;
        if index < next_unit {
            return Err(UnitError::Order(text.to_owned()));
        }
        next_unit = index + 1;
        total_ms = (digits.parse::<u64>().ok())
            .and_then(|count| count.checked_mul(DURATION_UNITS[index].1))
            .and_then(|part| part.checked_add(total_ms))
            .filter(|sum| *sum <= DURATION_MAX_MS)
            .ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse_duration`] gives it back, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayDuration(pub Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest_ms == 0 {
            return out.write_str("0s");
        }
        for (name, unit_ms, only_exact) in DURATION_UNITS {
            if only_exact && !rest_ms.is_multiple_of(unit_ms) {
                continue;
            }
            let count = rest_ms / unit_ms;
            rest_ms %= unit_ms;
            if count > 0 {
                write!(out, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// Units of a size: a prefix letter and the power of 1024 it stands for.
const SIZE_PREFIXES: [(&str, u32); 6] = [("K", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6)];

/// Reads a size in bytes such as `512MB`, `1.5GiB`, `64K` or `1048576`. All units are powers of
/// 1024; case matters only in that it does not.
///
/// # Errors
/// If the text is empty, is not a number with a known unit, or stands for more than 2^64 - 1.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let malformed = || UnitError::Malformed(text.to_owned(), "a size such as 512MiB, 1.5GB or 0");
    let too_large = || UnitError::TooLarge(text.to_owned());
    let (number, unit) = split_while(text, |c| c.is_ascii_digit() || c == '.');
    let upper = unit.to_ascii_uppercase();
    let power = match upper.as_str() {
        "" | "B" => 0,
        prefixed => {
            let prefix = prefixed.trim_end_matches('B').trim_end_matches('I');
            let power = SIZE_PREFIXES.iter().find(|(own, _)| *own == prefix).ok_or_else(malformed)?.1;
            let rest = prefixed.strip_prefix(prefix).ok_or_else(malformed)?;
            if !matches!(rest, "" | "B" | "IB") {
                return Err(malformed());
            }
            power
        }
    };
    let scale = 1024_u128.pow(power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(malformed());
    }
    if number.contains('.') && (fraction.is_empty() || power == 0) {
        return Err(malformed());
    }
    let whole: u128 = whole.parse::<u64>().map_err(|_| too_large())?.into();
    let fraction_digits = u32::try_from(fraction.len()).map_err(|_| malformed())?;
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| malformed())? };
    let bytes = whole * scale + fraction * scale / 10_u128.pow(fraction_digits);
    u64::try_from(bytes).map_err(|_| too_large())
}

/// Writes a size with the largest unit that divides it, so that [`parse_bytes`] gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayBytes(pub u64);

impl fmt::Display for DisplayBytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (prefix, power) in SIZE_PREFIXES.into_iter().rev() {
            let scale = 1024_u64.pow(power);
            if self.0 > 0 && self.0.is_multiple_of(scale) {
                return write!(out, "{}{prefix}iB", self.0 / scale);
            }
        }
        write!(out, "{}B", self.0)
    }
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_prometheus_reads_them() {
        let check = |text: &str, ms: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        };
        check("0", 0);
        check("0s", 0);
        check("0d", 0);
        check("7ms", 7);
        check("324ms", 324);
        check("3s", 3_000);
        check("5m", 300_000);
        check("1h30m", 5_400_000);
        check("4d1h", 349_200_000);
        check("15d", 1_296_000_000);
        check("3w2d1h", 1_990_800_000);
        check("1y", 31_536_000_000);
        check("1y2w3d4h5m6s7ms", 33_019_506_007);
        check("292y", 292 * 31_536_000_000);
        check("90m", 5_400_000);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        assert_eq!(parse_duration(""), Err(UnitError::Empty));
        for text in
            ["1", "-1s", "+1s", "d", "1.5h", "1µs", "1 h", "00", "1M", "1d2", "s5", "1S", " 1s", "1ns"]
        {
            assert!(matches!(parse_duration(text), Err(UnitError::Malformed(..))), "{text}");
        }
        for text in ["1s1m", "1h1h", "1ms1s", "5m4m"] {
            assert_eq!(parse_duration(text), Err(UnitError::Order(text.to_owned())), "{text}");
        }
        for text in ["293y", "99999999999999999999s", "292y52w", "18446744073709551615y"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLarge(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn durations_are_written_with_few_units() {
        let check = |ms: u64, text: &str| {
            assert_eq!(DisplayDuration(Duration::from_millis(ms)).to_string(), text);
        };
        check(0, "0s");
        check(7, "7ms");
        check(7_200_000, "2h");
        check(1_296_000_000, "15d");
        check(14 * 86_400_000, "2w");
        check(365 * 86_400_000, "1y");
        check(366 * 86_400_000, "366d");
        check(90_061_001, "1d1h1m1s1ms");
    }

    #[test]
    fn sizes_are_powers_of_two() {
        let check = |text: &str, bytes: u64| assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        check("0", 0);
        check("0B", 0);
        check("17", 17);
        check("1KB", 1 << 10);
        check("1k", 1 << 10);
        check("1KiB", 1 << 10);
        check("2MB", 2 << 20);
        check("1.5GB", 3 << 29);
        check("32MiB", 32 << 20);
        check("3TB", 3 << 40);
        check("1PB", 1 << 50);
        check("15EB", 15 << 60);
        check("18446744073709551615", u64::MAX);
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_reason() {
        assert_eq!(parse_bytes(""), Err(UnitError::Empty));
        for text in [
            "MB", "1XB", "1BB", "1KBB", "1KI", "-1", "1 KB", "1.KB", ".5KB", "1.2.3KB", "1KBi", "1.5",
            "1.5B", "12h",
        ] {
            assert!(matches!(parse_bytes(text), Err(UnitError::Malformed(..))), "{text}");
        }
        for text in ["16EB", "18446744073709551616", "99999999999999999999999999999999999999999KB"] {
            assert_eq!(parse_bytes(text), Err(UnitError::TooLarge(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_is_read_back(ms in 0..=DURATION_MAX_MS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&DisplayDuration(duration).to_string()), Ok(duration));
        }

        #[test]
        fn a_sum_of_units_in_order_is_read(
            y in 0_u64..100, w in 0_u64..100, d in 0_u64..100, h in 0_u64..100,
            m in 0_u64..100, s in 0_u64..100, ms in 0_u64..5000,
        ) {
            let expected = [y, w, d, h, m, s, ms].iter().zip(DURATION_UNITS).map(|(n, unit)| n * unit.1).sum();
            let text = format!("{y}y{w}w{d}d{h}h{m}m{s}s{ms}ms");
            prop_assert_eq!(parse_duration(&text), Ok(Duration::from_millis(expected)));
        }

        #[test]
        fn a_written_size_is_read_back(bytes in any::<u64>(), shift in 0_u32..64) {
            for bytes in [bytes, bytes << shift] {
                prop_assert_eq!(parse_bytes(&DisplayBytes(bytes).to_string()), Ok(bytes));
            }
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "[0-9a-zA-Z.µ ]{0,24}", any in ".{0,16}") {
            for text in [text.as_str(), any.as_str()] {
                let (_, _) = (parse_duration(text), parse_bytes(text));
            }
        }
    }
}
