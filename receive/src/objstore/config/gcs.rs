//! Type GCS.

use object_store::{Attributes, gcp::GoogleCloudStorageBuilder};
use serde::Deserialize;

use super::{HttpConfig, required, retries};
use crate::objstore::{
    ConfigError, Secret,
    open::{OpenContext, Opened, PART_BYTES_MIN},
};

/// Keys of type GCS.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // named and explained by Thanos; see the table of the parent module
pub struct GcsConfig {
    pub bucket: Option<String>,
    pub service_account: Option<Secret>,
    pub use_grpc: Option<bool>,
    pub grpc_conn_pool_size: Option<i64>,
    pub chunk_size_bytes: Option<u64>,
    pub max_retries: Option<i64>,
    pub http_config: Option<HttpConfig>,
}

impl GcsConfig {
    pub(crate) fn check(&self, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        required("config.bucket", &self.bucket)?;
        self.account()?;
        if self.use_grpc == Some(true) {
            warnings.push("config.use_grpc: has no effect, the bucket is spoken to by HTTP".to_owned());
        }
        if self.grpc_conn_pool_size.is_some_and(|size| size != 0) {
            warnings.push("config.grpc_conn_pool_size: has no effect without gRPC".to_owned());
        }
        if let Some(bytes) = self.chunk_size_bytes.filter(|&bytes| bytes != 0 && bytes < PART_BYTES_MIN) {
            warnings.push(format!(
                "config.chunk_size_bytes: parts have at least {PART_BYTES_MIN} bytes (5 MiB), not {bytes}"
            ));
        }
        HttpConfig::check(&self.http_config, "config.http_config")
    }

    /// The service account's text, and the member `gcs_base_url` that points it to an emulator.
    fn account(&self) -> Result<Option<(&str, Option<String>)>, ConfigError> {
        const KEY: &str = "config.service_account";
        let Some(text) = self.service_account.as_ref().map(Secret::reveal).filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        // The parser's own message is left out: it may quote the text.
        let Ok(serde_json::Value::Object(account)) = serde_json::from_str(text) else {
            return Err(ConfigError::invalid(KEY, "is not the JSON text of a service account's key"));
        };
        let base_url = account.get("gcs_base_url").and_then(|url| url.as_str()).map(str::to_owned);
        Ok(Some((text, base_url)))
    }

    pub(crate) fn open(&self, context: &OpenContext<'_>) -> Result<Opened, ConfigError> {
        let bucket = required("config.bucket", &self.bucket)?;
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_retry(context.retry(retries(self.max_retries)));
        let mut insecure = false;
        if let Some((text, base_url)) = self.account()? {
            insecure = base_url.is_some_and(|url| url.starts_with("http://"));
            builder = builder.with_service_account_key(text);
        } else if let Some(path) = (context.env)("GOOGLE_APPLICATION_CREDENTIALS") {
            builder = builder.with_application_credentials(path);
        }
        builder = builder.with_client_options(HttpConfig::client_options(
            &self.http_config,
            context.options,
            insecure,
        )?);
        Ok(Opened {
            store: context.limit(builder.build()?, HttpConfig::requests_max(&self.http_config)),
            name: bucket.to_owned(),
            attributes: Attributes::new(),
            part_bytes: self
                .chunk_size_bytes
                .filter(|&bytes| bytes != 0)
                .map(|bytes| bytes.max(PART_BYTES_MIN)),
            multipart: true,
            staging_root: None,
        })
    }
}
