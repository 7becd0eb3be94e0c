//! Where one chunk of floats ends and the next begins.
//!
//! The rule is Prometheus' own (prometheus/prometheus `tsdb/head_append.go`). It looks at nothing
//! but the samples, their times and the bytes they took, so whoever applies it to the same samples
//! gets the same chunks. Readers drop equal chunks of replicas without decoding them: that is why
//! neither memory pressure nor the clock may ever cut a chunk.

use super::xor::XorState;
use crate::types::Sample;

/// A chunk that is longer than this in bytes takes no more samples: the largest sample has 19 bytes,
/// and the chunk shall not exceed 1024.
const BYTES_MAX: usize = 1024 - 19;

/// A quarter of the samples a chunk is meant to have. At this many the end of the chunk is set so
/// that the rest of the range is divided evenly.
const SAMPLES_AT_PREDICTION: u16 = 120 / 4;

/// By how much the samples so far must be multiplied for a full chunk, at the prediction.
const RATIO_AT_PREDICTION: f64 = 4.0;

/// A chunk with this many samples takes no more: the prediction was wrong.
const SAMPLES_MAX: u16 = 240;

/// The chunk that a sample might be appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenChunk {
    /// Time of its first sample.
    pub mint: i64,
    /// Time of its last sample.
    pub maxt: i64,
    /// Length of its data with the sample count.
    pub bytes: usize,
    /// Number of its samples, at least 1.
    pub samples: u16,
}

/// Decides before each append whether the sample begins a new chunk.
///
/// Times below zero are put into ranges that are rounded down, while upstream rounds towards zero;
/// so ours never cross a range border. Equal from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatCutter {
    next_at: i64,
}

impl Default for FloatCutter {
    fn default() -> Self {
        Self::new()
    }
}

impl FloatCutter {
    /// The cutter of a series without an open chunk.
    pub const fn new() -> Self {
        Self { next_at: i64::MIN }
    }

    /// True if a sample at `t` begins a new chunk, `open` being the chunk before it. Must be asked
    /// once for every sample that is then appended, in order of time. No chunk reaches over a
    /// multiple of `range_ms`.
    #[inline]
    pub fn cut_before(&mut self, range_ms: i64, open: Option<OpenChunk>, t: i64) -> bool {
        if let Some(open) = open
            && open.bytes <= BYTES_MAX
        {
            if open.samples == SAMPLES_AT_PREDICTION {
                self.next_at = predicted_end(open.mint, open.maxt, self.next_at);
            }
            if t < self.next_at && open.samples < SAMPLES_MAX {
                return false;
            }
        }
        self.next_at = range_end(t, range_ms);
        true
    }
}

/// End (exclusive) of the aligned range that contains `t`, also at the ends of the time axis.
fn range_end(t: i64, range_ms: i64) -> i64 {
    t.div_euclid(range_ms).saturating_mul(range_ms).saturating_add(range_ms)
}

/// End of a chunk from `start` to `cur` so far, so that chunks of its density fill the time up to
/// `max` evenly. The floats are part of the rule.
fn predicted_end(start: i64, cur: i64, max: i64) -> i64 {
    let so_far = cur.wrapping_sub(start).wrapping_add(1) as f64;
    let whole = max.wrapping_sub(start) as f64;
    let chunks = whole / (so_far * RATIO_AT_PREDICTION);
    if chunks <= 1.0 {
        return max;
    }
    (start as f64 + whole / chunks.floor()) as i64
}

/// Cuts sorted samples into chunks and encodes them. Keeps its buffer for the next series.
#[derive(Debug, Default)]
pub struct FloatChunkEncoder {
    data: Vec<u8>,
}

