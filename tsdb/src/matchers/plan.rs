//! How a regular expression is matched: by the automaton only if nothing simpler says the same.
//!
//! Expressions of dashboards are mostly a literal, a list of literals, or a literal with `.*` or
//! `.+` at its ends. These compare bytes. The same look at the tree yields what an index lookup
//! wants to know: the finite set of matching values, or the text that every match begins with.

use hashbrown::HashSet;
use regex_automata::{
    Input,
    meta::{Config, Regex},
    nfa::thompson::WhichCaptures,
};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Most values in a set that is shown to callers.
pub(super) const SET_COUNT_MAX: usize = 256;
/// Most values of an alternation of literals that is kept as a set.
const LITERAL_COUNT_MAX: usize = 100_000;
/// Most bytes of text in a set that is multiplied out of a shorter expression.
const SET_BYTES_MAX: usize = 1 << 20;
/// Longest set that is searched by halves, and not by hash.
const SORTED_COUNT_MAX: usize = 16;
/// Memory of one compiled automaton. Go allows more: 128 MiB of instructions.
const AUTOMATON_BYTES_MAX: usize = 16 << 20;
/// Memory for states of the automaton that are made while matching, per thread that matches.
const LAZY_STATES_BYTES_MAX: usize = 2 << 20;

/// What may stand before or after a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing.
    None,
    /// Anything: `.*`
    Any,
    /// At least one character: `.+`
    Some,
}

/// A way to match.
#[derive(Debug)]
pub(super) enum Plan {
    /// The value is one of these, which are sorted and distinct. Empty: nothing matches.
    Sorted(Vec<String>),
    /// The value is one of these.
    Hashed {
        /// For lookup.
        hashed: HashSet<Box<str>, foldhash::fast::RandomState>,
        /// The same, sorted, if they are few enough to be shown.
        sorted: Option<Vec<String>>,
    },
    /// A literal, perhaps empty, between two gaps.
    Affix(Gap, String, Gap),
    /// Anything else, anchored at both ends.
    Automaton {
        /// What every match begins with.
        prefix: String,
        /// The expression.
        regex: Box<Regex>,
    },
}

impl Plan {
    /// The best way to match `hir` against whole values.
    pub(super) fn new(hir: Hir) -> Result<Self, String> {
        let parts = trimmed(&hir);
        if let Some(sorted) = literal_set(parts) {
            return Ok(Self::of_set(sorted));
        }
        if let Some((before, text, after)) = affix(parts) {
            return Ok(Self::Affix(before, text, after));
        }
        let mut prefix = String::new();
        leading_text(parts, &mut prefix);
        Ok(Self::Automaton { prefix, regex: Box::new(automaton(hir)?) })
    }

    /// The automaton for `hir` with no shortcut, for tests to compare with.
    #[cfg(test)]
    pub(super) fn plain(hir: Hir) -> Result<Self, String> {
        Ok(Self::Automaton { prefix: String::new(), regex: Box::new(automaton(hir)?) })
    }

    fn of_set(sorted: Vec<String>) -> Self {
        if sorted.len() <= SORTED_COUNT_MAX {
            return Self::Sorted(sorted);
        }
        let hashed = sorted.iter().map(|value| value.as_str().into()).collect();
        let sorted = (sorted.len() <= SET_COUNT_MAX).then_some(sorted);
        Self::Hashed { hashed, sorted }
    }

