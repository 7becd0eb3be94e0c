//! Tests of matchers, most of them against answers recorded from Go.

use std::{collections::HashSet, fmt::Write as _};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn new(match_type: MatchType, value: &str) -> Matcher {
    Matcher::new(match_type, "job", value).unwrap()
}

fn regexp(pattern: &str) -> Matcher {
    new(MatchType::Regexp, pattern)
}

fn refusal(pattern: &str) -> String {
    match Matcher::new(MatchType::Regexp, "job", pattern) {
        Err(Error::InvalidRegex { what, .. }) => what,
        other => panic!("{pattern:?} gave {other:?}"),
    }
}

/// Where we differ from `testdata/go_regexp.jsonl`, and know why.
const KNOWN_DIFFERENCES: &[&str] = &[
    // Go turns the surrogate into U+FFFD when it makes a literal prefix of it. To us it is a code
    // point that no value holds.
    r#""\\x{D800}" on "�": recorded true, ours false"#,
    // Unicode 15.1 made these equal under simple folding; Go 1.26 has Unicode 15.0.
    r#""(?i)ﬅ" on "ﬆ": recorded false, ours true"#,
    // Large even for Go: a thousand times a class of hundreds of ranges.
    r#""\\pL{1000}": recorded as good, ours refuses"#,
    r#""(\\pL\\pN){500}": recorded as good, ours refuses"#,
    "\"(?i)\\\\x{390}\" on \"\u{1fd3}\": recorded false, ours true",
    "\"(?i)\\\\x{3b0}\" on \"\u{1fe3}\": recorded false, ours true",
    // A script without its underscore, which neither Go nor Prometheus knows.
    r#""\\p{OldItalic}": recorded as bad, ours accepts"#,
    // A script of Unicode 16.
    r#""\\p{Garay}": recorded as bad, ours accepts"#,
];

#[test]
fn answers_as_go_does() {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };

    let mut lines = include_str!("../../testdata/go_regexp.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let pool = texts(&lines.next().unwrap()["pool"]);
    let (mut accepted_count, mut refused_count, mut found) = (0, 0, Vec::new());
    for row in lines {
        let pattern = text(&row["p"]);
        let recorded_error = row.get("error").map(text);
        let ours = match (Matcher::new(MatchType::Regexp, "l", &pattern), recorded_error) {
            (Err(_), Some(_)) => {
                refused_count += 1;
                continue;
            }
            (Err(_), None) => {
                found.push(format!("{pattern:?}: recorded as good, ours refuses"));
                continue;
            }
            (Ok(_), Some(_)) => {
                found.push(format!("{pattern:?}: recorded as bad, ours accepts"));
                continue;
            }
            (Ok(ours), None) => ours,
        };
        accepted_count += 1;
        let expected: HashSet<String> = texts(&row["matches"]).into_iter().collect();
        for input in pool.iter().chain(&texts(&row["inputs"])) {
            let (recorded, ours) = (expected.contains(input), ours.matches(input));
            if recorded != ours {
                found.push(format!("{pattern:?} on {input:?}: recorded {recorded}, ours {ours}"));
            }
        }
    }
    assert_eq!(found, KNOWN_DIFFERENCES);
    // The file was read to its end.
    assert_eq!((accepted_count, refused_count), (1831, 583));
}

