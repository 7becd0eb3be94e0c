//! The symbols of an index: every name and value once, in bytewise order, known by their number.
//!
//! Reading keeps little in memory: a small section as a whole, of a large one only where each 32nd
//! symbol lies. A query looks symbols up through a [`SymbolCache`], since the series it walks have
//! most names and values in common.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use super::{index_file::IndexFile, read_ahead::ReadAhead};
use crate::{Result, varint::Decoder};

/// Of a large section each symbol of which the number is a multiple of this has its place noted.
const STRIDE: u32 = 32;

/// Sections up to this many bytes are kept in memory.
const RESIDENT_BYTES_MAX: u64 = 32 << 10;

/// A cache with more symbols than this is emptied before the next series.
const CACHE_SYMBOLS_MAX: usize = 8192;

/// The symbols section of an open index.
#[derive(Debug)]
pub(super) struct SymbolTable {
    count: u32,
    /// First byte behind the count.
    start: u64,
    end: u64,
    /// Offset from `start` of every [`STRIDE`]th symbol.
    places: Vec<u32>,
    /// The section from `start` on, if it is small.
    resident: Option<Box<[u8]>>,
}

impl SymbolTable {
    pub(super) fn open(index: &IndexFile) -> Result<Self> {
        let (mut scanner, count) = index.check_section(index.toc.symbols, index.toc.series)?;
        let (start, end) = (scanner.at, scanner.end);
        let mut places = Vec::new();
        let mut previous = Vec::new();
        for number in 0..count {
            let at = scanner.at;
            if number % STRIDE == 0 {
                // A section is at most 4 GiB long.
                places.push((at - start) as u32);
            }
            let symbol = scanner.entry(|decoder| decoder.prefixed_bytes().map(drop))?;
            let symbol = Decoder::new(symbol)
                .str()
                .map_err(|error| index.corrupt(at, format!("symbol {number}: {error}")))?;
            if number > 0 && previous.as_slice() >= symbol.as_bytes() {
                return Err(index.corrupt(at, "symbols do not ascend"));
            }
            previous.clear();
            previous.extend_from_slice(symbol.as_bytes());
        }
        if !scanner.is_at_end() {
            return Err(index.corrupt(scanner.at, "more symbols than were counted"));
        }
        let resident = if end - start <= RESIDENT_BYTES_MAX {
            let len = (end - start) as usize;
            let data = index.read(&mut scanner.ahead, start, len)?;
            Some(data.get(..len).unwrap_or(data).into())
        } else {
            None
        };
        Ok(Self { count, start, end, places, resident })
    }

    /// Number of symbols.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes from the place of the stride's first symbol on, as `data`, to symbol `number`.
    fn find(data: &[u8], number: u32) -> Option<&str> {
        let mut decoder = Decoder::new(data);
        for _ in 0..number % STRIDE {
            decoder.prefixed_bytes().ok()?;
        }
        decoder.str().ok()
    }

    fn resident(&self, number: u32) -> Option<&str> {
        let place = *self.places.get((number / STRIDE) as usize)?;
        let data = self.resident.as_ref()?.get(place as usize..)?;
        (number < self.count).then(|| Self::find(data, number))?
    }

    /// Reads symbol `number` from the file.
    fn read(&self, index: &IndexFile, ahead: &mut ReadAhead, number: u32) -> Result<Box<str>> {
        let stride = (number / STRIDE) as usize;
        let Some(&place) = self.places.get(stride).filter(|_| number < self.count) else {
            return Err(index.corrupt(self.start, format!("there is no symbol {number}")));
        };
        let from = self.start + u64::from(place);
        let to = self.places.get(stride + 1).map_or(self.end, |&next| self.start + u64::from(next));
        let data = index.read(ahead, from, (to - from) as usize)?;
        let symbol = Self::find(data, number);
        symbol.map(Into::into).ok_or_else(|| index.corrupt(from, format!("symbol {number} is not readable")))
    }
}

/// The symbols that one query has met.
#[derive(Debug, Default)]
pub(super) struct SymbolCache {
    symbols: HashMap<u32, Box<str>, RandomState>,
    ahead: ReadAhead,
}

impl SymbolCache {
    /// Makes room. To be called before the symbols of a series are loaded.
    pub(super) fn trim(&mut self) {
        if self.symbols.len() > CACHE_SYMBOLS_MAX {
            self.symbols.clear();
        }
    }

    /// Makes symbol `number` known to [`SymbolCache::get`].
    pub(super) fn load(&mut self, index: &IndexFile, table: &SymbolTable, number: u32) -> Result<()> {
        if table.resident(number).is_none() && !self.symbols.contains_key(&number) {
            let symbol = table.read(index, &mut self.ahead, number)?;
            self.symbols.insert(number, symbol);
        }
        Ok(())
    }

