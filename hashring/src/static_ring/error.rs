//! What is wrong with a ring file, and where.

use std::fmt;

use super::{endpoint::AddressError, glob::GlobError};

/// A place in a ring file: ring and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index of the ring in the file, from 0, and its name. None for the file as a whole.
    pub ring: Option<(usize, String)>,
    /// Path of the key within the ring, as in `endpoints[2].az`. Empty for the ring as a whole.
    pub key: String,
}

impl Place {
    /// The place of member `key` of the object at this place.
    pub(super) fn member(&self, key: &str) -> Self {
        let separator = if self.key.is_empty() { "" } else { "." };
        Self { ring: self.ring.clone(), key: format!("{}{separator}{key}", self.key) }
    }

    /// The place of an item of the list at this place.
    pub(super) fn item(&self, index: usize) -> Self {
        Self { ring: self.ring.clone(), key: format!("{}[{index}]", self.key) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ring {
            None => f.write_str("hashring file")?,
            Some((index, name)) if name.is_empty() => write!(f, "hashring {index}")?,
            Some((index, name)) => write!(f, "hashring {index} ({name:?})")?,
        }
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, ", {key:?}"),
        }
    }
}

/// A ring file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct RingError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

/// Result of this module.
pub(super) type Result<T> = std::result::Result<T, RingError>;

impl Place {
    /// An error for this place.
    pub(super) fn error(&self, problem: Problem) -> RingError {
        RingError { place: self.clone(), problem }
    }
}

/// What makes a ring file unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is no JSON.
    #[error("not valid JSON: {0}")]
    InvalidJson(String),
    /// A value of another type.
    #[error("must be {expected}")]
    WrongType {
        /// What would be right, as in "a list".
        expected: &'static str,
    },
    /// A key that has to be there.
    #[error("is missing")]
    Missing,
    /// A number out of its bounds.
    #[error("must be a number from {min} to {max}")]
    OutOfRange {
        /// The least allowed.
        min: usize,
        /// The greatest allowed.
        max: usize,
    },
    /// The list of rings is empty.
    #[error("has no hashring")]
    NoRing,
    /// A ring without endpoints.
    #[error("has no endpoint")]
    NoEndpoint,
    /// More endpoints than a ring may have.
    #[error("has {count} endpoints, more than {max}")]
    TooManyEndpoints {
        /// Endpoints of the ring.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// An address that is not host and port.
    #[error("invalid address {address:?}: {cause}")]
    InvalidAddress {
        /// The address.
        address: String,
        /// Why.
        cause: AddressError,
    },
    /// A node that is listed twice, possibly in two spellings.
    #[error("endpoint {address:?} is the same as \"endpoints[{first}]\"")]
    DuplicateEndpoint {
        /// The address where it came again.
        address: String,
        /// Index of the endpoint where it came first.
        first: usize,
    },
    /// A way of matching tenants that does not exist.
    #[error("unknown matcher type {0:?}, known are \"exact\" and \"glob\"")]
    UnknownMatcherType(String),
    /// A pattern of tenants that is none.
    #[error("invalid pattern {pattern:?}: {cause}")]
    InvalidGlob {
        /// The pattern.
        pattern: String,
        /// Why.
        cause: GlobError,
    },
    /// An external label without a name.
    #[error("a label needs a name")]
    EmptyLabelName,
    /// A zone in a ring that takes no notice of zones.
    #[error("hashmod does not know zones: use ketama or remove \"az\"")]
    HashmodZone,
    /// Shuffle sharding in a ring that cannot do it.
    #[error("hashmod does not know shuffle sharding: use ketama or remove it")]
    HashmodShuffleSharding,
    /// The replication factor, which is not of the file, is out of its bounds.
    #[error("replication factor {factor} is not from 1 to {max}")]
    InvalidReplicationFactor {
        /// The factor.
        factor: usize,
        /// The limit.
        max: usize,
    },
    /// No room for all copies.
    #[error("has {endpoints} endpoints, fewer than the replication factor {replication_factor}")]
    TooFewEndpoints {
        /// Endpoints of the ring.
        endpoints: usize,
        /// Copies of a series.
        replication_factor: usize,
    },
    /// A tenant would get more endpoints than there are.
    #[error("is {shard_size}, more than the {endpoints} endpoints")]
    ShardTooLarge {
        /// The size asked for.
        shard_size: usize,
        /// Endpoints of the ring.
        endpoints: usize,
    },
    /// A tenant would get fewer endpoints than copies.
    #[error("is {shard_size}, fewer than the replication factor {replication_factor}")]
    ShardTooSmall {
        /// The size asked for.
        shard_size: usize,
        /// Copies of a series.
        replication_factor: usize,
    },
    /// A zone cannot give its part of a shard.
    #[error("is {shard_size} and takes {needed} endpoints of each zone, zone {zone:?} has {endpoints}")]
    ZoneTooSmall {
        /// The size asked for.
        shard_size: usize,
        /// The part of each zone.
        needed: usize,
        /// The zone.
        zone: String,
        /// Its endpoints.
        endpoints: usize,
    },
}

/// Something in a ring file that works, but perhaps not as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingWarning {
    /// Where.
    pub place: Place,
    /// What.
    pub what: Suspicion,
}

impl fmt::Display for RingWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What is suspicious about a ring file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// A key that means nothing. Thanos ignores it without a word.
    #[error("unknown key is ignored")]
    UnknownKey,
    /// An algorithm that does not exist. Thanos takes hashmod.
    #[error("unknown algorithm {0:?} means \"hashmod\"")]
    UnknownAlgorithm(String),
    /// An earlier ring is for every tenant.
    #[error("no tenant comes here: hashring {earlier} before it takes every tenant")]
    Unreachable {
        /// Index of the earlier ring.
        earlier: usize,
    },
    /// Exceptions for no tenant.
    #[error("applies to no tenant")]
    NoTenant,
    /// Parts of shuffle sharding without a size of shards, which turns it off.
    #[error("has no effect, \"shard_size\" is missing or 0")]
    ShuffleShardingOff,
    /// Some endpoints have a zone. Those without form one zone together.
    #[error("some endpoints have no \"az\" and count as one zone together")]
    ZoneMissing,
}
