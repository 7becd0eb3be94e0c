use proptest::prelude::*;

use super::*;

type Labels = Vec<(String, String)>;

/// A series as written and as read: number, labels, samples.
type Series = (Option<u32>, Option<Labels>, Vec<(i64, u64)>);

#[derive(Clone, Debug, PartialEq)]
struct Batch {
    sequence: u64,
    ring: (u64, u64),
    tenant: (u32, Option<String>),
    base_ms: i64,
    series: Vec<Series>,
}

fn write(frame: &mut Vec<u8>, batch: &Batch) -> usize {
    let tenant = (batch.tenant.0, batch.tenant.1.as_deref());
    let mut writer = BatchWriter::begin(frame, batch.sequence, batch.ring, tenant, batch.base_ms);
    for (number, labels, samples) in &batch.series {
        let labels: Option<Vec<(&str, &str)>> =
            labels.as_ref().map(|labels| labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
        let name = match (number, labels.as_deref()) {
            (Some(number), None) => SeriesName::Known(*number),
            (Some(number), Some(labels)) => SeriesName::Define(*number, labels),
            (None, labels) => SeriesName::Anonymous(labels.unwrap_or_default()),
        };
        writer.series(name, samples.iter().copied());
    }
    writer.finish()
}

fn read(frame: &[u8]) -> Result<Vec<(BatchHead<'_>, Vec<Series>)>, FrameError> {
    let mut reader = FrameReader::new(frame);
    let mut batches = Vec::new();
    while let Some(mut batch) = reader.next_batch()? {
        let mut all = Vec::new();
        while let Some(series) = batch.next_series()? {
            let mut samples = Vec::new();
            while let Some(sample) = batch.next_sample()? {
                samples.push(sample);
            }
            let labels =
                series.labels.map(|labels| labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect());
            all.push((series.number, labels, samples));
        }
        batches.push((*batch.head(), all));
    }
    Ok(batches)
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::vec(("[a-z]{0,4}", "[a-zä]{0,9}"), 0..4)
}

fn series() -> impl Strategy<Value = Series> {
    let number = prop_oneof![3 => 0u32..50, 1 => any::<u32>()];
    let samples = prop::collection::vec((prop_oneof![-9i64..9, any::<i64>()], any::<u64>()), 1..4);
    let name = prop_oneof![
        4 => number.clone().prop_map(|number| (Some(number), None)),
        2 => (number, labels()).prop_map(|(number, labels)| (Some(number), Some(labels))),
        1 => labels().prop_map(|labels| (None, Some(labels))),
    ];
    (name, samples).prop_map(|((number, labels), samples)| (number, labels, samples))
}

fn batch() -> impl Strategy<Value = Batch> {
    let tenant = (0u32..9, prop::option::of("[a-z]{1,5}"));
    let series = prop::collection::vec(series(), 1..9);
    (any::<u64>(), any::<(u64, u64)>(), tenant, any::<i64>(), series).prop_map(
        |(sequence, ring, tenant, base_ms, series)| Batch { sequence, ring, tenant, base_ms, series },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(batches in prop::collection::vec(batch(), 0..4)) {
        let mut frame = Vec::new();
        for batch in &batches {
            let before = frame.len();
            let len = write(&mut frame, batch);
            prop_assert_eq!(len, frame.len() - before);
        }
        let found = read(&frame).unwrap();
        prop_assert_eq!(found.len(), batches.len());
        for ((head, series), batch) in found.iter().zip(&batches) {
            prop_assert_eq!(head.sequence, batch.sequence);
            prop_assert_eq!((head.epoch, head.digest), batch.ring);
            prop_assert_eq!((head.tenant, head.tenant_name), (batch.tenant.0, batch.tenant.1.as_deref()));
            prop_assert_eq!(head.series_count as usize, batch.series.len());
            prop_assert_eq!(series, &batch.series);
        }
        // Cut anywhere it is an error, or fewer whole batches.
        for len in 0..frame.len() {
            if let Ok(fewer) = read(&frame[..len]) {
                prop_assert!(fewer.len() < batches.len());
                prop_assert_eq!(&fewer[..], &found[..fewer.len()]);
            }
        }
    }

    #[test]
    fn any_bytes_are_borne(mut bytes: Vec<u8>, batch in batch(), at: prop::sample::Index, flip in 1u8..) {
        let _ = read(&bytes);
        bytes.clear();
        write(&mut bytes, &batch);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = read(&bytes);
    }
}

/// Frozen: nodes of two versions run side by side.
#[test]
fn golden_bytes() {
    let labels = || vec![("a".to_owned(), "b".to_owned())];
    let batch = Batch {
        sequence: 300,
        ring: (7, 0x0102_0304_0506_0708),
        tenant: (1, Some("t".to_owned())),
        base_ms: 1000,
        series: vec![
            (Some(4), Some(labels()), vec![(1001, 1)]),
            (Some(5), None, vec![(999, 2), (1009, 3)]),
            (None, Some(labels()), vec![(1000, 4)]),
            (Some(2), None, vec![(1000, 5)]),
        ],
    };
    let mut frame = Vec::new();
    write(&mut frame, &batch);
    let sample = |t: u8, value: u8| [t, value, 0, 0, 0, 0, 0, 0, 0];
    let expected = [
        &[80, 0, 0, 0, 4, 0, 0, 0, 0xac, 0x02, 7, 8, 7, 6, 5, 4, 3, 2, 1, 3, 1, b't', 0xd0, 0x0f][..],
        &[8 << 3 | 1, 1, 1, b'a', 1, b'b'],
        &sample(2, 1),
        &[4, 2],
        &sample(1, 2),
        &sample(20, 3),
        &[3, 1, 1, b'a', 1, b'b'],
        &sample(0, 4),
        &[7 << 3],
        &sample(0, 5),
    ]
    .concat();
    assert_eq!(frame, expected);
    assert_eq!(read(&frame).unwrap()[0].1, batch.series);
}

#[test]
fn nothing_is_left_of_a_batch_without_series() {
    let mut frame = vec![1, 2, 3];
    let mut writer = BatchWriter::begin(&mut frame, 1, (1, 1), (0, Some("t")), 0);
    writer.series(SeriesName::Known(1), [].into_iter());
    assert_eq!(writer.finish(), 0);
    assert_eq!(frame, [1, 2, 3]);
}

#[test]
fn a_known_series_costs_ten_bytes() {
    let mut frame = Vec::new();
    let mut writer = BatchWriter::begin(&mut frame, 1, (1, 1), (0, None), 1_700_000_000_000);
    for number in 0..1000 {
        writer.series(SeriesName::Known(number), [(1_700_000_000_003, u64::MAX)].into_iter());
    }
    assert!(writer.finish() <= 10 * 1000 + 40);
}
