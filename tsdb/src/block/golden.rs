//! Reads the golden directories and what they say of themselves, for tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{labels::Labels, types::Sample};

/// One golden directory.
pub(crate) struct Case {
    pub dir: PathBuf,
}

/// A chunk in layout.json: `[file, offset, mint, maxt, encoding, samples, bytes]`.
pub(crate) type LayoutChunk = [i64; 7];

impl Case {
    pub(crate) fn open(name: &str) -> Self {
        Self { dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(name) }
    }

    pub(crate) fn block_dir(&self, ulid: &str) -> PathBuf {
        self.dir.join("data").join(ulid)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).expect("a golden file")
    }

    /// Series of each block, in index order, with their chunks.
    pub(crate) fn layout(&self) -> BTreeMap<String, Vec<(Labels, Vec<LayoutChunk>)>> {
        let mut layout: Value = serde_json::from_str(&self.text("layout.json")).expect("json");
        let blocks: BTreeMap<String, Vec<Value>> =
            serde_json::from_value(layout["blocks"].take()).expect("blocks");
        let series = |mut value: Value| {
            let chunks = serde_json::from_value(value["chunks"].take()).expect("chunks");
            (labels(&value["labels"]), chunks)
        };
        blocks.into_iter().map(|(ulid, all)| (ulid, all.into_iter().map(series).collect())).collect()
    }

    /// Sizes of the files in `data/`.
    pub(crate) fn file_sizes(&self) -> BTreeMap<String, u64> {
        let mut layout: Value = serde_json::from_str(&self.text("layout.json")).expect("json");
        serde_json::from_value(layout["files"].take()).expect("files")
    }

    /// The float samples of each series; series of other types are left out.
    pub(crate) fn expected_floats(&self) -> BTreeMap<Labels, Vec<Sample>> {
        let text = self.text("expected.jsonl");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("json"));
        let sample = |value: &Value| Sample {
            t: value[0].as_i64().expect("a time"),
            bits: u64::from_str_radix(value[1].as_str().expect("bits"), 16).expect("hex"),
        };
        let floats = lines.filter(|line| line["type"] == "float");
        floats
            .map(|line| {
                let samples = line["samples"].as_array().expect("samples").iter().map(sample).collect();
                (labels(&line["labels"]), samples)
            })
            .collect()
    }
}

fn labels(value: &Value) -> Labels {
    let pairs = value.as_object().expect("an object").iter();
    Labels::from_pairs(pairs.map(|(name, value)| (name, value.as_str().expect("a value"))))
}
