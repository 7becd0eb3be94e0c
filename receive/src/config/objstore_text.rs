//! The bucket configuration as given, with environment variables put in.

use std::path::PathBuf;

use crate::objstore::Secret;

/// A bucket configuration before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjstoreText {
    /// The YAML, with `$(NAME)` replaced.
    pub yaml: Secret,
    /// The file it came from; `None` for the flag itself. For messages.
    pub file: Option<PathBuf>,
}

/// Replaces each `$(NAME)` by what `lookup` gives for `NAME`, once: what is put in is not looked
/// at again. A name is a letter or underscore, then letters, digits and underscores; other text in
/// parentheses stays as it is.
///
/// # Errors
/// The first name that `lookup` does not know.
pub fn expand_environment(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        expanded.push_str(before);
        match after.split_once(')') {
            Some((name, after)) if super::external_labels::is_label_name(name) => {
                expanded.push_str(&lookup(name).ok_or_else(|| name.to_owned())?);
                rest = after;
            }
            _ => {
                expanded.push_str("$(");
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_once() {
        let lookup = |name: &str| match name {
            "KEY" => Some("s3cr$(KEY)".to_owned()),
            "_a1" => Some(String::new()),
            _ => None,
        };
        let check = |text: &str, expected: Result<&str, &str>| {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expand_environment(text, lookup), expected, "{text}");
        };
        check("", Ok(""));
        check("plain $KEY ${KEY}", Ok("plain $KEY ${KEY}"));
        check("a: $(KEY)b$(_a1)c", Ok("a: s3cr$(KEY)bc"));
        check("$(MISSING)", Err("MISSING"));
        check("$(KEY) $(OTHER)", Err("OTHER"));
        check("$(not a name) $( $(", Ok("$(not a name) $( $("));
        check("$(1a)$(KEY)", Ok("$(1a)s3cr$(KEY)"));
    }

    #[test]
    fn a_secret_does_not_show() {
        let text = ObjstoreText { yaml: Secret::new("hunter2"), file: None };
        assert!(!format!("{text:?}").contains("hunter2"));
        assert_eq!(text.yaml.reveal(), "hunter2");
    }
}
