//! Character classes of Go's regular expressions: the Perl, POSIX and Unicode ones by name.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// A class of the ranges `ranges`, all ends included.
pub(super) fn of_ranges(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|&(lo, hi)| ClassUnicodeRange::new(lo, hi)))
}

/// The code points `lo..=hi`. Go knows surrogates as code points, but no valid UTF-8 holds one, so
/// they vanish here, and a class of nothing else matches nothing.
pub(super) fn of_code_points(lo: u32, hi: u32) -> ClassUnicode {
    let lo = if (0xD800..0xE000).contains(&lo) { 0xE000 } else { lo };
    let hi = if (0xD800..0xE000).contains(&hi) { 0xD7FF } else { hi };
    match (char::from_u32(lo), char::from_u32(hi)) {
        (Some(lo), Some(hi)) if lo <= hi => of_ranges(&[(lo, hi)]),
        _ => ClassUnicode::empty(),
    }
}

/// Everything that is not in the class.
pub(super) fn negate(class: &mut ClassUnicode) {
    // `regex-syntax` does not see that U+D7FF and U+E000 are neighbours: it would negate the two
    // ranges of `[\0-\x{D7FF}\x{E000}-\x{10FFFF}]` to one from U+E000 down to U+D7FF, and match both.
    let contains = |c| class.ranges().iter().any(|range| range.start() <= c && c <= range.end());
    if contains('\u{D7FF}') && contains('\u{E000}') {
        class.push(ClassUnicodeRange::new('\u{D7FF}', '\u{E000}'));
    }
    class.negate();
}

/// Adds every code point that Unicode's simple case folding makes equal to one of the class.
pub(super) fn fold(class: &mut ClassUnicode) {
    // The error is "built without the folding table", which a feature of the crate rules out.
    let folded = class.try_case_fold_simple();
    debug_assert!(folded.is_ok());
}

/// The class of `\d`, `\s`, `\w` by its lower-case letter: ASCII only, and `\s` lacks `\v`.
pub(super) fn perl(letter: char) -> Option<ClassUnicode> {
    Some(match letter {
        'd' => of_ranges(&[('0', '9')]),
        's' => of_ranges(&[('\t', '\n'), ('\x0C', '\r'), (' ', ' ')]),
        'w' => of_ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        _ => return None,
    })
}

/// The class of `[:name:]`, without the brackets and without `^`.
pub(super) fn posix(name: &str) -> Option<ClassUnicode> {
    Some(match name {
        "alnum" => of_ranges(&[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        "alpha" => of_ranges(&[('A', 'Z'), ('a', 'z')]),
        "ascii" => of_ranges(&[('\0', '\x7F')]),
        "blank" => of_ranges(&[('\t', '\t'), (' ', ' ')]),
        "cntrl" => of_ranges(&[('\0', '\x1F'), ('\x7F', '\x7F')]),
        "digit" => of_ranges(&[('0', '9')]),
        "graph" => of_ranges(&[('!', '~')]),
        "lower" => of_ranges(&[('a', 'z')]),
        "print" => of_ranges(&[(' ', '~')]),
        "punct" => of_ranges(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
        "space" => of_ranges(&[('\t', '\r'), (' ', ' ')]),
        "upper" => of_ranges(&[('A', 'Z')]),
        "word" => of_ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        "xdigit" => of_ranges(&[('0', '9'), ('A', 'F'), ('a', 'f')]),
        _ => return None,
    })
}

/// The class of `\p{name}`: a general category by its short or long name, a script by its long
/// name, or one of Any, Assigned, ASCII. Case, spaces, hyphens and underscores do not count. Other
/// properties, which the Rust crate would take (Alphabetic, `Script=Greek`, Grek), are refused as
/// Go refuses them.
///
/// Go 1.26 itself refuses the scripts that it writes with an underscore (`Old_Italic`), while
/// Prometheus, with its own copy of Go's parser, takes them but minds the case. Here what either
/// takes is taken.
///
/// The tables are those of `regex-syntax` (Unicode 16), Go 1.26 has Unicode 15: code points that
/// are newer than that may differ.
pub(super) fn unicode(name: &str) -> Option<ClassUnicode> {
    let name: String =
        name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).map(|c| c.to_ascii_lowercase()).collect();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    match name.as_str() {
        "any" => return Some(of_code_points(0, 0x10_FFFF)),
        "ascii" => return posix("ascii"),
        "assigned" => {
            let mut class = table("gc", "cn")?;
            negate(&mut class);
            return Some(class);
        }
        // No character that UTF-8 can hold.
        "cs" | "surrogate" => return Some(ClassUnicode::empty()),
        _ => {}
    }
    if CATEGORIES.contains(&format!(" {name} ")) {
        return table("gc", &name);
    }
    // Scripts have short names too, which Go does not know: those are of four letters, as are the
    // long names of a few.
    let is_short = name.len() == 4 && !FOUR_LETTER_SCRIPTS.contains(&name.as_str());
    // The Rust crate drops a leading "is".
    if is_short || name.starts_with("is") || NOT_SCRIPTS.contains(&name.as_str()) {
        return None;
    }
    table("sc", &name)
}

/// General categories as Go names them, in small letters, without separators, between blanks.
const CATEGORIES: &str = " \
    c cc cf cn co l lc ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk sm so z zl \
    zp zs other control cntrl format unassigned privateuse letter casedletter lowercaseletter \
    modifierletter otherletter titlecaseletter uppercaseletter mark combiningmark spacingmark \
    enclosingmark nonspacingmark number decimalnumber digit letternumber othernumber punctuation \
    punct connectorpunctuation dashpunctuation closepunctuation finalpunctuation initialpunctuation \
    otherpunctuation openpunctuation symbol currencysymbol modifiersymbol mathsymbol othersymbol \
    separator lineseparator paragraphseparator spaceseparator ";

/// Scripts whose long name has four letters.
const FOUR_LETTER_SCRIPTS: &[&str] =
    &["ahom", "cham", "kawi", "lisu", "miao", "modi", "newa", "thai", "toto"];

/// Values of the script property that Go's tables lack.
const NOT_SCRIPTS: &[&str] = &["unknown", "katakanaorhiragana"];

/// A property's table, from the parser of `regex-syntax`.
fn table(property: &str, value: &str) -> Option<ClassUnicode> {
    let hir = regex_syntax::parse(&format!(r"\p{{{property}={value}}}")).ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        // What a class of one character is simplified to.
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(ClassUnicode::new(text.chars().map(|c| ClassUnicodeRange::new(c, c))))
        }
        _ => None,
    }
}
