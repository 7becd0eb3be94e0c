//! Type AZURE.

use object_store::{
    Attributes,
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
};
use serde::Deserialize;

use super::{HttpConfig, given, required, retries};
use crate::objstore::{
    ConfigError, Secret,
    open::{OpenContext, Opened},
    value::PromDuration,
};

mod connection_string;

use connection_string::ConnectionString;

/// Keys of type AZURE.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // named and explained by Thanos; see the table of the parent module
pub struct AzureConfig {
    pub storage_account: Option<String>,
    pub storage_account_key: Option<Secret>,
    pub storage_connection_string: Option<Secret>,
    pub storage_create_container: Option<bool>,
    pub container: Option<String>,
    pub endpoint: Option<String>,
    pub az_tenant_id: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub user_assigned_id: Option<String>,
    pub msi_resource: Option<String>,
    pub max_retries: Option<i64>,
    pub reader_config: Option<ReaderConfig>,
    pub pipeline_config: Option<PipelineConfig>,
    pub http_config: Option<HttpConfig>,
}

/// Retries of downloads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as above
pub struct ReaderConfig {
    pub max_retry_requests: Option<i64>,
}

/// Retries of all requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as above
pub struct PipelineConfig {
    pub max_tries: Option<i64>,
    pub try_timeout: Option<PromDuration>,
    pub retry_delay: Option<PromDuration>,
    pub max_retry_delay: Option<PromDuration>,
}

/// Domain behind the account's name, unless `endpoint` says otherwise.
const DEFAULT_ENDPOINT: &str = "blob.core.windows.net";

/// Where the account is and what opens it.
#[derive(Debug, PartialEq)]
struct Account {
    name: String,
    url: String,
    key: Option<Secret>,
    shared_access_signature: Option<Secret>,
}

impl AzureConfig {
    pub(crate) fn check(&self, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        required("config.container", &self.container)?;
        let account = self.account()?;
        let static_key = account.key.is_some() || account.shared_access_signature.is_some();
        if static_key && given(&self.user_assigned_id).is_some() {
            return Err(ConfigError::invalid(
                "config.user_assigned_id",
                "cannot be used together with a storage account key or a connection string",
            ));
        }
        let by_secret = [
            ("config.az_tenant_id", given(&self.az_tenant_id).is_some()),
            ("config.client_id", given(&self.client_id).is_some()),
            ("config.client_secret", secret(&self.client_secret).is_some()),
        ];
        if by_secret.iter().any(|(_, is_given)| *is_given)
            && let Some((key, _)) = by_secret.iter().find(|(_, is_given)| !is_given)
        {
            return Err(ConfigError::missing(&format!(
                "{key} (az_tenant_id, client_id and client_secret go together)"
            )));
        }
        if self.storage_create_container == Some(true) {
            warnings.push(
                "config.storage_create_container: the container is not created; it must exist".to_owned(),
            );
        }
        if given(&self.msi_resource).is_some() {
            warnings.push("config.msi_resource: has no effect".to_owned());
        }
        let retry_reads = self.reader_config.as_ref().and_then(|reader| reader.max_retry_requests);
        if retry_reads.is_some_and(|count| count != 0) {
            warnings.push("config.reader_config.max_retry_requests: has no effect".to_owned());
        }
        HttpConfig::check(&self.http_config, "config.http_config")
    }

    fn account(&self) -> Result<Account, ConfigError> {
        const STRING: &str = "config.storage_connection_string";
        let endpoint = given(&self.endpoint).unwrap_or(DEFAULT_ENDPOINT);
        if let Some(text) = secret(&self.storage_connection_string) {
            if secret(&self.storage_account_key).is_some() {
                return Err(ConfigError::invalid(STRING, "cannot be used together with storage_account_key"));
            }
            let parts = ConnectionString::parse(text.reveal())
                .map_err(|message| ConfigError::invalid(STRING, message))?;
            let name = parts
                .account_name
                .clone()
                .or_else(|| given(&self.storage_account).map(str::to_owned))
                .ok_or_else(|| ConfigError::invalid(STRING, "AccountName is missing"))?;
            let url = parts.blob_url(&name, endpoint);
            let key = parts.account_key;
            return Ok(Account { name, url, key, shared_access_signature: parts.shared_access_signature });
        }
        let name = required("config.storage_account", &self.storage_account)?.to_owned();
        let url = if endpoint.contains("://") {
            endpoint.trim_end_matches('/').to_owned()
        } else {
            format!("https://{name}.{endpoint}")
        };
        Ok(Account { name, url, key: secret(&self.storage_account_key), shared_access_signature: None })
    }

