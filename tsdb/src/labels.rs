//! Label sets: sorted by name, names unique, no empty name or value.

use std::{cmp::Ordering, fmt};

/// Name of the label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// A label set. Names are unique and ascend bytewise; no name and no value is empty; all text is
/// UTF-8. The text of all labels lies in one allocation, their borders in another.
///
/// Sets are ordered as Prometheus orders series: label by label, name before value, bytewise, and a
/// set that is a prefix of another is smaller.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels {
    /// name, value, name, value, … without separators.
    text: Box<str>,
    /// End of each of these strings in `text`.
    ends: Box<[u32]>,
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Builds a set from pairs in any order. Pairs with an empty name or value are dropped, and of
    /// pairs with the same name the last one wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Builds a set from pairs that already ascend strictly by name and have no empty part.
    ///
    /// Returns `None` if they do not, or if the text is longer than 4 GiB.
    pub fn from_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut text = String::new();
        let mut ends = Vec::new();
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            let rises = previous.is_none_or(|previous| previous.as_bytes() < name.as_bytes());
            if !rises || name.is_empty() || value.is_empty() {
                return None;
            }
            previous = Some(name);
            text.push_str(name);
            ends.push(u32::try_from(text.len()).ok()?);
            text.push_str(value);
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Some(Self { text: text.into(), ends: ends.into() })
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// True if there is no label.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The labels in order, as name and value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        (0..self.len()).map(|index| (self.part(2 * index), self.part(2 * index + 1)))
    }

    /// Value of the label `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(own, value)| (own == name).then_some(value))
    }

    /// Bytes of all names and values.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    fn part(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[index] as usize]
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

/// As in PromQL: `{__name__="up", job="node"}`.
impl fmt::Display for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(out, "{separator}{name}={value:?}")?;
        }
        out.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Collects labels in any order and builds a [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Starts from the labels of `base`.
    pub fn from_labels(base: &Labels) -> Self {
        Self { pairs: base.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// Sets `name` to `value`; an empty value removes the label.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.remove(name);
        if !name.is_empty() && !value.is_empty() {
            self.pairs.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Removes `name`, if it is set.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(own, _)| own != name);
        self
    }

    /// Value of `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find_map(|(own, value)| (own == name).then_some(value.as_str()))
    }

    /// The label set.
    pub fn build(mut self) -> Labels {
        self.pairs.sort_unstable_by(|left, right| left.0.as_bytes().cmp(right.0.as_bytes()));
        Labels::from_sorted(self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .expect("pairs are sorted, unique and not empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_sorted_sets() {
        let labels = Labels::from_pairs([("job", "a"), ("__name__", "up"), ("empty", ""), ("job", "b")]);
        assert_eq!(labels.to_string(), r#"{__name__="up", job="b"}"#);
        assert_eq!(labels.get("job"), Some("b"));
        assert_eq!(labels.get("empty"), None);
        assert_eq!(labels.len(), 2);
        assert!(Labels::from_pairs([("", "x")]).is_empty());
    }

    #[test]
    fn refuses_what_is_not_sorted() {
        let check = |pairs: &[(&str, &str)]| Labels::from_sorted(pairs.iter().copied()).is_some();
        assert!(check(&[]));
        assert!(check(&[("a", "1"), ("b", "1")]));
        assert!(!check(&[("b", "1"), ("a", "1")]));
        assert!(!check(&[("a", "1"), ("a", "2")]));
        assert!(!check(&[("a", "")]));
        assert!(!check(&[("", "a")]));
    }

    #[test]
    fn orders_as_prometheus() {
        let sets = [
            Labels::empty(),
            Labels::from_pairs([("a", "1")]),
            Labels::from_pairs([("a", "1"), ("b", "1")]),
            Labels::from_pairs([("a", "2")]),
            Labels::from_pairs([("ab", "1")]),
            // U+FFFF before U+10000: bytewise, not by UTF-16 units.
            Labels::from_pairs([("b", "\u{ffff}")]),
            Labels::from_pairs([("b", "\u{10000}")]),
        ];
        assert!(sets.is_sorted_by(|left, right| left < right));
    }
}
