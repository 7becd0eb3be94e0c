//! Object storage as Thanos configures it: its YAML file in, a [`Bucket`] out.
//!
//! A file has the keys `type`, `config` and `prefix`. What lies below `config` belongs to the type;
//! FILESYSTEM, S3, GCS and AZURE are served. Reading is strict: a key that nobody knows is an error
//! that names the key and its line. A key that is known but that this program cannot honour is an
//! error too, unless nothing of what it promises to the data depends on it; then it is a warning.
//! Values that are the default of Thanos are always accepted, so that its documented examples load
//! as they are. The [`config`] module has the list.
//!
//! [`Bucket`] is what the rest of the program uses. It counts every operation under the metric names
//! of Thanos, uploads files in parts with bounded memory, and believes an upload only after it asked
//! the store for the size of the object.
//!
//! Secrets: values of keys that hold secrets are kept in [`Secret`], which never prints them, and
//! errors never quote the text of the file.

pub mod bucket;
pub mod config;
mod error;
mod metrics;
mod open;
mod upload;
mod value;

pub use bucket::{Bucket, BucketOptions, ListedObject};
pub use config::BucketConfig;
pub use error::{BucketError, ConfigError};
pub use value::Secret;

/// Chooses ring as the TLS implementation of this process. Must have run before anything speaks TLS;
/// [`Bucket::open`] calls it too. Further calls do nothing.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
