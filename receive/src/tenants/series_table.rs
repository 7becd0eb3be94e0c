//! What was decided about label sets that were seen before.
//!
//! A series travels with its labels spelled out in every request. Parsing, validating and looking
//! them up costs far more than storing a sample, so their bytes are hashed as they lie on the wire,
//! and this table maps the 128 bits to the handle of the series in the tenant's head. Only a key
//! that is missing takes the slow path.
//!
//! The table is bounded. An entry remembers the tick (about a minute) in which it was used last;
//! entries that were idle for long are swept out, sooner when the table is full. What still does
//! not fit stays on the slow path, nothing else happens. Readers take the lock once per request and
//! mark entries under it with one relaxed store per entry and tick.
//!
//! Entries hold for one generation of the configuration that judged the labels. A change of it
//! empties the table. Handles may be outdated (their series left the head); the head recognises
//! that, and the caller updates them.

use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::{HashTable, hash_table::Entry as TableEntry};
use parking_lot::{RwLock, RwLockReadGuard};
use weir_tsdb::append::SeriesHandle;

/// 128 bits of a keyed hash over the bytes of a series' labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesKey(pub u128);

impl SeriesKey {
    /// The hash is keyed and well mixed, so its low half serves the table as it is.
    fn bucket_hash(self) -> u64 {
        self.0 as u64
    }
}

/// What is known of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSeries {
    /// Where the database finds it; [`SeriesHandle::NONE`] if it is stored elsewhere.
    pub handle: SeriesHandle,
    /// Its slot of the ring; 0 without a ring.
    pub slot: u32,
    /// The number under which it travels to other nodes, or [`Self::NO_NUMBER`].
    pub number: u32,
}

impl KnownSeries {
    /// The number of a series that never travels.
    pub const NO_NUMBER: u32 = u32::MAX;
}

/// Ticks after which an unused entry goes in a routine sweep: an hour.
const IDLE_TICKS_MAX: u32 = 60;
/// Ticks after which an unused entry goes when the table is full: longer than scrape intervals in
/// use.
const IDLE_TICKS_FULL: u32 = 6;
/// Ticks between routine sweeps.
const SWEEP_TICKS: u32 = 10;

#[derive(Debug)]
struct Entry<V> {
    /// Two halves, as an u128 would be padded to its alignment.
    key: [u64; 2],
    value: V,
    used: AtomicU32,
}

#[derive(Debug)]
struct State<V> {
    entries: HashTable<Entry<V>>,
    generation: u32,
    /// Tick of the last sweep for want of room, so that a full table is swept once per tick.
    swept_full: Option<u32>,
    /// Values that were replaced, dropped or found no room, until somebody asks for them.
    displaced: Vec<V>,
}

/// A bounded map from [`SeriesKey`] to what is known of the series; see the module's page.
#[derive(Debug)]
pub struct SeriesTable<V = KnownSeries> {
    state: RwLock<State<V>>,
    tick: AtomicU32,
    capacity: usize,
}

/// The table, locked for look-ups.
#[derive(Debug)]
pub struct SeriesLookup<'a, V = KnownSeries> {
    /// `None` if the table holds another generation.
    state: Option<RwLockReadGuard<'a, State<V>>>,
    tick: u32,
}

fn split(key: SeriesKey) -> [u64; 2] {
    [key.0 as u64, (key.0 >> 64) as u64]
}

fn rehash<V>(entry: &Entry<V>) -> u64 {
    entry.key[0]
}

impl<V: Copy> SeriesTable<V> {
    /// An empty table of at most `capacity` entries. Takes no memory before it is used.
    pub fn new(capacity: usize) -> Self {
        let state =
            State { entries: HashTable::new(), generation: 0, swept_full: None, displaced: Vec::new() };
        Self { state: RwLock::new(state), tick: AtomicU32::new(0), capacity }
    }

