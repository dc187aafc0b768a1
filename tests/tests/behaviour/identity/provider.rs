//! An identity provider: two keys, a set of them for whoever verifies, and tokens that are right until a test bends them.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Key;
use crate::temporary::TemporaryFile;
use crate::world::World;

pub const ISSUER: &str = "https://id.example/";
pub const AUDIENCE: &str = "boxoffice";

pub struct Provider {
    rsa: rsa::KeyPair,
    ed: Ed25519KeyPair,
    /// Where its public keys are.
    file: Option<TemporaryFile>,
}

/// By what a token is signed.
#[derive(Clone, Copy)]
pub enum By {
    Rsa,
    Ed,
    /// HMAC with the RSA key's public modulus, which everybody knows.
    PublicKey,
    Nothing,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    pub fn new() -> Self {
        Self {
            rsa: rsa::KeyPair::generate(KeySize::Rsa2048).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            file: None,
        }
    }

    fn modulus(&self) -> Vec<u8> {
        self.rsa.public_key().modulus().big_endian_without_leading_zero().to_vec()
    }

    /// The public keys, as `rsa` and `ed`, behind a prefix.
    pub fn jwks(&self, prefix: &str) -> Value {
        let exponent = self.rsa.public_key().exponent().big_endian_without_leading_zero().to_vec();
        json!({"keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": format!("{prefix}rsa"),
             "n": encode(self.modulus()), "e": encode(exponent)},
            {"kty": "OKP", "use": "sig", "crv": "Ed25519", "kid": format!("{prefix}ed"),
             "x": encode(self.ed.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": "unused", "x": "AA", "y": "AA"},
        ]})
    }

    /// Claims that are right.
    pub fn claims(subject: &str) -> Value {
        let now = Utc::now().timestamp();
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now - 5, "exp": now + 600})
    }

    /// Whatever is wanted, signed.
    pub fn sign(&self, header: &Value, claims: &Value, by: By) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = match by {
            By::Nothing => Vec::new(),
            By::Ed => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            By::PublicKey => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.modulus());
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            By::Rsa => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let random = SystemRandom::new();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", encode(signature))
    }

    /// A token of this subject that is right.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"}), &Self::claims(subject), By::Ed)
    }
}

/// A world that takes this provider's tokens; an operator's key is presented.
pub async fn with_tokens(jwks: &str) -> (World, Key) {
    let arguments =
        ["--auth", "keys+jwt", "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-jwks", jwks];
    super::operated(&arguments).await
}

/// A world and the provider whose tokens it takes.
pub async fn provided() -> (World, Key, Provider) {
    let mut provider = Provider::new();
    let file = TemporaryFile::new("jwks.json", &provider.jwks("").to_string());
    let (world, operator) = with_tokens(file.name()).await;
    provider.file = Some(file);
    (world, operator, provider)
}

/// Serves what it holds as JSON; its address.
pub async fn serve(set: Arc<Mutex<Value>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = set.lock().unwrap().to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    format!("http://{address}/jwks")
}
