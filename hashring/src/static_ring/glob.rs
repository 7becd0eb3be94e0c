//! Patterns of tenants, as Go's `filepath.Match` reads them.

use std::fmt;

/// A pattern of tenant names.
///
/// | In the pattern | Stands for |
/// |---|---|
/// | `*` | any text without a slash, also none |
/// | `?` | one character that is no slash |
/// | `[a-z_]` | one character of the class, `[^a-z_]` one that is not in it |
/// | `\c` | the character c, in a class too |
/// | other | itself |
///
/// The pattern has to match the whole name. Two nodes of a fleet that read the same file must find
/// the same ring, therefore Go's oddities are kept: a `*` takes the leftmost place at which what
/// follows it fits and does not try another, it steps by bytes, and in the middle of a character a
/// byte counts as U+FFFD. The time of a match is bounded by the product of both lengths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob {
    pattern: String,
    /// Only the first one does not follow a star, and only the last one of several may be empty
    /// behind its star.
    chunks: Vec<Chunk>,
}

/// What stands between two stars.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chunk {
    after_star: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Literal(char),
    AnyChar,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A backslash is the last character.
    #[error("nothing follows the last backslash")]
    NothingEscaped,
    /// A `[` without its `]`.
    #[error("a class is not closed by \"]\"")]
    OpenClass,
    /// A class without characters, or a range that lacks a bound, as in `[]`, `[a-]` or `[-a]`.
    #[error("a class has a \"-\" or \"]\" where a character is needed; put a backslash before it")]
    InvalidClass,
}

