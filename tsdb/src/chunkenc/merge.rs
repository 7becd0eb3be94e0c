//! Chunks of one series that overlap, made into chunks that do not.

use std::{cmp::Reverse, convert::Infallible};

use super::{ChunkError, Encoding, decode_floats, encode_float_chunks};
use crate::{query::Chunk, types::Sample};

/// Decodes chunks of floats that overlap in time and encodes their samples anew, each time once; see
/// [`sort_and_deduplicate`] for samples of one time. Chunks must ascend by their first times. Those
/// that overlap no other are passed on as they are, and so are histograms.
///
/// # Errors
/// If a chunk that has to be decoded is damaged.
pub fn merge_overlapping(chunks: Vec<Chunk>, range_ms: i64) -> Result<Vec<Chunk>, ChunkError> {
    if chunks.is_sorted_by(|left, right| left.maxt < right.mint) {
        return Ok(chunks);
    }
    let mut merged = Vec::with_capacity(chunks.len());
    let mut group: Vec<Chunk> = Vec::new();
    let mut group_maxt = i64::MIN;
    for chunk in chunks {
        if !chunk.encoding.is_float() {
            merged.push(chunk);
            continue;
        }
        if !group.is_empty() && chunk.mint > group_maxt {
            merge_group(&mut group, range_ms, &mut merged)?;
            group_maxt = i64::MIN;
        }
        group_maxt = group_maxt.max(chunk.maxt);
        group.push(chunk);
    }
    merge_group(&mut group, range_ms, &mut merged)?;
    merged.sort_by_key(|chunk| (chunk.mint, chunk.maxt));
    Ok(merged)
}

/// Sorts samples by time and keeps one of each time: that with the greater bits, wherever it came from, so
/// that all who have the same samples say the same.
pub fn sort_and_deduplicate(samples: &mut Vec<Sample>) {
    samples.sort_unstable_by_key(|sample| (sample.t, Reverse(sample.bits)));
    samples.dedup_by_key(|sample| sample.t);
}

fn merge_group(group: &mut Vec<Chunk>, range_ms: i64, merged: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    if group.len() < 2 {
        merged.append(group);
        return Ok(());
    }
    let mut samples: Vec<Sample> = Vec::new();
    for chunk in group.drain(..) {
        for sample in decode_floats(chunk.encoding, &chunk.data)? {
            samples.push(sample?);
        }
    }
    sort_and_deduplicate(&mut samples);
    let Ok(()) = encode_float_chunks::<Infallible>(range_ms, samples, |mint, maxt, data| {
        merged.push(Chunk { mint, maxt, encoding: Encoding::Xor, data: data.to_vec() });
        Ok(())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunkenc::encode_xor;

    fn chunk(times: &[i64], value: f64) -> Chunk {
        let samples: Vec<Sample> = times.iter().map(|&t| Sample::new(t, value)).collect();
        let (mint, maxt) = (times[0], times[times.len() - 1]);
        let mut data = Vec::new();
        encode_xor(samples, &mut data);
        Chunk { mint, maxt, encoding: Encoding::Xor, data }
    }

    fn content(chunks: &[Chunk]) -> Vec<Vec<(i64, f64)>> {
        let samples = |chunk: &Chunk| {
            let samples: Vec<Sample> =
                decode_floats(chunk.encoding, &chunk.data).unwrap().map(Result::unwrap).collect();
            assert_eq!((samples[0].t, samples[samples.len() - 1].t), (chunk.mint, chunk.maxt));
            samples.iter().map(|sample| (sample.t, sample.value())).collect()
        };
        chunks.iter().map(samples).collect()
    }

    #[test]
    fn only_what_overlaps_is_made_anew() {
        let apart = vec![chunk(&[1, 3], 1.0), chunk(&[4, 6], 2.0)];
        assert_eq!(merge_overlapping(apart.clone(), 1000).unwrap(), apart);
        let chunks = vec![
            chunk(&[1, 3], 1.0),
            chunk(&[4, 9], 2.0),
            chunk(&[6, 7, 9], 3.0),
            chunk(&[9, 12], 4.0),
            chunk(&[13, 14], 5.0),
        ];
        let merged = merge_overlapping(chunks.clone(), 1000).unwrap();
        assert_eq!(
            content(&merged),
            [
                vec![(1, 1.0), (3, 1.0)],
                vec![(4, 2.0), (6, 3.0), (7, 3.0), (9, 4.0), (12, 4.0)],
                vec![(13, 5.0), (14, 5.0)],
            ]
        );
        assert_eq!((&merged[0], &merged[2]), (&chunks[0], &chunks[4]));
    }

    #[test]
    fn damage_is_told() {
        let mut damaged = chunk(&[2, 5], 1.0);
        damaged.data.truncate(4);
        assert!(merge_overlapping(vec![chunk(&[1, 3], 1.0), damaged.clone()], 1000).is_err());
        assert_eq!(merge_overlapping(vec![damaged.clone()], 1000), Ok(vec![damaged]));
    }
}
