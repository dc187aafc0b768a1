//! Tokens of buyers: JSON Web Tokens (RFC 7519) of one issuer for one audience, by RS256 or EdDSA.
//!
//! A token says which key signed it, and nothing else is believed of its header: the key says by which algorithm. No key
//! is fetched from where a token points to.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::text::{self, Customer};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::caller::Buyer;
use super::jwks::{Jwks, JwksReader, JwksSource};
use crate::error::{Code, Problem};

/// What tokens are taken.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `iss`, to the letter.
    pub issuer: String,
    /// Must be among `aud`.
    pub audience: String,
    /// The issuer's public keys.
    pub jwks: JwksSource,
    /// By how much our clock and the issuer's may differ.
    pub leeway: Duration,
    /// How long keys that were read are believed while they cannot be read again.
    pub kept: Duration,
}

/// Verifies tokens, from memory.
pub(crate) struct Tokens {
    jwks: Jwks,
    by_rsa: Validation,
    by_eddsa: Validation,
    issuer: String,
    kept: Duration,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Only to refuse a list of issuers.
    #[serde(rename = "iss")]
    _iss: String,
}

impl Tokens {
    /// Without keys until the reader has read some.
    pub(crate) fn new(settings: TokenSettings) -> anyhow::Result<(Self, JwksReader)> {
        let (reader, jwks) = JwksReader::new(settings.jwks.clone())?;
        let tokens = Self {
            jwks,
            by_rsa: validation(Algorithm::RS256, &settings),
            by_eddsa: validation(Algorithm::EdDSA, &settings),
            issuer: settings.issuer,
            kept: settings.kept,
        };
        Ok((tokens, reader))
    }

    /// The buyer whom a token names, where every part of it is right.
    pub(super) fn buyer(&self, token: &str) -> Result<Arc<Buyer>, Problem> {
        let invalid = |why: &str| Problem::invalid_credential(format_args!("token: {why}"));
        let header = decode_header(token).map_err(|error| invalid(&error.to_string()))?;
        // An extension that must be understood is one that is not understood here.
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
            return Err(invalid("its header has crit, zip or enc"));
        }
        let kid = header.kid.as_deref().ok_or_else(|| invalid("its header has no kid"))?;
        let known = self.jwks.known.borrow();
        let Some(known) = known.as_ref().filter(|known| known.read_at.elapsed() < self.kept) else {
            return Err(Problem::because(Code::Overloaded, "Tokens cannot be checked now."));
        };
        let Some(key) = known.keys.get(kid) else {
            self.jwks.missed.notify_one();
            return Err(invalid("no key of this kid is known"));
        };
        let validation = if key.algorithm == Algorithm::RS256 { &self.by_rsa } else { &self.by_eddsa };
        let claims = decode::<Claims>(token, &key.key, validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => expired(),
            _ => invalid(&error.to_string()),
        })?;
        self.known_as(claims.claims.sub).ok_or_else(|| invalid("its subject cannot be a customer"))
    }

    fn known_as(&self, subject: String) -> Option<Arc<Buyer>> {
        let owner = text::Caller::buyer(&self.issuer, &subject);
        let customer = Customer::try_from(subject).ok()?;
        Some(Arc::new(Buyer { customer, owner }))
    }
}

/// Whoever gets here had a token that was signed.
fn expired() -> Problem {
    let detail = "The token has expired; get a new one and repeat the request with the same Idempotency-Key.";
    Problem::invalid_credential("token: expired").saying(detail)
}

fn validation(algorithm: Algorithm, settings: &TokenSettings) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}
