//! Decompression of records, with bounds on what a damaged length can make us allocate.

use std::io::Read;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::{RECORD_BYTES_MAX, fragment::Packing};
use crate::record::{RecordType, record_type};

/// Snappy's densest element is a copy of 64 bytes in 3.
const SNAPPY_RATIO_MAX: usize = 22;

/// Decompresses records into a buffer that is reused.
pub(super) struct Unpacker {
    /// Never shrinks, so that with snappy it is filled with zeros once and not for each record.
    buf: Vec<u8>,
    snappy: snap::raw::Decoder,
    /// Made when the first zstd record is met: few logs have any.
    zstd: Option<Box<FrameDecoder>>,
}

impl Unpacker {
    pub fn new() -> Self {
        Self { buf: Vec::new(), snappy: snap::raw::Decoder::new(), zstd: None }
    }

    /// Unpacks `stored` and returns how many bytes of [`output`](Self::output) it fills, or why it
    /// cannot be unpacked.
    pub fn unpack(&mut self, stored: &[u8], packing: Packing) -> Result<usize, String> {
        match packing {
            Packing::Plain => self.copy(stored),
            Packing::Snappy => self.unpack_snappy(stored),
            Packing::Zstd => self.unpack_zstd(stored),
        }
    }

    fn copy(&mut self, stored: &[u8]) -> Result<usize, String> {
        self.buf.clear();
        self.buf.extend_from_slice(stored);
        Ok(stored.len())
    }

    /// True if `plain` is no record but a compressed one whose flag was lost: the flag is not covered
    /// by the checksum. Looks closer only at types that nobody writes.
    pub fn lacks_its_flag(&mut self, plain: &[u8]) -> bool {
        if plain.is_empty() || !matches!(record_type(plain), RecordType::Unknown(_)) {
            return false;
        }
        // What does not shrink is never stored compressed.
        [Packing::Snappy, Packing::Zstd]
            .into_iter()
            .any(|packing| self.unpack(plain, packing).is_ok_and(|len| len > plain.len()))
    }

    pub fn output(&self, len: usize) -> &[u8] {
        self.buf.get(..len).unwrap_or_default()
    }

    fn unpack_snappy(&mut self, stored: &[u8]) -> Result<usize, String> {
        let len = snap::raw::decompress_len(stored).map_err(|error| format!("snappy: {error}"))?;
        if len > RECORD_BYTES_MAX || len / SNAPPY_RATIO_MAX > stored.len() {
            return Err(format!("snappy: {} bytes claim to be {len}", stored.len()));
        }
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        let output = self.buf.get_mut(..len).unwrap_or_default();
        let written = self.snappy.decompress(stored, output).map_err(|error| format!("snappy: {error}"))?;
        if written == len { Ok(len) } else { Err("snappy: shorter than claimed".to_owned()) }
    }

    fn unpack_zstd(&mut self, stored: &[u8]) -> Result<usize, String> {
        let decoder = self.zstd.get_or_insert_default();
        let mut rest = stored;
        let stream = StreamingDecoder::new_with_decoder(&mut rest, decoder.as_mut())
            .map_err(|error| format!("zstd: {error}"))?;
        self.buf.clear();
        let read = stream
            .take(RECORD_BYTES_MAX as u64 + 1)
            .read_to_end(&mut self.buf)
            .map_err(|error| format!("zstd: {error}"))?;
        if read > RECORD_BYTES_MAX {
            return Err(format!("zstd: record longer than {RECORD_BYTES_MAX} bytes"));
        }
        if !rest.is_empty() {
            return Err("zstd: bytes behind the frame".to_owned());
        }
        Ok(read)
    }
}
