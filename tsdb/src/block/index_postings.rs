//! Postings of an open index: for each name and value the series that have it.
//!
//! The offset table names every list in the order of names and values. Of each name the first and
//! then every 32nd value are kept in memory with their places in the table; what lies between is
//! read when it is asked for. The table's crc is checked once, at open; the crc of a list whenever
//! it is read.

use std::cmp::Ordering;

use super::{
    index_file::{CRC_LEN, IndexFile, LEN_FIELD, POSTINGS_TABLE_COLUMNS, Scanner},
    read_ahead::ReadAhead,
};
use crate::{
    Result,
    crc::crc32c,
    types::IndexSeriesId,
    varint::{DecodeError, Decoder},
};

/// Every how many values of a name one is kept in memory.
const STRIDE: u32 = 32;

/// The postings offset table.
#[derive(Debug)]
pub(super) struct PostingsTable {
    start: u64,
    end: u64,
    names: Vec<Name>,
    /// The values kept in memory, one behind the other.
    text: String,
    /// Per value kept in memory.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Name {
    name: Box<str>,
    /// Index of the first of its places.
    first_place: u32,
    /// Number of its values.
    values: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    text_end: u32,
    /// Offset of the entry from the start of the table.
    entry: u32,
}

/// An entry of the table.
struct Entry<'a> {
    name: &'a str,
    value: &'a str,
    list: u64,
}

impl<'a> Entry<'a> {
    fn skip(decoder: &mut Decoder<'_>) -> Result<(), DecodeError> {
        decoder.uvarint()?;
        decoder.prefixed_bytes()?;
        decoder.prefixed_bytes()?;
        decoder.uvarint()?;
        Ok(())
    }

    fn next(scanner: &'a mut Scanner<'_>) -> Result<Self> {
        let (file, at) = (scanner.file, scanner.at);
        let mut decoder = Decoder::new(scanner.entry(Self::skip)?);
        let mut read = || {
            let columns = decoder.uvarint()?;
            let entry = Self { name: decoder.str()?, value: decoder.str()?, list: decoder.uvarint()? };
            Ok((columns, entry))
        };
        let (columns, entry) = read().map_err(|error: DecodeError| file.corrupt(at, error.to_string()))?;
        if columns != u64::from(POSTINGS_TABLE_COLUMNS) {
            return Err(file.corrupt(at, format!("postings table entry of {columns} columns")));
        }
        Ok(entry)
    }
}

impl PostingsTable {
    pub(super) fn open(index: &IndexFile) -> Result<Self> {
        let (mut scanner, count) = index.check_section(index.toc.postings_table, index.toc_at())?;
        let mut table = Self {
            start: scanner.at,
            end: scanner.end,
            names: Vec::new(),
            text: String::new(),
            places: Vec::new(),
        };
        let mut previous = String::new();
        for _ in 0..count {
            let at = scanner.at;
            let entry = Entry::next(&mut scanner)?;
            let order = match table.names.last() {
                None => Ordering::Less,
                Some(last) if *last.name == *entry.name => previous.as_bytes().cmp(entry.value.as_bytes()),
                Some(last) => last.name.as_bytes().cmp(entry.name.as_bytes()),
            };
            if order != Ordering::Less {
                return Err(index.corrupt(at, "postings table does not ascend"));
            }
            // Both are less than the table's length, and that is of 32 bits.
            table.note(entry.name, entry.value, (at - table.start) as u32);
            previous.clear();
            previous.push_str(entry.value);
        }
        if !scanner.is_at_end() {
            return Err(index.corrupt(scanner.at, "more entries in the postings table than were counted"));
        }
        Ok(table)
    }

    fn note(&mut self, name: &str, value: &str, entry: u32) {
        if self.names.last().is_none_or(|last| *last.name != *name) {
            self.names.push(Name { name: name.into(), first_place: self.places.len() as u32, values: 0 });
        }
        let Some(last) = self.names.last_mut() else { return };
        if last.values % STRIDE == 0 {
            self.text.push_str(value);
            self.places.push(Place { text_end: self.text.len() as u32, entry });
        }
        last.values += 1;
    }

