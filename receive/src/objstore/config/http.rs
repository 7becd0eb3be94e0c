//! `http_config`, the same below each type that speaks HTTP.

use std::{path::PathBuf, time::Duration};

use object_store::{Certificate, ClientOptions};
use serde::Deserialize;

use super::given;
use crate::objstore::{BucketOptions, ConfigError, value::PromDuration};

/// How connections to the store are made and kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // named and explained by Thanos; see the table of the parent module
pub struct HttpConfig {
    pub idle_conn_timeout: Option<PromDuration>,
    pub response_header_timeout: Option<PromDuration>,
    pub tls_handshake_timeout: Option<PromDuration>,
    pub expect_continue_timeout: Option<PromDuration>,
    pub max_idle_conns: Option<usize>,
    pub max_idle_conns_per_host: Option<usize>,
    pub max_conns_per_host: Option<usize>,
    pub insecure_skip_verify: Option<bool>,
    pub disable_compression: Option<bool>,
    pub tls_config: Option<TlsConfig>,
}

/// How TLS connections to the store are made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as above
pub struct TlsConfig {
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: Option<bool>,
}

/// Idle connections per host when nothing is said; as in Thanos.
const IDLE_CONNECTIONS_PER_HOST: usize = 100;

impl HttpConfig {
    /// Refuses what cannot be honoured. `key` is the path of this section.
    pub(crate) fn check(config: &Option<Self>, key: &str) -> Result<(), ConfigError> {
        let Some(tls) = config.as_ref().and_then(|http| http.tls_config.as_ref()) else {
            return Ok(());
        };
        for (name, value) in [("cert_file", &tls.cert_file), ("key_file", &tls.key_file)] {
            if given(value).is_some() {
                return Err(ConfigError::not_supported(
                    &format!("{key}.tls_config.{name}"),
                    "client certificates cannot be used towards a bucket; use access keys",
                ));
            }
        }
        if given(&tls.server_name).is_some() {
            return Err(ConfigError::not_supported(
                &format!("{key}.tls_config.server_name"),
                "the name in the certificate must be the endpoint's; give the endpoint that name",
            ));
        }
        Ok(())
    }

    /// How many requests may run at once; `None` for no bound.
    pub(crate) fn requests_max(config: &Option<Self>) -> Option<usize> {
        config.as_ref().and_then(|http| http.max_conns_per_host).filter(|&max| max > 0)
    }

    /// The client's settings. Reads the CA file.
    pub(crate) fn client_options(
        config: &Option<Self>,
        options: &BucketOptions,
        allow_http: bool,
    ) -> Result<ClientOptions, ConfigError> {
        let nothing = Self::default();
        let http = config.as_ref().unwrap_or(&nothing);
        let or = |value: Option<PromDuration>, default: Duration| value.map_or(default, |given| given.0);
        let mut client = ClientOptions::new()
            .with_allow_http(allow_http)
            .with_timeout(options.request_timeout)
            .with_pool_idle_timeout(or(http.idle_conn_timeout, Duration::from_secs(90)));

        // Zero means no limit to Go.
        let connect_timeout = or(http.tls_handshake_timeout, options.connect_timeout);
        client = if connect_timeout.is_zero() {
            client.with_connect_timeout_disabled()
        } else {
            client.with_connect_timeout(connect_timeout)
        };
        let response_timeout = or(http.response_header_timeout, options.response_timeout);
        client = if response_timeout.is_zero() {
            client.with_read_timeout_disabled()
        } else {
            client.with_read_timeout(response_timeout)
        };

        let per_host = http.max_idle_conns_per_host.filter(|&count| count > 0);
        let in_total = http.max_idle_conns.filter(|&count| count > 0).unwrap_or(usize::MAX);
        client =
            client.with_pool_max_idle_per_host(per_host.unwrap_or(IDLE_CONNECTIONS_PER_HOST).min(in_total));

        let tls = http.tls_config.as_ref();
        let skip_verify = http.insecure_skip_verify == Some(true)
            || tls.and_then(|tls| tls.insecure_skip_verify) == Some(true);
        if skip_verify {
            client = client.with_allow_invalid_certificates(true);
        }
        if let Some(path) = tls.and_then(|tls| given(&tls.ca_file)) {
            client = with_ca_file(client, path)?;
        }
        Ok(client)
    }
}

/// Trusts the certificates in the file `path`, and no others.
fn with_ca_file(mut client: ClientOptions, path: &str) -> Result<ClientOptions, ConfigError> {
    const KEY: &str = "config.http_config.tls_config.ca_file";
    let pem = std::fs::read(path).map_err(|source| ConfigError::File {
        key: KEY.to_owned(),
        path: PathBuf::from(path),
        source,
    })?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .map_err(|error| ConfigError::invalid(KEY, format!("{path}: {error}")))?;
    if certificates.is_empty() {
        return Err(ConfigError::invalid(KEY, format!("{path}: there is no certificate in it")));
    }
    client = client.with_no_system_certificates(true);
    for certificate in certificates {
        client = client.with_root_certificate(certificate);
    }
    Ok(client)
}
