//! From matchers to series: set operations on ascending lists of series numbers, the same for the
//! head and for blocks.

use crate::{
    Result,
    matchers::{MatchType, Matcher},
};

/// Where label pairs lead to series, in the head or in a block. Numbers are positions in that
/// source; all lists ascend and hold no number twice.
pub(crate) trait PostingsSource {
    /// All series.
    fn all(&mut self) -> Result<Vec<u32>>;

    /// Series with the label `name`=`value`.
    fn with_value(&mut self, name: &str, value: &str) -> Result<Vec<u32>>;

    /// Series whose label `name` is set and has a value that `wanted` accepts.
    fn with_values(&mut self, name: &str, wanted: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u32>>;
}

/// Series that all `matchers` select.
///
/// A matcher that does not match the empty value narrows to the series that have a value it takes.
/// One that does also selects series without the label, so it takes away those with a value it
/// refuses.
pub(crate) fn resolve(source: &mut dyn PostingsSource, matchers: &[Matcher]) -> Result<Vec<u32>> {
    let mut selected: Option<Vec<u32>> = None;
    for matcher in matchers.iter().filter(|matcher| !matcher.matches_empty()) {
        if selected.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let found = including(source, matcher)?;
        selected = Some(match selected {
            Some(selected) => intersect(&selected, &found),
            None => found,
        });
    }
    let mut selected = match selected {
        Some(selected) => selected,
        None => source.all()?,
    };
    for matcher in matchers.iter().filter(|matcher| matcher.matches_empty()) {
        if selected.is_empty() {
            break;
        }
        let refused = match matcher.match_type() {
            MatchType::NotEqual => source.with_value(matcher.name(), matcher.value())?,
            _ => source.with_values(matcher.name(), &mut |value| !matcher.matches(value))?,
        };
        selected = subtract(&selected, &refused);
    }
    Ok(selected)
}

/// Series with a value of the matcher's label that it takes.
fn including(source: &mut dyn PostingsSource, matcher: &Matcher) -> Result<Vec<u32>> {
    if matcher.match_type() == MatchType::Equal {
        return source.with_value(matcher.name(), matcher.value());
    }
    match matcher.set_matches() {
        Some(values) if matcher.match_type() == MatchType::Regexp => {
            let mut union = Vec::new();
            for value in values {
                union.extend(source.with_value(matcher.name(), value)?);
            }
            Ok(ascending(union))
        }
        _ => source.with_values(matcher.name(), &mut |value| matcher.matches(value)),
    }
}

/// Sorts and removes doubles.
pub(crate) fn ascending(mut list: Vec<u32>) -> Vec<u32> {
    list.sort_unstable();
    list.dedup();
    list
}

/// What stands in both. Walks the shorter list and searches the longer one when their lengths
/// differ much.
fn intersect(left: &[u32], right: &[u32]) -> Vec<u32> {
    let (short, long) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    if short.len() * 16 < long.len() {
        return short.iter().copied().filter(|id| long.binary_search(id).is_ok()).collect();
    }
    let mut long = long.iter().copied().peekable();
    short
        .iter()
        .copied()
        .filter(|&id| {
            while long.next_if(|&other| other < id).is_some() {}
            long.peek() == Some(&id)
        })
        .collect()
}

/// What stands in `from` and not in `gone`.
fn subtract(from: &[u32], gone: &[u32]) -> Vec<u32> {
    let mut gone = gone.iter().copied().peekable();
    from.iter()
        .copied()
        .filter(|&id| {
            while gone.next_if(|&other| other < id).is_some() {}
            gone.peek() != Some(&id)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn set_operations_equal_those_of_sets(
            left in proptest::collection::btree_set(0u32..200, 0..100),
            right in proptest::collection::btree_set(0u32..2000, 0..300),
        ) {
            let list = |set: &BTreeSet<u32>| set.iter().copied().collect::<Vec<_>>();
            let (a, b) = (list(&left), list(&right));
            prop_assert_eq!(intersect(&a, &b), left.intersection(&right).copied().collect::<Vec<_>>());
            prop_assert_eq!(intersect(&b, &a), left.intersection(&right).copied().collect::<Vec<_>>());
            prop_assert_eq!(subtract(&a, &b), left.difference(&right).copied().collect::<Vec<_>>());
            prop_assert_eq!(subtract(&b, &a), right.difference(&left).copied().collect::<Vec<_>>());
        }
    }
}
