//! Thanos' bucket configuration.
//!
//! | Key (below `config`) | What is done with it |
//! |---|---|
//! | **FILESYSTEM** `directory` | created if missing; files are synced before an upload counts |
//! | **S3** `bucket`, `endpoint`, `region`, `access_key`, `secret_key`, `session_token` | as in Thanos; the endpoint has no scheme; without `region` it is taken from an AWS endpoint's name, then from `AWS_REGION`, then it is `us-east-1` |
//! | `aws_sdk_auth` | credentials from the environment, a web identity, the container or the instance; so it is without `access_key`, too. Profiles and SSO are not read |
//! | `insecure` | plain HTTP |
//! | `bucket_lookup_type` | `auto` is virtual-hosted at AWS, path elsewhere |
//! | `sse_config` | SSE-S3, SSE-KMS (`kms_key_id`), SSE-C (`encryption_key`, a file of 32 bytes); `kms_encryption_context` is refused |
//! | `put_user_metadata`, `sts_endpoint`, `max_retries` | as in Thanos |
//! | `part_size` | bytes of a part, from 5 MiB on; 16 MiB if not set |
//! | `disable_multipart` | warns: each file is then held in memory while it is sent |
//! | `signature_version2`, `trace.enable`, `list_objects_version: v1` | refused |
//! | `disable_dualstack` | no effect: the endpoint decides |
//! | `send_content_md5` | no effect: requests carry a signed SHA-256 of their body |
//! | **GCS** `bucket`, `service_account` (text of the JSON file), `max_retries` | as in Thanos; without the account the environment or the metadata server is asked |
//! | `chunk_size_bytes` | bytes of a part, raised to 5 MiB |
//! | `use_grpc`, `grpc_conn_pool_size` | warn: HTTP is spoken |
//! | **AZURE** `storage_account`, `storage_account_key`, `container`, `az_tenant_id`, `client_id`, `client_secret`, `user_assigned_id`, `max_retries` | as in Thanos; without a key a client secret, a workload identity or the managed identity is used |
//! | `storage_connection_string` | AccountName, AccountKey, SharedAccessSignature, BlobEndpoint, EndpointSuffix, DefaultEndpointsProtocol, UseDevelopmentStorage |
//! | `endpoint` | domain behind the account's name, or a whole URL that begins with a scheme |
//! | `storage_create_container` | warns if set: the container must exist |
//! | `msi_resource`, `reader_config` | warn: no effect |
//! | `pipeline_config` | `max_tries`, `try_timeout`, `retry_delay`, `max_retry_delay` |
//! | **http_config** `idle_conn_timeout`, `max_idle_conns`, `max_idle_conns_per_host`, `max_conns_per_host`, `insecure_skip_verify`, `tls_config.ca_file` | as in Thanos; `max_conns_per_host` bounds requests |
//! | `response_header_timeout`, `tls_handshake_timeout` | bound a request, body included, until its answer begins, and connecting, TLS included |
//! | `expect_continue_timeout`, `disable_compression` | no effect: neither is ever asked for |
//! | `tls_config.cert_file`, `key_file`, `server_name` | refused |
//!
//! Keys that are refused or warned about are so only with a value other than Thanos' default.

use serde::{Deserialize, de::DeserializeOwned};

use super::ConfigError;

mod azure;
mod gcs;
mod http;
mod s3;
#[cfg(test)]
mod tests;

pub use azure::AzureConfig;
pub use gcs::GcsConfig;
pub use http::{HttpConfig, TlsConfig};
pub use s3::{S3Config, SseConfig};

/// A bucket configuration that was read and found consistent.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketConfig {
    /// Which store, and how to reach it.
    pub provider: Provider,
    /// Put before each object's name, with a slash between. Without slashes at its ends; may be empty.
    pub prefix: String,
    /// What was asked for and will not be done; for the log at start.
    pub warnings: Vec<String>,
}

/// The kinds of stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// A local directory.
    Filesystem(FilesystemConfig),
    /// Amazon S3 and what speaks like it.
    S3(Box<S3Config>),
    /// Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// Azure Blob Storage.
    Azure(Box<AzureConfig>),
}

