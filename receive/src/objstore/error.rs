//! What can be wrong with a bucket's configuration, and with its use.

use std::{io, path::PathBuf};

/// Why a bucket configuration was refused. No variant quotes the file's text, because it may hold
/// secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, an unknown key, or a value of the wrong kind.
    #[error("line {line}, column {column}: {message}")]
    Yaml {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong there.
        message: String,
    },
    /// A `type` that Thanos does not have.
    #[error("type: unknown object storage type {found:?}; known are FILESYSTEM, S3, GCS and AZURE")]
    UnknownType {
        /// The type as it was written.
        found: String,
    },
    /// A `type` that Thanos has and this program has not.
    #[error("type: object storage type {found} is not supported; {instead}")]
    UnsupportedType {
        /// The type in upper case.
        found: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// A key that must be given is missing or empty.
    #[error("{key}: must be set")]
    Missing {
        /// Path of the key, such as `config.bucket`.
        key: String,
    },
    /// A key has a value that makes no sense, alone or beside others.
    #[error("{key}: {message}")]
    Invalid {
        /// Path of the key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key asks for something this program cannot do.
    #[error("{key}: not supported: {reason}")]
    NotSupported {
        /// Path of the key.
        key: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A file that the configuration names cannot be read, or a directory not be made.
    #[error("{key}: {path}: {source}")]
    File {
        /// Path of the key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The client of the store could not be made.
    #[error("cannot set up the bucket: {0}")]
    Client(#[from] object_store::Error),
}

impl ConfigError {
    /// An [`ConfigError::Invalid`].
    pub(crate) fn invalid(key: &str, message: impl Into<String>) -> Self {
        Self::Invalid { key: key.to_owned(), message: message.into() }
    }

    /// A [`ConfigError::NotSupported`].
    pub(crate) fn not_supported(key: &str, reason: impl Into<String>) -> Self {
        Self::NotSupported { key: key.to_owned(), reason: reason.into() }
    }

    /// A [`ConfigError::Missing`].
    pub(crate) fn missing(key: &str) -> Self {
        Self::Missing { key: key.to_owned() }
    }
}

/// Why an operation on a bucket failed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The store refused or could not be reached, after the retries of one call.
    #[error("{operation} {object}: {source}")]
    Store {
        /// Operation, in the words of the metric label.
        operation: &'static str,
        /// Name of the object, with the bucket's prefix.
        object: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// The store took an upload, but the object there has another size.
    #[error("upload {object}: the bucket has {found} bytes of it, the file has {expected}")]
    SizeMismatch {
        /// Name of the object, with the bucket's prefix.
        object: String,
        /// Bytes sent.
        expected: u64,
        /// Bytes the store says it has.
        found: u64,
    },
    /// An object is larger than the caller is ready to hold in memory.
    #[error("get {object}: it has {found} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// Name of the object, with the bucket's prefix.
        object: String,
        /// Bytes it has.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The local file that was to be uploaded cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that cannot be an object's name.
    #[error("object name {object:?}: {source}")]
    Name {
        /// The name.
        object: String,
        /// What is wrong with it.
        source: object_store::path::Error,
    },
}

impl BucketError {
    /// True if the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store { source: object_store::Error::NotFound { .. }, .. })
    }
}
