//! Type S3.

use std::{collections::BTreeMap, path::PathBuf};

use object_store::{
    Attribute, Attributes,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};
use serde::Deserialize;

use super::{HttpConfig, given, required, retries};
use crate::objstore::{
    ConfigError, Secret,
    open::{OpenContext, Opened, PART_BYTES_MIN},
    value::base64,
};

/// Keys of type S3.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // named and explained by Thanos; see the table of the parent module
pub struct S3Config {
    pub bucket: Option<String>,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<Secret>,
    pub session_token: Option<Secret>,
    pub aws_sdk_auth: Option<bool>,
    pub insecure: Option<bool>,
    pub signature_version2: Option<bool>,
    pub disable_dualstack: Option<bool>,
    pub bucket_lookup_type: Option<String>,
    pub put_user_metadata: Option<BTreeMap<String, String>>,
    pub list_objects_version: Option<String>,
    pub send_content_md5: Option<bool>,
    pub disable_multipart: Option<bool>,
    pub part_size: Option<u64>,
    pub max_retries: Option<i64>,
    pub sts_endpoint: Option<String>,
    pub trace: Option<TraceConfig>,
    pub sse_config: Option<SseConfig>,
    pub http_config: Option<HttpConfig>,
}

/// Tracing of requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as above
pub struct TraceConfig {
    pub enable: Option<bool>,
}

/// Encryption by the store.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as above
pub struct SseConfig {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub kms_key_id: Option<String>,
    pub kms_encryption_context: Option<BTreeMap<String, String>>,
    pub encryption_key: Option<String>,
}

/// Variables of the environment that hold credentials, and what they stand for.
const CREDENTIAL_VARIABLES: [(&str, AmazonS3ConfigKey); 9] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// How a request names the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    Path,
    VirtualHosted,
}

impl S3Config {
    pub(crate) fn check(&self, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        required("config.bucket", &self.bucket)?;
        let endpoint = required("config.endpoint", &self.endpoint)?;
        if endpoint.contains('/') {
            return Err(ConfigError::invalid(
                "config.endpoint",
                "must be a host with an optional port, without a scheme or a path; set insecure: true for plain HTTP",
            ));
        }
        self.lookup(endpoint)?;
        self.check_credentials()?;
        if self.signature_version2 == Some(true) {
            return Err(ConfigError::not_supported(
                "config.signature_version2",
                "requests are signed by version 4 only",
            ));
        }
        match given(&self.list_objects_version) {
            None | Some("v2" | "V2") => {}
            Some("v1" | "V1") => {
                return Err(ConfigError::not_supported(
                    "config.list_objects_version",
                    "objects are listed by version 2 only",
                ));
            }
            Some(other) => {
                return Err(ConfigError::invalid(
                    "config.list_objects_version",
                    format!("{other:?} is neither v1 nor v2"),
                ));
            }
        }
        if self.trace.as_ref().and_then(|trace| trace.enable) == Some(true) {
            return Err(ConfigError::not_supported(
                "config.trace.enable",
                "requests are not printed; they are counted by the metrics thanos_objstore_bucket_*",
            ));
        }
        match self.part_size {
            Some(bytes) if bytes != 0 && bytes < PART_BYTES_MIN => {
                return Err(ConfigError::invalid(
                    "config.part_size",
                    format!("{bytes} is less than the {PART_BYTES_MIN} bytes (5 MiB) that S3 asks for"),
                ));
            }
            _ => {}
        }
        if self.disable_multipart == Some(true) {
            warnings.push(
                "config.disable_multipart: each file (up to 512 MiB) is held in memory while it is sent"
                    .to_owned(),
            );
        }
        self.check_encryption()?;
        HttpConfig::check(&self.http_config, "config.http_config")
    }

    fn check_credentials(&self) -> Result<(), ConfigError> {
        let access_key = given(&self.access_key).is_some();
        let secret_key = self.secret_key.as_ref().is_some_and(|key| !key.reveal().is_empty());
        if self.aws_sdk_auth == Some(true) && (access_key || secret_key) {
            return Err(ConfigError::invalid(
                "config.aws_sdk_auth",
                "cannot be used together with access_key and secret_key",
            ));
        }
        match (access_key, secret_key) {
            (true, false) => Err(ConfigError::missing("config.secret_key (beside access_key)")),
            (false, true) => Err(ConfigError::missing("config.access_key (beside secret_key)")),
            _ => Ok(()),
        }
    }

    fn check_encryption(&self) -> Result<(), ConfigError> {
        let Some(sse) = &self.sse_config else {
            return Ok(());
        };
        if sse.kms_encryption_context.as_ref().is_some_and(|context| !context.is_empty()) {
            return Err(ConfigError::not_supported(
                "config.sse_config.kms_encryption_context",
                "an encryption context cannot be sent",
            ));
        }
        match given(&sse.kind) {
            None | Some("SSE-S3") => Ok(()),
            Some("SSE-KMS") => required("config.sse_config.kms_key_id", &sse.kms_key_id).map(drop),
            Some("SSE-C") => required("config.sse_config.encryption_key", &sse.encryption_key).map(drop),
            Some(other) => Err(ConfigError::invalid(
                "config.sse_config.type",
                format!("{other:?} is none of SSE-S3, SSE-KMS and SSE-C"),
            )),
        }
    }

