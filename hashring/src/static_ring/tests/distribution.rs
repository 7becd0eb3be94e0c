//! How evenly ketama spreads, and how little it moves.
//!
//! A node's part of its zone is a sum of 1000 gaps between points, so it is off by about 3 % (one by the
//! square root of 1000), and the fullest of thirty nodes by about two or three times that.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const HASHES: u64 = 30_000;

/// Copies on each node, relative to the mean.
fn loads(rings: &StaticRing) -> BTreeMap<&str, f64> {
    let ring = &rings.rings()[0];
    let mut copies: BTreeMap<_, u64> = BTreeMap::new();
    for hash in hashes(HASHES) {
        for address in addresses(ring, ring.owners(hash)) {
            *copies.entry(address).or_default() += 1;
        }
    }
    let mean = (3 * HASHES) as f64 / ring.endpoints().len() as f64;
    copies.into_iter().map(|(address, copies)| (address, copies as f64 / mean)).collect()
}

/// Share of the copies that are where none was before.
fn moved(before: &StaticRing, after: &StaticRing) -> f64 {
    let (before, after) = (&before.rings()[0], &after.rings()[0]);
    let count_new = |hash| {
        let old: BTreeSet<_> = addresses(before, before.owners(hash)).into_iter().collect();
        addresses(after, after.owners(hash)).iter().filter(|address| !old.contains(*address)).count()
    };
    hashes(HASHES).map(count_new).sum::<usize>() as f64 / (3 * HASHES) as f64
}

#[test]
fn thirty_nodes() {
    let check = |what: &str, found: f64, bounds: std::ops::RangeInclusive<f64>| {
        assert!(bounds.contains(&found), "{what}: {found}");
    };
    for prefix in ["node-", "weir-", "receive-hot-", "10.0.0."] {
        let build = |text: String| build(&text.replace("node-", prefix));
        let rings = build(ketama_of(1..=30, 3, ""));
        let loads = loads(&rings);
        assert_eq!(loads.len(), 30);
        check("fullest over mean", loads.values().copied().fold(0.0, f64::max), 1.03..=1.13);
        check("emptiest over mean", loads.values().copied().fold(2.0, f64::min), 0.87..=0.97);

        let added = build(ketama_of(1..=31, 3, ""));
        check("moved by a new node", moved(&rings, &added), 0.028..=0.034);

        // What the lost node had moves, and next to nothing else.
        let removed = build(ketama_of((1..=30).filter(|node| *node != 15), 3, ""));
        let lost = loads[format!("{prefix}15:10901").as_str()] / 30.0;
        check("moved by a lost node, beside its own copies", moved(&rings, &removed) - lost, 0.0..=0.001);
    }
}