impl FloatChunkEncoder {
    /// Hands `sink` one chunk after the other: time of its first sample, time of its last, and its
    /// data from the sample count on. The chunks are a pure function of `range_ms` and the samples,
    /// whose times must rise strictly. Stops at the first error of `sink`.
    pub fn encode<E>(
        &mut self,
        range_ms: i64,
        samples: impl IntoIterator<Item = Sample>,
        mut sink: impl FnMut(i64, i64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cutter = FloatCutter::new();
        let mut state = XorState::new();
        let mut open: Option<OpenChunk> = None;
        for sample in samples {
            debug_assert!(open.is_none_or(|open| open.maxt < sample.t), "times rise strictly");
            if cutter.cut_before(range_ms, open, sample.t) {
                if let Some(done) = open.take() {
                    sink(done.mint, done.maxt, &self.data)?;
                }
                state = XorState::new();
            }
            state.append(&mut self.data, sample.t, sample.bits);
            open = Some(OpenChunk {
                mint: open.map_or(sample.t, |open| open.mint),
                maxt: sample.t,
                bytes: self.data.len(),
                samples: state.count(),
            });
        }
        match open {
            Some(done) => sink(done.mint, done.maxt, &self.data),
            None => Ok(()),
        }
    }
}

/// As [`FloatChunkEncoder::encode`], with a buffer of its own.
pub fn encode_float_chunks<E>(
    range_ms: i64,
    samples: impl IntoIterator<Item = Sample>,
    sink: impl FnMut(i64, i64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    FloatChunkEncoder::default().encode(range_ms, samples, sink)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::chunkenc::XorIter;

    const RANGE: i64 = 7_200_000;

    /// First time, last time and number of samples of each chunk.
    fn cut(samples: impl IntoIterator<Item = Sample>) -> Vec<(i64, i64, u16)> {
        let mut chunks = Vec::new();
        let sink = |mint, maxt, data: &[u8]| {
            chunks.push((mint, maxt, XorIter::new(data).expect("a header").sample_count()));
            Ok::<_, Infallible>(())
        };
        encode_float_chunks(RANGE, samples, sink).expect("the sink never fails");
        chunks
    }

    fn every(step: i64, from: i64, until: i64) -> impl Iterator<Item = Sample> {
        (from..until).step_by(step as usize).map(|t| Sample::new(t, 1.0))
    }

    #[test]
    fn regular_series_are_cut_evenly() {
        // 15 s: 480 samples in 2 h. At 30 samples, 435,001 ms fit 4 times into 7,200,000 ms: four
        // chunks of 1,800,000 ms.
        let quarter = 1_800_000;
        let expected: Vec<_> =
            (0..4).map(|index| (index * quarter, (index + 1) * quarter - 15_000, 120)).collect();
        assert_eq!(cut(every(15_000, 0, RANGE)), expected);
        // 60 s: 120 samples, one chunk, and the border of the range ends it.
        assert_eq!(cut(every(60_000, 0, RANGE + 1)), [(0, RANGE - 60_000, 120), (RANGE, RANGE, 1)]);
        // Fewer than 30 samples: only the border cuts.
        assert_eq!(
            cut(every(600_000, RANGE - 600_000, RANGE + 600_000)),
            [(RANGE - 600_000, RANGE - 600_000, 1), (RANGE, RANGE, 1)]
        );
    }

    #[test]
    fn negative_times_do_not_cross_zero() {
        assert_eq!(cut(every(1, -2, 2)), [(-2, -1, 2), (0, 1, 2)]);
        let ends = [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX].map(|t| Sample::new(t, 0.0));
        assert_eq!(cut(ends).iter().map(|chunk| u32::from(chunk.2)).sum::<u32>(), 4);
    }

    #[test]
    fn a_burst_after_the_prediction_ends_at_240_samples() {
        let slow = every(60_000, 0, 30 * 60_000);
        let fast = every(1, 30 * 60_000, 30 * 60_000 + 1_000);
        let chunks = cut(slow.chain(fast));
        assert_eq!(chunks.first().map(|chunk| chunk.2), Some(240));
    }

    #[test]
    fn large_chunks_end_by_size() {
        // Some 8 bytes for each value and 20 bits for each time.
        let mut noise = 1u64;
        let samples = (0..500).map(|index| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Sample { t: index * 15_000 + index % 2 * 14_000, bits: noise }
        });
        let mut sizes = Vec::new();
        let sink = |_, _, data: &[u8]| {
            sizes.push(data.len());
            Ok::<_, Infallible>(())
        };
        encode_float_chunks(RANGE, samples, sink).expect("the sink never fails");
        assert!(sizes.iter().all(|&size| size <= 1024), "{sizes:?}");
        assert!(sizes.iter().any(|&size| size > BYTES_MAX), "{sizes:?}");
    }

    #[test]
    fn the_sink_can_stop() {
        let mut calls = 0;
        let result = encode_float_chunks(RANGE, every(RANGE, 0, 4 * RANGE), |_, _, _| {
            calls += 1;
            if calls == 2 { Err("full") } else { Ok(()) }
        });
        assert_eq!((result, calls), (Err("full"), 2));
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_and_no_border_crossed(
            start in -RANGE..RANGE,
            steps in prop::collection::vec((1i64..200_000, 0u64..8), 0..400),
        ) {
            let mut t = start;
            let samples: Vec<_> = steps.into_iter().map(|(step, bits)| {
                t += step;
                Sample { t, bits }
            }).collect();
            let mut read = Vec::new();
            encode_float_chunks(RANGE, samples.iter().copied(), |mint, maxt, data| {
                let own: Vec<_> = XorIter::new(data).and_then(Iterator::collect).expect("a whole chunk");
                assert_eq!((own[0].t, own[own.len() - 1].t), (mint, maxt));
                assert_eq!(mint.div_euclid(RANGE), maxt.div_euclid(RANGE));
                assert!(own.len() <= 240);
                read.extend(own);
                Ok::<_, Infallible>(())
            }).expect("the sink never fails");
            prop_assert_eq!(read, samples);
        }
    }
}
