//! Which tenants belong to a pool.

use serde::{Deserialize, Serialize};

/// Some tenants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TenantMatcher {
    /// The one of that name.
    Exact(String),
    /// All whose name fits a pattern, where `*` stands for any characters and `?` for one.
    Glob(String),
}

impl TenantMatcher {
    /// The text of a name or pattern.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Glob(text) => text,
        }
    }

    /// True unless it is a pattern with characters that mean something elsewhere.
    pub fn is_understood(&self) -> bool {
        match self {
            Self::Exact(_) => true,
            Self::Glob(pattern) => !pattern.contains(['[', ']', '{', '}', '\\']),
        }
    }

    /// True if the tenant is one of them.
    pub fn matches(&self, tenant: &str) -> bool {
        match self {
            Self::Exact(name) => name == tenant,
            Self::Glob(pattern) => glob_matches(pattern, tenant),
        }
    }
}

/// Compares from the left. After a mismatch the latest star takes one character more, which is enough:
/// what an earlier star could take besides, the latest can take as well.
fn glob_matches(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut text = text.chars();
    let mut retry = None;
    loop {
        let (mut next_pattern, mut next_text) = (pattern.clone(), text.clone());
        match (next_pattern.next(), next_text.next()) {
            (Some('*'), _) => {
                retry = Some((next_pattern.clone(), text.clone()));
                pattern = next_pattern;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern = next_pattern;
                text = next_text;
            }
            _ => {
                let Some((after_star, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                text = from.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, tenant: &str, expected| {
            let found = TenantMatcher::Glob(pattern.to_owned()).matches(tenant);
            assert_eq!(found, expected, "{pattern} and {tenant}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("*", "anything", true);
        check("team-*", "team-a", true);
        check("team-*", "team-", true);
        check("team-*", "team", false);
        check("*-prod", "a-prod-prod", true);
        check("*-prod", "a-prod-dev", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("?", "ä", true);
        check("?", "", false);
        check("a?c*", "abc", true);
        check("a?c*", "ac", false);
        check("**", "a", true);
        // Where every star is tried with everything, this takes longer than anybody waits.
        let long = "a".repeat(5000);
        check(&"*a".repeat(30), &long, true);
        check(&format!("{}b", "*a".repeat(30)), &long, false);
        assert!(TenantMatcher::Exact("a*".to_owned()).matches("a*"));
        assert!(!TenantMatcher::Exact("a*".to_owned()).matches("ab"));
    }
}
