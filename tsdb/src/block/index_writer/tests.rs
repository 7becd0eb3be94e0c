use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{block::index_reader::IndexReader, fs::StdFs};

fn chunk(mint: i64, maxt: i64, reference: u64) -> ChunkMeta {
    ChunkMeta { mint, maxt, reference: BlockChunkRef(reference) }
}

struct Target {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Target {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("index");
        Self { _dir: dir, path }
    }

    fn writer(&self, symbols: &[&str], postings_max: usize) -> IndexWriter {
        let symbols = SortedSymbols::from_sorted(symbols).expect("sorted symbols");
        IndexWriter::with_postings_max(Arc::new(StdFs), self.path.clone(), symbols, postings_max)
            .expect("created")
    }
}

#[test]
fn golden_bytes() {
    for postings_max in [0, 1, 100] {
        let target = Target::new();
        let symbols = ["", "1", "__name__", "a", "b", "demo_total"];
        let mut writer = target.writer(&symbols, postings_max);
        let labels = |value: &str| Labels::from_pairs([("__name__", "demo_total"), ("a", value)]);
        let four = [chunk(1_700_000_000_000, 1_700_000_046_000, 8)];
        let nan = [chunk(1_700_000_000_000, 1_700_000_000_000, 40)];
        assert_eq!(writer.add_series(&labels("1"), &four).expect("added"), IndexSeriesId(3));
        assert_eq!(writer.add_series(&labels("b"), &nan).expect("added"), IndexSeriesId(5));
        assert_eq!(writer.finish().expect("finished"), 276);

        let data = std::fs::read(&target.path).expect("a file");
        assert_eq!(data.len(), 276);
        let check = |at: usize, hex: &str| {
            let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
            let byte =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex");
            let expected: Vec<_> = digits.chunks(2).map(byte).collect();
            assert_eq!(data[at..at + expected.len()], expected, "at {at:#x}");
        };
        check(0, "baaad700 02 0000001f 00000006 00 0131 085f5f6e616d655f5f 0161 0162");
        check(0x1d, "0a64656d6f5f746f74616c 1403d8d6 00000000");
        check(0x30, "10 02 0205 0301 01 80a0abfef962 b0e702 08 8587edca");
        check(0x50, "0e 02 0205 0304 01 80a0abfef962 00 28 a63dc967 00");
        check(0x64, "0000000c 00000002 00000003 00000005 bb33cbd4");
        check(0xac, "0000002c 00000004 0200006402 085f5f6e616d655f5f 0a64656d6f5f746f74616c 78");
        check(224, "0000000000000005 000000000000002c 0000000000000063");
        check(248, "00000000000000ac 0000000000000063 00000000000000ac 41b40a51");
    }
}

#[test]
fn what_would_be_no_sound_index_is_refused() {
    let good = Labels::from_pairs([("a", "b")]);
    let chunks = [chunk(0, 10, 8)];
    let check = |labels: &Labels, chunks: &[ChunkMeta], says: &str| {
        let target = Target::new();
        let mut writer = target.writer(&["a", "b", "c"], 100);
        writer.add_series(&good, &[chunk(0, 10, 8), chunk(11, 12, 20)]).expect("a good series");
        let error = writer.add_series(labels, chunks).expect_err("no good series");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.is_corruption());
    };
    let next = Labels::from_pairs([("a", "c")]);
    check(&good, &[chunk(0, 10, 30)], "out of order");
    check(&Labels::from_pairs([("a", "a")]), &[chunk(0, 10, 30)], "out of order");
    check(&Labels::empty(), &chunks, "without labels");
    check(&next, &[], "without chunks");
    check(&next, &[chunk(0, 10, 19)], "chunk out of order");
    check(&next, &[chunk(0, 10, 30), chunk(10, 12, 40)], "chunk out of order");
    check(&next, &[chunk(0, 10, 30), chunk(11, 12, 29)], "chunk out of order");
    check(&next, &[chunk(10, 9, 30)], "chunk out of order");
    check(&Labels::from_pairs([("a", "d")]), &[chunk(0, 10, 30)], "not among the symbols");
}

#[test]
fn an_index_without_series_can_be_read() {
    let target = Target::new();
    target.writer(&[], 100).finish().expect("finished");
    let index = IndexReader::open_path(&StdFs, &target.path).expect("a sound index");
    assert!(index.all_postings().expect("postings").is_empty());
    assert!(index.label_names().is_empty());
    assert_eq!(index.symbol_count(), 0);
}

fn any_text() -> impl Strategy<Value = String> {
    // Few texts, so that many series share them; among them one longer than the first reads.
    prop_oneof![
        6 => "[ab\u{e4}]{1,2}",
        1 => any::<char>().prop_map(String::from),
        1 => Just("long".repeat(2_000)),
    ]
}

