//! The label sets a reader sees: stored labels and external labels, without those the request takes
//! off. They are composed while they are walked, so that a large selection is kept once, as stored.

use std::{cmp::Ordering, iter::Peekable};

use weir_proto::thanos as pb;
use weir_tsdb::labels::Labels;

/// How the label sets of one tenant are composed for one request.
#[derive(Clone, Debug)]
pub struct Composition {
    /// External labels without the removed ones.
    external: Labels,
    /// Names of labels taken off.
    removed: Vec<String>,
}

impl Composition {
    /// Adds `external` to each set, where it wins over a stored label of the same name, and takes
    /// off the labels named in `removed`, be they stored or external.
    pub fn new(external: &Labels, removed: &[String]) -> Self {
        let kept = external.iter().filter(|(name, _)| !removed.iter().any(|own| own == name));
        Self { external: Labels::from_pairs(kept), removed: removed.to_vec() }
    }

    /// The composed set of `stored`: name and value, ascending by name.
    pub fn labels<'a>(&'a self, stored: &'a Labels) -> impl Iterator<Item = (&'a str, &'a str)> {
        let stored = stored.iter().filter(|(name, _)| !self.removed.iter().any(|own| own == name));
        Composed { stored: stored.peekable(), external: self.external.iter().peekable() }
    }

    /// The composed set as it is sent.
    pub fn to_wire(&self, stored: &Labels) -> Vec<pb::Label> {
        let labels = self.labels(stored);
        labels.map(|(name, value)| pb::Label { name: name.to_owned(), value: value.to_owned() }).collect()
    }

    /// External labels that are left.
    pub fn external(&self) -> &Labels {
        &self.external
    }
}

/// Orders two composed sets as series are ordered in a stream.
pub fn compare(left: (&Composition, &Labels), right: (&Composition, &Labels)) -> Ordering {
    left.0.labels(left.1).cmp(right.0.labels(right.1))
}

/// Merges two ascending label iterators; of equal names the external one is taken.
struct Composed<S: Iterator, E: Iterator> {
    stored: Peekable<S>,
    external: Peekable<E>,
}

impl<'a, S, E> Iterator for Composed<S, E>
where
    S: Iterator<Item = (&'a str, &'a str)>,
    E: Iterator<Item = (&'a str, &'a str)>,
{
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (Some((stored, _)), Some((external, _))) = (self.stored.peek(), self.external.peek()) else {
            return self.stored.next().or_else(|| self.external.next());
        };
        match stored.cmp(external) {
            Ordering::Less => self.stored.next(),
            Ordering::Greater => self.external.next(),
            Ordering::Equal => {
                self.stored.next();
                self.external.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn external_labels_win_and_removed_ones_go() {
        let check = |external: &[(&str, &str)], removed: &[&str], stored: &[(&str, &str)], want: &str| {
            let removed: Vec<String> = removed.iter().map(|name| (*name).to_owned()).collect();
            let composition = Composition::new(&set(external), &removed);
            let stored = set(stored);
            let got: Vec<String> =
                composition.labels(&stored).map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(got.join(","), want);
            let wire: Vec<String> = composition
                .to_wire(&stored)
                .iter()
                .map(|label| format!("{}={}", label.name, label.value))
                .collect();
            assert_eq!(wire, got);
        };
        check(&[], &[], &[], "");
        check(&[("x", "1")], &[], &[], "x=1");
        check(&[], &[], &[("x", "1")], "x=1");
        check(&[("b", "e")], &[], &[("a", "s"), ("c", "s")], "a=s,b=e,c=s");
        check(&[("a", "e"), ("d", "e")], &[], &[("a", "s"), ("c", "s")], "a=e,c=s,d=e");
        check(&[("a", "e"), ("d", "e")], &["a"], &[("a", "s"), ("c", "s")], "c=s,d=e");
        check(&[("d", "e")], &["c", "d", "z"], &[("a", "s"), ("c", "s")], "a=s");
    }

    #[test]
    fn an_external_label_may_swap_two_sets() {
        let composition = Composition::new(&set(&[("c", "x")]), &[]);
        let (short, long) = (set(&[("a", "1")]), set(&[("a", "1"), ("b", "2")]));
        assert!(short < long);
        assert_eq!(compare((&composition, &short), (&composition, &long)), Ordering::Greater);
    }
}
