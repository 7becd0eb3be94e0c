//! Tests of the module as a whole.

mod distribution;
mod file;
mod placement;
mod shuffle;

use super::*;

/// The rings of `text`, which is a good file, with three copies and hashmod by default.
fn build(text: &str) -> StaticRing {
    build_with(text, 3, Algorithm::Hashmod).unwrap_or_else(|error| panic!("{error}"))
}

fn build_with(
    text: &str,
    replication_factor: usize,
    default_algorithm: Algorithm,
) -> Result<StaticRing, RingError> {
    StaticRing::build(&RingFile::parse(text.as_bytes())?, replication_factor, default_algorithm)
}

/// A ketama ring of `nodes` endpoints as JSON, `node-1:10901` and so on, in `zones` zones `az-a`, `az-b`
/// and so on by turns, or in none. `more` are further members.
fn ketama_of(nodes: impl IntoIterator<Item = usize>, zones: usize, more: &str) -> String {
    let zone_name = |zone: usize| char::from(b'a' + u8::try_from(zone).expect("a letter"));
    let endpoint = |node: usize| match zones {
        0 => format!(r#""node-{node}:10901""#),
        zones => {
            format!(r#"{{"address": "node-{node}:10901", "az": "az-{}"}}"#, zone_name((node - 1) % zones))
        }
    };
    let endpoints: Vec<_> = nodes.into_iter().map(endpoint).collect();
    format!(r#"[{{"algorithm": "ketama", "endpoints": [{}]{more}}}]"#, endpoints.join(", "))
}

/// Addresses of the owners of a hash, in order.
fn addresses<'a>(ring: &'a Ring, owners: &[EndpointIndex]) -> Vec<&'a str> {
    owners.iter().map(|owner| ring.endpoint(*owner).address()).collect()
}

/// Hashes as even as any, the same in each run.
fn hashes(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()))
}
