//! Azurite, the emulator of Azure Blob Storage. It comes from npm:
//! `npm install --prefix ~/.cache/weir-tests/azurite azurite@3.35.0`.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use weir::objstore::install_crypto_provider;

/// The emulator's account, which everyone knows.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
pub const CONTAINER: &str = "blocks";

/// A running emulator, killed when dropped.
pub struct Azurite {
    child: Child,
    /// Where the account is served.
    pub url: String,
    _temp: TempDir,
}

impl Azurite {
    pub fn start() -> Self {
        let program = program();
        let temp = tempfile::tempdir().unwrap();
        let mut child = Command::new(&program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck"])
            .args(["--inMemoryPersistence", "--disableTelemetry"])
            .current_dir(temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (found, address) = std::sync::mpsc::channel();
        // Reads on, so that the log of requests does not fill the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once(" on http://") {
                    let _ = found.send(address.trim().trim_end_matches('/').to_owned());
                }
            }
        });
        let address = match address.recv_timeout(std::time::Duration::from_secs(120)) {
            Ok(address) => address,
            Err(error) => {
                let _ = child.kill();
                panic!("{} does not listen: {error}, {:?}", program.display(), child.wait());
            }
        };
        Self { child, url: format!("http://{address}/{ACCOUNT}"), _temp: temp }
    }

    /// Creates the container, with a request signed by hand.
    /// A Thanos configuration for the emulator.
    pub fn yaml(&self) -> String {
        format!(
            "type: AZURE\nconfig:\n  container: {CONTAINER}\n  storage_account: {ACCOUNT}\n  \
             storage_account_key: {KEY}\n  endpoint: {}\n",
            self.url
        )
    }

    pub async fn create_container(&self) {
        install_crypto_provider();
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let version = "2021-08-06";
        let to_sign = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        );
        let signature = encode64(&hmac_sha256(&decode64(KEY), to_sign.as_bytes()));
        let response = reqwest::Client::new()
            .put(format!("{}/{CONTAINER}?restype=container", self.url))
            .header("x-ms-date", date)
            .header("x-ms-version", version)
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 201, "{:?}", response.text().await);
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_AZURITE") {
        return path.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let path = cache.unwrap_or_default().join("weir-tests/azurite/node_modules/.bin/azurite-blob");
    assert!(
        path.exists(),
        "there is no {}; install it by `npm install --prefix ~/.cache/weir-tests/azurite azurite@3.35.0`, \
         or let WEIR_AZURITE name azurite-blob",
        path.display()
    );
    path
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    assert!(key.len() <= block.len());
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            text.push(char::from(ALPHABET.as_bytes()[(bits >> (18 - 6 * at)) as usize & 63]));
        }
        text.push_str(&"=".repeat(3 - group.len()));
    }
    text
}

fn decode64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for char in text.trim_end_matches('=').chars() {
        bits = bits << 6 | u32::try_from(ALPHABET.find(char).unwrap()).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}
