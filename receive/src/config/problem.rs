//! What can be wrong with a configuration.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The flag exists in Thanos Receive but nothing stands behind it here.
    #[error("--{flag} is known but not built yet")]
    NotBuilt {
        /// The flag, perhaps with the value that is not built.
        flag: String,
    },
    /// The flag's value cannot be used.
    #[error("--{flag}: {cause}")]
    Invalid {
        /// The flag.
        flag: &'static str,
        /// Why; never shows the value of a flag that may hold a secret.
        cause: String,
    },
}

/// Everything that is wrong with a configuration, at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the flag table.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
