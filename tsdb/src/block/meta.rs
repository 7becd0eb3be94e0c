//! `meta.json` of a block: its name, its time range, what is in it and where it came from.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::{
    Error, Result,
    fs::{Fs, read_file},
};

/// Name of the file in the block's directory.
pub const META_FILE: &str = "meta.json";

/// The only version there is.
const META_VERSION: u32 = 1;

/// Hint of a block made of samples that came out of order. Its `max_time` says nothing about which
/// samples of the log are in blocks.
pub const HINT_OUT_OF_ORDER: &str = "from-out-of-order";
/// Hint of a block made of series that ended; as with [`HINT_OUT_OF_ORDER`] for its `max_time`.
pub const HINT_STALE_SERIES: &str = "from-stale-series";
/// Hint of a block made of chosen series; as with [`HINT_OUT_OF_ORDER`] for its `max_time`.
pub const HINT_SELECTED_SERIES: &str = "from-selected-series";

/// `meta.json`. Members that it does not know are passed over, and absent ones are empty, so that
/// the files of other programs can be read; writing leaves empty ones out as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// Name of the block and of its directory.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First millisecond.
    pub min_time: i64,
    /// The millisecond behind the last one: exclusive.
    pub max_time: i64,
    /// What is in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub stats: BlockStats,
    /// Where it came from.
    #[serde(default, deserialize_with = "null_is_default")]
    pub compaction: BlockCompaction,
    /// Version of the format: 1.
    pub version: u32,
}

/// Figures of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of all types.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Float samples; 0 in blocks of programs that did not tell them apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Samples of native histograms; 0 in blocks of programs that did not tell them apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Entries of the tombstones file.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

/// Descent of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockCompaction {
    /// How often its samples were merged; 1 for a block cut from the head.
    pub level: u32,
    /// The blocks of level 1 that its samples were in. Two blocks with equal sources count as
    /// doubles, so at level 1 this is the block itself alone.
    #[serde(with = "ulid_texts", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ulid>,
    /// It holds nothing any more and may go.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// The blocks it was made of. Prometheus deletes those that lie beside it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockParent>,
    /// A merge of it failed before.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Special origins, as [`HINT_OUT_OF_ORDER`].
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl Default for BlockCompaction {
    fn default() -> Self {
        Self {
            level: 1,
            sources: Vec::new(),
            deletable: false,
            parents: Vec::new(),
            failed: false,
            hints: Vec::new(),
        }
    }
}

/// A block that another was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockParent {
    /// Its name.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First millisecond.
    #[serde(default)]
    pub min_time: i64,
    /// The millisecond behind the last one.
    #[serde(default)]
    pub max_time: i64,
}

impl BlockMeta {
    /// The meta of a block of level 1 that is its own only source.
    pub fn new(ulid: Ulid, min_time: i64, max_time: i64) -> Self {
        Self {
            ulid,
            min_time,
            max_time,
            stats: BlockStats::default(),
            compaction: BlockCompaction { sources: vec![ulid], ..BlockCompaction::default() },
            version: META_VERSION,
        }
    }

    /// Reads `meta.json` in the block directory `dir`.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let path = dir.join(META_FILE);
        let text = read_file(fs, &path).map_err(Error::io("read", &path))?;
        Self::parse(&text, &path)
    }

    /// Reads the text of the file `path`.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let meta: Self =
            serde_json::from_slice(text).map_err(|error| Error::corrupt(path, 0, error.to_string()))?;
        let damaged = |what: String| Err(Error::corrupt(path, 0, what));
        if meta.version != META_VERSION {
            return damaged(format!("version {} of meta.json is not known", meta.version));
        }
        if meta.min_time > meta.max_time {
            return damaged(format!("minTime {} is above maxTime {}", meta.min_time, meta.max_time));
        }
        Ok(meta)
    }

    /// The text of the file, indented by tabs and without a line end behind it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        self.serialize(&mut serializer).expect("numbers and strings can always be written to memory");
        text
    }

    /// True if the block has this hint.
    pub fn has_hint(&self, hint: &str) -> bool {
        self.compaction.hints.iter().any(|own| own == hint)
    }

    /// True if all samples of the log before `max_time` can be taken to be in blocks, because this
    /// block was cut from the head in order.
    pub fn bounds_the_log(&self) -> bool {
        let others = [HINT_OUT_OF_ORDER, HINT_STALE_SERIES, HINT_SELECTED_SERIES];
        !others.iter().any(|hint| self.has_hint(hint))
    }
}

