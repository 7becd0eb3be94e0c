//! Values of configuration keys that need more than a plain type.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to hand it to whoever needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<empty>" } else { "<secret>" })
    }
}

/// A length of time as Prometheus writes it: `1m30s`, `250ms`, `0`. Units y, w, d, h, m, s, ms, each at
/// most once and in this order; whole numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromDuration(pub Duration);

/// Units from the longest to the shortest, with their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl PromDuration {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let wrong = |what: &str| Err(format!("{text:?} is not a duration such as 1m30s: {what}"));
        if text.is_empty() {
            return wrong("it is empty");
        }
        let mut rest = text;
        let mut total_ms: u64 = 0;
        let mut units_left = UNITS.iter();
        while !rest.is_empty() {
            let (digits, tail) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            let Ok(number) = digits.parse::<u64>() else {
                return wrong("a number is missing or too large");
            };
            let (unit, tail) = tail.split_at(tail.bytes().take_while(u8::is_ascii_alphabetic).count());
            let Some((_, unit_ms)) = units_left.find(|(name, _)| *name == unit) else {
                return wrong("units are y, w, d, h, m, s and ms, in this order");
            };
            let sum = number.checked_mul(*unit_ms).and_then(|ms| total_ms.checked_add(ms));
            let Some(sum) = sum else {
                return wrong("it is too long");
            };
            total_ms = sum;
            rest = tail;
        }
        Ok(Self(Duration::from_millis(total_ms)))
    }
}

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            // A group of n bytes makes n + 1 characters.
            let sextet = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = |text: &str, ms: u64| {
            assert_eq!(PromDuration::parse(text), Ok(PromDuration(Duration::from_millis(ms))), "{text}");
        };
        good("0", 0);
        good("0s", 0);
        good("250ms", 250);
        good("10s", 10_000);
        good("1m30s", 90_000);
        good("1h2m3s4ms", 3_723_004);
        good("1d", 86_400_000);
        good("1y1w", 372 * 86_400_000);

        let bad = |text: &str, what: &str| {
            let error = PromDuration::parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        };
        bad("", "empty");
        bad("s", "a number is missing");
        bad("10", "units are");
        bad("10x", "units are");
        bad("1s1m", "units are");
        bad("1s1s", "units are");
        bad("1.5s", "units are");
        bad("-1s", "a number is missing");
        bad("99999999999999999999s", "too large");
        bad("999999999999999999y", "too long");
        bad("1 s", "units are");
    }

    #[test]
    fn base64_of_the_standard() {
        // RFC 4648, section 10.
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
        assert_eq!(format!("{:?}", Some(Secret::new(""))), "Some(<empty>)");
        assert_eq!(Secret::new("hunter2").reveal(), "hunter2");
    }
}
