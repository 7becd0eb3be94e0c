//! Series of the head by slot.

use super::series::MemSeries;

const PAGE_BITS: u32 = 12;
const PAGE_LEN: usize = 1 << PAGE_BITS;

/// Series by slot number, in pages of fixed size, so that growing never copies what is there. A
/// slot is used again after its series went; the series' ref tells old and new apart.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    pages: Vec<Vec<MemSeries>>,
    free: Vec<u32>,
}

impl Slab {
    /// Puts `series` into a slot and returns its number.
    pub fn insert(&mut self, series: MemSeries) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.pages[(slot >> PAGE_BITS) as usize][slot as usize % PAGE_LEN] = series;
            return slot;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE_LEN) {
            // The first page grows with its content, because many tenants have few series.
            let capacity = if self.pages.is_empty() { 0 } else { PAGE_LEN };
            self.pages.push(Vec::with_capacity(capacity));
        }
        let page = self.pages.len() - 1;
        self.pages[page].push(series);
        u32::try_from(page * PAGE_LEN + self.pages[page].len() - 1)
            .expect("fewer than 2^32 series fit memory")
    }

    /// The series in `slot`, if the slot is in use.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&MemSeries> {
        let series = self.pages.get((slot >> PAGE_BITS) as usize)?.get(slot as usize % PAGE_LEN)?;
        (series.series.0 != 0).then_some(series)
    }

    /// The series in `slot`, if the slot is in use.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut MemSeries> {
        let series = self.pages.get_mut((slot >> PAGE_BITS) as usize)?.get_mut(slot as usize % PAGE_LEN)?;
        (series.series.0 != 0).then_some(series)
    }

    /// Frees `slot` and returns what was in it.
    pub fn remove(&mut self, slot: u32) -> Option<MemSeries> {
        let removed = std::mem::replace(self.get_mut(slot)?, MemSeries::free());
        self.free.push(slot);
        Some(removed)
    }

    /// One more than the greatest slot ever used.
    pub fn slot_end(&self) -> u32 {
        self.pages.last().map_or(0, |last| ((self.pages.len() - 1) * PAGE_LEN + last.len()) as u32)
    }

    /// Slots in use with their series, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &MemSeries)> {
        self.pages
            .iter()
            .flatten()
            .zip(0u32..)
            .filter_map(|(series, slot)| (series.series.0 != 0).then_some((slot, series)))
    }

    /// Slots in use with their series, ascending.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut MemSeries)> {
        self.pages
            .iter_mut()
            .flatten()
            .zip(0u32..)
            .filter_map(|(series, slot)| (series.series.0 != 0).then_some((slot, series)))
    }
}
