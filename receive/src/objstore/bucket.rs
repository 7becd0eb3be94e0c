//! The bucket as the rest of the program sees it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path as ObjectPath,
};
use tokio::sync::Semaphore;

use super::{
    BucketConfig, BucketError, ConfigError, install_crypto_provider,
    metrics::{BucketMetrics, Operation, Running},
    open::{OpenContext, Opened},
    upload::IN_FLIGHT_UNIT_BYTES,
};

/// How patient a bucket is, and how much memory it may use.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// How long one call is retried inside before its failure shows. Short, so that an outage is not
    /// hidden: whoever calls decides when to try again.
    pub retry_timeout: Duration,
    /// Pause before the first retry inside a call; it doubles up to ten seconds.
    pub retry_delay: Duration,
    /// Longest duration of one request, its body included.
    pub request_timeout: Duration,
    /// Longest wait for a connection, unless the configuration says otherwise.
    pub connect_timeout: Duration,
    /// Longest wait for the beginning of an answer, and between its pieces, unless the configuration
    /// says otherwise. Sending the body counts, so it bounds how slow the line may be.
    pub response_timeout: Duration,
    /// Size of a part, unless the configuration says otherwise. Files up to this size go in one piece.
    pub part_bytes: u64,
    /// Bytes of files that all uploads together hold in memory. At least one part is always held.
    pub in_flight_bytes: u64,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            retry_timeout: Duration::from_secs(60),
            retry_delay: Duration::from_millis(100),
            request_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(120),
            part_bytes: 16 << 20,
            in_flight_bytes: 64 << 20,
        }
    }
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedObject {
    /// Name, without the bucket's prefix.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// A bucket. Clones are handles to the same one. Names of objects are given without the prefix of the
/// configuration.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Arc<dyn ObjectStore>,
    name: String,
    prefix: String,
    pub(super) attributes: Attributes,
    pub(super) part_bytes: u64,
    pub(super) multipart: bool,
    staging_root: Option<PathBuf>,
    metrics: BucketMetrics,
    /// Memory for parts in flight, in units of [`IN_FLIGHT_UNIT_BYTES`].
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) in_flight_units: u32,
}

impl Bucket {
    /// Makes the client of a bucket. Reads the files that the configuration names and, for FILESYSTEM,
    /// creates the directory, but speaks to no server: a bucket that is away shows at its first use.
    /// Metrics go to the recorder that is installed now.
    pub fn open(config: &BucketConfig, options: &BucketOptions) -> Result<Self, ConfigError> {
        Self::open_with_env(config, options, &|name| std::env::var(name).ok())
    }

    /// As [`Bucket::open`], with the environment that credentials may come from.
    pub fn open_with_env(
        config: &BucketConfig,
        options: &BucketOptions,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        install_crypto_provider();
        let opened = config.provider.open(&OpenContext { options, env })?;
        Ok(Self::new(opened, &config.prefix, options))
    }

    /// A bucket on a store that was made elsewhere, called `name` in metrics. `prefix` may be empty.
    pub fn from_store(
        store: Arc<dyn ObjectStore>,
        name: &str,
        prefix: &str,
        options: &BucketOptions,
    ) -> Self {
        let opened = Opened {
            store,
            name: name.to_owned(),
            attributes: Attributes::new(),
            part_bytes: None,
            multipart: true,
            staging_root: None,
        };
        Self::new(opened, prefix, options)
    }

    fn new(opened: Opened, prefix: &str, options: &BucketOptions) -> Self {
        let part_bytes = opened.part_bytes.unwrap_or(options.part_bytes).max(1);
        let units = options.in_flight_bytes.max(part_bytes).div_ceil(IN_FLIGHT_UNIT_BYTES);
        let in_flight_units = u32::try_from(units).unwrap_or(u32::MAX);
        Self {
            inner: Arc::new(Inner {
                metrics: BucketMetrics::new(&opened.name),
                store: opened.store,
                name: opened.name,
                prefix: prefix.trim_matches('/').to_owned(),
                attributes: opened.attributes,
                part_bytes,
                multipart: opened.multipart,
                staging_root: opened.staging_root,
                in_flight: Arc::new(Semaphore::new(in_flight_units as usize)),
                in_flight_units,
            }),
        }
    }

