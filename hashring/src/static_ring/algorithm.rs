//! The ways of placing a series on endpoints.

use std::{fmt, str::FromStr};

/// How a ring places a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The hash modulo the number of endpoints: a change of the ring moves nearly everything.
    Hashmod,
    /// Consistent hashing with 1000 points per endpoint, aware of zones.
    Ketama,
}

impl Algorithm {
    /// The name in flags and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hashmod => "hashmod",
            Self::Ketama => "ketama",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no [`Algorithm`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown hashring algorithm {0:?}, known are \"hashmod\" and \"ketama\"")]
pub struct UnknownAlgorithm(pub String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        [Self::Hashmod, Self::Ketama]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}