    fn lookup(&self, endpoint: &str) -> Result<Lookup, ConfigError> {
        match given(&self.bucket_lookup_type).unwrap_or("auto") {
            "auto" if is_aws(endpoint) => Ok(Lookup::VirtualHosted),
            "auto" | "path" => Ok(Lookup::Path),
            "virtual-hosted" => Ok(Lookup::VirtualHosted),
            other => Err(ConfigError::invalid(
                "config.bucket_lookup_type",
                format!("{other:?} is none of auto, path and virtual-hosted"),
            )),
        }
    }

    pub(crate) fn open(&self, context: &OpenContext<'_>) -> Result<Opened, ConfigError> {
        let bucket = required("config.bucket", &self.bucket)?;
        let endpoint = required("config.endpoint", &self.endpoint)?;
        let insecure = self.insecure == Some(true);
        let scheme = if insecure { "http" } else { "https" };
        let lookup = self.lookup(endpoint)?;
        let url = match lookup {
            Lookup::Path => format!("{scheme}://{endpoint}"),
            Lookup::VirtualHosted => format!("{scheme}://{bucket}.{endpoint}"),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_endpoint(url)
            .with_virtual_hosted_style_request(lookup == Lookup::VirtualHosted)
            .with_region(self.region(endpoint, context))
            .with_retry(context.retry(retries(self.max_retries)))
            .with_client_options(HttpConfig::client_options(&self.http_config, context.options, insecure)?);
        builder = self.with_credentials(builder, context);
        if let Some(sts) = given(&self.sts_endpoint) {
            builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, sts);
        }
        builder = self.with_encryption(builder)?;
        let store = context.limit(builder.build()?, HttpConfig::requests_max(&self.http_config));

        let mut attributes = Attributes::new();
        for (key, value) in self.put_user_metadata.iter().flatten() {
            attributes.insert(Attribute::Metadata(key.clone().into()), value.clone().into());
        }
        Ok(Opened {
            store,
            name: bucket.to_owned(),
            attributes,
            part_bytes: self.part_size.filter(|&bytes| bytes != 0),
            multipart: self.disable_multipart != Some(true),
            staging_root: None,
        })
    }

    fn region(&self, endpoint: &str, context: &OpenContext<'_>) -> String {
        given(&self.region)
            .map(str::to_owned)
            .or_else(|| region_of(endpoint).map(str::to_owned))
            .or_else(|| (context.env)("AWS_REGION"))
            .or_else(|| (context.env)("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".to_owned())
    }

    fn with_credentials(&self, mut builder: AmazonS3Builder, context: &OpenContext<'_>) -> AmazonS3Builder {
        let secret = |secret: &Option<Secret>| {
            secret.as_ref().map(|secret| secret.reveal().to_owned()).filter(|text| !text.is_empty())
        };
        if let (Some(access_key), Some(secret_key)) = (given(&self.access_key), secret(&self.secret_key)) {
            builder = builder.with_access_key_id(access_key).with_secret_access_key(secret_key);
            if let Some(token) = secret(&self.session_token) {
                builder = builder.with_token(token);
            }
            return builder;
        }
        for (name, key) in CREDENTIAL_VARIABLES {
            if let Some(value) = (context.env)(name).filter(|value| !value.is_empty()) {
                builder = builder.with_config(key, value);
            }
        }
        builder
    }

    fn with_encryption(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, ConfigError> {
        let Some(sse) = &self.sse_config else {
            return Ok(builder);
        };
        match given(&sse.kind) {
            None => Ok(builder),
            Some("SSE-S3") => {
                // The variant's payload has no public name.
                let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>()?;
                Ok(builder.with_config(key, "AES256"))
            }
            Some("SSE-KMS") => {
                Ok(builder
                    .with_sse_kms_encryption(required("config.sse_config.kms_key_id", &sse.kms_key_id)?))
            }
            Some(_) => {
                const KEY: &str = "config.sse_config.encryption_key";
                let path = PathBuf::from(required(KEY, &sse.encryption_key)?);
                let key = std::fs::read(&path).map_err(|source| ConfigError::File {
                    key: KEY.to_owned(),
                    path,
                    source,
                })?;
                if key.len() != 32 {
                    return Err(ConfigError::invalid(
                        KEY,
                        format!("the file must hold 32 bytes and has {}", key.len()),
                    ));
                }
                Ok(builder.with_ssec_encryption(base64(&key)))
            }
        }
    }
}

/// True for hosts of Amazon itself.
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.split(':').next().unwrap_or(endpoint);
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// The region in the name of an Amazon host such as `s3.eu-west-1.amazonaws.com`.
fn region_of(endpoint: &str) -> Option<&str> {
    let host = endpoint.split(':').next()?;
    let labels: Vec<&str> =
        host.split(".amazonaws.com").next().filter(|_| is_aws(endpoint))?.split('.').collect();
    match labels.as_slice() {
        ["s3" | "s3-fips", region] | ["s3" | "s3-fips", "dualstack", region] => Some(region),
        [old] => old.strip_prefix("s3-"),
        _ => None,
    }
}

/// For the tests of the parent module.
#[cfg(test)]
pub(crate) fn region_and_style(endpoint: &str) -> (Option<&str>, bool) {
    (region_of(endpoint), is_aws(endpoint))
}
