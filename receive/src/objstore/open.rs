//! From a configuration to a store.

use std::{sync::Arc, time::Duration};

use object_store::{
    Attributes, BackoffConfig, ObjectStore, RetryConfig, limit::LimitStore, local::LocalFileSystem,
};

use super::{
    BucketOptions, ConfigError,
    config::{FilesystemConfig, Provider, required},
};

/// Least size of a part that S3 and GCS take, the last one excepted.
pub(crate) const PART_BYTES_MIN: u64 = 5 << 20;

/// What the making of a store needs besides its configuration.
pub(crate) struct OpenContext<'a> {
    pub(crate) options: &'a BucketOptions,
    /// Reads a variable of the environment.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
}

/// A store and how to use it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Name of the bucket in metrics.
    pub(crate) name: String,
    /// Sent with each object.
    pub(crate) attributes: Attributes,
    /// Size of a part, if the configuration has one.
    pub(crate) part_bytes: Option<u64>,
    /// Whether files may be sent in parts.
    pub(crate) multipart: bool,
    /// Directory of the objects, if they are files.
    pub(crate) staging_root: Option<std::path::PathBuf>,
}

impl OpenContext<'_> {
    /// Retries inside one call.
    pub(crate) fn retry(&self, retries_max: Option<usize>) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.options.retry_delay,
                max_backoff: Duration::from_secs(10),
                base: 2.0,
            },
            max_retries: retries_max.unwrap_or(10),
            retry_timeout: self.options.retry_timeout,
        }
    }

    /// The store, with at most `requests_max` requests at once.
    pub(crate) fn limit(&self, store: impl ObjectStore, requests_max: Option<usize>) -> Arc<dyn ObjectStore> {
        match requests_max {
            Some(max) => Arc::new(LimitStore::new(store, max)),
            None => Arc::new(store),
        }
    }
}

impl Provider {
    /// Makes the client. Reads files that the configuration names; speaks to nobody yet.
    pub(crate) fn open(&self, context: &OpenContext<'_>) -> Result<Opened, ConfigError> {
        match self {
            Self::Filesystem(config) => open_directory(config),
            Self::S3(config) => config.open(context),
            Self::Gcs(config) => config.open(context),
            Self::Azure(config) => config.open(context),
        }
    }
}

fn open_directory(config: &FilesystemConfig) -> Result<Opened, ConfigError> {
    const KEY: &str = "config.directory";
    let directory = std::path::absolute(required(KEY, &config.directory)?)
        .map_err(|error| ConfigError::invalid(KEY, error.to_string()))?;
    std::fs::create_dir_all(&directory).map_err(|source| ConfigError::File {
        key: KEY.to_owned(),
        path: directory.clone(),
        source,
    })?;
    let store = LocalFileSystem::new_with_prefix(&directory)?.with_fsync(true);
    Ok(Opened {
        store: Arc::new(store),
        name: format!("fs: {}", directory.display()),
        attributes: Attributes::new(),
        part_bytes: None,
        multipart: true,
        staging_root: Some(directory),
    })
}
