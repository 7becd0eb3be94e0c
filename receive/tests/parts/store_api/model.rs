//! Series against a naive model: random tenants, series, matchers and request fields.

use std::{cell::Cell, collections::BTreeMap};

use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use tonic::Code;
use weir_proto::thanos::{self as pb, label_matcher::Type, series_response::Result as Frame};
use weir_tsdb::labels::Labels;
use xxhash_rust::xxh64::xxh64;

use crate::store_api::{
    harness::{matcher, start},
    memory::{MemoryDb, MemorySource, Series, chunk, tenant},
};

type Set = BTreeMap<String, String>;
/// A series of the answer: labels, and start times of chunks in any order.
type Answer = Vec<(Vec<(String, String)>, Vec<i64>)>;

#[derive(Clone, Debug)]
struct Tenant {
    external: Set,
    /// Labels, and chunks as ranges.
    series: Vec<(Set, Vec<(i64, i64)>)>,
}

#[derive(Clone, Debug)]
struct Ask {
    mint: i64,
    maxt: i64,
    /// Regular expressions are alternations of plain values.
    matchers: Vec<(Type, String, Vec<String>)>,
    removed: Vec<String>,
    limit: usize,
    shard: Option<(u64, u64, bool, Vec<String>)>,
    batch_size: i64,
    skip_chunks: bool,
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "replica", "tenant_id"];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    select(&["1", "10", "2", "\u{ffff}", "\u{10000}"][..]).prop_map(str::to_owned)
}

fn label_set(size: usize) -> impl Strategy<Value = Set> {
    prop::collection::btree_map(name(), value(), 0..size)
}

fn any_tenant() -> impl Strategy<Value = Tenant> {
    let chunks = vec((0i64..5, 1i64..10), 0..4).prop_map(|gaps| {
        let mut end = 0;
        let place = |(gap, length)| {
            let start = end + gap;
            end = start + length;
            (start, end - 1)
        };
        gaps.into_iter().map(place).collect()
    });
    let series = vec((label_set(5), chunks), 0..20);
    (label_set(3), series).prop_map(|(external, series)| {
        // A database has each set once.
        let unique: BTreeMap<Set, Vec<(i64, i64)>> = series.into_iter().collect();
        Tenant { external, series: unique.into_iter().collect() }
    })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    // Mostly mild matchers, or nothing would ever be left.
    let empty_too = |mut values: Vec<String>| {
        values.push(String::new());
        values
    };
    let kind_and_values = prop_oneof![
        1 => (Just(Type::Eq), vec(value(), 1)),
        1 => (Just(Type::Eq), Just(vec![String::new()])),
        3 => (Just(Type::Neq), vec(value(), 1)),
        1 => (Just(Type::Re), vec(value(), 1..4)),
        3 => (Just(Type::Re), vec(value(), 3..6).prop_map(empty_too)),
        3 => (Just(Type::Nre), vec(value(), 1..3)),
    ];
    let matcher = (kind_and_values, name()).prop_map(|((kind, values), name)| (kind, name, values));
    let matchers = prop_oneof![1 => Just(Vec::new()), 12 => vec(matcher, 1..3)];
    let shard = (1u64..4).prop_flat_map(|total| (0..total, Just(total), any::<bool>(), vec(name(), 0..3)));
    let limit = prop_oneof![Just(0usize), 1usize..8];
    let flags = (limit, option::weighted(0.3, shard), 0i64..4, any::<bool>());
    let range = prop_oneof![1 => (0i64..20, -2i64..3), 3 => (0i64..5, 5i64..20)];
    (range, matchers, vec(name(), 0..3), flags).prop_map(
        |((mint, length), matchers, removed, (limit, shard, batch_size, skip_chunks))| Ask {
            mint,
            maxt: mint + length,
            matchers,
            removed,
            limit,
            shard,
            batch_size,
            skip_chunks,
        },
    )
}

fn matches((kind, _, values): &(Type, String, Vec<String>), value: &str) -> bool {
    match kind {
        Type::Eq => values[0] == value,
        Type::Neq => values[0] != value,
        Type::Re => values.iter().any(|own| own == value),
        Type::Nre => values.iter().all(|own| own != value),
    }
}

/// The answer, made the slow way; `None` if the request is invalid. `shard` overrides that of the
/// request.
fn model(tenants: &[Tenant], ask: &Ask, sharded: bool) -> Option<Answer> {
    let mut all = Answer::new();
    if ask.matchers.is_empty() {
        return None;
    }
    for tenant in tenants {
        let (on_external, on_stored): (Vec<_>, Vec<_>) =
            ask.matchers.iter().partition(|matcher| tenant.external.contains_key(&matcher.1));
        if !on_external.iter().all(|matcher| matches(matcher, &tenant.external[&matcher.1])) {
            continue;
        }
        if on_stored.is_empty() {
            return None;
        }
        for (stored, chunks) in &tenant.series {
            let value = |name: &str| stored.get(name).map_or("", String::as_str);
            if !on_stored.iter().all(|matcher| matches(matcher, value(&matcher.1))) {
                continue;
            }
            let overlap = chunks.iter().filter(|chunk| chunk.0 <= ask.maxt && chunk.1 >= ask.mint);
            let starts: Vec<i64> = overlap.map(|chunk| chunk.0).collect();
            if starts.is_empty() || ask.mint > ask.maxt {
                continue;
            }
            let mut labels = stored.clone();
            labels.extend(tenant.external.clone());
            labels.retain(|name, _| !ask.removed.contains(name));
            all.push((labels.into_iter().collect(), if ask.skip_chunks { Vec::new() } else { starts }));
        }
    }
    let mut grouped: BTreeMap<Vec<(String, String)>, Vec<i64>> = BTreeMap::new();
    for (labels, starts) in all {
        grouped.entry(labels).or_default().extend(starts);
    }
    let limit = if ask.limit == 0 { usize::MAX } else { ask.limit };
    let kept = grouped.into_iter().take(limit).filter(|(labels, _)| {
        let Some((index, total, by, names)) = ask.shard.as_ref().filter(|_| sharded) else { return true };
        let mut text = Vec::new();
        for (name, value) in labels.iter().filter(|label| names.contains(&label.0) == *by) {
            text.extend([name.as_bytes(), b"\xff", value.as_bytes(), b"\xff"].concat());
        }
        xxh64(&text, 0) % total == *index
    });
    Some(
        kept.map(|(labels, mut starts)| {
            starts.sort_unstable();
            (labels, starts)
        })
        .collect(),
    )
}

