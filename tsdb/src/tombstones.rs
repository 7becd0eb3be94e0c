//! Deletions: intervals of time per series that are not to be returned, while the samples are still
//! stored.
//!
//! The file `tombstones` of a block is a magic number, a version, then per interval the series, its
//! first and its last millisecond, and a crc over these entries alone. Series are in no particular
//! order in the files of Prometheus. Format: prometheus/prometheus `tsdb/tombstones`.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Error, Result,
    chunkenc::{ChunkError, Encoding, XorState, decode_floats},
    crc::crc32c,
    fs::{Fs, read_file},
    query::Chunk,
    types::IndexSeriesId,
    varint::{DecodeError, Decoder, put_uvarint, put_varint},
};

/// Name of the file in the block's directory.
pub const TOMBSTONES_FILE: &str = "tombstones";

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 5;

/// Milliseconds from `mint` to `maxt`, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First millisecond.
    pub mint: i64,
    /// Last millisecond, inclusive.
    pub maxt: i64,
}

/// Intervals in order, with at least one millisecond between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    intervals: Vec<Interval>,
}

impl Intervals {
    /// No interval.
    pub const fn new() -> Self {
        Self { intervals: Vec::new() }
    }

    /// Adds an interval; it is merged with those that it overlaps or touches. One that ends before
    /// it begins is nothing.
    pub fn add(&mut self, interval: Interval) {
        if interval.mint > interval.maxt {
            return;
        }
        let touches_from = interval.mint.saturating_sub(1);
        let touches_to = interval.maxt.saturating_add(1);
        let first = self.intervals.partition_point(|own| own.maxt < touches_from);
        let behind = self.intervals.partition_point(|own| own.mint <= touches_to);
        let merged = self.intervals.get(first..behind).unwrap_or_default();
        let mint = merged.first().map_or(interval.mint, |own| own.mint.min(interval.mint));
        let maxt = merged.last().map_or(interval.maxt, |own| own.maxt.max(interval.maxt));
        self.intervals.splice(first..behind, [Interval { mint, maxt }]);
    }

    /// Adds all intervals of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.intervals.iter().for_each(|&interval| self.add(interval));
    }

    /// True if `t` is in one of them.
    pub fn contains(&self, t: i64) -> bool {
        self.next_to(t).is_some_and(|interval| interval.mint <= t)
    }

    /// True if all of `mint` to `maxt` is in one of them.
    pub fn covers(&self, mint: i64, maxt: i64) -> bool {
        self.next_to(mint).is_some_and(|interval| interval.mint <= mint && maxt <= interval.maxt)
    }

    /// True if any of `mint` to `maxt` is in one of them.
    pub fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.next_to(mint).is_some_and(|interval| interval.mint <= maxt)
    }

    /// The first that does not end before `t`.
    fn next_to(&self, t: i64) -> Option<&Interval> {
        self.intervals.get(self.intervals.partition_point(|own| own.maxt < t))
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Interval> {
        self.intervals.iter().copied()
    }

    /// Number of intervals.
    pub fn len(&self) -> usize {
        self.intervals.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }
}

impl FromIterator<Interval> for Intervals {
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut all = Self::new();
        intervals.into_iter().for_each(|interval| all.add(interval));
        all
    }
}

/// The intervals of each series, which is known by an `S`: [`IndexSeriesId`] in a block,
/// [`crate::SeriesRef`] in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstones<S> {
    series: BTreeMap<S, Intervals>,
}

impl<S> Default for Tombstones<S> {
    fn default() -> Self {
        Self { series: BTreeMap::new() }
    }
}

impl<S: Ord + Copy> Tombstones<S> {
    /// Adds an interval to a series.
    pub fn add(&mut self, series: S, interval: Interval) {
        if interval.mint <= interval.maxt {
            self.series.entry(series).or_default().add(interval);
        }
    }

    /// The intervals of a series, if it has any.
    pub fn get(&self, series: S) -> Option<&Intervals> {
        self.series.get(&series)
    }

    /// All series with intervals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (S, &Intervals)> {
        self.series.iter().map(|(&series, intervals)| (series, intervals))
    }

    /// Number of intervals of all series.
    pub fn interval_count(&self) -> usize {
        self.series.values().map(Intervals::len).sum()
    }

    /// True if nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