    /// Locks the table for the look-ups of one request. Entries of another generation than
    /// `generation` are not found. Do not change the table while this is held.
    pub fn lookup(&self, generation: u32) -> SeriesLookup<'_, V> {
        let state = self.state.read();
        let state = (state.generation == generation).then_some(state);
        SeriesLookup { state, tick: self.tick.load(Ordering::Relaxed) }
    }

    /// Adds or replaces entries decided under `generation`. A newer generation empties the table
    /// first, an older one is ignored. Returns how many found no room.
    pub fn insert(&self, generation: u32, entries: impl IntoIterator<Item = (SeriesKey, V)>) -> usize {
        let tick = self.tick.load(Ordering::Relaxed);
        let mut state = self.state.write();
        if generation < state.generation {
            state.displaced.extend(entries.into_iter().map(|(_, value)| value));
            return 0;
        }
        if generation > state.generation {
            let entries = std::mem::take(&mut state.entries);
            state.displaced.extend(entries.into_iter().map(|entry| entry.value));
            state.generation = generation;
            state.swept_full = None;
        }
        let mut left_out = 0;
        for (key, value) in entries {
            if state.entries.len() >= self.capacity && state.swept_full != Some(tick) {
                state.swept_full = Some(tick);
                state.sweep(tick, IDLE_TICKS_FULL);
            }
            let has_room = state.entries.len() < self.capacity;
            let halves = split(key);
            let State { entries, displaced, .. } = &mut *state;
            match entries.entry(key.bucket_hash(), |entry| entry.key == halves, rehash) {
                TableEntry::Occupied(mut found) => {
                    displaced.push(std::mem::replace(&mut found.get_mut().value, value));
                }
                TableEntry::Vacant(free) if has_room => {
                    free.insert(Entry { key: halves, value, used: AtomicU32::new(tick) });
                }
                TableEntry::Vacant(_) => {
                    displaced.push(value);
                    left_out += 1;
                }
            }
        }
        left_out
    }

    /// Changes the values of keys that are there under `generation`.
    pub fn update<T>(
        &self,
        generation: u32,
        changes: impl IntoIterator<Item = (SeriesKey, T)>,
        change: impl Fn(&mut V, T),
    ) {
        let mut state = self.state.write();
        if state.generation != generation {
            return;
        }
        for (key, new) in changes {
            let halves = split(key);
            if let Some(found) = state.entries.find_mut(key.bucket_hash(), |entry| entry.key == halves) {
                change(&mut found.value, new);
            }
        }
    }

    /// Values that were replaced, dropped or found no room since the last call. Nobody finds them
    /// any more, and nobody holds a look-up that found them.
    pub fn take_displaced(&self) -> Vec<V> {
        std::mem::take(&mut self.state.write().displaced)
    }

    /// Moves the table's clock on by one tick, and sweeps now and then. To be called once a minute.
    pub fn advance_tick(&self) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if tick.is_multiple_of(SWEEP_TICKS) {
            self.state.write().sweep(tick, IDLE_TICKS_MAX);
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the table takes.
    pub fn allocated_bytes(&self) -> usize {
        self.state.read().entries.allocation_size()
    }
}

impl<V> State<V> {
    /// Drops entries that were not used for more than `idle_ticks` ticks.
    fn sweep(&mut self, tick: u32, idle_ticks: u32)
    where
        V: Copy,
    {
        let Self { entries, displaced, .. } = self;
        entries.retain(|entry| {
            let keep = tick.wrapping_sub(*entry.used.get_mut()) <= idle_ticks;
            if !keep {
                displaced.push(entry.value);
            }
            keep
        });
        // A table that stays nearly empty gives its memory back; the factor keeps it from growing
        // again at once.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2, rehash);
        }
    }
}