    /// True if the whole of `value` matches.
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Sorted(set) => set.binary_search_by(|probe| probe.as_str().cmp(value)).is_ok(),
            Self::Hashed { hashed, .. } => hashed.contains(value),
            Self::Affix(before, text, after) => matches_affix(value, *before, text, *after),
            Self::Automaton { prefix, regex } => {
                value.starts_with(prefix.as_str()) && regex.is_match(Input::new(value))
            }
        }
    }

    /// The values that match, sorted, if they are at most [`SET_COUNT_MAX`].
    pub(super) fn set(&self) -> Option<&[String]> {
        match self {
            Self::Sorted(sorted) => Some(sorted),
            Self::Hashed { sorted, .. } => sorted.as_deref(),
            _ => None,
        }
    }

    /// What every matching value begins with, if that is known and not empty.
    pub(super) fn prefix(&self) -> Option<&str> {
        let prefix = match self {
            Self::Sorted(set) => match (set.first(), set.last()) {
                // What the first and the last of a sorted list share, all share.
                (Some(first), Some(last)) => common_prefix(first, last),
                _ => "",
            },
            Self::Hashed { sorted: Some(sorted), .. } => match (sorted.first(), sorted.last()) {
                (Some(first), Some(last)) => common_prefix(first, last),
                _ => "",
            },
            Self::Hashed { .. } => "",
            Self::Affix(Gap::None, text, _) => text,
            Self::Affix(..) => "",
            Self::Automaton { prefix, .. } => prefix,
        };
        Some(prefix).filter(|prefix| !prefix.is_empty())
    }
}

fn automaton(hir: Hir) -> Result<Regex, String> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    Regex::builder()
        .configure(
            Config::new()
                .which_captures(WhichCaptures::None)
                .utf8_empty(false)
                .auto_prefilter(false)
                .nfa_size_limit(Some(AUTOMATON_BYTES_MAX))
                .onepass(false)
                .hybrid_cache_capacity(LAZY_STATES_BYTES_MAX),
        )
        .build_from_hir(&anchored)
        .map_err(|error| match error.size_limit() {
            Some(limit) => format!("expression too large: compiles to more than {limit} bytes"),
            None => error.to_string(),
        })
}

fn matches_affix(value: &str, before: Gap, text: &str, after: Gap) -> bool {
    // A gap that must hold something takes its one character; what is left is like `.*`.
    let mut chars = value.chars();
    if before == Gap::Some && chars.next().is_none() {
        return false;
    }
    if after == Gap::Some && chars.next_back().is_none() {
        return false;
    }
    let inner = chars.as_str();
    match (before, after) {
        (Gap::None, Gap::None) => inner == text,
        (Gap::None, _) => inner.starts_with(text),
        (_, Gap::None) => inner.ends_with(text),
        _ => inner.contains(text),
    }
}

/// The parts of a concatenation without the assertions at its ends that hold there anyway.
fn trimmed(hir: &Hir) -> &[Hir] {
    let mut parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    while let Some((first, rest)) = parts.split_first()
        && matches!(first.kind(), HirKind::Look(Look::Start | Look::StartLF))
    {
        parts = rest;
    }
    while let Some((last, rest)) = parts.split_last()
        && matches!(last.kind(), HirKind::Look(Look::End | Look::EndLF))
    {
        parts = rest;
    }
    parts
}

fn literal_text(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Empty => Some(""),
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// `.*` or `.+`, where the dot matches everything.
fn gap(hir: &Hir) -> Option<Gap> {
    let HirKind::Repetition(repetition) = hir.kind() else {
        return None;
    };
    if !is_any_char(&repetition.sub) {
        return None;
    }
    match (repetition.min, repetition.max) {
        (0, None) => Some(Gap::Any),
        (1, None) => Some(Gap::Some),
        _ => None,
    }
}

fn is_any_char(hir: &Hir) -> bool {
    let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
        return false;
    };
    matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX)
}

fn affix(parts: &[Hir]) -> Option<(Gap, String, Gap)> {
    let (before, parts) = match parts.split_first() {
        Some((first, rest)) if gap(first).is_some() => (gap(first)?, rest),
        _ => (Gap::None, parts),
    };
    let (after, parts) = match parts.split_last() {
        Some((last, rest)) if gap(last).is_some() => (gap(last)?, rest),
        _ => (Gap::None, parts),
    };
    match parts {
        [] => Some((before, String::new(), after)),
        [part] => Some((before, literal_text(part)?.to_owned(), after)),
        _ => None,
    }
}