    /// Names in order, without the empty name of the list of all series.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &*name.name).filter(|name| !name.is_empty())
    }

    fn find_name(&self, name: &str) -> Option<&Name> {
        let found = self.names.binary_search_by(|own| own.name.as_bytes().cmp(name.as_bytes())).ok()?;
        self.names.get(found)
    }

    fn value(&self, place: usize) -> &str {
        let start = place.checked_sub(1).and_then(|before| self.places.get(before));
        let end = self.places.get(place).map_or(0, |place| place.text_end);
        self.text.get(start.map_or(0, |start| start.text_end) as usize..end as usize).unwrap_or_default()
    }

    /// Where the entry of `place` lies in the file.
    fn entry_at(&self, place: usize) -> u64 {
        self.places.get(place).map_or(self.end, |place| self.start + u64::from(place.entry))
    }

    /// Calls `visit` with each value of `name` in order and the offset of its list.
    pub(super) fn for_each_value(
        &self,
        index: &IndexFile,
        name: &str,
        visit: &mut dyn FnMut(&str, u64),
    ) -> Result<()> {
        let Some(name) = self.find_name(name) else { return Ok(()) };
        let mut scanner = Scanner::new(index, self.entry_at(name.first_place as usize), self.end);
        for _ in 0..name.values {
            let entry = Entry::next(&mut scanner)?;
            visit(entry.value, entry.list);
        }
        Ok(())
    }

    /// Offset of the list of `name` and `value`, if there is one.
    pub(super) fn find(&self, index: &IndexFile, name: &str, value: &str) -> Result<Option<u64>> {
        let Some(name) = self.find_name(name) else { return Ok(None) };
        let first = name.first_place as usize;
        let places = name.values.div_ceil(STRIDE) as usize;
        // The number of places whose value is not above the one sought.
        let (mut low, mut high) = (0, places);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.value(first + middle).as_bytes() <= value.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(place) = low.checked_sub(1) else { return Ok(None) };
        let in_stride = STRIDE.min(name.values - place as u32 * STRIDE);
        let mut scanner = Scanner::new(index, self.entry_at(first + place), self.end);
        for _ in 0..in_stride {
            let entry = Entry::next(&mut scanner)?;
            match entry.value.as_bytes().cmp(value.as_bytes()) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(Some(entry.list)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Appends the list at `offset` to `ids`. Its ids ascend.
pub(super) fn read_list(
    index: &IndexFile,
    ahead: &mut ReadAhead,
    offset: u64,
    ids: &mut Vec<IndexSeriesId>,
) -> Result<()> {
    let damaged = |what: &str| index.corrupt(offset, format!("postings list {what}"));
    let limit = index.toc.postings_table;
    let left = limit.checked_sub(offset).filter(|_| offset >= index.toc.postings);
    let left = left.ok_or_else(|| damaged("lies outside its section"))?;
    let frame = (LEN_FIELD + CRC_LEN) as u64;
    let least = (LEN_FIELD as u64).min(left) as usize;
    let len = Decoder::new(index.read(ahead, offset, least)?).u32_be().map_err(|_| damaged("is cut off"))?;
    if u64::from(len) + frame > left {
        return Err(damaged("reaches beyond its section"));
    }
    let whole = len as usize + LEN_FIELD + CRC_LEN;
    let list = index.read(ahead, offset, whole)?.get(LEN_FIELD..whole).unwrap_or_default();
    let Some((content, crc)) = list.split_last_chunk::<CRC_LEN>() else {
        return Err(damaged("has no checksum"));
    };
    if crc32c(content) != u32::from_be_bytes(*crc) {
        return Err(damaged("has a wrong checksum"));
    }
    let mut decoder = Decoder::new(content);
    let count = decoder.u32_be().map_err(|_| damaged("has no count"))?;
    let (numbers, rest) = decoder.rest().as_chunks::<4>();
    if !rest.is_empty() || numbers.len() != count as usize {
        return Err(damaged("has another length than its count says"));
    }
    let begun = ids.len();
    ids.extend(numbers.iter().map(|number| IndexSeriesId(u32::from_be_bytes(*number))));
    if !ids.get(begun..).unwrap_or_default().is_sorted_by(|left, right| left < right) {
        ids.truncate(begun);
        return Err(damaged("does not ascend"));
    }
    Ok(())
}
