//! Which series of the head carry which label.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::symbols::Symbol;

/// Slots of the series with one label pair.
#[derive(Debug, Default)]
struct PostingList {
    slots: Vec<u32>,
    /// False after a reused slot was appended behind a greater one; sorted again before use.
    sorted: bool,
}

/// Postings of the head: slots by label pair, and values by label name.
///
/// Slots are appended as series come, which is ascending but for slots used again; such a list is
/// sorted when a query next needs it. The maps are keyed by symbol numbers, which strangers cannot
/// choose.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    lists: HashMap<(Symbol, Symbol), PostingList, RandomState>,
    values: HashMap<Symbol, Vec<Symbol>, RandomState>,
}

impl Postings {
    /// Notes that the series in `slot` has the label `name`=`value`.
    pub fn add(&mut self, name: Symbol, value: Symbol, slot: u32) {
        let list = self.lists.entry((name, value)).or_insert_with(|| {
            self.values.entry(name).or_default().push(value);
            PostingList { slots: Vec::new(), sorted: true }
        });
        list.sorted &= list.slots.last().is_none_or(|&last| last < slot);
        list.slots.push(slot);
    }

    /// Forgets all slots for which `is_gone` says so in the lists of `pairs`.
    pub fn remove(&mut self, pairs: &HashSet<(Symbol, Symbol), RandomState>, is_gone: impl Fn(u32) -> bool) {
        // Emptied lists are taken out of their name's values in one pass per name: one pass per
        // value would cost the square of the number of values.
        let mut emptied: HashSet<(Symbol, Symbol), RandomState> = HashSet::default();
        for &(name, value) in pairs {
            let Some(list) = self.lists.get_mut(&(name, value)) else { continue };
            list.slots.retain(|&slot| !is_gone(slot));
            if list.slots.is_empty() {
                self.lists.remove(&(name, value));
                emptied.insert((name, value));
            } else if list.slots.len() * 4 < list.slots.capacity() {
                list.slots.shrink_to_fit();
            }
        }
        let names: HashSet<Symbol, RandomState> = emptied.iter().map(|&(name, _)| name).collect();
        for name in names {
            let Some(values) = self.values.get_mut(&name) else { continue };
            values.retain(|&value| !emptied.contains(&(name, value)));
            if values.is_empty() {
                self.values.remove(&name);
            }
        }
    }

    /// Slots with the label `name`=`value`, ascending.
    pub fn get(&mut self, name: Symbol, value: Symbol) -> &[u32] {
        match self.lists.get_mut(&(name, value)) {
            Some(list) => {
                if !list.sorted {
                    list.slots.sort_unstable();
                    list.sorted = true;
                }
                &list.slots
            }
            None => &[],
        }
    }

    /// Values that the label `name` has, in no order.
    pub fn values(&self, name: Symbol) -> &[Symbol] {
        self.values.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Names that any series has, in no order.
    pub fn names(&self) -> impl Iterator<Item = Symbol> {
        self.values.keys().copied()
    }
}
