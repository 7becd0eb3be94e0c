use proptest::prelude::*;

use super::*;

const SEED: HashSeed = HashSeed(0x5EED);

fn slot_count(count: u32) -> SlotCount {
    SlotCount::new(count).expect("a test's number of slots is allowed")
}

fn tenant_slots(count: u32) -> TenantSlots {
    TenantSlots::new(count).expect("a test's number of slots is not zero")
}

/// Hashes as good as those of series.
fn hashes(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()))
}

fn shard(tenant: &str, k: u32, slots: SlotCount) -> Vec<Slot> {
    let permutation = Permutation::of_tenant(tenant, slots, SEED);
    (0..k).map(|index| permutation.slot(index)).collect()
}

/// Frozen: whoever changes these values moves series of every cluster.
#[test]
fn golden_values() {
    let check = |tenant, slots, expected: [u32; 6]| {
        assert_eq!(shard(tenant, 6, slot_count(slots)), expected.map(Slot), "{tenant} of {slots}");
    };
    check("default-tenant", 4096, [4003, 2851, 818, 1883, 1390, 3651]);
    check("team-a", 4096, [4008, 1196, 4003, 328, 4075, 984]);
    check("team-a", 256, [179, 190, 150, 71, 112, 129]);
    check("team-a", 1000, [913, 77, 247, 711, 848, 728]);
    check("team-a", 16_384, [11391, 5120, 4578, 8922, 2868, 9021]);
    check("team-a", 65_536, [30839, 61725, 54040, 9229, 63692, 23849]);

    let series = crate::series_hash(SEED.0, "team-a", [("__name__", "up")]);
    let found = [1, 2, 8, 4096].map(|k| slot_of("team-a", series, tenant_slots(k), SlotCount::DEFAULT, SEED));
    assert_eq!(found, [4008, 1196, 1509, 1264].map(Slot));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_slot_has_one_index(count in 256_u32..=65_536, tenant in "[a-z]{0,8}") {
        let mut seen = vec![false; count as usize];
        for slot in shard(&tenant, count, slot_count(count)) {
            prop_assert!(!std::mem::replace(&mut seen[slot.index()], true), "{slot:?} twice");
        }
    }

    #[test]
    fn one_more_slot_takes_its_share_and_nothing_else_moves(k in 1_u32..64, tenant in "[a-z]{1,8}") {
        let place = |hash, k| slot_of(&tenant, hash, tenant_slots(k), SlotCount::DEFAULT, SEED);
        let added = Permutation::of_tenant(&tenant, SlotCount::DEFAULT, SEED).slot(k);
        let series = 20_000;
        let mut moved = 0;
        for hash in hashes(series) {
            let (before, after) = (place(hash, k), place(hash, k + 1));
            prop_assert!(after == before || after == added);
            moved += u64::from(after != before);
        }
        let expected = series as f64 / f64::from(k + 1);
        // Five standard deviations of a binomial count.
        prop_assert!((moved as f64 - expected).abs() < 5.0 * expected.sqrt(), "{moved}, not {expected}");
    }
}

#[test]
fn series_spread_evenly_over_a_tenants_slots() {
    for k in [2, 7, 64] {
        let mut counts = std::collections::BTreeMap::<Slot, u64>::new();
        for hash in hashes(100_000) {
            *counts.entry(slot_of("t", hash, tenant_slots(k), SlotCount::DEFAULT, SEED)).or_default() += 1;
        }
        let mean = 100_000.0 / f64::from(k);
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), {
            let mut slots = shard("t", k, SlotCount::DEFAULT);
            slots.sort();
            slots
        });
        for (slot, count) in counts {
            assert!(
                (count as f64 - mean).abs() < 5.0 * mean.sqrt(),
                "{slot:?} of {k} has {count}, not {mean}"
            );
        }
    }
}

/// Index by index the tenants' slots are as good as drawn: each slot gets about the same number of
/// tenants, and two tenants with the same first slot are as far apart in the second as any.
#[test]
fn tenants_shards_are_independent() {
    let (slots, tenants) = (slot_count(256), 200_000);
    let mut first = vec![0_u32; slots.as_len()];
    let mut difference = vec![0_u32; slots.as_len()];
    for tenant in 0..tenants {
        let shard = shard(&format!("tenant-{tenant}"), 2, slots);
        first[shard[0].index()] += 1;
        difference[(shard[1].0 + slots.get() - shard[0].0) as usize % slots.as_len()] += 1;
    }
    assert_eq!(difference[0], 0);
    let check = |counts: &[u32]| {
        let mean = f64::from(tenants) / counts.len() as f64;
        let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
        // Mean of the distribution plus five of its standard deviations.
        let freedom = counts.len() as f64 - 1.0;
        assert!(chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(), "chi square {chi_square}");
    };
    check(&first);
    check(&difference[1..]);
}