/// Appends to `prefix` what every match of the concatenation of `parts` begins with.
fn leading_text(parts: &[Hir], prefix: &mut String) {
    for part in parts {
        match part.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(_) => match literal_text(part) {
                Some(text) => prefix.push_str(text),
                None => return,
            },
            // The parts of an inner concatenation were merged into this one.
            HirKind::Alternation(branches) => {
                let mut shared: Option<String> = None;
                for branch in branches {
                    let mut text = String::new();
                    leading_text(std::slice::from_ref(branch), &mut text);
                    let common = match &shared {
                        Some(shared) => common_prefix(shared, &text).to_owned(),
                        None => text,
                    };
                    let done = common.is_empty();
                    shared = Some(common);
                    if done {
                        break;
                    }
                }
                prefix.push_str(&shared.unwrap_or_default());
                return;
            }
            HirKind::Concat(inner) => {
                leading_text(inner, prefix);
                return;
            }
            HirKind::Repetition(repetition) => {
                if repetition.min > 0 {
                    leading_text(std::slice::from_ref(&*repetition.sub), prefix);
                }
                return;
            }
            HirKind::Class(_) | HirKind::Capture(_) => return,
        }
    }
}

/// What both texts begin with.
fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let len = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    a.get(..len).unwrap_or_default()
}

/// All values that match, sorted and distinct, if the expression is but a list of them.
fn literal_set(parts: &[Hir]) -> Option<Vec<String>> {
    let mut set = match parts {
        [one] if matches!(one.kind(), HirKind::Alternation(_)) => plain_alternation(one),
        _ => None,
    };
    if set.is_none() {
        let mut budget = SET_BYTES_MAX;
        set = concat_set(parts, &mut budget);
    }
    let mut set = set?;
    set.sort_unstable();
    set.dedup();
    Some(set)
}

/// The branches of an alternation of nothing but literals, of which there may be many.
fn plain_alternation(hir: &Hir) -> Option<Vec<String>> {
    let HirKind::Alternation(branches) = hir.kind() else {
        return None;
    };
    if branches.len() > LITERAL_COUNT_MAX {
        return None;
    }
    branches.iter().map(|branch| literal_text(branch).map(str::to_owned)).collect()
}

/// All values of an expression, while they are few. `budget` is the bytes that may yet be built.
fn value_set(hir: &Hir, budget: &mut usize) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) => {
            let text = literal_text(hir)?;
            *budget = budget.checked_sub(text.len())?;
            Some(vec![text.to_owned()])
        }
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|range| range.len()).sum();
            if count > SET_COUNT_MAX {
                return None;
            }
            let chars = class.ranges().iter().flat_map(|range| range.start()..=range.end());
            Some(chars.map(String::from).collect())
        }
        HirKind::Concat(parts) => concat_set(parts, budget),
        HirKind::Alternation(branches) => {
            let mut set = Vec::new();
            for branch in branches {
                set.extend(value_set(branch, budget)?);
                if set.len() > SET_COUNT_MAX {
                    return None;
                }
            }
            Some(set)
        }
        HirKind::Repetition(repetition) => {
            let max = repetition.max?;
            let sub = value_set(&repetition.sub, budget)?;
            let mut set = Vec::new();
            let mut power = vec![String::new()];
            for count in 0..=max {
                if count > 0 {
                    power = product(&power, &sub, budget)?;
                }
                if count >= repetition.min {
                    set.extend(power.iter().cloned());
                    if set.len() > SET_COUNT_MAX {
                        return None;
                    }
                }
            }
            Some(set)
        }
        HirKind::Class(Class::Bytes(class)) => class.ranges().is_empty().then(Vec::new),
        HirKind::Look(_) | HirKind::Capture(_) => None,
    }
}

fn concat_set(parts: &[Hir], budget: &mut usize) -> Option<Vec<String>> {
    let mut set = vec![String::new()];
    for part in parts {
        set = product(&set, &value_set(part, budget)?, budget)?;
    }
    Some(set)
}

fn product(heads: &[String], tails: &[String], budget: &mut usize) -> Option<Vec<String>> {
    if heads.len() * tails.len() > SET_COUNT_MAX {
        return None;
    }
    let mut set = Vec::with_capacity(heads.len() * tails.len());
    for head in heads {
        for tail in tails {
            *budget = budget.checked_sub(head.len() + tail.len())?;
            set.push([head.as_str(), tail.as_str()].concat());
        }
    }
    Some(set)
}
