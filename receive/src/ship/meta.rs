//! meta.json, as Prometheus writes it and as Thanos wants it in the bucket.
//!
//! Members that are not known here are kept as they are. Times are milliseconds; `maxTime` is
//! exclusive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, ser::PrettyFormatter};

/// A block's meta.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// The block's name.
    pub ulid: String,
    /// First millisecond of the block.
    #[serde(rename = "minTime")]
    pub min_time: i64,
    /// First millisecond after the block.
    #[serde(rename = "maxTime")]
    pub max_time: i64,
    /// Counts.
    #[serde(default)]
    pub stats: BlockStats,
    /// Where the block comes from.
    #[serde(default)]
    pub compaction: Compaction,
    /// Version of this file's format: 1.
    pub version: u32,
    /// What Thanos adds. Absent in local directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thanos: Option<ThanosMeta>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Counts of a block. Zero ones may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Floats.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Histograms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted intervals.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Where a block comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compaction {
    /// 1 for what was cut from a head; higher for what was merged.
    #[serde(default)]
    pub level: u32,
    /// Everything else: sources, parents, hints.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The member `thanos`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThanosMeta {
    /// Version of this member's format: 1. Thanos itself leaves it out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u64,
    /// External labels.
    pub labels: BTreeMap<String, String>,
    /// Resolution of the samples.
    pub downsample: Downsample,
    /// Which program made the block.
    pub source: String,
    /// Names of the files in `chunks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segment_files: Vec<String>,
    /// All files, ascending by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<BlockFile>,
    /// Figures of the index.
    #[serde(default)]
    pub index_stats: IndexStats,
    /// When the upload began, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_time: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Resolution of a block's samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsample {
    /// Milliseconds between samples; 0 for samples as they came.
    pub resolution: i64,
}

/// A file of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFile {
    /// Path below the block's directory.
    pub rel_path: String,
    /// Size; absent for meta.json itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Hash, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<FileHash>,
}

/// A hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// `SHA256`.
    #[serde(rename = "hashFunc")]
    pub hash_func: String,
    /// Lower-case hexadecimal.
    pub value: String,
}

/// Figures of an index, from which readers size their requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStats {
    /// Bytes of the longest series entry; 0 if not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub series_max_size: u64,
    /// Bytes of the longest chunk; 0 if not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunk_max_size: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl BlockMeta {
    /// Reads the bytes of a meta.json. The message says what is wrong.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        let meta: Self = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        if meta.version != 1 {
            return Err(format!("version {} is not 1", meta.version));
        }
        if meta.min_time > meta.max_time {
            return Err(format!("minTime {} is after maxTime {}", meta.min_time, meta.max_time));
        }
        Ok(meta)
    }

    /// The bytes of a meta.json, indented by tabs.
    pub fn to_json(&self) -> Vec<u8> {
        tab_indented(self)
    }
}

/// JSON as Prometheus and Thanos lay it out.
///
/// # Panics
///
/// If `value` has maps with keys that are not strings; ours have none.
pub(super) fn tab_indented(value: &impl Serialize) -> Vec<u8> {
    let mut data = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut data, formatter);
    if let Err(error) = value.serialize(&mut serializer) {
        unreachable!("a vector takes all that is written and all keys are strings: {error}");
    }
    data
}
