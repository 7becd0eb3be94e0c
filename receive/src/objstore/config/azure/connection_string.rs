//! Azure's connection strings: `Name=value` pairs with semicolons between.

use crate::objstore::Secret;

/// Account and key of the storage emulator, which are public and the same everywhere.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_URL: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// What matters of a connection string for blobs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ConnectionString {
    pub(super) account_name: Option<String>,
    pub(super) account_key: Option<Secret>,
    pub(super) shared_access_signature: Option<Secret>,
    blob_endpoint: Option<String>,
    endpoint_suffix: Option<String>,
    protocol: Option<String>,
}

impl ConnectionString {
    /// Errors never quote a value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Self::default();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or("must be of pairs Name=value with ; between them")?;
            let text = Some(value.to_owned());
            match name.to_ascii_lowercase().as_str() {
                "accountname" => parts.account_name = text,
                "accountkey" => parts.account_key = Some(Secret::new(value)),
                "sharedaccesssignature" => parts.shared_access_signature = Some(Secret::new(value)),
                "blobendpoint" => parts.blob_endpoint = text,
                "endpointsuffix" => parts.endpoint_suffix = text,
                "defaultendpointsprotocol" => parts.protocol = text,
                "usedevelopmentstorage" if value.eq_ignore_ascii_case("true") => {
                    parts.account_name = Some(EMULATOR_ACCOUNT.to_owned());
                    parts.account_key = Some(Secret::new(EMULATOR_KEY));
                    parts.blob_endpoint = Some(EMULATOR_URL.to_owned());
                }
                // Endpoints of queues, tables and files.
                _ => {}
            }
        }
        if parts.account_key.is_none() && parts.shared_access_signature.is_none() {
            return Err("AccountKey or SharedAccessSignature is missing".to_owned());
        }
        Ok(parts)
    }

    /// Where the blobs of `account` are; `endpoint` is the domain if the string names none.
    pub(super) fn blob_url(&self, account: &str, endpoint: &str) -> String {
        if let Some(url) = &self.blob_endpoint {
            return url.trim_end_matches('/').to_owned();
        }
        let protocol = self.protocol.as_deref().unwrap_or("https");
        match &self.endpoint_suffix {
            Some(suffix) => format!("{protocol}://{account}.blob.{suffix}"),
            None => format!("{protocol}://{account}.{endpoint}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_strings() {
        let error = |text: &str| ConnectionString::parse(text).unwrap_err();
        assert_eq!(error("AccountName"), "must be of pairs Name=value with ; between them");
        assert_eq!(error("AccountName=a"), "AccountKey or SharedAccessSignature is missing");
    }

    #[test]
    fn a_key_keeps_its_equals_signs() {
        let parts = ConnectionString::parse("AccountName=a;AccountKey=YWI=").unwrap();
        assert_eq!(parts.account_key, Some(Secret::new("YWI=")));
    }
}
