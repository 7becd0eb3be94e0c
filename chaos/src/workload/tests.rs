use std::collections::{HashMap, HashSet};

use super::*;
use crate::load::encode::{SampleEncoder, SeriesTable};

const NOW: i64 = 1_700_000_000_000;

#[test]
fn labels_are_sorted_and_series_distinct() {
    let workload = Workload::new(7);
    let mut seen = HashSet::new();
    for series in 0..10_000 {
        let labels = workload.series_labels(series);
        assert_eq!(labels.len(), 9);
        assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{labels:?}");
        assert_eq!(labels[0].0, "__name__");
        assert!(labels.iter().all(|(_, value)| !value.is_empty()));
        assert!(seen.insert(labels));
    }
}

#[test]
fn pod_names_never_repeat() {
    // The names of all 27^5 pods are a permutation by its factor; this is a look at both ends.
    let count = (POD_LETTERS.len() as u64).pow(POD_SUFFIX_LEN);
    let pods = (0..100_000).chain(count - 100_000..count);
    let names: HashSet<String> = pods.map(pod_suffix).collect();
    assert_eq!(names.len(), 200_000);
    assert!(names.iter().all(|name| name.len() == 5));
}

#[test]
fn a_sample_takes_about_260_bytes() {
    let table = SeriesTable::new(Workload::new(0), 0..10_000);
    let mut body = Vec::new();
    SampleEncoder::new(NOW).append(&table, 0..10_000, &mut body);
    let bytes_per_sample = body.len() as f64 / 10_000.0;
    assert!((240.0..280.0).contains(&bytes_per_sample), "{bytes_per_sample}");
}

#[test]
fn mix_of_kinds_is_that_of_a_cluster() {
    let mut counts = HashMap::new();
    for template in &TEMPLATES {
        let kind = format!("{:?}", template.kind);
        *counts.entry(kind.split([' ', '{']).next().unwrap().to_owned()).or_insert(0) += 1;
    }
    let expected = [
        ("Counter", 18),
        ("Gauge", 12),
        ("Constant", 4),
        ("Info", 2),
        ("Bucket", 24),
        ("Count", 2),
        ("Sum", 2),
    ];
    assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

#[test]
fn counters_and_buckets_only_grow_between_starts() {
    let workload = Workload::new(0);
    let mut start_count = 0;
    for series in 0..POD_SERIES_COUNT * 8 {
        let (_, template) = split(series);
        if matches!(template.kind, Kind::Gauge { .. } | Kind::Constant { .. } | Kind::Info) {
            continue;
        }
        let values: Vec<f64> = (0..600).map(|k| workload.value(series, NOW + k * 1000)).collect();
        start_count += values.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(values.iter().all(|v| v.is_finite() && *v >= 0.0));
    }
    // One start a week: ten minutes of some 400 series hold less than one in a hundred.
    assert!(start_count <= 4, "{start_count}");
}

#[test]
fn buckets_are_cumulative_up_to_the_count() {
    let workload = Workload::new(3);
    let first = TEMPLATES.iter().position(|t| matches!(t.kind, Kind::Bucket { .. })).unwrap() as u64;
    for t in [NOW, NOW + 15_000, NOW + 999_999] {
        let values: Vec<f64> = (first..first + 14).map(|series| workload.value(series, t)).collect();
        assert!(values[..12].is_sorted(), "{values:?}");
        assert_eq!(values[11], values[13], "+Inf and count");
        assert!(values[12] > 0.0 && values[12] < values[13], "sum");
    }
}

#[test]
fn gauges_move_and_constants_do_not() {
    let workload = Workload::new(0);
    for series in 0..POD_SERIES_COUNT {
        let values: HashSet<u64> = (0..40).map(|k| workload.value_bits(series, NOW + k * 60_000)).collect();
        let expected_least = match TEMPLATES[series as usize].kind {
            Kind::Constant { .. } | Kind::Info => {
                assert_eq!(values.len(), 1, "series {series}");
                continue;
            }
            Kind::Gauge { mean, .. } if mean < 50 => 3,
            _ => 10,
        };
        assert!(values.len() >= expected_least, "series {series}: {} values", values.len());
    }
}

#[test]
fn values_and_labels_are_what_they_always_were() {
    // A change here makes every reader disagree with all that was written before.
    let workload = Workload::new(0);
    let values = [0, 5, 18, 24, 28, 30, 34, 36, 47, 48, 49, 64, 12_345, 99_999_999]
        .map(|series| workload.value(series, NOW));
    assert_eq!(
        values,
        [
            1034927.0,
            204740802.0,
            254988288.0,
            45080576.0,
            4.166,
            1073741824.0,
            1.0,
            1998786.0,
            49969655.0,
            1873862.0625,
            49969655.0,
            1730936.0,
            40844611.0,
            10741840.0
        ]
    );
    let values = [0, 18, 36].map(|series| Workload::new(1).value(series, NOW + 15_000));
    assert_eq!(values, [1295863.0, 279531520.0, 3479702.0]);
    let show = |seed, series| {
        let labels = Workload::new(seed).series_labels(series);
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.join(",")
    };
    assert_eq!(
        show(0, 0),
        "__name__=container_cpu_usage_seconds_total,cluster=prod,container=profile,endpoint=metrics,instance=10.17.126.1:8080,\
         job=user-profile,namespace=ml-serving,node=ip-10-17-126-50,pod=user-profile-433a2d2eb2-bbbbb"
    );
    assert_eq!(
        show(1, 12_345),
        "__name__=grpc_server_handling_seconds_bucket,cluster=prod-1,container=resizer,instance=10.103.43.193:8080,\
         job=image-resizer,le=0.5,namespace=monitoring,node=ip-10-103-43-219,pod=image-resizer-5fda6a6770-frwhv"
    );
}