fn any_chunks() -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
    prop::collection::vec((1u32..1_000, 0u32..1_000_000, 0u64..1 << 20), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn series_survive(
        series in prop::collection::btree_map(
            prop::collection::btree_map(any_text(), any_text(), 1..6), any_chunks(), 0..120
        ),
        start in prop_oneof![Just(i64::MIN / 2), Just(0), Just(1_700_000_000_000), Just(i64::MAX / 2)],
        postings_max in prop_oneof![Just(0), Just(7), Just(1 << 20)],
        extra in any_text(),
    ) {
        let mut reference = 8;
        let mut expected: Vec<_> = series.into_iter().map(|(pairs, steps)| {
            (Labels::from_pairs(pairs), steps)
        }).collect();
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(labels, steps)| {
            let mut t = start;
            let chunks: Vec<_> = steps.into_iter().map(|(gap, len, bytes)| {
                let mint = t + i64::from(gap);
                t = mint + i64::from(len);
                reference += bytes;
                chunk(mint, t, reference)
            }).collect();
            (labels, chunks)
        }).collect();
        let mut symbols = BTreeSet::from([extra.as_str()]);
        for (labels, _) in &expected {
            symbols.extend(labels.iter().flat_map(|(name, value)| [name, value]));
        }
        let symbols: Vec<_> = symbols.into_iter().collect();

        let target = Target::new();
        let mut writer = target.writer(&symbols, postings_max);
        let ids: Vec<_> = expected.iter().map(|(labels, chunks)| {
            writer.add_series(labels, chunks).expect("added")
        }).collect();
        let len = writer.finish().expect("finished");

        let index = IndexReader::open_path(&StdFs, &target.path).expect("a sound index");
        prop_assert_eq!(index.size_bytes(), len);
        prop_assert_eq!(&index.all_postings().expect("postings"), &ids);
        for (id, series) in ids.iter().zip(&expected) {
            prop_assert_eq!(&index.series(*id).expect("a series"), series);
        }
        let names: BTreeSet<_> =
            expected.iter().flat_map(|(labels, _)| labels.iter().map(|(name, _)| name.to_owned())).collect();
        prop_assert_eq!(index.label_names(), names.iter().cloned().collect::<Vec<_>>());
        for name in names {
            let with = |wanted: &dyn Fn(&str) -> bool| -> Vec<_> {
                let has = |labels: &Labels| labels.get(&name).is_some_and(wanted);
                ids.iter().zip(&expected).filter(|(_, (labels, _))| has(labels)).map(|(id, _)| *id).collect()
            };
            for symbol in &symbols {
                let read = index.postings(&name, symbol).expect("postings");
                prop_assert_eq!(read, with(&|value| value == *symbol));
            }
            let short = index.postings_for_values(&name, &mut |value| value.len() < 3).expect("postings");
            prop_assert_eq!(short, with(&|value| value.len() < 3));
        }
    }
}

/// More values than one stride, and a symbol table that is not kept in memory.
#[test]
fn large_tables_are_read_from_the_file() {
    let target = Target::new();
    let values: Vec<_> = (0..5_000).map(|number| format!("value-{number:05}-{}", "x".repeat(40))).collect();
    let mut symbols: Vec<&str> = vec!["", "every", "one"];
    symbols.extend(values.iter().map(String::as_str));
    let mut writer = target.writer(&symbols, 100);
    let mut ids = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let labels =
            Labels::from_pairs([("every", if number % 2 == 0 { "one" } else { "every" }), ("one", value)]);
        // In label order: first all with every="every".
        ids.push((labels, number));
    }
    ids.sort();
    let series: Vec<_> = ids
        .into_iter()
        .enumerate()
        .map(|(place, (labels, number))| {
            let id = writer.add_series(&labels, &[chunk(0, number as i64, 8 + place as u64)]).expect("added");
            (labels, number, id)
        })
        .collect();
    writer.finish().expect("finished");
    let index = IndexReader::open_path(&StdFs, &target.path).expect("a sound index");
    assert_eq!(index.label_values("one").expect("values"), values);
    for (labels, number, id) in &series {
        let value = labels.get("one").expect("a label");
        assert_eq!(index.postings("one", value).expect("postings"), [*id]);
        assert_eq!(index.postings("one", &value[..20]).expect("postings"), []);
        let (read, chunks) = index.series(*id).expect("a series");
        assert_eq!((&read, chunks[0].maxt), (labels, *number as i64));
    }
    assert_eq!(index.postings("every", "one").expect("postings").len(), 2_500);
    let last = values.last().expect("values");
    let some = index.postings_for_values("one", &mut |value| value == values[31] || value == last);
    assert_eq!(some.expect("postings").len(), 2);
    assert!(index.postings("one", "zzz").expect("none").is_empty());
    assert!(index.postings("one", "a").expect("none").is_empty());
}
