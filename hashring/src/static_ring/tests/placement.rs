//! Placement as Thanos has it, value by value, and the digest of it.

use super::*;

const SERIES_HASHES: [u64; 4] =
    [0x2ffab3413ff41b56, 0xe500359ca753d6ae, 0xcf7a429a201a018e, 0x7f6f6f585862d556];

/// Numbers of the owning nodes for each of the hashes above.
fn owners(text: &str) -> [Vec<String>; 4] {
    let rings = build(text);
    let ring = rings.ring_for("any").expect("a ring for every tenant");
    let number = |address: &str| address.trim_start_matches("node-").trim_end_matches(":10901").to_owned();
    SERIES_HASHES.map(|hash| addresses(ring, ring.owners(hash)).into_iter().map(number).collect())
}

#[test]
fn golden_values() {
    let check = |text: &str, expected: [[&str; 3]; 4]| {
        assert_eq!(owners(text), expected.map(|owners| owners.map(str::to_owned).to_vec()), "{text}");
    };
    let hashmod_a = r#"[{"endpoints": ["node-3:10901", "node-1:10901", "node-2:10901"]}]"#;
    check(hashmod_a, [["2", "3", "1"], ["3", "1", "2"], ["1", "2", "3"], ["2", "3", "1"]]);
    check(&ketama_of(1..=3, 0, ""), [["3", "2", "1"], ["1", "3", "2"], ["3", "2", "1"], ["3", "1", "2"]]);
    check(&ketama_of(1..=6, 3, ""), [["3", "2", "4"], ["1", "3", "5"], ["4", "3", "2"], ["4", "3", "2"]]);
    // The order of the file does not matter.
    let backwards = ketama_of((1..=6).rev(), 3, "");
    check(&backwards, [["3", "2", "4"], ["1", "3", "5"], ["4", "3", "2"], ["4", "3", "2"]]);
}

#[test]
fn golden_values_of_a_small_ring() {
    let endpoints = ["node-1", "node-2", "node-3"].map(|address| Endpoint {
        address: address.to_owned(),
        zone: String::new(),
        capnproto_address: None,
    });
    let ketama = Ketama::new(&endpoints, &zones::Zones::of(&endpoints), 10, 3);
    let owners = |pod| {
        let owners = ketama.owners_at(ketama.slot(thanos_hash("tenant", [("pod", pod)])));
        owners.iter().map(|owner| endpoints[owner.get()].address()).collect::<Vec<_>>()
    };
    assert_eq!(owners("nginx"), ["node-2", "node-1", "node-3"]);
    assert_eq!(owners("thanos")[0], "node-3");
}

#[test]
fn copies_are_on_distinct_endpoints() {
    let check = |text: &str, replication_factor: usize| {
        let rings = build_with(text, replication_factor, Algorithm::Hashmod).expect("a good file");
        for hash in hashes(1000).chain([0, 1, u64::MAX - 1, u64::MAX]) {
            let mut owners = rings.rings()[0].owners(hash).to_vec();
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), replication_factor, "{hash:x} {text}");
        }
    };
    check(&ketama_of(1..=7, 0, ""), 7);
    check(&ketama_of(1..=7, 2, ""), 6);
    check(&ketama_of(1..=7, 6, ""), 7);
    check(&ketama_of([1, 4, 7, 10, 2], 3, ""), 4);
    check(r#"[{"endpoints": ["a:1", "b:1", "c:1"]}]"#, 3);
    check(r#"[{"endpoints": ["[::1]:1", "[::2]:1"]}]"#, 1);
}

#[test]
fn the_first_ring_that_matches_takes_the_tenant() {
    let rings = build_with(
        r#"[
            {"hashring": "exact", "tenants": ["a", "team-*"], "endpoints": ["n:1"]},
            {"hashring": "glob", "tenant_matcher_type": "glob", "tenants": ["b", "team-*"], "endpoints": ["n:1"]},
            {"hashring": "shadowed", "tenants": ["team-x", "c"], "endpoints": ["n:1"]}
        ]"#,
        1,
        Algorithm::Ketama,
    )
    .expect("a good file");
    let check = |tenant: &str, expected: Option<&str>| {
        assert_eq!(rings.ring_for(tenant).map(Ring::name), expected, "{tenant}");
        let lookup = RingLookup::new(std::sync::Arc::new(rings.clone()));
        assert_eq!(lookup.find(tenant).as_ref().map(|found| found.ring().name()), expected, "{tenant}");
    };
    check("a", Some("exact"));
    check("team-*", Some("exact"));
    check("team-x", Some("glob"));
    check("b", Some("glob"));
    check("c", Some("shadowed"));
    check("d", None);
    check("", None);
}

