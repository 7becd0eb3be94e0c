//! `$(NAME)` in configuration texts.

use super::ConfigError;

/// Replaces each `$(NAME)` by what `lookup` has for the name (letters, digits and underscores).
/// Anything else that begins with a dollar sign stays as it is. Replaced text is not looked at again.
///
/// Fails with [`ConfigError::MissingVariable`] on the first name that `lookup` does not know.
pub fn expand_env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        expanded.push_str(before);
        match after.split_once(')') {
            Some((name, tail)) if is_name(name) => {
                let value =
                    lookup(name).ok_or_else(|| ConfigError::MissingVariable { name: name.to_owned() })?;
                expanded.push_str(&value);
                rest = tail;
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

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_nothing_else() {
        let check = |text: &str, expected: &str| {
            let lookup = |name: &str| match name {
                "A" => Some("one".to_owned()),
                "B_2" => Some("$(A)".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            };
            assert_eq!(expand_env(text, lookup).unwrap(), expected, "{text}");
        };
        check("", "");
        check("no names", "no names");
        check("$(A)", "one");
        check("x$(A)y$(A)z", "xoneyonez");
        check("$(B_2)", "$(A)");
        check("[$(EMPTY)]", "[]");
        check("$A ${A} $ (A) $()", "$A ${A} $ (A) $()");
        check("$(A", "$(A");
        check("$(a-b) $(A)", "$(a-b) one");
        check("$($(A))", "$(one)");
    }

    #[test]
    fn an_unset_name_is_an_error_that_names_it() {
        let error = expand_env("x $(GONE) y", |_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable GONE is not set, but the configuration refers to it"
        );
    }
}