    pub(crate) fn open(&self, context: &OpenContext<'_>) -> Result<Opened, ConfigError> {
        let container = required("config.container", &self.container)?;
        let account = self.account()?;
        let insecure = account.url.starts_with("http://");
        let mut client = HttpConfig::client_options(&self.http_config, context.options, insecure)?;
        let pipeline = self.pipeline_config.clone().unwrap_or_default();
        if let Some(PromDuration(timeout)) = pipeline.try_timeout.filter(|timeout| !timeout.0.is_zero()) {
            client = client.with_timeout(timeout);
        }
        let tries = pipeline.max_tries.filter(|&tries| tries > 0);
        let mut retry = context
            .retry(retries(self.max_retries).or(tries.map(|tries| usize::try_from(tries - 1).unwrap_or(0))));
        if let Some(PromDuration(delay)) = pipeline.retry_delay.filter(|delay| !delay.0.is_zero()) {
            retry.backoff.init_backoff = delay;
        }
        if let Some(PromDuration(delay)) = pipeline.max_retry_delay.filter(|delay| !delay.0.is_zero()) {
            retry.backoff.max_backoff = delay;
        }
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(account.name)
            .with_container_name(container)
            .with_endpoint(account.url)
            .with_retry(retry)
            .with_client_options(client);
        let env = |name: &str| (context.env)(name).filter(|value| !value.is_empty());
        if let Some(key) = account.key {
            builder = builder.with_access_key(key.reveal());
        } else if let Some(signature) = account.shared_access_signature {
            builder = builder.with_config(AzureConfigKey::SasKey, signature.reveal());
        } else if let (Some(tenant), Some(client_id), Some(client_secret)) =
            (given(&self.az_tenant_id), given(&self.client_id), secret(&self.client_secret))
        {
            builder = builder.with_client_secret_authorization(client_id, client_secret.reveal(), tenant);
        } else if let Some(id) = given(&self.user_assigned_id) {
            builder = builder.with_client_id(id);
        } else {
            let variables = [
                ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
                ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
                ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
                ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
                ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
            ];
            for (name, key) in variables {
                if let Some(value) = env(name) {
                    builder = builder.with_config(key, value);
                }
            }
        }
        Ok(Opened {
            store: context.limit(builder.build()?, HttpConfig::requests_max(&self.http_config)),
            name: container.to_owned(),
            attributes: Attributes::new(),
            part_bytes: None,
            multipart: true,
            staging_root: None,
        })
    }
}

fn secret(value: &Option<Secret>) -> Option<Secret> {
    value.clone().filter(|secret| !secret.reveal().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(config: AzureConfig) -> (String, String) {
        let account = config.account().unwrap();
        (account.name, account.url)
    }

    #[test]
    fn where_an_account_is() {
        let plain = AzureConfig { storage_account: Some("acc".into()), ..Default::default() };
        let endpoint = |text: &str| AzureConfig { endpoint: Some(text.into()), ..plain.clone() };
        let by_string = |text: &str| AzureConfig {
            storage_connection_string: Some(Secret::new(text)),
            ..Default::default()
        };
        let check = |config: AzureConfig, name: &str, url: &str| {
            assert_eq!(account(config), (name.to_owned(), url.to_owned()));
        };
        check(plain.clone(), "acc", "https://acc.blob.core.windows.net");
        check(endpoint("blob.core.chinacloudapi.cn"), "acc", "https://acc.blob.core.chinacloudapi.cn");
        check(endpoint("http://127.0.0.1:10000/acc/"), "acc", "http://127.0.0.1:10000/acc");
        check(
            by_string(
                "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5;EndpointSuffix=core.windows.net",
            ),
            "a",
            "https://a.blob.core.windows.net",
        );
        check(by_string("AccountName=a;AccountKey=a2V5"), "a", "https://a.blob.core.windows.net");
        check(
            by_string("AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"),
            "a",
            "http://127.0.0.1:1/a",
        );
        check(
            by_string("UseDevelopmentStorage=true"),
            "devstoreaccount1",
            "http://127.0.0.1:10000/devstoreaccount1",
        );
    }
}
