//! Jump hash: "A Fast, Minimal Memory, Consistent Hash Algorithm", Lamping and Veach, 2014.

use std::num::NonZeroU32;

/// The bucket of `hash` among `buckets`, below `buckets`.
///
/// With one more bucket a hash either stays where it is or goes into the new one.
pub fn jump(hash: u64, buckets: NonZeroU32) -> u32 {
    jump_consistent_hash::hash(hash, buckets.get() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("a test's number is not zero")
    }

    /// Frozen: whoever changes these values moves series of every cluster.
    #[test]
    fn golden_values() {
        let check =
            |hash, count, expected| assert_eq!(jump(hash, buckets(count)), expected, "{hash} of {count}");
        check(42, 57, 43);
        check(0xDEAD_10CC, 666, 361);
        check(256, 1024, 520);
        check(0, 60, 0);
        check(1, 60, 55);
        check(u64::MAX, 1, 0);
        check(u64::MAX, 65_536, 18_311);
    }

    /// The crate adds one to a product that is all ones for this key.
    #[test]
    fn no_key_overflows() {
        const FACTOR: u64 = 2_862_933_555_777_941_757;
        // Newton's iteration for the inverse modulo 2^64; each round doubles the right bits.
        let inverse = (0..6).fold(FACTOR, |inverse, _| {
            inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse)))
        });
        let key = inverse.wrapping_neg();
        assert_eq!(key.wrapping_mul(FACTOR), u64::MAX);
        assert!(jump(key, buckets(4096)) < 4096);
    }
}
