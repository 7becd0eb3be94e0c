//! Records of the write-behind log that say which out-of-order chunks went to chunks_head.

use super::{RecordType, body};
use crate::{
    types::{HeadChunkRef, SeriesRef},
    varint::{DecodeError, Decoder},
};

/// The out-of-order samples of `series` logged before this marker are in `chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapMarker {
    /// The series.
    pub series: SeriesRef,
    /// The chunk; 0 in the first marker of a series, which stands before its first samples.
    pub chunk: HeadChunkRef,
}

/// Appends a record of `markers` to `buf`; nothing if there is none.
pub fn encode_mmap_markers(buf: &mut Vec<u8>, markers: impl IntoIterator<Item = MmapMarker>) {
    for (index, marker) in markers.into_iter().enumerate() {
        if index == 0 {
            buf.push(RecordType::MmapMarkers.byte());
        }
        buf.extend_from_slice(&marker.series.0.to_be_bytes());
        buf.extend_from_slice(&marker.chunk.0.to_be_bytes());
    }
}

/// Markers of a record of type [`RecordType::MmapMarkers`]. Ends after the first error.
#[derive(Clone, Debug)]
pub struct MmapMarkersIter<'a> {
    decoder: Decoder<'a>,
}

impl<'a> MmapMarkersIter<'a> {
    /// Reads `record`, whose type the caller has looked at.
    pub fn new(record: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(body(record)) }
    }

    fn read(&mut self) -> Result<MmapMarker, DecodeError> {
        let series = SeriesRef(self.decoder.u64_be()?);
        Ok(MmapMarker { series, chunk: HeadChunkRef(self.decoder.u64_be()?) })
    }
}

impl Iterator for MmapMarkersIter<'_> {
    type Item = Result<MmapMarker, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let marker = self.read();
        if marker.is_err() {
            self.decoder = Decoder::new(&[]);
        }
        Some(marker)
    }
}
