//! Label matchers.
//!
//! A matcher compares one label's value with a text or with a regular expression in Go's syntax,
//! as PromQL and the Thanos StoreAPI carry them. The expression must match the whole value and its
//! dot matches newlines, which is what Prometheus makes of `=~`: `^(?s:…)$`.

use std::{fmt, sync::Arc};

use crate::error::{Error, Result};

mod class;
mod parse;
mod plan;
/// Signs of nesting that a pattern may have before it is given a stack of its own.
const NESTING_SIGNS_MAX: usize = 64;
/// Stack for a pattern that may be nested to the limit.
const DEEP_STACK_BYTES: usize = 64 << 20;

/// Compiles a pattern. Parsing and compiling walk the tree of the expression by recursion, up to a
/// height of 1000, which is more than the stack of an ordinary thread holds in an unoptimised build.
fn plan_of(pattern: &str) -> Result<Plan, String> {
    let compile = || parse::parse(pattern).and_then(Plan::new);
    let nesting_signs = pattern.bytes().filter(|byte| b"(*+?{".contains(byte)).count();
    if nesting_signs <= NESTING_SIGNS_MAX {
        return compile();
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("deep regexp".to_owned()).stack_size(DEEP_STACK_BYTES);
        let compiled = builder.spawn_scoped(scope, compile).map(|thread| thread.join());
        match compiled {
            Ok(Ok(plan)) => plan,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(format!("no thread to compile it on: {error}")),
        }
    })
}

#[cfg(test)]
mod tests;

use plan::Plan;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchType {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regexp,
    /// `!~`
    NotRegexp,
}

impl MatchType {
    /// True for `!=` and `!~`.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegexp)
    }

    /// True for `=~` and `!~`.
    pub fn is_regexp(self) -> bool {
        matches!(self, Self::Regexp | Self::NotRegexp)
    }
}

impl fmt::Display for MatchType {
    /// The operator of PromQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regexp => "=~",
            Self::NotRegexp => "!~",
        })
    }
}

/// Selects series by one label. Cheap to clone; may be shared between threads.
#[derive(Clone)]
pub struct Matcher {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    match_type: MatchType,
    value: String,
    plan: Plan,
}

/// Longest part of a refused expression, and of the reason, that an error repeats, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 200;

impl Matcher {
    /// A matcher of label `name` against `value`, which is a regular expression in Go's syntax for
    /// the regexp types. An absent label has the empty value.
    ///
    /// # Errors
    /// [`Error::InvalidRegex`] for an expression that Go refuses, and for one that is too large:
    /// over 1 MiB of text, nested deeper than 1000, or over 16 MiB once compiled.
    pub fn new(match_type: MatchType, name: &str, value: &str) -> Result<Self> {
        let plan = if match_type.is_regexp() {
            plan_of(value)
                .map_err(|what| Error::InvalidRegex { pattern: shortened(value), what: shortened(&what) })?
        } else {
            Plan::Sorted(vec![value.to_owned()])
        };
        let inner = Inner { name: name.to_owned(), match_type, value: value.to_owned(), plan };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How it compares.
    pub fn match_type(&self) -> MatchType {
        self.inner.match_type
    }

    /// What it compares with: the text or the expression as given.
    pub fn value(&self) -> &str {
        &self.inner.value
    }

    /// True if `value` (empty for an absent label) is selected.
    pub fn matches(&self, value: &str) -> bool {
        self.inner.plan.matches(value) != self.inner.match_type.is_negative()
    }

    /// True if series without the label are selected.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The values that the text or expression stands for, sorted and distinct, if they are known
    /// and at most 256: `["bar", "foo"]` for `foo|bar`. Empty if nothing can match.
    ///
    /// A negative matcher selects all values except these.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.inner.plan.set()
    }

    /// What every value that the text or expression matches begins with; `None` if nothing is
    /// known. There may be values with this prefix that do not match.
    ///
    /// For a negative matcher this says what is not selected, as with
    /// [`set_matches`](Self::set_matches).
    pub fn prefix(&self) -> Option<&str> {
        self.inner.plan.prefix()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.inner, &other.inner);
        a.match_type == b.match_type && a.name == b.name && a.value == b.value
    }
}

impl Eq for Matcher {}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher({self})")
    }
}

impl fmt::Display for Matcher {
    /// As in PromQL: `name="value"`, the name quoted too if it is not one of the old form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.inner.name;
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if is_plain {
            f.write_str(name)?;
        } else {
            write_quoted(f, name)?;
        }
        write!(f, "{}", self.inner.match_type)?;
        write_quoted(f, &self.inner.value)
    }
}

/// Writes a text in double quotes with the escapes of Go's string literals.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\x07' => f.write_str("\\a")?,
            '\x08' => f.write_str("\\b")?,
            '\x0C' => f.write_str("\\f")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\x0B' => f.write_str("\\v")?,
            '\0'..='\x1F' | '\x7F' => write!(f, "\\x{:02x}", u32::from(c))?,
            _ if c != ' ' && (c.is_control() || c.is_whitespace()) => {
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
            _ => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

fn shortened(text: &str) -> String {
    if text.len() <= ERROR_TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(ERROR_TEXT_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}
