//! Files, good, bad and random.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn a_whole_file() {
    let text = r#"[{
        "hashring": "hot",
        "tenants": ["team-[a-c]"],
        "tenant_matcher_type": "glob",
        "endpoints": [
            {"address": "node-2:10901", "az": "az-b", "capnproto_address": "node-2:19391"},
            {"address": "[::1]:10901", "az": "az-a"}
        ],
        "algorithm": "ketama",
        "external_labels": {"cluster": "eu", "none": ""},
        "shuffle_sharding_config": {"shard_size": 2, "cache_size": 7, "zone_awareness_disabled": false}
    }]"#;
    let file = RingFile::parse(text.as_bytes()).expect("a good file");
    assert_eq!(file.warnings(), []);
    let rings = StaticRing::build(&file, 2, Algorithm::Hashmod).expect("a good file");
    assert_eq!(rings.replication_factor(), 2);
    let ring = rings.ring_for("team-b").expect("a ring");
    assert_eq!(ring.name(), "hot");
    assert_eq!(ring.algorithm(), Algorithm::Ketama);
    assert_eq!(ring.tenants().map(TenantMatcher::len), Some(1));
    let endpoint = |endpoint: &Endpoint| {
        let capnproto = endpoint.capnproto_address().unwrap_or("none").to_owned();
        [endpoint.address().to_owned(), endpoint.zone().to_owned(), capnproto]
    };
    let endpoints: Vec<_> = ring.endpoints().iter().map(endpoint).collect();
    assert_eq!(endpoints, [["[::1]:10901", "az-a", "none"], ["node-2:10901", "az-b", "node-2:19391"]]);
    assert_eq!(ring.external_labels().iter().collect::<Vec<_>>(), [(&"cluster".into(), &"eu".into())]);
}

