//! External labels as `--label` takes them: `name="value"`, the value quoted as in Go.

use weir_tsdb::Labels;

/// Why `--label` values are not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There is no equals sign.
    #[error("{0:?} is not of the form name=\"value\"")]
    Form(String),
    /// The name is not one of a label.
    #[error("{0:?} is not a label name: letters, digits and underscores, no digit first")]
    Name(String),
    /// The value has no quotes, or an escape in it is wrong.
    #[error("the value of {0} must be quoted, as in --label='{0}=\"value\"'")]
    Quotes(String),
    /// The value is empty, which is the same as no label.
    #[error("the value of {0} is empty")]
    EmptyValue(String),
    /// The name was given before.
    #[error("{0} is given twice")]
    Twice(String),
}

/// Builds the set of external labels.
///
/// # Errors
/// For the first of `given` that is wrong. An empty list gives an empty set.
pub fn parse_external_labels<S: AsRef<str>>(given: &[S]) -> Result<Labels, LabelError> {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(given.len());
    for text in given {
        let text = text.as_ref();
        let (name, quoted) = text.split_once('=').ok_or_else(|| LabelError::Form(text.to_owned()))?;
        if !is_label_name(name) {
            return Err(LabelError::Name(name.to_owned()));
        }
        let value = unquote(quoted).ok_or_else(|| LabelError::Quotes(name.to_owned()))?;
        if value.is_empty() {
            return Err(LabelError::EmptyValue(name.to_owned()));
        }
        if pairs.iter().any(|(own, _)| own == name) {
            return Err(LabelError::Twice(name.to_owned()));
        }
        pairs.push((name.to_owned(), value));
    }
    Ok(Labels::from_pairs(pairs))
}

/// True if `name` is a label name in the classic sense, without UTF-8 names.
pub fn is_label_name(name: &str) -> bool {
    let first_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first_fits && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Takes a Go string literal apart: double quotes with escapes, or backquotes without. Escapes of
/// single bytes (`\xff`, `\377`) count as code points below 128 only; more would not be UTF-8.
pub(crate) fn unquote(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut value = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => value.push(unescape(&mut rest)?),
            plain => value.push(plain),
        }
    }
    Some(value)
}

fn unescape(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let is_ascii = |code: &u32| *code < 0x80;
    let code = match rest.next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        '\\' => 0x5c,
        '"' => 0x22,
        'x' => read_number(rest, 2, 16, 0).filter(is_ascii)?,
        'u' => read_number(rest, 4, 16, 0)?,
        'U' => read_number(rest, 8, 16, 0)?,
        octal => read_number(rest, 2, 8, octal.to_digit(8)?).filter(is_ascii)?,
    };
    char::from_u32(code)
}

fn read_number(rest: &mut std::str::Chars<'_>, digits: usize, radix: u32, start: u32) -> Option<u32> {
    let mut value = start;
    for _ in 0..digits {
        value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_read_as_thanos_reads_them() {
        let check = |text: &str, name: &str, value: &str| {
            assert_eq!(parse_external_labels(&[text]), Ok(Labels::from_pairs([(name, value)])), "{text}");
        };
        check(r#"replica="a""#, "replica", "a");
        check(r#"replica="a=b""#, "replica", "a=b");
        check("replica=`a\\n`", "replica", "a\\n");
        check(r#"_x1="a\"b\\c\n\t""#, "_x1", "a\"b\\c\n\t");
        check(r#"l="\x41\102\u00e9\U0001F600""#, "l", "AB\u{e9}\u{1F600}");
        let both = parse_external_labels(&[r#"b="2""#, r#"a="1""#]).expect("two labels");
        assert_eq!(both, Labels::from_pairs([("a", "1"), ("b", "2")]));
    }

    #[test]
    fn what_is_no_label_is_refused_with_a_reason() {
        let check = |given: &[&str], error: LabelError| assert_eq!(parse_external_labels(given), Err(error));
        check(&["replica"], LabelError::Form("replica".to_owned()));
        check(&[r#"1a="x""#], LabelError::Name("1a".to_owned()));
        check(&[r#"="x""#], LabelError::Name(String::new()));
        check(&[r#"a-b="x""#], LabelError::Name("a-b".to_owned()));
        check(&[r#"a="""#], LabelError::EmptyValue("a".to_owned()));
        check(&[r#"a="1""#, r#"a="2""#], LabelError::Twice("a".to_owned()));
        for quoted in
            ["x", "\"x", "x\"", "\"", "'x'", r#""\q""#, r#""\xff""#, r#""\ud800""#, r#""a"b""#, "`a`b`"]
        {
            check(&[&format!("a={quoted}")], LabelError::Quotes("a".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn plain_text_comes_through_and_nothing_panics(value in "[^\"\\\\\n]{1,12}", wild in ".{0,16}") {
            let labels = parse_external_labels(&[format!("a=\"{value}\"")]).expect("plain text");
            prop_assert_eq!(labels.get("a"), Some(value.as_str()));
            let _ = parse_external_labels(&[format!("a=\"{wild}\"")]);
        }
    }
}