#[test]
fn the_flag_decides_where_the_file_does_not() {
    let text = r#"[{"endpoints": ["a:1"]}, {"algorithm": "hashmod", "endpoints": ["a:1"]}, {"algorithm": "ketama", "endpoints": ["a:1"]}]"#;
    let check = |default, expected: [Algorithm; 3]| {
        let rings = build_with(text, 1, default).expect("a good file");
        assert_eq!(rings.rings().iter().map(Ring::algorithm).collect::<Vec<_>>(), expected);
    };
    check(Algorithm::Hashmod, [Algorithm::Hashmod, Algorithm::Hashmod, Algorithm::Ketama]);
    check(Algorithm::Ketama, [Algorithm::Ketama, Algorithm::Hashmod, Algorithm::Ketama]);
}

/// Frozen: nodes of two releases compare it.
#[test]
fn golden_digest() {
    assert_eq!(build(&ketama_of(1..=6, 3, "")).digest(), 15009805691709557550);
}

#[test]
fn the_digest_tells_placements_apart() {
    let digest = |text: &str| build_with(text, 2, Algorithm::Hashmod).expect("a good file").digest();
    let base = r#"[{"endpoints": ["a:1", "b:1", "c:1"]}]"#;
    let same = [
        r#"[{"hashring": "name", "endpoints": ["c:1", "b:1", "a:1"]}]"#,
        r#"[{"algorithm": "hashmod", "endpoints": ["a:1", "b:1", {"address": "c:1", "capnproto_address": "c:2"}]}]"#,
        r#"[{"external_labels": {"a": "b"}, "endpoints": ["a:1", "b:1", "c:1"]}]"#,
    ];
    for text in same {
        assert_eq!(digest(text), digest(base), "{text}");
    }
    let shards = |config: &str| ketama_of(1..=4, 2, &format!(r#", "shuffle_sharding_config": {config}"#));
    let different = [
        base.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1"]}]"#.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:2"]}]"#.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:1"], "algorithm": "ketama"}]"#.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:1"], "tenants": ["a", "b"]}]"#.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:1"], "tenants": ["ab"]}]"#.to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:1"], "tenants": ["ab"], "tenant_matcher_type": "glob"}]"#
            .to_owned(),
        r#"[{"endpoints": ["a:1", "b:1", "c:1"]}, {"endpoints": ["a:1", "b:1", "c:1"]}]"#.to_owned(),
        ketama_of(1..=4, 0, ""),
        ketama_of(1..=4, 2, ""),
        shards(r#"{"shard_size": 2}"#),
        shards(r#"{"shard_size": 4}"#),
        shards(r#"{"shard_size": 2, "zone_awareness_disabled": true}"#),
        shards(
            r#"{"shard_size": 2, "overrides": [{"shard_size": 4, "tenants": ["a"], "tenant_matcher_type": "exact"}]}"#,
        ),
    ];
    let mut digests: Vec<_> = different.iter().map(|text| digest(text)).collect();
    digests.push(build_with(base, 3, Algorithm::Hashmod).expect("a good file").digest());
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}
