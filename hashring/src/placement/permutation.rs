//! A keyed permutation of the slots.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::{HashSeed, Slot, SlotCount};

/// More than are needed to look random in all statistics of placement; tenants are resolved rarely.
const ROUNDS: u8 = 8;

/// A permutation of the slots, of which every tenant has its own.
///
/// A Feistel network over the fewest bits that hold all slots: a number is cut into two halves (of
/// unequal size if the bits are odd), which are in turn changed by a hash of the other. That is a
/// permutation of a power of two. Where there are fewer slots, a number beyond them is permuted again
/// until it is a slot: the walk along a cycle ends, since it began at a slot, and takes less than
/// two steps in the mean.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    key: u64,
    slots: SlotCount,
    low_bits: u32,
    high_bits: u32,
}

impl Permutation {
    /// The permutation of a tenant in a cluster with that seed.
    pub fn of_tenant(tenant: &str, slots: SlotCount, seed: HashSeed) -> Self {
        Self::with_key(xxh3_64_with_seed(tenant.as_bytes(), seed.0), slots)
    }

    fn with_key(key: u64, slots: SlotCount) -> Self {
        let bits = u32::BITS - (slots.get() - 1).leading_zeros();
        Self { key, slots, low_bits: bits / 2, high_bits: bits - bits / 2 }
    }

    /// The slot at `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below the number of slots.
    pub fn slot(&self, index: u32) -> Slot {
        assert!(index < self.slots.get(), "index {index} in a permutation of {}", self.slots.get());
        let mut number = self.permuted_bits(index);
        while number >= self.slots.get() {
            number = self.permuted_bits(number);
        }
        Slot(number)
    }

    fn permuted_bits(&self, number: u32) -> u32 {
        let low_mask = (1 << self.low_bits) - 1;
        let high_mask = (1 << self.high_bits) - 1;
        let (mut low, mut high) = (number & low_mask, number >> self.low_bits);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                high ^= self.round(round, low) & high_mask;
            } else {
                low ^= self.round(round, high) & low_mask;
            }
        }
        high << self.low_bits | low
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        let [a, b, c, d] = half.to_le_bytes();
        xxh3_64_with_seed(&[round, a, b, c, d], self.key) as u32
    }
}