impl Tombstones<IndexSeriesId> {
    /// Reads the file in the block directory `dir`. If it is missing, nothing is deleted: it is
    /// absent from blocks that come out of a bucket.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let path = dir.join(TOMBSTONES_FILE);
        if !fs.exists(&path).map_err(Error::io("look for", &path))? {
            return Ok(Self::default());
        }
        let data = read_file(fs, &path).map_err(Error::io("read", &path))?;
        Self::decode(&data, &path)
    }

    /// Reads the content of the file `path`.
    pub fn decode(data: &[u8], path: &Path) -> Result<Self> {
        let damaged = |rest: usize, what: String| Error::corrupt(path, (data.len() - rest) as u64, what);
        let mut header = Decoder::new(data);
        if header.u32_be() != Ok(MAGIC) || header.u8() != Ok(VERSION) {
            return Err(damaged(data.len(), "not the header of a tombstones file of version 1".to_owned()));
        }
        let Some((entries, crc)) = header.rest().split_last_chunk() else {
            return Err(damaged(0, "no checksum".to_owned()));
        };
        if crc32c(entries) != u32::from_be_bytes(*crc) {
            return Err(damaged(crc.len(), "checksum of the tombstones is wrong".to_owned()));
        }
        let mut tombstones = Self::default();
        let mut decoder = Decoder::new(entries);
        while !decoder.is_empty() {
            let rest = decoder.remaining() + crc.len();
            let mut read = || {
                let series = u32::try_from(decoder.uvarint()?).map_err(|_| DecodeError::Overflow)?;
                let interval = Interval { mint: decoder.varint()?, maxt: decoder.varint()? };
                Ok((IndexSeriesId(series), interval))
            };
            let (series, interval) = read().map_err(|error: DecodeError| damaged(rest, error.to_string()))?;
            tombstones.add(series, interval);
        }
        Ok(tombstones)
    }

    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = MAGIC.to_be_bytes().to_vec();
        data.push(VERSION);
        for (series, intervals) in self.iter() {
            for interval in intervals.iter() {
                put_uvarint(&mut data, series.0.into());
                put_varint(&mut data, interval.mint);
                put_varint(&mut data, interval.maxt);
            }
        }
        let crc = crc32c(data.get(HEADER_LEN..).unwrap_or_default());
        data.extend_from_slice(&crc.to_be_bytes());
        data
    }
}