impl Glob {
    /// Reads `pattern`.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let mut chunk = Chunk { after_star: false, items: Vec::new() };
        let mut chunks = Vec::new();
        let mut rest = pattern.chars();
        while let Some(char) = rest.next() {
            let item = match char {
                '*' if chunk.after_star && chunk.items.is_empty() => continue,
                '*' => {
                    chunks.push(std::mem::replace(&mut chunk, Chunk { after_star: true, items: Vec::new() }));
                    continue;
                }
                '?' => Item::AnyChar,
                '[' => read_class(&mut rest)?,
                '\\' => Item::Literal(rest.next().ok_or(GlobError::NothingEscaped)?),
                char => Item::Literal(char),
            };
            chunk.items.push(item);
        }
        chunks.push(chunk);
        Ok(Self { pattern: pattern.to_owned(), chunks })
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether the pattern matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let bytes = name.as_bytes();
        let mut at = 0;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let is_last = index + 1 == self.chunks.len();
            let reachable = match chunk.after_star {
                true => bytes.iter().skip(at).take_while(|byte| **byte != b'/').count(),
                false => 0,
            };
            if is_last && chunk.after_star && chunk.items.is_empty() {
                return at + reachable == bytes.len();
            }
            let fits = |end: &usize| !is_last || *end == bytes.len();
            match (at..=at + reachable).find_map(|start| chunk.end_of_match(name, start).filter(fits)) {
                Some(end) => at = end,
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl Chunk {
    /// Offset behind the text that the items match when they begin at byte `at`.
    fn end_of_match(&self, name: &str, at: usize) -> Option<usize> {
        self.items.iter().try_fold(at, |at, item| {
            let (char, width) = char_at(name, at)?;
            let matched = match item {
                // A byte in the middle of a character is equal to no character.
                Item::Literal(literal) => char == *literal && width == literal.len_utf8(),
                Item::AnyChar => char != '/',
                Item::Class { negated, ranges } => {
                    ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != *negated
                }
            };
            matched.then_some(at + width)
        })
    }
}

/// Character at byte `at` and its width in bytes, or none at the end.
fn char_at(name: &str, at: usize) -> Option<(char, usize)> {
    match name.get(at..) {
        Some(rest) => rest.chars().next().map(|char| (char, char.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Reads a class of which the `[` is gone.
fn read_class(rest: &mut std::str::Chars<'_>) -> Result<Item, GlobError> {
    let negated = skip(rest, '^');
    let mut ranges = Vec::new();
    while ranges.is_empty() || !skip(rest, ']') {
        let low = read_class_char(rest)?;
        let high = if skip(rest, '-') { read_class_char(rest)? } else { low };
        ranges.push((low, high));
    }
    Ok(Item::Class { negated, ranges })
}

fn read_class_char(rest: &mut std::str::Chars<'_>) -> Result<char, GlobError> {
    match rest.next().ok_or(GlobError::OpenClass)? {
        '-' | ']' => Err(GlobError::InvalidClass),
        '\\' => rest.next().ok_or(GlobError::NothingEscaped),
        char => Ok(char),
    }
}

/// Steps over `char` if it is the next one.
fn skip(rest: &mut std::str::Chars<'_>, char: char) -> bool {
    let found = rest.as_str().starts_with(char);
    if found {
        rest.next();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_names() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let glob = Glob::new(pattern).expect("a valid pattern");
            assert_eq!(glob.matches(name), expected, "{pattern:?} and {name:?}");
        };
        check("", "", true);
        check("", "a", false);
        check("abc", "abc", true);
        check("abc", "abcd", false);
        check("abcd", "abc", false);
        check("*", "", true);
        check("*", "abc", true);
        check("*", "a/c", false);
        check("**", "abc", true);
        check("*c", "abc", true);
        check("a*", "a", true);
        check("a*", "ab/c", false);
        check("a*/b", "abc/b", true);
        check("a*/b", "a/c/b", false);
        check("team-*-prod", "team-a-prod", true);
        check("team-*-prod", "team--prod", true);
        check("team-*-prod", "team-prod", false);
        check("a*b*c*d*e*/f", "axbxcxdxe/f", true);
        check("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false);
        check("a*b?c*x", "abxbbxdbxebxczzx", true);
        check("a*b?c*x", "abxbbxdbxebxczzy", false);
        check("*ab", "aab", true);
        check("*aab", "aaaab", true);
        check("a?c", "abc", true);
        check("a?c", "aéc", true);
        check("a?c", "a/c", false);
        check("a?", "a", false);
        check("ab[c]", "abc", true);
        check("ab[b-d]", "abc", true);
        check("ab[e-g]", "abc", false);
        check("ab[d-b]", "abc", false);
        check("ab[^c]", "abc", false);
        check("ab[^e-g]", "abc", true);
        check("a[^a]b", "a☺b", true);
        check("a[☺]b", "a☺b", true);
        check("[a-ζ]*", "α", true);
        check("*[a-ζ]", "A", false);
        check("[!a]", "!", true);
        check("[^a]", "/", true);
        check("[^a]", "", false);
        check("[\\]a]", "]", true);
        check("[\\-x]", "-", true);
        check("[x\\-]", "z", false);
        check("[*]", "*", true);
        check("[*]", "x", false);
        check("[^^]", "^", false);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        check("\\[a", "[a", true);
        check("a]-b", "a]-b", true);
        check("é", "é", true);
    }

    /// What Go answers where a star has to stand inside a character, or takes the first fit.
    #[test]
    fn oddities_of_the_original() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(Glob::new(pattern).expect("a valid pattern").matches(name), expected, "{pattern:?}");
        };
        check("*??", "€", true);
        check("??", "€", false);
        check("*???", "€", false);
        check("*?*??", "€", false);
        check("*\u{fffd}", "€", false);
        check("*[^a][^a]", "é", false);
        check("*[^a][^a]", "€", true);
    }

    #[test]
    fn refused_patterns() {
        let check = |pattern: &str, error| assert_eq!(Glob::new(pattern), Err(error), "{pattern:?}");
        check("a\\", GlobError::NothingEscaped);
        check("[a\\", GlobError::NothingEscaped);
        check("[", GlobError::OpenClass);
        check("a[", GlobError::OpenClass);
        check("[^", GlobError::OpenClass);
        check("[a", GlobError::OpenClass);
        check("[a-", GlobError::OpenClass);
        check("[a-b", GlobError::OpenClass);
        check("[]", GlobError::InvalidClass);
        check("[]a]", GlobError::InvalidClass);
        check("[^]", GlobError::InvalidClass);
        check("[-x]", GlobError::InvalidClass);
        check("[x-]", GlobError::InvalidClass);
        check("[a-b-c]", GlobError::InvalidClass);
    }

    /// The meaning of the table above, letter by letter, for names of single bytes.  Not for a class
    /// that takes a slash: then the leftmost fit of the original may miss another one.
    fn model(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            ([b'*', pattern @ ..], name) => {
                model(pattern, name)
                    || matches!(name, [head, tail @ ..] if *head != b'/' && model(&[b"*", pattern].concat(), tail))
            }
            ([b'?', pattern @ ..], [head, tail @ ..]) => *head != b'/' && model(pattern, tail),
            ([b'\\', literal, pattern @ ..], [head, tail @ ..]) => head == literal && model(pattern, tail),
            ([b'[', b'^', low, b'-', high, b']', pattern @ ..], [head, tail @ ..]) => {
                !(low..=high).contains(&head) && model(pattern, tail)
            }
            ([b'[', low, b'-', high, b']', pattern @ ..], [head, tail @ ..]) => {
                (low..=high).contains(&head) && model(pattern, tail)
            }
            ([literal, pattern @ ..], [head, tail @ ..]) => head == literal && model(pattern, tail),
            (_, []) => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn agrees_with_the_model(
            pattern in prop::collection::vec(
                prop_oneof![Just("*"), Just("*"), Just("?"), Just("a"), Just("b"), Just("/"), Just("\\*"), Just("[a-b]"), Just("[^/-a]")],
                0..8,
            ),
            name in "[ab/*]{0,9}",
        ) {
            let pattern = pattern.concat();
            let glob = Glob::new(&pattern).expect("a valid pattern");
            prop_assert_eq!(glob.matches(&name), model(pattern.as_bytes(), name.as_bytes()), "{:?} {:?}", pattern, name);
        }

        #[test]
        fn escaped_text_matches_itself_alone(name in "\\PC{0,8}", other in "\\PC{0,8}") {
            let pattern: String = name.chars().flat_map(|char| ['\\', char]).collect();
            let glob = Glob::new(&pattern).expect("a valid pattern");
            prop_assert!(glob.matches(&name));
            prop_assert_eq!(glob.matches(&other), name == other);
        }

        #[test]
        fn no_input_panics(pattern in "[*?\\[\\]^\\\\a-c€é/-]{0,12}", name in "[a-c€é/]{0,12}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let with_star = Glob::new(&format!("*{pattern}")).expect("a star does no harm");
                // A leading star may take nothing.
                prop_assert!(!glob.matches(&name) || with_star.matches(&name));
            }
        }
    }
}