#[test]
fn refused_files() {
    let check = |text: &str, expected: &str| {
        let error = build_with(text, 3, Algorithm::Hashmod).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    };
    check("[]", "hashring file: has no hashring");
    check("{}", "hashring file: must be a list");
    check("[1]", "hashring 0: must be an object");
    check("[null]", "hashring 0: must be an object");
    check("[{]", "hashring file: not valid JSON: key must be a string at line 1 column 3");
    check("[{}]", r#"hashring 0, "endpoints": has no endpoint"#);
    check(
        r#"[{"endpoints": ["a:1", "b:1", "c:1"]}, {"hashring": "x", "endpoints": []}]"#,
        r#"hashring 1 ("x"), "endpoints": has no endpoint"#,
    );
    check(r#"[{"hashring": 1}]"#, r#"hashring 0, "hashring": must be a text"#);
    check(r#"[{"endpoints": "a:1"}]"#, r#"hashring 0, "endpoints": must be a list"#);
    check(r#"[{"endpoints": [7]}]"#, r#"hashring 0, "endpoints[0]": must be an address or an object"#);
    check(r#"[{"endpoints": [{}]}]"#, r#"hashring 0, "endpoints[0].address": is missing"#);
    check(r#"[{"endpoints": [{"address": null}]}]"#, r#"hashring 0, "endpoints[0].address": is missing"#);
    check(
        r#"[{"endpoints": ["a:1", "a"]}]"#,
        r#"hashring 0, "endpoints[1]": invalid address "a": the port is missing, as in "node-1:10901""#,
    );
    check(
        r#"[{"endpoints": ["a:1", "b:1", "A:1"]}]"#,
        r#"hashring 0, "endpoints[2]": endpoint "A:1" is the same as "endpoints[0]""#,
    );
    check(
        r#"[{"tenant_matcher_type": "regex", "endpoints": ["a:1"]}]"#,
        r#"hashring 0, "tenant_matcher_type": unknown matcher type "regex", known are "exact" and "glob""#,
    );
    check(
        r#"[{"tenants": ["a", "b["], "tenant_matcher_type": "glob", "endpoints": ["a:1"]}]"#,
        r#"hashring 0, "tenants[1]": invalid pattern "b[": a class is not closed by "]""#,
    );
    check(r#"[{"tenants": [1], "endpoints": ["a:1"]}]"#, r#"hashring 0, "tenants[0]": must be a text"#);
    check(
        r#"[{"endpoints": ["a:1"], "external_labels": []}]"#,
        r#"hashring 0, "external_labels": must be an object"#,
    );
    check(
        r#"[{"endpoints": ["a:1"], "external_labels": {"x": 1}}]"#,
        r#"hashring 0, "external_labels.x": must be a text"#,
    );
    check(
        r#"[{"endpoints": ["a:1"], "external_labels": {"": "v"}}]"#,
        r#"hashring 0, "external_labels": a label needs a name"#,
    );
    let three = r#""endpoints": ["a:1", "b:1", "c:1"]"#;
    check(
        r#"[{"endpoints": ["a:1", "b:1", {"address": "c:1", "az": "z"}]}]"#,
        r#"hashring 0, "endpoints[2].az": hashmod does not know zones: use ketama or remove "az""#,
    );
    check(
        &format!(r#"[{{{three}, "shuffle_sharding_config": {{"shard_size": 3}}}}]"#),
        r#"hashring 0, "shuffle_sharding_config.shard_size": hashmod does not know shuffle sharding: use ketama or remove it"#,
    );
    let few = "has 2 endpoints, fewer than the replication factor 3";
    check(&ketama_of(1..=2, 0, ""), &format!(r#"hashring 0, "endpoints": {few}"#));
    check(r#"[{"endpoints": ["a:1", "b:1"]}]"#, &format!(r#"hashring 0, "endpoints": {few}"#));
    let many = ketama_of(1..=4097, 0, "");
    check(&many, r#"hashring 0, "endpoints": has 4097 endpoints, more than 4096"#);
}

#[test]
fn refused_shards() {
    let check = |config: &str, expected: &str| {
        let text = ketama_of([1, 2, 3, 4, 5, 7], 3, &format!(r#", "shuffle_sharding_config": {config}"#));
        let error = build_with(&text, 3, Algorithm::Hashmod).expect_err(config);
        assert_eq!(
            error.to_string(),
            format!(r#"hashring 0, "shuffle_sharding_config{expected}"#),
            "{config}"
        );
    };
    check("7", r#"": must be an object"#);
    check(r#"{"shard_size": 7}"#, r#".shard_size": is 7, more than the 6 endpoints"#);
    check(r#"{"shard_size": 2}"#, r#".shard_size": is 2, fewer than the replication factor 3"#);
    check(
        r#"{"shard_size": 4}"#,
        r#".shard_size": is 4 and takes 2 endpoints of each zone, zone "az-c" has 1"#,
    );
    check(r#"{"shard_size": -1}"#, r#".shard_size": must be a number from 0 to 4096"#);
    check(r#"{"shard_size": 3.5}"#, r#".shard_size": must be a number from 0 to 4096"#);
    check(r#"{"shard_size": "3"}"#, r#".shard_size": must be a number"#);
    check(r#"{"shard_size": 3, "cache_size": -1}"#, r#".cache_size": must be a number from 0 to 1000000"#);
    check(
        r#"{"shard_size": 3, "zone_awareness_disabled": 1}"#,
        r#".zone_awareness_disabled": must be true or false"#,
    );
    let with_override = |exception: &str| format!(r#"{{"shard_size": 3, "overrides": [{exception}]}}"#);
    check(
        &with_override(r#"{"shard_size": 3, "tenants": ["a"]}"#),
        r#".overrides[0].tenant_matcher_type": is missing"#,
    );
    check(
        &with_override(r#"{"tenants": ["a"], "tenant_matcher_type": "exact"}"#),
        r#".overrides[0].shard_size": is missing"#,
    );
    check(
        &with_override(r#"{"shard_size": 2, "tenants": ["a"], "tenant_matcher_type": "exact"}"#),
        r#".overrides[0].shard_size": is 2, fewer than the replication factor 3"#,
    );
    check(
        &with_override(r#"{"shard_size": 3, "tenants": ["\\"], "tenant_matcher_type": "glob"}"#),
        r#".overrides[0].tenants[0]": invalid pattern "\\": nothing follows the last backslash"#,
    );
}

#[test]
fn bounds_of_the_replication_factor() {
    let check = |factor, is_good: bool| {
        let built = build_with(&ketama_of(1..=100, 0, ""), factor, Algorithm::Hashmod);
        assert_eq!(built.is_ok(), is_good, "{factor}");
    };
    check(0, false);
    check(1, true);
    check(100, true);
    check(101, false);
    check(usize::MAX, false);
}

#[test]
fn warnings() {
    let check = |text: &str, expected: &[&str]| {
        let file = RingFile::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let warnings: Vec<_> = file.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings, expected, "{text}");
    };
    check(r#"[{"endpoints": ["a:1"], "tenants": null, "algorithm": ""}]"#, &[]);
    // Letters of keys may be large, but a second spelling is one key too many.
    check(r#"[{"Endpoints": ["a:1"], "HASHRING": "x"}]"#, &[]);
    check(
        r#"[{"Endpoints": 1, "endpoints": ["a:1"]}]"#,
        &[r#"hashring 0, "Endpoints": unknown key is ignored"#],
    );
    check(
        r#"[{"hashring": "x", "endpoints": [{"address": "a:1", "zone": "z"}], "tenant": ["a"]}]"#,
        &[
            r#"hashring 0 ("x"), "endpoints[0].zone": unknown key is ignored"#,
            r#"hashring 0 ("x"), "tenant": unknown key is ignored"#,
        ],
    );
    check(
        r#"[{"endpoints": ["a:1"], "algorithm": "rendezvous"}]"#,
        &[r#"hashring 0, "algorithm": unknown algorithm "rendezvous" means "hashmod""#],
    );
    check(
        r#"[{"endpoints": ["a:1"]}, {"tenants": ["a"], "endpoints": ["a:1"]}]"#,
        &["hashring 1: no tenant comes here: hashring 0 before it takes every tenant"],
    );
    check(
        r#"[{"endpoints": ["a:1", {"address": "b:1", "az": "z"}]}]"#,
        &[r#"hashring 0, "endpoints": some endpoints have no "az" and count as one zone together"#],
    );
    check(
        r#"[{"endpoints": ["a:1"], "shuffle_sharding_config": {"size": 1, "overrides": [
            {"shard_size": 3, "tenant_matcher_type": "glob", "x": 1}]}}]"#,
        &[
            r#"hashring 0, "shuffle_sharding_config.overrides[0].x": unknown key is ignored"#,
            r#"hashring 0, "shuffle_sharding_config.overrides[0]": applies to no tenant"#,
            r#"hashring 0, "shuffle_sharding_config.size": unknown key is ignored"#,
            r#"hashring 0, "shuffle_sharding_config.overrides": has no effect, "shard_size" is missing or 0"#,
        ],
    );
}

#[test]
fn an_unknown_algorithm_is_hashmod() {
    let rings = build_with(r#"[{"endpoints": ["a:1"], "algorithm": "x"}]"#, 1, Algorithm::Ketama);
    assert_eq!(rings.expect("a good file").rings()[0].algorithm(), Algorithm::Hashmod);
}

const KEYS: [&str; 19] = [
    "hashring",
    "tenants",
    "tenant_matcher_type",
    "endpoints",
    "algorithm",
    "external_labels",
    "shuffle_sharding_config",
    "shard_size",
    "cache_size",
    "zone_awareness_disabled",
    "overrides",
    "address",
    "az",
    "capnproto_address",
    "Endpoints",
    "unknown",
    "",
    "tenantS",
    "é",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0i64..7).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "ketama", "hashmod", "glob", "exact", "a:1", "b:1", "c:1", "[::1]:1", "z", ""
        ])
        .prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..6).prop_map(|members| {
                members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

/// A ring that is good, or nearly.
fn ring_json() -> impl Strategy<Value = Value> {
    let endpoint = (0u8..5, 0u8..3, any::<bool>()).prop_map(|(node, zone, as_text)| match as_text {
        true => json!(format!("n{node}:1")),
        false => json!({"address": format!("n{node}:1"), "az": (["", "x", "y"][usize::from(zone)])}),
    });
    let shuffle = (0u8..5, any::<bool>(), 0u8..5).prop_map(|(size, flag, other)| {
        json!({"shard_size": size, "zone_awareness_disabled": flag, "overrides": [
            {"shard_size": other, "tenants": ["t*"], "tenant_matcher_type": "glob"}]})
    });
    let algorithm = prop::sample::select(vec!["ketama", "ketama", "hashmod", "other"]);
    let shuffle = prop_oneof![Just(Value::Null), shuffle];
    let spoiled = prop::option::weighted(0.2, (prop::sample::select(KEYS.to_vec()), any_json()));
    (prop::collection::vec(endpoint, 0..5), algorithm, shuffle, spoiled).prop_map(
        |(endpoints, algorithm, shuffle, spoiled)| {
            let mut ring =
                json!({"endpoints": endpoints, "algorithm": algorithm, "shuffle_sharding_config": shuffle});
            if let Some((key, value)) = spoiled {
                ring[key] = value;
            }
            ring
        },
    )
}

/// Whatever can be built has all copies of each series on distinct endpoints.
fn check_usable(bytes: &[u8], replication_factor: usize) -> Result<(), TestCaseError> {
    let Ok(file) = RingFile::parse(bytes) else { return Ok(()) };
    let Ok(rings) = StaticRing::build(&file, replication_factor, Algorithm::Ketama) else { return Ok(()) };
    let lookup = RingLookup::new(std::sync::Arc::new(rings));
    for tenant in ["t", "other"] {
        let Some(found) = lookup.find(tenant) else { continue };
        for hash in hashes(20) {
            let owners: std::collections::BTreeSet<_> = found.owners(hash).iter().collect();
            prop_assert_eq!(owners.len(), replication_factor);
            prop_assert!(owners.iter().all(|owner| owner.get() < found.ring().endpoints().len()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_json_does_no_harm(value in any_json(), factor in 0usize..5) {
        check_usable(value.to_string().as_bytes(), factor)?;
        check_usable(Value::from(vec![value]).to_string().as_bytes(), factor)?;
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60), factor in 0usize..5) {
        check_usable(&bytes, factor)?;
    }

    #[test]
    fn nearly_good_files_do_no_harm(rings in prop::collection::vec(ring_json(), 1..3), factor in 1usize..4) {
        check_usable(Value::from(rings).to_string().as_bytes(), factor)?;
    }
}
