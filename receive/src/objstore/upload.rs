//! Sending a file.
//!
//! A file no larger than a part is read whole and sent in one request. A larger one goes in parts of
//! equal size (some stores insist on that), up to four of one file at once. Memory is bounded by a
//! semaphore that all uploads of a bucket share, so that many tenants uploading at the same time do
//! not multiply it. Each part is sent by a task of its own: a part that holds memory goes on even when
//! nobody looks at the upload for a while.
//!
//! A failed upload is aborted, so that no parts stay behind that the store would charge for. What is
//! left after a kill -9 only the store can clean up: buckets should have a lifecycle rule for
//! incomplete multipart uploads.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload, path::Path as ObjectPath};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinSet, spawn_blocking},
};

use super::{Bucket, BucketError, bucket::store_error, metrics::Operation};

/// Granularity of the memory bound.
pub(super) const IN_FLIGHT_UNIT_BYTES: u64 = 1 << 20;

/// Parts of one file that are sent at once.
const PARTS_PER_FILE: usize = 4;

/// Parts an S3 upload may have.
const PARTS_MAX: u64 = 10_000;

impl Bucket {
    /// Sends `file` to `path` without looking at the result. Returns the file's size.
    pub(super) async fn send_file(&self, file: &Path, path: &ObjectPath) -> Result<u64, BucketError> {
        let source = Source::open(file).await?;
        let size = source.size;
        if size <= self.inner.part_bytes || !self.inner.multipart {
            let _memory = self.reserve(size).await;
            let data = source.read(0, size).await?;
            self.put(path, data.into()).await.map_err(|error| store_error(Operation::Upload, path, error))?;
        } else {
            self.send_parts(source, path).await?;
        }
        Ok(size)
    }

    async fn send_parts(&self, source: Source, path: &ObjectPath) -> Result<(), BucketError> {
        let failed = |error| store_error(Operation::Upload, path, error);
        let options = PutMultipartOptions { attributes: self.inner.attributes.clone(), ..Default::default() };
        let upload = self.inner.store.put_multipart_opts(path, options).await.map_err(failed)?;
        let mut upload = AbortOnDrop(Some(upload));
        let mut parts = JoinSet::new();
        let sent = self.send_all_parts(&source, &mut upload, &mut parts, path).await;
        if let Err(error) = sent {
            // Parts must not arrive after the abort.
            parts.shutdown().await;
            upload.abort().await;
            return Err(error);
        }
        match upload.complete().await {
            Ok(()) => Ok(()),
            Err(error) => {
                upload.abort().await;
                Err(failed(error))
            }
        }
    }

    async fn send_all_parts(
        &self,
        source: &Source,
        upload: &mut AbortOnDrop,
        parts: &mut JoinSet<Result<(), object_store::Error>>,
        path: &ObjectPath,
    ) -> Result<(), BucketError> {
        let failed = |error| store_error(Operation::Upload, path, error);
        let part_bytes = self.inner.part_bytes.max(source.size.div_ceil(PARTS_MAX));
        let mut offset = 0;
        while offset < source.size {
            if parts.len() >= PARTS_PER_FILE {
                one_part_done(parts).await.map_err(failed)?;
            }
            let len = part_bytes.min(source.size - offset);
            let memory = self.reserve(len).await;
            let data = source.read(offset, len).await?;
            if let Some(sending) = upload.put_part(data.into()) {
                parts.spawn(async move {
                    let result = sending.await;
                    drop(memory);
                    result
                });
            }
            offset += len;
        }
        while !parts.is_empty() {
            one_part_done(parts).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Waits until `bytes` more may be held in memory. More than the bound counts as the bound.
    async fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(IN_FLIGHT_UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.inner.in_flight_units);
        // The semaphore is never closed.
        Arc::clone(&self.inner.in_flight).acquire_many_owned(units).await.ok()
    }
}

async fn one_part_done(
    parts: &mut JoinSet<Result<(), object_store::Error>>,
) -> Result<(), object_store::Error> {
    match parts.join_next().await {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(source)) => Err(object_store::Error::JoinError { source }),
    }
}

/// A local file that is being sent.
#[derive(Debug)]
struct Source {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
}

impl Source {
    async fn open(path: &Path) -> Result<Self, BucketError> {
        let owned = path.to_owned();
        let opened = spawn_blocking(move || {
            let file = File::open(owned)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        let (file, size) = flatten(opened.await).map_err(|source| file_error(path, source))?;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), size })
    }

    /// Reads exactly `len` bytes; a file that became shorter is an error.
    async fn read(&self, offset: u64, len: u64) -> Result<Bytes, BucketError> {
        let file = Arc::clone(&self.file);
        let read = spawn_blocking(move || {
            let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            file.read_exact_at(&mut data, offset)?;
            Ok(Bytes::from(data))
        });
        flatten(read.await).map_err(|source| file_error(&self.path, source))
    }
}

fn flatten<T>(joined: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn file_error(path: &Path, source: io::Error) -> BucketError {
    BucketError::File { path: path.to_owned(), source }
}

/// An upload in parts that is aborted unless it was completed. `None` once it is over.
struct AbortOnDrop(Option<Box<dyn MultipartUpload>>);

impl AbortOnDrop {
    fn put_part(&mut self, data: PutPayload) -> Option<object_store::UploadPart> {
        self.0.as_mut().map(|upload| upload.put_part(data))
    }

    async fn complete(&mut self) -> Result<(), object_store::Error> {
        if let Some(upload) = self.0.as_mut() {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some(mut upload) = self.0.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, "cannot abort an upload in parts; its parts stay in the bucket");
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let Some(mut upload) = self.0.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Nobody is left to tell; the parts fall to the bucket's lifecycle rule.
                let _ = upload.abort().await;
            });
        }
    }
}