fn wire(ask: &Ask) -> pb::SeriesRequest {
    let matchers = ask.matchers.iter().map(|(kind, name, values)| match kind {
        Type::Eq | Type::Neq => matcher(*kind, name, &values[0]),
        Type::Re | Type::Nre => matcher(*kind, name, &values.join("|")),
    });
    pb::SeriesRequest {
        min_time: ask.mint,
        max_time: ask.maxt,
        matchers: matchers.collect(),
        skip_chunks: ask.skip_chunks,
        shard_info: ask.shard.clone().map(|(index, total, by, labels)| pb::ShardInfo {
            shard_index: index as i64,
            total_shards: total as i64,
            by,
            labels,
        }),
        without_replica_labels: ask.removed.clone(),
        limit: ask.limit as i64,
        response_batch_size: ask.batch_size,
        ..Default::default()
    }
}

/// Joins the frames of an answer. Fails if a set comes back after another, or if sets descend.
fn join(frames: Vec<Frame>, batch_size: i64) -> Result<Answer, String> {
    let mut answer: Answer = Vec::new();
    for frame in frames {
        let pieces = match frame {
            Frame::Series(series) if batch_size <= 1 => vec![series],
            Frame::Batch(batch) if batch_size > 1 && batch.series.len() <= batch_size as usize => {
                batch.series
            }
            other => return Err(format!("unexpected frame {other:?}")),
        };
        for piece in pieces {
            let labels: Vec<_> = piece.labels.into_iter().map(|label| (label.name, label.value)).collect();
            if !labels.is_sorted() {
                return Err(format!("labels are not sorted: {labels:?}"));
            }
            let starts: Vec<i64> = piece.chunks.iter().map(|chunk| chunk.min_time).collect();
            if !starts.is_sorted() {
                return Err(format!("chunks of {labels:?} are not sorted: {starts:?}"));
            }
            match answer.last_mut() {
                Some(last) if last.0 == labels => last.1.extend(starts),
                Some(last) if last.0 > labels => return Err(format!("{labels:?} after {:?}", last.0)),
                _ => answer.push((labels, starts)),
            }
        }
    }
    answer.iter_mut().for_each(|series| series.1.sort_unstable());
    Ok(answer)
}

#[test]
fn answers_like_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let source = MemorySource::new(Vec::new());
    let server = runtime.block_on(start(&source));
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    // How many cases said something at all: a generator can be too wild.
    let (with_series, with_order) = (Cell::new(0), Cell::new(0));
    let strategy = (vec(any_tenant(), 0..4), any_ask());
    let result = TestRunner::new(config).run(&strategy, |(tenants, ask)| {
        let views = tenants.iter().enumerate().map(|(index, own)| {
            let stored = own.series.iter().map(|(labels, chunks)| Series {
                labels: Labels::from_pairs(labels),
                chunks: chunks.iter().map(|(mint, maxt)| chunk(*mint, *maxt, 1)).collect(),
                damaged: false,
            });
            let mut view = tenant(&index.to_string(), &[], MemoryDb::new(stored.collect()));
            view.external_labels = Labels::from_pairs(&own.external);
            view
        });
        source.set_tenants(views.collect());
        let got = runtime.block_on(server.frames(wire(&ask)));
        let Some(want) = model(&tenants, &ask, true) else {
            prop_assert_eq!(got.unwrap_err().code(), Code::InvalidArgument);
            return Ok(());
        };
        let got = join(got.unwrap(), ask.batch_size).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&got, &want);
        with_series.set(with_series.get() + u32::from(!want.is_empty()));
        with_order.set(with_order.get() + u32::from(want.len() > 2));

        // All shards together are what there is without shards.
        if let Some((_, total, by, names)) = &ask.shard {
            let mut sum = Answer::new();
            for index in 0..*total {
                let shard = Some((index, *total, *by, names.clone()));
                let frames = runtime.block_on(server.frames(wire(&Ask { shard, ..ask.clone() }))).unwrap();
                sum.extend(join(frames, ask.batch_size).map_err(TestCaseError::fail)?);
            }
            sum.sort();
            prop_assert_eq!(sum, model(&tenants, &ask, false).unwrap());
        }
        Ok(())
    });
    result.unwrap();
    assert!(with_series.get() > 50 && with_order.get() > 25, "{with_series:?} {with_order:?}");
}