impl<V: Copy> SeriesLookup<'_, V> {
    /// What is known of `key`.
    pub fn get(&self, key: SeriesKey) -> Option<V> {
        let halves = split(key);
        let entry = self.state.as_ref()?.entries.find(key.bucket_hash(), |entry| entry.key == halves)?;
        if entry.used.load(Ordering::Relaxed) != self.tick {
            entry.used.store(self.tick, Ordering::Relaxed);
        }
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SeriesKey {
        SeriesKey(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn known(table: &SeriesTable<u64>, generation: u32, numbers: std::ops::Range<u64>) -> Vec<u64> {
        let lookup = table.lookup(generation);
        numbers.filter(|number| lookup.get(key(*number)) == Some(*number)).collect()
    }

    fn fill(table: &SeriesTable<u64>, generation: u32, numbers: std::ops::Range<u64>) -> usize {
        table.insert(generation, numbers.map(|number| (key(number), number)))
    }

    #[test]
    fn finds_replaces_and_updates() {
        let table = SeriesTable::new(10);
        assert_eq!(fill(&table, 0, 0..3), 0);
        assert_eq!(known(&table, 0, 0..5), [0, 1, 2]);
        assert_eq!(table.insert(0, [(key(1), 77)]), 0);
        assert_eq!(table.lookup(0).get(key(1)), Some(77));
        assert_eq!(table.len(), 3);
        table.update(0, [(key(1), 70), (key(4), 70)], |value, new| *value = new);
        assert_eq!(known(&table, 0, 0..5), [0, 2]);
        assert_eq!(table.lookup(0).get(key(1)), Some(70));
        table.update(1, [(key(1), 71)], |value, new| *value = new);
        assert_eq!(table.lookup(0).get(key(1)), Some(70), "of another generation");
        assert_eq!(table.take_displaced(), [1], "the value that was replaced");
    }

    #[test]
    fn both_halves_of_a_key_count() {
        let table = SeriesTable::new(10);
        table.insert(0, [(SeriesKey(5), 1), (SeriesKey(5 | 1 << 64), 2)]);
        assert_eq!(table.lookup(0).get(SeriesKey(5)), Some(1));
        assert_eq!(table.lookup(0).get(SeriesKey(5 | 1 << 64)), Some(2));
        assert_eq!(table.lookup(0).get(SeriesKey(5 | 2 << 64)), None);
    }

    #[test]
    fn is_bounded_exactly() {
        let table = SeriesTable::new(4);
        assert_eq!(fill(&table, 0, 0..4), 0);
        assert_eq!(fill(&table, 0, 4..7), 3);
        assert_eq!(known(&table, 0, 0..7), [0, 1, 2, 3]);
        // A full table still replaces.
        assert_eq!(table.insert(0, [(key(2), 9)]), 0);
        assert_eq!(table.lookup(0).get(key(2)), Some(9));
        let none = SeriesTable::new(0);
        assert_eq!(fill(&none, 0, 0..1), 1);
    }

    #[test]
    fn a_full_table_makes_room_by_dropping_the_idle() {
        let table = SeriesTable::new(4);
        fill(&table, 0, 0..4);
        for _ in 0..IDLE_TICKS_FULL {
            table.advance_tick();
            assert_eq!(known(&table, 0, 0..2), [0, 1]);
        }
        assert_eq!(fill(&table, 0, 4..5), 1, "all were used recently enough");
        table.advance_tick();
        assert_eq!(known(&table, 0, 0..2), [0, 1]);
        assert_eq!(fill(&table, 0, 4..7), 1);
        assert_eq!(known(&table, 0, 0..7), [0, 1, 4, 5]);
    }

    #[test]
    fn routine_sweeps_drop_what_was_idle_for_an_hour() {
        let table = SeriesTable::new(10_000);
        fill(&table, 0, 0..1_000);
        let large = table.allocated_bytes();
        for _ in 0..IDLE_TICKS_MAX {
            table.advance_tick();
            assert_eq!(known(&table, 0, 0..1), [0]);
        }
        assert_eq!(table.len(), 1_000);
        for _ in 0..SWEEP_TICKS {
            table.advance_tick();
            assert_eq!(known(&table, 0, 0..1), [0]);
        }
        assert_eq!(table.len(), 1);
        assert_eq!(table.take_displaced().len(), 999);
        assert!(table.allocated_bytes() < large / 10, "{} of {large}", table.allocated_bytes());
        assert_eq!(known(&table, 0, 0..1_000), [0]);
    }

    #[test]
    fn a_generation_sees_only_its_own_entries() {
        let table = SeriesTable::new(10);
        fill(&table, 1, 0..2);
        assert_eq!(known(&table, 1, 0..2), [0, 1]);
        assert!(known(&table, 0, 0..2).is_empty());
        assert!(known(&table, 2, 0..2).is_empty());
        assert_eq!(fill(&table, 0, 2..3), 0);
        assert_eq!(known(&table, 1, 0..3), [0, 1], "an old request changes nothing");
        fill(&table, 2, 5..6);
        assert_eq!(table.len(), 1);
        let mut displaced = table.take_displaced();
        displaced.sort_unstable();
        assert_eq!(displaced, [0, 1, 2]);
        assert_eq!(known(&table, 2, 0..6), [5]);
    }
}
