//! Steps down a JSON value that know where they are.
//!
//! A file that Thanos reads must be read here with the same meaning: a null counts as absent, the
//! letters of a key may be large or small, and unknown keys do no harm. They are remembered, though.

use serde_json::{Map, Value};

use super::error::{Place, Problem, Result, RingWarning, Suspicion};

/// A value that is not null, and its place.
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    pub(super) place: Place,
}

impl<'a> Node<'a> {
    fn expect<T>(&self, expected: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.place.error(Problem::WrongType { expected }))
    }

    /// The members of an object.
    pub(super) fn object(&self) -> Result<Object<'a>> {
        let members = self.expect("an object", self.value.as_object())?;
        Ok(Object { members, place: self.place.clone(), known: Vec::new() })
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<impl Iterator<Item = Node<'a>> + use<'a>> {
        let items = self.expect("a list", self.value.as_array())?;
        let place = self.place.clone();
        Ok(items.iter().enumerate().map(move |(index, value)| Node { value, place: place.item(index) }))
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&'a str> {
        self.expect("a text", self.value.as_str())
    }

    /// True or false.
    pub(super) fn flag(&self) -> Result<bool> {
        self.expect("true or false", self.value.as_bool())
    }

    /// A whole number from 0 to `max`.
    pub(super) fn count(&self, max: usize) -> Result<usize> {
        let number = self.expect("a number", self.value.as_number())?;
        let count = number.as_u64().and_then(|count| usize::try_from(count).ok());
        count
            .filter(|count| *count <= max)
            .ok_or_else(|| self.place.error(Problem::OutOfRange { min: 0, max }))
    }
}

/// An object whose members are taken one by one.
pub(super) struct Object<'a> {
    members: &'a Map<String, Value>,
    place: Place,
    /// Keys of the file that were taken.
    known: Vec<&'a str>,
}

impl<'a> Object<'a> {
    /// The member `key`, if there is one. The very key goes before one of other letters.
    pub(super) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let same_letters = |(found, _): &(&String, &Value)| found.eq_ignore_ascii_case(key);
        let member = self.members.get_key_value(key).or_else(|| self.members.iter().find(same_letters));
        let (found, value) = member?;
        self.known.push(found);
        (!value.is_null()).then(|| Node { value, place: self.place.member(key) })
    }

    /// The member `key`, which must be there.
    pub(super) fn demand(&mut self, key: &str) -> Result<Node<'a>> {
        self.take(key).ok_or_else(|| self.place.member(key).error(Problem::Missing))
    }

    /// The text at `key`, or an empty one.
    pub(super) fn text_or_empty(&mut self, key: &str) -> Result<&'a str> {
        self.take(key).map_or(Ok(""), |node| node.text())
    }

    /// Reports the members that nobody took.
    pub(super) fn finish(self, warnings: &mut Vec<RingWarning>) {
        let unknown = self.members.keys().filter(|key| !self.known.contains(&key.as_str()));
        warnings.extend(
            unknown.map(|key| RingWarning { place: self.place.member(key), what: Suspicion::UnknownKey }),
        );
    }
}