#[test]
fn set_matches_lists_what_an_expression_stands_for() {
    let check = |pattern: &str, expected: Option<&[&str]>| {
        let matcher = regexp(pattern);
        let set = matcher.set_matches().map(|set| set.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(set.as_deref(), expected, "{pattern:?}");
        for value in set.iter().flatten() {
            assert!(matcher.matches(value), "{pattern:?} does not match its own {value:?}");
        }
    };
    check("", Some(&[""]));
    check("foo", Some(&["foo"]));
    check("foo|bar|foo", Some(&["bar", "foo"]));
    check("foo(bar|baz)", Some(&["foobar", "foobaz"]));
    check("(a|b)(c|d)", Some(&["ac", "ad", "bc", "bd"]));
    check("^(?:foo|bar)$", Some(&["bar", "foo"]));
    check("foo?", Some(&["fo", "foo"]));
    check("a{2,3}", Some(&["aa", "aaa"]));
    check("[a-c]1", Some(&["a1", "b1", "c1"]));
    check("(?i)ab", Some(&["AB", "Ab", "aB", "ab"]));
    check("|foo", Some(&["", "foo"]));
    check(r"10\.0\.0\.[12]", Some(&["10.0.0.1", "10.0.0.2"]));
    check(r"[^\x00-\x{10FFFF}]", Some(&[]));
    check("foo.*", None);
    check("a*", None);
    check("a|b+", None);
    check("(^a|b)", None);
    check(r"\d{3}", None);
    check(
        r"[\x00-\x{FF}]",
        Some(
            &(0..=255)
                .map(char::from)
                .map(String::from)
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        ),
    );
    check(r"[\x00-\x{100}]", None);
    assert_eq!(new(MatchType::NotEqual, "x").set_matches(), Some(&["x".to_owned()][..]));
}

#[test]
fn long_alternations_are_looked_up() {
    let names: Vec<String> = (0..5000).map(|i| format!("pod-{i}")).collect();
    let matcher = regexp(&names.join("|"));
    assert!(matches!(matcher.inner.plan, Plan::Hashed { sorted: None, .. }));
    assert_eq!(matcher.set_matches(), None);
    assert!(names.iter().all(|name| matcher.matches(name)));
    assert!(!matcher.matches("pod-5000") && !matcher.matches("pod-") && !matcher.matches(""));

    let matcher = regexp(&names[..256].join("|"));
    assert_eq!(matcher.set_matches().unwrap().len(), 256);
    assert_eq!(matcher.prefix(), Some("pod-"));
    assert_eq!(regexp(&names[..257].join("|")).set_matches(), None);
}

#[test]
fn prefix_is_what_all_matches_begin_with() {
    let check = |pattern: &str, expected: Option<&str>| {
        assert_eq!(regexp(pattern).prefix(), expected, "{pattern:?}");
    };
    check("foo.*", Some("foo"));
    check("^foo.+", Some("foo"));
    check("foo[ab].*", Some("foo"));
    check("foobar|foobaz", Some("fooba"));
    check("foo(bar|baz).*", Some("fooba"));
    check("foo(bar)?.*", Some("foo"));
    check("(foo)+", Some("foo"));
    check(r"10\.1\..*", Some("10.1."));
    check("é.*|ê.*", None);
    check("éa.*|éb.*", Some("é"));
    check("(foo)*", None);
    check(".*foo", None);
    check("foo|bar", None);
    check("(?i)foo", None);
    check("", None);
    check("foo", Some("foo"));
}

#[test]
fn simple_expressions_need_no_automaton() {
    let automaton = |pattern: &str| matches!(regexp(pattern).inner.plan, Plan::Automaton { .. });
    for pattern in
        ["", ".*", ".+", "foo", "foo.*", "foo.+", ".*foo", ".+foo", ".*foo.*", ".+foo.+", "a|b|c", "^foo.*$"]
    {
        assert!(!automaton(pattern), "{pattern:?}");
    }
    for pattern in [r"\d+", "foo.*bar", "(?-s)foo.*", "a*"] {
        assert!(automaton(pattern), "{pattern:?}");
    }
}

#[test]
fn types_differ_in_sign_only() {
    let check = |value: &str, input: &str, expected: [bool; 4]| {
        let types = [MatchType::Equal, MatchType::NotEqual, MatchType::Regexp, MatchType::NotRegexp];
        assert_eq!(types.map(|t| new(t, value).matches(input)), expected, "{value:?} on {input:?}");
    };
    check("foo", "foo", [true, false, true, false]);
    check("foo", "", [false, true, false, true]);
    check("f.o", "foo", [false, true, true, false]);
    check("", "", [true, false, true, false]);
    check("f.o", "f.o", [true, false, true, false]);
    assert!(new(MatchType::NotEqual, "foo").matches_empty());
    assert!(!new(MatchType::Regexp, ".+").matches_empty());
    assert!(new(MatchType::Regexp, "foo|").matches_empty());
    // What is no expression is a text like any other.
    assert!(new(MatchType::Equal, "a(").matches("a("));
}

#[test]
fn expressions_that_explode_are_refused() {
    let check = |pattern: &str, reason: &str| {
        let what = refusal(pattern);
        assert!(what.contains(reason), "{what}");
        assert!(what.len() <= ERROR_TEXT_BYTES_MAX + 4);
    };
    check(&"a".repeat((1 << 20) + 1), "longer than 1048576 bytes");
    check(&"(".repeat(1 << 20), "nests too deeply");
    check(&("(?:a".repeat(600) + &")?".repeat(600)), "nests too deeply");
    check(&".".repeat(1 << 20), "more than 200000 nodes");
    check(&r"\pL".repeat(300_000), "too many ranges");
    check(&format!("[{}]", r"\pL".repeat(300_000)), "too many ranges");
    check(r"(\pL{10}\pN{10}){100}", "compiles to more than");
    check(&"(a.{1000})".repeat(100), "compiles to more than");
    check(&"[[:".repeat(300_000), "missing closing ]");
    check("((a{10}){10}){11}", "multiply to more than 1000");
    // Long in text, small in meaning.
    assert!(regexp(&"{1".repeat(1 << 19)).matches(&"{1".repeat(1 << 19)));
    assert!(regexp(&("(".repeat(1000) + "a" + &")".repeat(1000))).matches("a"));
}

#[test]
fn displays_as_promql() {
    let check = |match_type, name: &str, value: &str, expected: &str| {
        assert_eq!(Matcher::new(match_type, name, value).unwrap().to_string(), expected);
    };
    check(MatchType::Equal, "job", "a", r#"job="a""#);
    check(MatchType::NotEqual, "job", "", r#"job!="""#);
    check(MatchType::Regexp, "job", r"a\d|b", r#"job=~"a\\d|b""#);
    check(MatchType::NotRegexp, "_x1", "a\"b\n\t\x00é日", r#"_x1!~"a\"b\n\t\x00é日""#);
    check(MatchType::Equal, "http.method", "GET", r#""http.method"="GET""#);
    check(MatchType::Equal, "1a", "\u{a0}\u{2028}", r#""1a"="\u00a0\u2028""#);
}

#[test]
fn clones_are_shared_between_threads() {
    fn assert_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let matcher = regexp("a[0-9]+");
    assert_shared(&matcher);
    let copy = matcher.clone();
    assert!(Arc::ptr_eq(&matcher.inner, &copy.inner));
    assert_eq!(matcher, copy);
    assert_ne!(matcher, new(MatchType::NotRegexp, "a[0-9]+"));
}

/// Expressions of the parts that have shortcuts, and of some that have none.
fn pattern_strategy() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "", "a", "b", "ab", "foo", "é", "日", ".*", ".+", ".", ".?", "(?-s:.*)", "[ab]", "[^a]", r"\d",
        "(?i:k)", "(?i:fo)", "^", "$", r"\b", r"\n", r"\Qa.\E",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            4 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            1 => (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "{0,2}", "{1,}"]))
                .prop_map(|(part, repeat)| format!("(?:{part}){repeat}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shortcuts_change_no_answer(
        pattern in pattern_strategy(),
        inputs in prop::collection::vec("[abfo\u{e9}\u{65e5}\nkK\u{212a}1.-]{0,6}", 12),
    ) {
        let hir = parse::parse(&pattern).unwrap();
        let plain = Plan::plain(hir.clone()).unwrap();
        let plan = Plan::new(hir).unwrap();
        // Few random texts match: try what the expression itself suggests, too.
        let mut inputs = inputs;
        inputs.extend(["", "a", "ab", "foo", "xfoo", "foox", "aa", "\n", "é", "日"].map(str::to_owned));
        inputs.extend(plan.set().into_iter().flatten().take(20).cloned());
        for input in &inputs {
            let expected = plain.matches(input);
            prop_assert_eq!(plan.matches(input), expected, "{:?} on {:?}", &pattern, input);
            if expected {
                prop_assert!(plan.prefix().is_none_or(|prefix| input.starts_with(prefix)));
                prop_assert!(plan.set().is_none_or(|set| set.contains(input)));
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(pattern in any::<String>(), odd in r"[\[\]():^|*+?{},0-9\\pPxQEd<>a-c&~iU.-]{0,24}") {
        let mut seen = String::new();
        for pattern in [pattern, odd] {
            let result = Matcher::new(MatchType::Regexp, "l", &pattern);
            write!(seen, "{result:?}").unwrap();
            if let Ok(matcher) = result {
                matcher.matches("abc");
            }
        }
        prop_assert!(!seen.is_empty());
    }
}
