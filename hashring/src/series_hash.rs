//! The hash that places a series.

use xxhash_rust::xxh3::Xxh3;

/// Stands behind the tenant, and behind each name and value. It is no byte of UTF-8, so no two
/// different series are fed as the same bytes.
const SEPARATOR: u8 = 0xff;

/// Hash of a series for placement: xxh3-64 with the cluster's seed over the tenant and the labels,
/// each followed by a byte of 0xFF.
///
/// `labels` are names and values as they are placed: after relabeling, ascending by name, without
/// empty values. The value is part of the cluster's state: it never changes for the same input.
pub fn series_hash<'a>(seed: u64, tenant: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
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
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use super::*;

    #[test]
    fn is_the_hash_of_the_joined_bytes() {
        let labels = [("__name__", "up"), ("job", "node")];
        let bytes = b"team-a\xff__name__\xffup\xffjob\xffnode\xff";
        for seed in [0, 1, u64::MAX] {
            assert_eq!(series_hash(seed, "team-a", labels), xxh3_64_with_seed(bytes, seed));
        }
        // More than the 240 bytes up to which the function takes another way.
        let long = "x".repeat(500);
        let bytes = [b"t\xffa\xff".as_slice(), long.as_bytes(), b"\xff"].concat();
        assert_eq!(series_hash(7, "t", [("a", long.as_str())]), xxh3_64_with_seed(&bytes, 7));
    }

    #[test]
    fn borders_of_strings_count() {
        let hash = |tenant, name, value| series_hash(0, tenant, [(name, value)]);
        let same = [hash("ab", "c", "d"), hash("a", "bc", "d"), hash("ab", "cd", ""), hash("ab", "c", "e")];
        assert_eq!(same.iter().collect::<std::collections::HashSet<_>>().len(), same.len());
    }

    /// Frozen: whoever changes these values moves every series of every cluster.
    #[test]
    fn golden_values() {
        let hash = |seed, tenant| series_hash(seed, tenant, [("__name__", "up"), ("instance", "a:9100")]);
        let found = [hash(0, "default-tenant"), hash(0, "team-a"), hash(42, "team-a")];
        assert_eq!(found, [15309276021460819416, 3395575909845405181, 12352338109230842264]);
    }
}
