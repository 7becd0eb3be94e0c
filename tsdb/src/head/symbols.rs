//! Interned label names and values of one head.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// Number of an interned string. Valid as long as a series uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Symbol(pub u32);

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    /// How many label names and values of series use it; 0 means the entry is free.
    uses: u32,
}

/// Strings by number and numbers by string, counted by use. The hash is seeded, because the strings
/// come from strangers.
#[derive(Debug, Default)]
pub(crate) struct SymbolTable {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    hasher: RandomState,
}

impl SymbolTable {
    /// The number of `text`, if some series uses it.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |&id| &*self.entries[id as usize].text == text).copied().map(Symbol)
    }

    /// The number of `text`, with one more use.
    pub fn acquire(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            self.entries[symbol.0 as usize].uses += 1;
            return symbol;
        }
        let entry = Entry { text: text.into(), uses: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 strings are in memory")
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |&id: &u32| hasher.hash_one(&*entries[id as usize].text);
        self.by_text.insert_unique(hasher.hash_one(text), id, rehash);
        Symbol(id)
    }

    /// Gives one use of `symbol` back; the last one frees it.
    pub fn release(&mut self, symbol: Symbol) {
        let entry = &mut self.entries[symbol.0 as usize];
        entry.uses -= 1;
        if entry.uses == 0 {
            let hash = self.hasher.hash_one(&*entry.text);
            if let Ok(found) = self.by_text.find_entry(hash, |&id| id == symbol.0) {
                found.remove();
            }
            entry.text = Box::default();
            self.free.push(symbol.0);
        }
    }

    /// The string behind `symbol`.
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.entries[symbol.0 as usize].text
    }

    /// Number of strings in use.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_uses_and_reuses_numbers() {
        let mut table = SymbolTable::default();
        let a = table.acquire("a");
        let b = table.acquire("b");
        assert_eq!(table.acquire("a"), a);
        assert_eq!(table.find("a"), Some(a));
        table.release(a);
        assert_eq!(table.find("a"), Some(a));
        table.release(a);
        assert_eq!(table.find("a"), None);
        assert_eq!((table.find("b"), table.text(b)), (Some(b), "b"));
        assert_eq!(table.acquire("c"), a);
        assert_eq!(table.len(), 2);
    }
}