    /// Symbol `number`, if it was loaded.
    pub(super) fn get<'a>(&'a self, table: &'a SymbolTable, number: u32) -> Option<&'a str> {
        table.resident(number).or_else(|| self.symbols.get(&number).map(Box::as_ref))
    }
}

/// Symbols in order, as the writer of an index needs them.
#[derive(Debug, Default)]
pub struct SortedSymbols {
    text: String,
    /// End of each symbol in `text`.
    ends: Vec<usize>,
}

impl SortedSymbols {
    /// `None` if the symbols do not strictly ascend bytewise.
    pub fn from_sorted<S: AsRef<str>>(symbols: impl IntoIterator<Item = S>) -> Option<Self> {
        let mut all = Self::default();
        for symbol in symbols {
            let symbol = symbol.as_ref();
            if all.last().is_some_and(|last| last.as_bytes() >= symbol.as_bytes()) {
                return None;
            }
            all.push(symbol);
        }
        Some(all)
    }

    fn push(&mut self, symbol: &str) {
        self.text.push_str(symbol);
        self.ends.push(self.text.len());
    }

    fn last(&self) -> Option<&str> {
        self.get(self.ends.len().checked_sub(1)?)
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Symbol of this number.
    pub fn get(&self, number: usize) -> Option<&str> {
        let start = number.checked_sub(1).map_or(Some(&0), |before| self.ends.get(before))?;
        self.text.get(*start..*self.ends.get(number)?)
    }

    /// All symbols in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|number| self.get(number).unwrap_or_default())
    }

    /// Number of `symbol`, if it is there. Takes the logarithm of the number of symbols.
    pub fn find(&self, symbol: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)?.as_bytes() < symbol.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (self.get(low)? == symbol).then_some(low as u32)
    }
}

/// Collects symbols in any order and gives each a number at once; the order comes at the end.
#[derive(Debug)]
pub(super) struct SymbolCollector {
    symbols: SortedSymbols,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl SymbolCollector {
    /// Begins with the empty string as number 0: it stands in the indexes of Prometheus 3 too.
    pub(super) fn new() -> Self {
        let mut collector = Self {
            symbols: SortedSymbols::default(),
            numbers: HashTable::new(),
            hasher: RandomState::default(),
        };
        collector.number("");
        collector
    }

    /// Provisional number of `symbol`.
    pub(super) fn number(&mut self, symbol: &str) -> u32 {
        use std::hash::BuildHasher;
        let Self { symbols, numbers, hasher } = self;
        let get = |number: u32| symbols.get(number as usize).unwrap_or_default();
        let hash = hasher.hash_one(symbol);
        if let Some(&known) = numbers.find(hash, |&number| get(number) == symbol) {
            return known;
        }
        let number = symbols.len() as u32;
        numbers.insert_unique(hash, number, |&number| hasher.hash_one(get(number)));
        symbols.push(symbol);
        number
    }

    /// The symbols in order, and for each provisional number the number in this order.
    pub(super) fn sort(self) -> (SortedSymbols, Vec<u32>) {
        // The map is not needed any more; make room before the copy.
        drop(self.numbers);
        let get = |number: u32| self.symbols.get(number as usize).unwrap_or_default();
        let mut order: Vec<u32> = (0..self.symbols.len() as u32).collect();
        order.sort_unstable_by(|&left, &right| get(left).as_bytes().cmp(get(right).as_bytes()));
        let mut sorted = SortedSymbols {
            text: String::with_capacity(self.symbols.text.len()),
            ends: Vec::with_capacity(order.len()),
        };
        let mut renumber = vec![0; order.len()];
        for (new, old) in order.into_iter().enumerate() {
            sorted.push(get(old));
            if let Some(place) = renumber.get_mut(old as usize) {
                *place = new as u32;
            }
        }
        (sorted, renumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_and_sorts() {
        let mut collector = SymbolCollector::new();
        let numbers = ["b", "a", "b", "\u{10000}", "\u{ffff}", ""].map(|symbol| collector.number(symbol));
        assert_eq!(numbers, [1, 2, 1, 3, 4, 0]);
        let (sorted, renumber) = collector.sort();
        assert_eq!(sorted.iter().collect::<Vec<_>>(), ["", "a", "b", "\u{ffff}", "\u{10000}"]);
        assert_eq!(renumber, [0, 2, 1, 4, 3]);
        assert_eq!(sorted.find("b"), Some(2));
        assert_eq!(sorted.find(""), Some(0));
        assert_eq!(sorted.find("c"), None);
        assert_eq!(sorted.find("\u{10001}"), None);
    }

    #[test]
    fn sorted_means_strictly() {
        let check = |symbols: &[&str]| SortedSymbols::from_sorted(symbols).is_some();
        assert!(check(&[]));
        assert!(check(&["", "a", "ab", "b"]));
        assert!(!check(&["a", "a"]));
        assert!(!check(&["b", "a"]));
        assert_eq!(SortedSymbols::default().find("a"), None);
    }
}
