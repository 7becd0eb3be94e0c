//! Which tenants a ring, or an exception in it, is for.

use std::collections::BTreeSet;

use super::glob::Glob;

/// A set of tenants, by name or by pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantMatcher {
    /// The tenants of these names.
    Exact(BTreeSet<String>),
    /// The tenants that one of these patterns matches.
    Glob(BTreeSet<Glob>),
}

impl TenantMatcher {
    /// Whether the set contains `tenant`.
    pub fn matches(&self, tenant: &str) -> bool {
        match self {
            Self::Exact(names) => names.contains(tenant),
            Self::Glob(patterns) => patterns.iter().any(|pattern| pattern.matches(tenant)),
        }
    }

    /// Number of names or patterns.
    pub fn len(&self) -> usize {
        match self {
            Self::Exact(names) => names.len(),
            Self::Glob(patterns) => patterns.len(),
        }
    }

    /// Whether there is neither a name nor a pattern.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