/// Reads a block's name as strictly as Prometheus does: 26 characters of Crockford's alphabet in
/// upper case.
pub fn parse_ulid(name: &str) -> Option<Ulid> {
    let ulid = Ulid::from_string(name).ok()?;
    // The parser takes lower case too.
    (ulid.to_string() == name).then_some(ulid)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Go writes an empty list as null where its type does not say to leave it out.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

mod ulid_text {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serializer, Ulid, parse_ulid};

    pub fn serialize<S: Serializer>(ulid: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&ulid.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_ulid(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no ULID")))
    }
}

mod ulid_texts {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serializer, Ulid, parse_ulid};

    pub fn serialize<S: Serializer>(ulids: &[Ulid], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ulids.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        let parse =
            |text: &String| parse_ulid(text).ok_or_else(|| D::Error::custom(format!("{text:?} is no ULID")));
        texts.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BlockMeta> {
        BlockMeta::parse(text.as_bytes(), Path::new("meta.json"))
    }

    #[test]
    fn writes_what_prometheus_writes() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
        let check = |block: &str| {
            let text = std::fs::read(golden.join(block).join(META_FILE)).expect("a golden file");
            let meta = BlockMeta::parse(&text, Path::new("meta.json")).expect("a valid meta");
            assert_eq!(String::from_utf8(meta.to_json()), String::from_utf8(text), "{block}");
            meta
        };
        check("float-blocks/data/01M7VZGC0014FJ1NHY383WMJ24");
        let merged = check("block-level2/data/01M7VZGFX0GJ3947W2F4A63VRD");
        assert_eq!(merged.compaction.parents.len(), 3);
        assert!(merged.bounds_the_log());
        assert_eq!(check("tombstones/data/01M7VZGC0014FJ1NHY383WMJ24").stats.num_tombstones, 5);
        check("hist-block/data/01M7VZGC0014FJ1NHY383WMJ24");
        let stale = check("stale-series-eviction/data/01M7VZGCZ8EW4WVTSWSGKBMQM7");
        assert!(stale.has_hint(HINT_STALE_SERIES));
        assert!(!stale.bounds_the_log());
    }

    #[test]
    fn reads_with_more_and_with_less() {
        let meta = parse(
            r#"{"ulid":"01M7VZGC0014FJ1NHY383WMJ24","minTime":1,"maxTime":2,"version":1,
                "stats":{"numSamples":3,"new":1},"compaction":{"level":1,"sources":null,"hints":null},
                "thanos":{"labels":{}}}"#,
        )
        .expect("unknown members do no harm");
        assert_eq!(meta.stats.num_samples, 3);
        assert_eq!((meta.min_time, meta.max_time), (1, 2));
        assert!(meta.compaction.sources.is_empty());
        let least = r#"{"ulid":"01M7VZGC0014FJ1NHY383WMJ24","minTime":1,"maxTime":2,"version":1}"#;
        assert_eq!(parse(least).expect("all else may be absent").stats, BlockStats::default());
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            "{}",
            r#"{"ulid":"01m7vzgc0014fj1nhy383wmj24","minTime":1,"maxTime":2,"version":1}"#,
            r#"{"ulid":"01M7VZGC0014FJ1NHY383WMJ24","minTime":1,"maxTime":2,"version":2}"#,
            r#"{"ulid":"01M7VZGC0014FJ1NHY383WMJ24","minTime":3,"maxTime":2,"version":1}"#,
        ] {
            assert!(parse(text).is_err_and(|error| error.is_corruption()), "{text}");
        }
    }

    #[test]
    fn names_are_strict() {
        let check = |name: &str| parse_ulid(name).is_some();
        assert!(check("01M7VZGC0014FJ1NHY383WMJ24"));
        assert!(!check("01m7vzgc0014fj1nhy383wmj24"));
        assert!(!check("01M7VZGC0014FJ1NHY383WMJ2"));
        assert!(!check("01M7VZGC0014FJ1NHY383WMJ2O"));
        assert!(!check("81M7VZGC0014FJ1NHY383WMJ24"));
        assert!(!check("wal"));
    }
}