    /// Name of the bucket in metrics and messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// True if there is an object of this name.
    pub async fn exists(&self, name: &str) -> Result<bool, BucketError> {
        Ok(self.head(Operation::Exists, name).await?.is_some())
    }

    /// Size in bytes of an object; `None` if it is not there.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, BucketError> {
        self.head(Operation::Attributes, name).await
    }

    async fn head(&self, operation: Operation, name: &str) -> Result<Option<u64>, BucketError> {
        let path = self.path(name)?;
        let running = self.begin(operation);
        match self.inner.store.head(&path).await {
            Ok(meta) => {
                running.succeeded();
                Ok(Some(meta.size))
            }
            Err(object_store::Error::NotFound { .. }) => {
                running.succeeded();
                Ok(None)
            }
            Err(source) => {
                running.failed();
                Err(store_error(operation, &path, source))
            }
        }
    }

    /// Reads a whole object of at most `limit` bytes.
    pub async fn get(&self, name: &str, limit: u64) -> Result<Bytes, BucketError> {
        let path = self.path(name)?;
        let running = self.begin(Operation::Get);
        let read = async {
            let object = self.inner.store.get(&path).await?;
            if object.meta.size > limit {
                return Ok(Err(object.meta.size));
            }
            object.bytes().await.map(Ok)
        };
        match read.await {
            Ok(Ok(bytes)) => {
                running.succeeded();
                Ok(bytes)
            }
            Ok(Err(found)) => {
                running.failed();
                Err(BucketError::TooLarge { object: path.to_string(), found, limit })
            }
            Err(source) => {
                let error = store_error(Operation::Get, &path, source);
                if error.is_not_found() {
                    running.succeeded()
                } else {
                    running.failed()
                }
                Err(error)
            }
        }
    }

    /// Writes a small object in one request; an older one of the name is replaced. Not verified.
    pub async fn put_small(&self, name: &str, data: Bytes) -> Result<(), BucketError> {
        let path = self.path(name)?;
        let running = self.begin(Operation::Upload);
        match self.put(&path, data.into()).await {
            Ok(()) => {
                running.succeeded();
                Ok(())
            }
            Err(source) => {
                running.failed();
                Err(store_error(Operation::Upload, &path, source))
            }
        }
    }

    /// Writes a small object if there is none of the name. False if there is one. A store that cannot
    /// decide that by itself is asked first, so that two who do this at once may both succeed there.
    pub async fn create_small(&self, name: &str, data: Bytes) -> Result<bool, BucketError> {
        let path = self.path(name)?;
        let options = PutOptions {
            mode: PutMode::Create,
            attributes: self.inner.attributes.clone(),
            ..Default::default()
        };
        let running = self.begin(Operation::Upload);
        match self.inner.store.put_opts(&path, data.clone().into(), options).await {
            Ok(_) => {
                running.succeeded();
                Ok(true)
            }
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                running.succeeded();
                Ok(false)
            }
            Err(object_store::Error::NotImplemented { .. }) => {
                running.succeeded();
                if self.exists(name).await? {
                    return Ok(false);
                }
                self.put_small(name, data).await.map(|()| true)
            }
            Err(source) => {
                running.failed();
                Err(store_error(Operation::Upload, &path, source))
            }
        }
    }

    pub(super) async fn put(
        &self,
        path: &ObjectPath,
        payload: PutPayload,
    ) -> Result<(), object_store::Error> {
        let options = PutOptions { attributes: self.inner.attributes.clone(), ..Default::default() };
        self.inner.store.put_opts(path, payload, options).await.map(drop)
    }

    /// Sends the file `file` as the object `name`, replacing an older one, and asks the store for the
    /// object's size afterwards. A file larger than a part goes in parts, a few at once. When that
    /// fails the parts are given up; when the future is dropped, as well as a background task can.
    /// Returns the size in bytes.
    pub async fn upload_file(&self, file: &Path, name: &str) -> Result<u64, BucketError> {
        let path = self.path(name)?;
        let running = self.begin(Operation::Upload);
        let sent = async {
            let size = self.send_file(file, &path).await?;
            self.verify(name, size).await?;
            Ok(size)
        };
        match sent.await {
            Ok(size) => {
                running.succeeded();
                Ok(size)
            }
            Err(error) => {
                running.failed();
                Err(error)
            }
        }
    }

    async fn verify(&self, name: &str, expected: u64) -> Result<(), BucketError> {
        let found = self.size(name).await?.unwrap_or(0);
        if found == expected {
            Ok(())
        } else {
            Err(BucketError::SizeMismatch { object: self.full_name(name), expected, found })
        }
    }

    /// All objects whose names begin with `directory` and a slash (all of the bucket's if it is empty),
    /// ascending by name.
    pub async fn list(&self, directory: &str) -> Result<Vec<ListedObject>, BucketError> {
        let path = self.path(directory)?;
        let skip = if self.inner.prefix.is_empty() { 0 } else { self.inner.prefix.len() + 1 };
        let running = self.begin(Operation::Iter);
        let listed: Result<Vec<ListedObject>, object_store::Error> = self
            .inner
            .store
            .list(Some(&path))
            .map_ok(|meta| ListedObject {
                name: meta.location.as_ref().get(skip..).unwrap_or_default().to_owned(),
                size: meta.size,
            })
            .try_collect()
            .await;
        match listed {
            Ok(mut objects) => {
                running.succeeded();
                objects.sort_unstable();
                Ok(objects)
            }
            Err(source) => {
                running.failed();
                Err(store_error(Operation::Iter, &path, source))
            }
        }
    }

    /// Deletes an object. One that is not there is not an error.
    pub async fn delete(&self, name: &str) -> Result<(), BucketError> {
        let path = self.path(name)?;
        let running = self.begin(Operation::Delete);
        match self.inner.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                running.succeeded();
                Ok(())
            }
            Err(source) => {
                running.failed();
                Err(store_error(Operation::Delete, &path, source))
            }
        }
    }

    /// Removes what uploads below `directory` left behind when the process was killed, where the store
    /// does not hide it: a bucket that is a local directory has files such as `index#1`. Nobody may be
    /// uploading there. Returns how many were removed. Best effort: failures are passed over.
    pub async fn remove_partial_files(&self, directory: &str) -> usize {
        let Some(root) = &self.inner.staging_root else {
            return 0;
        };
        let path = root.join(self.full_name(directory));
        tokio::task::spawn_blocking(move || remove_staged_files(&path)).await.unwrap_or(0)
    }

    pub(super) fn begin(&self, operation: Operation) -> Running<'_> {
        self.inner.metrics.begin(operation)
    }

    fn full_name(&self, name: &str) -> String {
        match (self.inner.prefix.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => self.inner.prefix.clone(),
            (false, false) => format!("{}/{name}", self.inner.prefix),
        }
    }

    fn path(&self, name: &str) -> Result<ObjectPath, BucketError> {
        let full = self.full_name(name);
        ObjectPath::parse(&full).map_err(|source| BucketError::Name { object: full, source })
    }
}

pub(super) fn store_error(
    operation: Operation,
    path: &ObjectPath,
    source: object_store::Error,
) -> BucketError {
    BucketError::Store { operation: operation.label(), object: path.to_string(), source }
}

/// Removes files named `<anything>#<digits>` in `directory` and one level below.
fn remove_staged_files(directory: &Path) -> usize {
    let mut removed = 0;
    let mut below = Vec::new();
    let mut sweep = |directory: &Path, below: Option<&mut Vec<PathBuf>>| {
        let mut below = below;
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir {
                if let Some(below) = below.as_deref_mut() {
                    below.push(entry.path());
                }
            } else if is_staged(&entry.file_name().to_string_lossy())
                && std::fs::remove_file(entry.path()).is_ok()
            {
                removed += 1;
            }
        }
    };
    sweep(directory, Some(&mut below));
    for directory in below {
        sweep(&directory, None);
    }
    removed
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(before, digits)| {
        !before.is_empty() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests;
