//! The series that a sender has numbered on one stream.
//!
//! Numbers are those of the whole sending node, of which one stream sees a part, so there are gaps. A
//! table as long as the greatest number would be the fastest, but then a frame of a few bytes asks for
//! hundreds of megabytes. So the table is cut into pages, and pages into groups, and each is made when
//! the first of its numbers is defined. What a sender can make this node hold is in proportion to the
//! series it has introduced with their labels: 10 KB for one by itself, 24 bytes for one among others.
//! Series that are written together mostly have numbers side by side, and share a page.

use weir_tsdb::append::SeriesHandle;

/// Numbers of a page.
const PAGE: usize = 64;
/// Pages of a group.
const GROUP: usize = 512;

/// A series that the sender has numbered.
#[derive(Clone, Copy, Debug)]
pub struct Defined {
    /// Number of its tenant on the stream.
    pub tenant: u32,
    /// The series.
    pub handle: SeriesHandle,
}

/// Stands where nothing is defined: no tenant has this number. An option would take 8 bytes more.
const UNDEFINED: Defined = Defined { tenant: u32::MAX, handle: SeriesHandle::NONE };

type Page = Box<[Defined; PAGE]>;
type Group = Box<[Option<Page>; GROUP]>;

/// Series by their numbers.
#[derive(Debug, Default)]
pub struct Dictionary {
    groups: Vec<Option<Group>>,
}

impl Dictionary {
    /// The series of a number, if one is defined.
    #[inline]
    pub fn get(&self, number: u32) -> Option<Defined> {
        let (group, page, entry) = place(number);
        let page = self.groups.get(group)?.as_ref()?.get(page)?.as_ref()?;
        page.get(entry).copied().filter(|defined| defined.tenant != UNDEFINED.tenant)
    }

    /// The number means this series from now on.
    pub fn define(&mut self, number: u32, defined: Defined) {
        let (group, page, entry) = place(number);
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, || None);
        }
        let group = self.groups[group].get_or_insert_with(|| Box::new([const { None }; GROUP]));
        group[page].get_or_insert_with(|| Box::new([UNDEFINED; PAGE]))[entry] = defined;
    }

    /// The number means nothing from now on.
    pub fn forget(&mut self, number: u32) {
        let (group, page, entry) = place(number);
        let group = self.groups.get_mut(group).and_then(Option::as_mut);
        if let Some(page) = group.and_then(|group| group[page].as_mut()) {
            page[entry] = UNDEFINED;
        }
    }

    /// Bytes that the table takes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let groups: Vec<&Group> = self.groups.iter().flatten().collect();
        let pages = groups.iter().flat_map(|group| group.iter().flatten()).count();
        self.groups.capacity() * size_of::<Option<Group>>()
            + groups.len() * size_of::<[Option<Page>; GROUP]>()
            + pages * size_of::<[Defined; PAGE]>()
    }
}

/// Group, page in it, entry in that.
#[inline]
fn place(number: u32) -> (usize, usize, usize) {
    let number = number as usize;
    (number / PAGE / GROUP, number / PAGE % GROUP, number % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(tenant: u32) -> Defined {
        Defined { tenant, handle: SeriesHandle::NONE }
    }

    #[test]
    fn numbers_mean_what_was_defined_last() {
        let mut dictionary = Dictionary::default();
        let tenant = |dictionary: &Dictionary, number| dictionary.get(number).map(|defined| defined.tenant);
        // On both sides of each border, and the greatest that a stream may use.
        let numbers = [0, 63, 64, 65, 32_767, 32_768, 32_769, (16 << 20) - 1];
        for (index, number) in numbers.into_iter().enumerate() {
            assert_eq!(tenant(&dictionary, number), None, "{number}");
            dictionary.forget(number);
            dictionary.define(number, defined(index as u32));
        }
        for (index, number) in numbers.into_iter().enumerate() {
            assert_eq!(tenant(&dictionary, number), Some(index as u32), "{number}");
        }
        assert_eq!(tenant(&dictionary, 62), None);
        assert_eq!(tenant(&dictionary, u32::MAX), None);
        dictionary.define(64, defined(77));
        dictionary.forget(65);
        dictionary.forget(u32::MAX);
        assert_eq!([63, 64, 65].map(|number| tenant(&dictionary, number)), [Some(1), Some(77), None]);
    }

    #[test]
    fn it_grows_with_what_is_defined_not_with_the_numbers() {
        let mut dictionary = Dictionary::default();
        dictionary.define((16 << 20) - 1, defined(0));
        assert!(dictionary.bytes() < 12 << 10, "{}", dictionary.bytes());
        // Each in a group of its own is the most that a number can cost.
        for group in 0..512 {
            dictionary.define(group << 15, defined(0));
        }
        assert!(dictionary.bytes() < 512 * (6 << 10), "{}", dictionary.bytes());
        let mut dense = Dictionary::default();
        (0..1 << 20).for_each(|number| dense.define(number, defined(0)));
        assert!(dense.bytes() <= (1 << 20) * 25, "{}", dense.bytes());
    }
}
