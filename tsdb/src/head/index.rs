//! The series of the head, found by labels, by label pairs, or by handle.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashSet, HashTable};
use smallvec::SmallVec;

use super::{
    postings::Postings,
    series::MemSeries,
    slab::Slab,
    symbols::{Symbol, SymbolTable},
};
use crate::{
    Result,
    append::SeriesHandle,
    labels::Labels,
    postings::{PostingsSource, ascending},
    types::SeriesRef,
};

/// Label pairs of a series, as symbols.
pub(crate) type SymbolPairs = Box<[(Symbol, Symbol)]>;

/// All series of one head and the ways to find them.
#[derive(Debug, Default)]
pub(crate) struct SeriesIndex {
    pub slab: Slab,
    symbols: SymbolTable,
    postings: Postings,
    by_labels: HashTable<u32>,
    hasher: RandomState,
}

impl SeriesIndex {
    /// The slot of the series with exactly these labels.
    pub fn find(&self, labels: &Labels) -> Option<u32> {
        let mut pairs: SmallVec<[(Symbol, Symbol); 16]> = SmallVec::new();
        for (name, value) in labels.iter() {
            pairs.push((self.symbols.find(name)?, self.symbols.find(value)?));
        }
        let hash = self.hasher.hash_one(&pairs[..]);
        self.by_labels
            .find(hash, |&slot| self.slab.get(slot).is_some_and(|series| *series.labels == *pairs))
            .copied()
    }

    /// Creates the series of `labels`, which must not be there yet, under the number `series`.
    pub fn create(&mut self, labels: &Labels, series: SeriesRef) -> u32 {
        let pairs: SymbolPairs = labels
            .iter()
            .map(|(name, value)| (self.symbols.acquire(name), self.symbols.acquire(value)))
            .collect();
        let hash = self.hasher.hash_one(&pairs[..]);
        let slot = self.slab.insert(MemSeries::new(series, pairs));
        let (slab, hasher, postings) = (&self.slab, &self.hasher, &mut self.postings);
        let pairs_of = |slot: u32| slab.get(slot).map(|series| &series.labels[..]).unwrap_or_default();
        self.by_labels.insert_unique(hash, slot, |&slot| hasher.hash_one(pairs_of(slot)));
        for &(name, value) in pairs_of(slot) {
            postings.add(name, value, slot);
        }
        slot
    }

    /// Removes the series in `slots`. Their handles are outdated from now on.
    pub fn remove(&mut self, slots: &[u32]) {
        let gone: HashSet<u32, RandomState> = slots.iter().copied().collect();
        let mut pairs: HashSet<(Symbol, Symbol), RandomState> = HashSet::default();
        for &slot in slots {
            let Some(series) = self.slab.get(slot) else { continue };
            let hash = self.hasher.hash_one(&series.labels[..]);
            if let Ok(found) = self.by_labels.find_entry(hash, |&own| own == slot) {
                found.remove();
            }
            pairs.extend(series.labels.iter().copied());
        }
        self.postings.remove(&pairs, |slot| gone.contains(&slot));
        for &slot in slots {
            let Some(series) = self.slab.remove(slot) else { continue };
            for &(name, value) in &series.labels {
                self.symbols.release(name);
                self.symbols.release(value);
            }
        }
    }

    /// The series behind `handle`, unless the handle is outdated.
    #[inline]
    pub fn by_handle(&self, handle: SeriesHandle) -> Option<&MemSeries> {
        self.slab.get(handle.slot).filter(|series| series.series == handle.series)
    }

    /// The labels of the series in `slot`.
    pub fn labels(&self, slot: u32) -> Option<Labels> {
        let series = self.slab.get(slot)?;
        let pairs = series.labels.iter();
        Labels::from_sorted(pairs.map(|&(name, value)| (self.symbols.text(name), self.symbols.text(value))))
    }

    /// Names of labels, in no order.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.postings.names().map(|name| self.symbols.text(name))
    }

    /// Values of the label `name`, in no order.
    pub fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.symbols.find(name).map_or(&[][..], |name| self.postings.values(name));
        values.iter().map(|&value| self.symbols.text(value))
    }
}

impl PostingsSource for SeriesIndex {
    fn all(&mut self) -> Result<Vec<u32>> {
        Ok(self.slab.iter().map(|(slot, _)| slot).collect())
    }

    fn with_value(&mut self, name: &str, value: &str) -> Result<Vec<u32>> {
        let (Some(name), Some(value)) = (self.symbols.find(name), self.symbols.find(value)) else {
            return Ok(Vec::new());
        };
        Ok(self.postings.get(name, value).to_vec())
    }

    fn with_values(&mut self, name: &str, wanted: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u32>> {
        let Some(name) = self.symbols.find(name) else { return Ok(Vec::new()) };
        let symbols = &self.symbols;
        let values: Vec<Symbol> =
            self.postings.values(name).iter().copied().filter(|&value| wanted(symbols.text(value))).collect();
        let mut union = Vec::new();
        for value in values {
            union.extend_from_slice(self.postings.get(name, value));
        }
        Ok(ascending(union))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(job: &str, instance: &str) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("job", job), ("instance", instance)])
    }

    #[test]
    fn finds_creates_and_removes() {
        let mut index = SeriesIndex::default();
        let a = index.create(&labels("a", "1"), SeriesRef(1));
        let b = index.create(&labels("a", "2"), SeriesRef(2));
        let c = index.create(&labels("c", "1"), SeriesRef(3));
        assert_eq!(index.find(&labels("a", "2")), Some(b));
        assert_eq!(index.find(&labels("c", "2")), None);
        assert_eq!(index.labels(c), Some(labels("c", "1")));
        assert_eq!(index.with_value("job", "a").unwrap(), [a, b]);
        assert_eq!(index.with_values("instance", &mut |value| value == "1").unwrap(), [a, c]);

        index.remove(&[a, c]);
        assert_eq!(index.all().unwrap(), [b]);
        assert_eq!(index.find(&labels("a", "1")), None);
        assert_eq!(index.label_values("job").collect::<Vec<_>>(), ["a"]);
        assert_eq!(index.label_values("instance").collect::<Vec<_>>(), ["2"]);
        assert!(index.by_handle(SeriesHandle { slot: a, series: SeriesRef(1) }).is_none());

        // A reused slot is told apart by its ref, and stands in order in the lists.
        let d = index.create(&labels("a", "9"), SeriesRef(4));
        assert!(d == a || d == c);
        assert!(index.by_handle(SeriesHandle { slot: d, series: SeriesRef(1) }).is_none());
        let mut both = vec![b, d];
        both.sort_unstable();
        assert_eq!(index.with_value("job", "a").unwrap(), both);
    }

    #[test]
    fn the_empty_label_set_is_a_series() {
        let mut index = SeriesIndex::default();
        let slot = index.create(&Labels::empty(), SeriesRef(1));
        assert_eq!(index.find(&Labels::empty()), Some(slot));
        assert_eq!(index.labels(slot), Some(Labels::empty()));
    }
}
