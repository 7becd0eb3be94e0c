//! A series as people write it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::config::external_labels::unquote;

const NAME: &str = "__name__";

/// The labels of one series, as they are placed: ascending by name, without empty values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series(BTreeMap<String, String>);

/// Why a text is no series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// It does not go on as a series does.
    #[error("at byte {at}: {expected} expected, as in up{{job=\"node\"}}")]
    Form {
        /// Where, from 0.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A matcher, where one series is asked for.
    #[error("at byte {at}: one series is asked for, so only = is possible")]
    Matcher {
        /// Where, from 0.
        at: usize,
    },
    /// A label has two values.
    #[error("{0} is given twice")]
    Twice(String),
    /// There is no label with a value.
    #[error("there is no label")]
    Empty,
}

impl Series {
    /// Names and values, ascending by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels().map(|(name, value)| format!("{name}={value:?}")).collect();
        write!(out, "{{{}}}", labels.join(", "))
    }
}

impl FromStr for Series {
    type Err = SeriesError;

    fn from_str(text: &str) -> Result<Self, SeriesError> {
        let mut reader = Reader { text, at: 0 };
        let mut labels = BTreeMap::new();
        let mut put = |name: String, value: String| match labels.insert(name.clone(), value) {
            Some(_) => Err(SeriesError::Twice(name)),
            None => Ok(()),
        };
        reader.skip_space();
        let name = reader.word();
        if !name.is_empty() {
            put(NAME.to_owned(), name.to_owned())?;
        }
        if name.is_empty() || reader.comes('{') {
            reader.expect('{', "a name or {")?;
            while !reader.comes('}') {
                if reader.comes('"') {
                    let quoted = reader.quoted()?;
                    // A quoted text alone is the name of the metric.
                    if reader.comes('=') {
                        put(quoted, reader.value()?)
                    } else {
                        put(NAME.to_owned(), quoted)
                    }?;
                } else {
                    let label = reader.word();
                    if label.is_empty() || label.contains(':') {
                        return Err(SeriesError::Form {
                            at: reader.at,
                            expected: "the name of a label or }",
                        });
                    }
                    put(label.to_owned(), reader.value()?)?;
                }
                if !reader.comes('}') {
                    reader.expect(',', ", or }")?;
                }
            }
            reader.expect('}', "}")?;
        }
        reader.skip_space();
        if reader.at < text.len() {
            return Err(SeriesError::Form { at: reader.at, expected: "the end" });
        }
        labels.retain(|_, value| !value.is_empty());
        if labels.is_empty() { Err(SeriesError::Empty) } else { Ok(Self(labels)) }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// True if this comes next, behind any space.
    fn comes(&mut self, c: char) -> bool {
        self.skip_space();
        self.rest().starts_with(c)
    }

    fn expect(&mut self, c: char, expected: &'static str) -> Result<(), SeriesError> {
        if !self.comes(c) {
            return Err(SeriesError::Form { at: self.at, expected });
        }
        self.at += c.len_utf8();
        Ok(())
    }

    /// A name without quotes; empty if there is none.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let end = if rest.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { end };
        self.at += end;
        &rest[..end]
    }

    fn value(&mut self) -> Result<String, SeriesError> {
        self.skip_space();
        if ["=~", "!=", "!~"].iter().any(|operator| self.rest().starts_with(operator)) {
            return Err(SeriesError::Matcher { at: self.at });
        }
        self.expect('=', "=")?;
        self.quoted()
    }

    fn quoted(&mut self) -> Result<String, SeriesError> {
        self.skip_space();
        let rest = self.rest();
        let bad = SeriesError::Form { at: self.at, expected: "a text in double quotes" };
        if !rest.starts_with('"') {
            return Err(bad);
        }
        let mut is_escaped = false;
        let closing = rest.char_indices().skip(1).find(|&(_, c)| {
            let is_closing = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_closing
        });
        let Some((end, _)) = closing else { return Err(bad) };
        let value = unquote(&rest[..=end]).ok_or(bad)?;
        self.at += end + 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn series_are_read() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let series: Series = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(series.labels().collect::<Vec<_>>(), expected, "{text}");
        };
        check("up", &[(NAME, "up")]);
        check("a:b_c9", &[(NAME, "a:b_c9")]);
        check(r#"up{a="b"}"#, &[(NAME, "up"), ("a", "b")]);
        check(r#"{a="b",__name__="up"}"#, &[(NAME, "up"), ("a", "b")]);
        check(r#" up { z = "1" , a = "2" , } "#, &[(NAME, "up"), ("a", "2"), ("z", "1")]);
        check("up{}", &[(NAME, "up")]);
        check(r#"up{a="",b="1"}"#, &[(NAME, "up"), ("b", "1")]);
        check(
            r#"{"my.metric", "l.1"="ä", b="\"\\\n}"}"#,
            &[(NAME, "my.metric"), ("b", "\"\\\n}"), ("l.1", "ä")],
        );
        // Upper case sorts before the underscore, as bytes do.
        check(r#"{a="1",A="2",_="3"}"#, &[("A", "2"), ("_", "3"), ("a", "1")]);
    }

    #[test]
    fn what_is_no_series_is_refused_where_it_is_wrong() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Series>().expect_err("it is wrong").to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        };
        check("", "at byte 0: a name or {");
        check("1up", "at byte 0: a name or {");
        check("{}", "there is no label");
        check(r#"{a=""}"#, "there is no label");
        check("up{", "at byte 3: the name of a label or }");
        check("up{a}", "at byte 4: = expected");
        check("up{a=b}", "at byte 5: a text in double quotes");
        check(r#"up{a="b}"#, "at byte 5: a text in double quotes");
        check(r#"up{a="\q"}"#, "at byte 5: a text in double quotes");
        check(r#"up{a="b" c="d"}"#, "at byte 9: , or }");
        check(r#"up{a="b",,}"#, "at byte 9: the name of a label or }");
        check(r#"up{a:b="c"}"#, "at byte 6: the name of a label or }");
        check(r#"up{a="b"} x"#, "at byte 10: the end");
        check(r#"up{a=~"b"}"#, "at byte 4: one series is asked for");
        check(r#"up{a!="b"}"#, "at byte 4: one series is asked for");
        check(r#"up{a="b",a="b"}"#, "a is given twice");
        check(r#"up{__name__="down"}"#, "__name__ is given twice");
        check(r#"up{"down"}"#, "__name__ is given twice");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_shown_is_read_back(
            wild in ".{0,24}",
            like in r#"(up)?\{[ab"=,\\ ]{0,12}\}"#,
            value in "[a-zä{}\"=, ]{1,12}",
        ) {
            for text in [wild, like] {
                let _ = text.parse::<Series>();
            }
            let series: Series = format!("{{a={value:?}}}").parse().expect("it is quoted");
            prop_assert_eq!(series.to_string().parse(), Ok(series));
        }
    }
}
