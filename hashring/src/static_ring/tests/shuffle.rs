//! Shards of tenants.

use std::{collections::BTreeMap, sync::Arc};

use super::*;

fn sharded(zones: usize, config: &str) -> StaticRing {
    build(&ketama_of(1..=12, zones, &format!(r#", "shuffle_sharding_config": {config}"#)))
}

/// All endpoints that own anything of the tenant.
fn members(ring: &Ring, tenant: &str) -> Vec<EndpointIndex> {
    let shard = ring.shard(tenant).expect("shuffle sharding is on");
    let mut members: Vec<_> = hashes(2000).flat_map(|hash| shard.owners(hash).to_vec()).collect();
    members.sort_unstable();
    members.dedup();
    members
}

fn count_by_zone(ring: &Ring, members: &[EndpointIndex]) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    for member in members {
        *counts.entry(ring.endpoint(*member).zone()).or_insert(0) += 1;
    }
    counts.into_values().collect()
}

#[test]
fn sizes_of_shards() {
    let check = |zones, config: &str, tenant: &str, expected: &[usize]| {
        let rings = sharded(zones, config);
        let ring = &rings.rings()[0];
        assert_eq!(count_by_zone(ring, &members(ring, tenant)), expected, "{config} {tenant}");
    };
    check(3, r#"{"shard_size": 6}"#, "a", &[2, 2, 2]);
    check(3, r#"{"shard_size": 4}"#, "a", &[2, 2, 2]);
    check(3, r#"{"shard_size": 12}"#, "a", &[4, 4, 4]);
    check(0, r#"{"shard_size": 5}"#, "a", &[5]);
    let overrides = r#"{"shard_size": 3, "overrides": [
        {"shard_size": 6, "tenants": ["big", "huge-*"], "tenant_matcher_type": "exact"},
        {"shard_size": 9, "tenants": ["huge-*", "big"], "tenant_matcher_type": "glob"}]}"#;
    check(3, overrides, "a", &[1, 1, 1]);
    check(3, overrides, "big", &[2, 2, 2]);
    check(3, overrides, "huge-1", &[3, 3, 3]);
}

#[test]
fn zones_may_be_left_aside() {
    let rings = sharded(3, r#"{"shard_size": 5, "zone_awareness_disabled": true}"#);
    let ring = &rings.rings()[0];
    let mut uneven = 0;
    for tenant in (0..50).map(|number| format!("tenant-{number}")) {
        let members = members(ring, &tenant);
        assert_eq!(members.len(), 5);
        let by_zone = count_by_zone(ring, &members);
        uneven += usize::from(by_zone.len() < 3 || by_zone.contains(&3));
        // The copies are spread over as many zones as the shard has.
        let shard = ring.shard(&tenant).expect("shuffle sharding is on");
        for hash in hashes(100) {
            assert_eq!(count_by_zone(ring, shard.owners(hash)).len(), by_zone.len().min(3));
        }
    }
    assert!(uneven > 0, "each shard has two, two and one of a zone");
}

#[test]
fn tenants_have_different_shards_and_all_endpoints_are_used() {
    let rings = sharded(3, r#"{"shard_size": 3}"#);
    let ring = &rings.rings()[0];
    let mut tenants_of: BTreeMap<_, usize> = BTreeMap::new();
    for tenant in (0..300).map(|number| format!("tenant-{number}")) {
        for member in members(ring, &tenant) {
            *tenants_of.entry(member).or_default() += 1;
        }
    }
    assert_eq!(tenants_of.len(), 12);
    // 75 each were even. Points of an endpoint and the draws are both random.
    assert!(tenants_of.values().all(|count| (45..=110).contains(count)), "{tenants_of:?}");
}

/// Frozen: whoever changes these values moves every tenant that has a shard.
#[test]
fn golden_shards() {
    let rings = sharded(3, r#"{"shard_size": 4}"#);
    let ring = &rings.rings()[0];
    let found = ["team-a", "team-b"].map(|tenant| addresses(ring, &members(ring, tenant)).join(" "));
    let team_a = "node-10:10901 node-11:10901 node-3:10901 node-7:10901 node-8:10901 node-9:10901";
    let team_b = "node-10:10901 node-11:10901 node-12:10901 node-2:10901 node-6:10901 node-7:10901";
    assert_eq!(found, [team_a, team_b]);
}

#[test]
fn a_new_endpoint_replaces_few_members() {
    let config = r#", "shuffle_sharding_config": {"shard_size": 6}"#;
    let (before, after) = (build(&ketama_of(1..=30, 3, config)), build(&ketama_of(1..=31, 3, config)));
    let names = |rings: &StaticRing, tenant: &str| {
        let ring = &rings.rings()[0];
        addresses(ring, &members(ring, tenant)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut changed = 0;
    for tenant in (0..100).map(|number| format!("tenant-{number}")) {
        let (old, new) = (names(&before, &tenant), names(&after, &tenant));
        let gone = old.iter().filter(|name| !new.contains(name)).count();
        assert!(gone <= 1, "one new endpoint takes at most one place: {old:?} {new:?}");
        changed += gone;
    }
    // Two picks of eleven endpoints: 18 of 100.
    assert!((8..=30).contains(&changed), "{changed}");
}

#[test]
fn lookups_find_the_shard() {
    let lookup = RingLookup::new(Arc::new(sharded(3, r#"{"shard_size": 3, "cache_size": 2}"#)));
    // More tenants than are kept, and again.
    for tenant in ["a", "b", "a", "c", "a", "b", "c", "d", "a"] {
        let found = lookup.find(tenant).expect("a ring for every tenant");
        let shard = found.ring().shard(tenant).expect("shuffle sharding is on");
        for hash in hashes(200) {
            assert_eq!(found.owners(hash), shard.owners(hash), "{tenant}");
        }
    }
}

#[test]
fn lookups_without_shards_use_the_whole_ring() {
    let lookup = RingLookup::new(Arc::new(build(&ketama_of(1..=6, 3, ""))));
    let found = lookup.find("a").expect("a ring for every tenant");
    assert!(found.ring().shard("a").is_none());
    for hash in hashes(200) {
        assert_eq!(found.owners(hash), found.ring().owners(hash));
    }
}