/// Takes the deleted samples out of a chunk. A chunk that no interval touches comes back as it was,
/// of one that loses all its samples nothing; otherwise the rest is encoded anew. Of histograms
/// whole chunks can be deleted, but a part of one is [`ChunkError::NotFloat`].
pub fn delete_from_chunk(chunk: Chunk, deleted: &Intervals) -> Result<Option<Chunk>, ChunkError> {
    if !deleted.overlaps(chunk.mint, chunk.maxt) {
        return Ok(Some(chunk));
    }
    if deleted.covers(chunk.mint, chunk.maxt) {
        return Ok(None);
    }
    let mut rest = Chunk { mint: 0, maxt: 0, encoding: Encoding::Xor, data: Vec::new() };
    let mut state = XorState::new();
    for sample in decode_floats(chunk.encoding, &chunk.data)? {
        let sample = sample?;
        if deleted.contains(sample.t) {
            continue;
        }
        if state.count() == 0 {
            rest.mint = sample.t;
        }
        rest.maxt = sample.t;
        state.append(&mut rest.data, sample.t, sample.bits);
    }
    Ok((state.count() > 0).then_some(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{chunkenc::encode_xor, types::Sample};

    fn intervals(pairs: &[(i64, i64)]) -> Intervals {
        pairs.iter().map(|&(mint, maxt)| Interval { mint, maxt }).collect()
    }

    #[test]
    fn neighbours_are_merged() {
        let check = |added: &[(i64, i64)], expected: &[(i64, i64)]| {
            let merged: Vec<_> = intervals(added).iter().map(|own| (own.mint, own.maxt)).collect();
            assert_eq!(merged, expected, "{added:?}");
        };
        check(&[], &[]);
        check(&[(3, 2)], &[]);
        check(&[(1, 2), (4, 5)], &[(1, 2), (4, 5)]);
        check(&[(4, 5), (1, 2)], &[(1, 2), (4, 5)]);
        check(&[(1, 2), (3, 5)], &[(1, 5)]);
        check(&[(3, 5), (1, 2)], &[(1, 5)]);
        check(&[(1, 2), (7, 9), (4, 5), (2, 7)], &[(1, 9)]);
        check(&[(1, 9), (3, 4)], &[(1, 9)]);
        check(&[(1, 2), (4, 5), (7, 8), (3, 6)], &[(1, 8)]);
        check(&[(i64::MIN, 0), (5, i64::MAX), (1, 4)], &[(i64::MIN, i64::MAX)]);
        check(&[(i64::MAX, i64::MAX), (i64::MIN, i64::MIN)], &[(i64::MIN, i64::MIN), (i64::MAX, i64::MAX)]);
    }

    proptest! {
        /// Against the plain definition, millisecond by millisecond.
        #[test]
        fn intervals_are_sets(added in prop::collection::vec((0i64..40, 0i64..40), 0..8), range in (0i64..40, 0i64..40)) {
            let set = intervals(&added);
            let is_in = |t: i64| added.iter().any(|&(mint, maxt)| mint <= t && t <= maxt);
            for t in 0..40 {
                prop_assert_eq!(set.contains(t), is_in(t));
            }
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].maxt + 1 < pair[1].mint));
            let (mint, maxt) = (range.0.min(range.1), range.0.max(range.1));
            prop_assert_eq!(set.overlaps(mint, maxt), (mint..=maxt).any(is_in));
            prop_assert_eq!(set.covers(mint, maxt), (mint..=maxt).all(is_in));
            let mut merged = intervals(&added[..added.len() / 2]);
            merged.merge(&intervals(&added[added.len() / 2..]));
            prop_assert_eq!(merged, set);
        }

        #[test]
        fn files_survive(added in prop::collection::vec((0u32..5, any::<i64>(), any::<i64>()), 0..20)) {
            let mut tombstones = Tombstones::default();
            for (series, mint, maxt) in added {
                tombstones.add(IndexSeriesId(series), Interval { mint, maxt });
            }
            let data = tombstones.encode();
            prop_assert_eq!(Tombstones::decode(&data, Path::new("tombstones")).expect("valid"), tombstones);
        }
    }

    #[test]
    fn golden_files() {
        let empty = Tombstones::default().encode();
        assert_eq!(empty, [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/golden/tombstones/data/01M7VZGC0014FJ1NHY383WMJ24");
        let tombstones = Tombstones::read(&crate::fs::StdFs, &path).expect("a golden file");
        assert_eq!(tombstones.interval_count(), 5);
        let series: Vec<_> = tombstones.iter().map(|(series, _)| series.0).collect();
        assert_eq!(series, [0x0a, 0x0c, 0x0e, 0x14]);
        let of_0a = tombstones.get(IndexSeriesId(0x0a)).expect("deletions");
        let expected = [(1_795_133_400_000, 1_795_134_600_000), (1_795_134_660_000, 1_795_134_660_000)];
        assert_eq!(of_0a.iter().map(|own| (own.mint, own.maxt)).collect::<Vec<_>>(), expected);
        let nothing = Tombstones::read(&crate::fs::StdFs, Path::new("/nonexistent")).expect("may be absent");
        assert!(nothing.is_empty());
    }

    #[test]
    fn damaged_files_are_refused() {
        let mut tombstones = Tombstones::default();
        tombstones.add(IndexSeriesId(7), Interval { mint: -5, maxt: 1 << 40 });
        let data = tombstones.encode();
        for len in 0..data.len() {
            let error = Tombstones::decode(&data[..len], Path::new("tombstones")).expect_err("cut off");
            assert!(error.is_corruption());
        }
        for bit in 0..data.len() * 8 {
            let mut damaged = data.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Tombstones::decode(&damaged, Path::new("tombstones")).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn samples_are_taken_out_of_chunks() {
        let samples: Vec<_> = (0..10).map(|t| Sample { t, bits: 0x7ff0_0000_0000_0002 ^ t as u64 }).collect();
        let mut data = Vec::new();
        encode_xor(samples.iter().copied(), &mut data);
        let chunk = Chunk { mint: 0, maxt: 9, encoding: Encoding::Xor, data };
        let check = |deleted: &[(i64, i64)], expected: &[i64]| {
            let rest = delete_from_chunk(chunk.clone(), &intervals(deleted)).expect("floats");
            let Some(rest) = rest else { return assert!(expected.is_empty()) };
            let read =
                decode_floats(rest.encoding, &rest.data).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let expected: Vec<_> = expected.iter().map(|&t| samples[t as usize]).collect();
            assert_eq!(read, Ok(expected.clone()));
            assert_eq!((rest.mint, rest.maxt), (expected[0].t, expected[expected.len() - 1].t));
        };
        check(&[(10, 20), (-5, -1)], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        check(&[(0, 3), (5, 5), (9, 12)], &[4, 6, 7, 8]);
        check(&[(-1, 20)], &[]);
        check(&[(0, 4), (5, 9)], &[]);
        let same = delete_from_chunk(chunk.clone(), &intervals(&[(10, 11)])).expect("untouched");
        assert_eq!(same, Some(chunk.clone()));

        let histogram = Chunk { encoding: Encoding::Histogram, ..chunk };
        let delete = |deleted: &[(i64, i64)]| delete_from_chunk(histogram.clone(), &intervals(deleted));
        assert_eq!(delete(&[(0, 9)]), Ok(None));
        assert_eq!(delete(&[(10, 10)]), Ok(Some(histogram.clone())));
        assert_eq!(delete(&[(3, 4)]), Err(ChunkError::NotFloat(Encoding::Histogram)));
    }
}
