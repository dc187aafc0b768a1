//! The public keys by which an identity provider signs tokens (RFC 7517), read again and again so that they may change.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Url;
use reqwest::redirect::Policy;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::file;

/// How often they are read, unless a token names one that is not known.
const READ_EVERY: Duration = Duration::from_secs(60);

/// Between two readings, however many tokens name keys that are not known.
const READ_APART: Duration = Duration::from_secs(5);

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The most bytes and keys of a set; providers have a few keys of half a kilobyte.
const SIZE_MAX: usize = 256 * 1024;
const KEYS_MAX: usize = 100;

/// Where the keys are.
#[derive(Clone, Debug)]
pub enum JwksSource {
    /// A file, replaced when keys change.
    File(PathBuf),
    /// An address of the identity provider.
    Url(Url),
}

impl FromStr for JwksSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        // An error does not repeat the text, which may hold a password.
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        let is_local = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            _ if !url.username().is_empty() || url.password().is_some() => {
                Err("a URL with a password; the keys are public".to_owned())
            }
            "https" => Ok(Self::Url(url)),
            "http" if is_local => Ok(Self::Url(url)),
            _ => Err(
                "neither a file nor an https URL: whoever could change the keys on the way could be anybody"
                    .to_owned(),
            ),
        }
    }
}

/// A key that verifies signatures by one algorithm, which is the key's and never the token's to choose.
pub(super) struct VerificationKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys by their ids, and when they were read.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) keys: Arc<HashMap<String, VerificationKey>>,
    pub(super) read_at: Instant,
}

/// The keys as they were last read.
#[derive(Clone)]
pub(super) struct Jwks {
    pub(super) known: watch::Receiver<Option<Known>>,
    /// A token named a key that is not known.
    pub(super) missed: Arc<Notify>,
}

/// Reads the keys until it is dropped.
pub(crate) struct JwksReader {
    source: JwksSource,
    client: reqwest::Client,
    known: watch::Sender<Option<Known>>,
    missed: Arc<Notify>,
}

impl JwksReader {
    /// A reader that has read nothing yet.
    pub(super) fn new(source: JwksSource) -> anyhow::Result<(Self, Jwks)> {
        // Another address than the one that was set would be somebody else's choice.
        let client = reqwest::Client::builder().redirect(Policy::none()).timeout(ANSWER_WITHIN).build()?;
        let (sender, known) = watch::channel(None);
        let missed = Arc::new(Notify::new());
        let jwks = Jwks { known, missed: missed.clone() };
        Ok((Self { source, client, known: sender, missed }, jwks))
    }

    /// Reads once.
    ///
    /// # Errors
    /// Where a file cannot be read or holds no key that is of use. A provider that does not answer may later.
    pub(crate) async fn begin(&self) -> anyhow::Result<()> {
        match (self.read().await, &self.source) {
            (Err(error), JwksSource::File(_)) => Err(error.context("BOXOFFICE_JWT_JWKS")),
            (Err(error), JwksSource::Url(_)) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the keys of tokens were not read; trying again"
                );
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// Reads again and again. What cannot be read leaves the keys that are known.
    pub(crate) async fn watch(self) {
        let mut failing = false;
        loop {
            tokio::time::sleep(READ_APART).await;
            let _ = tokio::time::timeout(READ_EVERY - READ_APART, self.missed.notified()).await;
            let read = self.read().await;
            match &read {
                Ok(()) if failing => tracing::info!("the keys of tokens are read again"),
                Err(error) if !failing => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the keys of tokens were not read; trying again"
                    );
                }
                _ => {}
            }
            failing = read.is_err();
        }
    }

    async fn read(&self) -> anyhow::Result<()> {
        let bytes = match &self.source {
            JwksSource::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || file::read(&path)).await.context("reading failed")??
            }
            JwksSource::Url(url) => self.fetch(url).await?,
        };
        self.hold(&bytes)
    }

    /// Believes the keys of a set from now on.
    pub(super) fn hold(&self, set: &[u8]) -> anyhow::Result<()> {
        let keys = Arc::new(parse(set)?);
        self.known.send_replace(Some(Known { keys, read_at: Instant::now() }));
        Ok(())
    }

    async fn fetch(&self, url: &Url) -> anyhow::Result<Vec<u8>> {
        let mut response = self.client.get(url.clone()).send().await?.error_for_status()?;
        ensure!(response.status().is_success(), "{url} answered {}", response.status());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            ensure!(bytes.len() <= SIZE_MAX, "{url} answered with more than {SIZE_MAX} bytes");
        }
        Ok(bytes)
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// What of a key is looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
}

