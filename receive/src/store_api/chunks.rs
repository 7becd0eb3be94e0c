//! Chunks as they go over the wire.

use weir_proto::thanos as pb;
use weir_tsdb::{
    chunkenc::{self, Encoding, Xor2Iter, encode_xor},
    query::Chunk,
    types::Sample,
};
use xxhash_rust::xxh64::xxh64;

/// Why a chunk cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Its encoding is newer than the protocol.
    #[error("chunk encoding {0:?} has no number in StoreAPI")]
    Encoding(Encoding),
    /// It is too short for a sample count.
    #[error("chunk of {0} bytes has no header")]
    NoHeader(usize),
    /// It has to be encoded anew for the protocol but cannot be read.
    #[error("cannot encode a chunk anew: {0}")]
    Damaged(#[from] chunkenc::ChunkError),
}

/// Turns a chunk into what is sent, and counts its samples by its header. Floats in an encoding that
/// the protocol has no number for are encoded anew, without their start timestamps.
///
/// # Errors
/// If the protocol has no number for its encoding, or if it is damaged in a part that is looked at.
pub fn to_wire(chunk: Chunk) -> Result<(pb::AggrChunk, u64), ChunkError> {
    use pb::chunk::Encoding as Wire;
    let (encoding, data) = match chunk.encoding {
        Encoding::Xor => (Wire::Xor, chunk.data),
        Encoding::Histogram => (Wire::Histogram, chunk.data),
        Encoding::FloatHistogram => (Wire::FloatHistogram, chunk.data),
        Encoding::Xor2 => (Wire::Xor, xor2_to_xor(&chunk.data)?),
        other @ (Encoding::HistogramSt | Encoding::FloatHistogramSt) => {
            return Err(ChunkError::Encoding(other));
        }
    };
    let header = data.first_chunk::<2>().ok_or(ChunkError::NoHeader(data.len()))?;
    let samples = u64::from(u16::from_be_bytes(*header));
    let hash = xxh64(&data, 0);
    let raw = pb::Chunk { r#type: encoding.into(), data: data.into(), hash };
    let wire =
        pb::AggrChunk { min_time: chunk.mint, max_time: chunk.maxt, raw: Some(raw), ..Default::default() };
    Ok((wire, samples))
}

fn xor2_to_xor(data: &[u8]) -> Result<Vec<u8>, chunkenc::ChunkError> {
    let samples = Xor2Iter::new(data)?.collect::<Result<Vec<Sample>, _>>()?;
    let mut xor = Vec::new();
    encode_xor(samples, &mut xor);
    Ok(xor)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::Value;
    use weir_tsdb::chunkenc::XorIter;

    use super::*;

    #[test]
    fn numbers_and_counts() {
        let check = |encoding: Encoding, number: i32| {
            let chunk = Chunk { mint: 5, maxt: 9, encoding, data: vec![1, 4, 0xff] };
            let (wire, samples) = to_wire(chunk).unwrap();
            let raw = wire.raw.unwrap();
            assert_eq!((wire.min_time, wire.max_time, raw.r#type), (5, 9, number));
            assert_eq!(samples, 260);
            assert_eq!(&raw.data[..], [1, 4, 0xff]);
        };
        check(Encoding::Xor, 0);
        check(Encoding::Histogram, 1);
        check(Encoding::FloatHistogram, 2);
    }

    #[test]
    fn refuses_what_it_cannot_name() {
        let check = |encoding, data: &[u8], want| {
            let chunk = Chunk { mint: 0, maxt: 0, encoding, data: data.to_vec() };
            assert_eq!(to_wire(chunk).unwrap_err(), want);
        };
        check(Encoding::HistogramSt, &[0, 1], ChunkError::Encoding(Encoding::HistogramSt));
        check(Encoding::FloatHistogramSt, &[0, 1], ChunkError::Encoding(Encoding::FloatHistogramSt));
        check(Encoding::Xor, &[0], ChunkError::NoHeader(1));
        check(Encoding::Xor2, &[0], ChunkError::Damaged(chunkenc::ChunkError::NoHeader));
    }

    /// The bytes are the golden XOR chunk of four samples; the hash was computed by another implementation.
    #[test]
    fn hash_is_xxhash64_with_seed_0() {
        let data = [
            0x00, 0x04, 0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0xc2,
            0x5f, 0xff, 0x20, 0xfa, 0x36, 0x05, 0x80,
        ];
        let chunk = Chunk { mint: 0, maxt: 0, encoding: Encoding::Xor, data: data.to_vec() };
        let (wire, samples) = to_wire(chunk).unwrap();
        assert_eq!(samples, 4);
        assert_eq!(wire.raw.unwrap().hash, GOLDEN_HASH);
    }

    const GOLDEN_HASH: u64 = 0xe902_6f49_f2f9_9b68;

    /// Every chunk of the golden block with newer encodings: floats come out as XOR with the samples
    /// that Prometheus reads, histograms are refused.
    #[test]
    fn newer_floats_are_encoded_anew() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tsdb/testdata/golden/new-chunk-encodings");
        let layout: Value = serde_json::from_slice(&fs::read(case.join("layout.json")).unwrap()).unwrap();
        let expected = fs::read_to_string(case.join("expected.jsonl")).unwrap();
        let (block, stored) = layout["blocks"].as_object().unwrap().iter().next().unwrap();
        let segment = fs::read(case.join("data").join(block).join("chunks/000001")).unwrap();

        let mut converted = 0;
        for series in stored.as_array().unwrap() {
            let wanted = expected.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let wanted = wanted.into_iter().find(|wanted| wanted["labels"] == series["labels"]).unwrap();
            for entry in series["chunks"].as_array().unwrap() {
                let field = |index: usize| entry[index].as_i64().unwrap();
                let (offset, mint, maxt, count) = (field(1) as usize, field(2), field(3), field(5) as u64);
                let bytes = field(6) as usize;
                let encoding = Encoding::from_byte(field(4) as u8).unwrap();
                // Before the data lie its length, one or two bytes here, and the encoding.
                let start = offset + if bytes < 128 { 1 } else { 2 } + 1;
                let data = segment[start..start + bytes].to_vec();
                let chunk = Chunk { mint, maxt, encoding, data };
                if encoding != Encoding::Xor2 {
                    assert_eq!(to_wire(chunk).unwrap_err(), ChunkError::Encoding(encoding));
                    continue;
                }
                let (wire, samples) = to_wire(chunk).unwrap();
                let raw = wire.raw.unwrap();
                assert_eq!((samples, raw.r#type), (count, 0));
                assert_eq!(raw.hash, xxh64(&raw.data, 0));
                let got: Vec<(i64, String)> = XorIter::new(&raw.data)
                    .unwrap()
                    .map(|sample| sample.map(|sample| (sample.t, format!("{:016x}", sample.bits))).unwrap())
                    .collect();
                let wanted = wanted["samples"].as_array().unwrap().iter();
                let wanted: Vec<(i64, String)> = wanted
                    .map(|sample| (sample[0].as_i64().unwrap(), sample[1].as_str().unwrap().to_owned()))
                    .filter(|sample| (mint..=maxt).contains(&sample.0))
                    .collect();
                assert_eq!(got, wanted);
                converted += 1;
            }
        }
        assert_eq!(converted, 7);
    }
}