/// Keys of type FILESYSTEM.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesystemConfig {
    /// The directory that is the bucket.
    pub directory: Option<String>,
}

/// The file with any type, to see which one it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyType {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(rename = "config", default)]
    _config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    prefix: Option<String>,
}

/// The file once its type is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed<T> {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    #[serde(default = "none")]
    config: Option<T>,
    #[serde(rename = "prefix", default)]
    _prefix: Option<serde::de::IgnoredAny>,
}

fn none<T>() -> Option<T> {
    None
}

impl BucketConfig {
    /// Reads and checks a configuration. `$(NAME)` must have been replaced already, see
    /// [`expand_environment`](crate::config::objstore_text::expand_environment).
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        let file: AnyType = read(yaml)?;
        let found = file.kind.unwrap_or_default();
        if found.is_empty() {
            return Err(ConfigError::missing("type"));
        }
        let mut warnings = Vec::new();
        let provider = match found.to_ascii_uppercase().as_str() {
            "FILESYSTEM" => {
                let config: FilesystemConfig = read_config(yaml)?;
                required("config.directory", &config.directory)?;
                Provider::Filesystem(config)
            }
            "S3" => {
                let config: S3Config = read_config(yaml)?;
                config.check(&mut warnings)?;
                Provider::S3(Box::new(config))
            }
            "GCS" => {
                let config: GcsConfig = read_config(yaml)?;
                config.check(&mut warnings)?;
                Provider::Gcs(Box::new(config))
            }
            "AZURE" => {
                let config: AzureConfig = read_config(yaml)?;
                config.check(&mut warnings)?;
                Provider::Azure(Box::new(config))
            }
            kind => return Err(not_served(kind, found)),
        };
        let prefix = file.prefix.unwrap_or_default().trim_matches('/').to_owned();
        object_store::path::Path::parse(&prefix)
            .map_err(|error| ConfigError::invalid("prefix", error.to_string()))?;
        Ok(Self { provider, prefix, warnings })
    }
}

fn not_served(kind: &str, found: String) -> ConfigError {
    let (found, instead) = match kind {
        "COS" => ("COS", "use type S3 with endpoint cos.<region>.myqcloud.com"),
        "ALIYUNOSS" => (
            "ALIYUNOSS",
            "use type S3 with endpoint oss-<region>.aliyuncs.com and bucket_lookup_type virtual-hosted",
        ),
        "OBS" => ("OBS", "use type S3 with endpoint obs.<region>.myhuaweicloud.com"),
        "BOS" => ("BOS", "use type S3 with endpoint s3.<region>.bcebos.com"),
        "OCI" => (
            "OCI",
            "use type S3 with endpoint <namespace>.compat.objectstorage.<region>.oraclecloud.com and a customer secret key",
        ),
        "SWIFT" => ("SWIFT", "use type S3 with the S3 API of Swift (s3api)"),
        _ => return ConfigError::UnknownType { found },
    };
    ConfigError::UnsupportedType { found, instead }
}

fn read_config<T: DeserializeOwned + Default>(yaml: &str) -> Result<T, ConfigError> {
    Ok(read::<Typed<T>>(yaml)?.config.unwrap_or_default())
}

fn read<T: DeserializeOwned>(yaml: &str) -> Result<T, ConfigError> {
    // Snippets quote the text around an error, secrets included.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let message = error.without_snippet().to_string();
        // The place is told by the variant; once is enough.
        let place = format!(" at line {line}, column {column}");
        let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
        ConfigError::Yaml { line, column, message }
    })
}

/// The text of a key, if it has one.
pub(crate) fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

/// The text of a key that must have one.
pub(crate) fn required<'a>(key: &str, value: &'a Option<String>) -> Result<&'a str, ConfigError> {
    given(value).ok_or_else(|| ConfigError::missing(key))
}

/// Reads `max_retries`: 0 stands for the default, less than 0 for none.
pub(crate) fn retries(value: Option<i64>) -> Option<usize> {
    match value {
        None | Some(0) => None,
        Some(count) => Some(usize::try_from(count).unwrap_or(0)),
    }
}