/// Keys of other kinds are passed over: providers publish those for other uses beside them.
fn parse(bytes: &[u8]) -> anyhow::Result<HashMap<String, VerificationKey>> {
    ensure!(bytes.len() <= SIZE_MAX, "a set of keys has at most {SIZE_MAX} bytes");
    let set: Set = serde_json::from_slice(bytes).context("not a JSON Web Key Set")?;
    ensure!(set.keys.len() <= KEYS_MAX, "a set has at most {KEYS_MAX} keys");
    let mut keys = HashMap::new();
    for key in set.keys {
        let Some(jwk) = serde_json::from_value::<Jwk>(key).ok() else { continue };
        let Some(key) = jwk.verification_key() else { continue };
        if keys.insert(jwk.kid.clone(), key).is_some() {
            bail!("two keys have the id {:?}", jwk.kid);
        }
    }
    ensure!(!keys.is_empty(), "there is no key for RS256 or EdDSA (Ed25519) with a kid");
    Ok(keys)
}

impl Jwk {
    fn verification_key(&self) -> Option<VerificationKey> {
        if self.r#use.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let (algorithm, names, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => {
                let key = DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?);
                (Algorithm::RS256, ["RS256"].as_slice(), key)
            }
            ("OKP", Some("Ed25519")) => {
                let key = DecodingKey::from_ed_components(self.x.as_deref()?);
                (Algorithm::EdDSA, ["EdDSA", "Ed25519"].as_slice(), key)
            }
            _ => return None,
        };
        let is_right = self.alg.as_deref().is_none_or(|name| names.contains(&name));
        key.ok().filter(|_| is_right).map(|key| VerificationKey { algorithm, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": X})
    }

    fn ids(keys: &[Value]) -> Option<Vec<String>> {
        let set = json!({ "keys": keys }).to_string();
        parse(set.as_bytes()).ok().map(|keys| keys.into_keys().collect())
    }

    #[test]
    fn a_key_is_for_one_algorithm_only() {
        let of = |alg: &str, purpose: &str| {
            let mut key = ed("a");
            key["alg"] = json!(alg);
            key["use"] = json!(purpose);
            ids(&[key]).is_some()
        };
        assert!(of("EdDSA", "sig"));
        assert!(!of("RS256", "sig") && !of("HS256", "sig") && !of("none", "sig") && !of("EdDSA", "enc"));
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over_and_two_of_one_name_refused() {
        let secret = json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256"});
        let elliptic = json!({"kty": "EC", "crv": "P-256", "kid": "p", "x": X, "y": X});
        let nameless = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
        assert_eq!(ids(&[secret.clone(), elliptic, nameless, ed("a")]), Some(vec!["a".to_owned()]));
        assert_eq!(ids(&[secret]), None);
        assert_eq!(ids(&[ed("a"), ed("a")]), None);
    }

    #[test]
    fn keys_come_from_a_file_or_by_a_way_that_nobody_can_change() {
        for good in ["/etc/jwks.json", "jwks.json", "https://id.example/jwks", "http://127.0.0.1:9/jwks"] {
            assert!(good.parse::<JwksSource>().is_ok(), "{good}");
        }
        for bad in
            ["http://id.example/jwks", "ftp://id.example/", "https://u:hunter2@id.example/", "https://"]
        {
            let said = bad.parse::<JwksSource>().unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
