//! The hash by which Thanos places a series.

use xxhash_rust::xxh64::Xxh64;

/// Stands behind the tenant, and behind each name and value.
const SEPARATOR: u8 = 0xff;

/// Hash of a series in a static ring: xxHash64 with seed 0 over the tenant and the labels, each
/// followed by a byte of 0xFF.
///
/// `labels` are names and values in the order in which they were received, after relabeling and
/// without the split label. A sender that changes the order moves the series, there as here.
pub fn thanos_hash<'a>(tenant: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = Xxh64::new(0);
    let mut feed = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(&[SEPARATOR]);
    };
    feed(tenant);
    for (name, value) in labels {
        feed(name);
        feed(value);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        let check = |tenant, labels: &[(&str, &str)], hash| {
            assert_eq!(thanos_hash(tenant, labels.iter().copied()), hash, "{tenant} {labels:?}");
        };
        let up = [("__name__", "up"), ("instance", "a:9100"), ("job", "node")];
        check("default-tenant", &up, 0x2ffab3413ff41b56);
        check("team-a", &up, 0xe500359ca753d6ae);
        let requests = [("__name__", "http_requests_total"), ("code", "200"), ("method", "GET")];
        check("team-a", &requests, 0xcf7a429a201a018e);
        let (x, z) = ("y".repeat(600), "w".repeat(600));
        check("team-b", &[("__name__", "m"), ("x", &x), ("z", &z)], 0x7f6f6f585862d556);
    }

    #[test]
    fn order_counts() {
        assert_ne!(thanos_hash("t", [("a", "1"), ("b", "2")]), thanos_hash("t", [("b", "2"), ("a", "1")]));
    }
}
