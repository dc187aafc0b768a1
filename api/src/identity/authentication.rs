//! From the header `Authorization` to a caller.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use chrono::Utc;

use super::caller::Caller;
use super::keyring::KeyRing;
use super::secret;
use super::tokens::Tokens;
use crate::error::Problem;

/// The most bytes of a credential: a token with many claims has two or three thousand.
const CREDENTIAL_MAX: usize = 8 * 1024;

/// How this installation knows its callers.
pub(crate) enum Authentication {
    Off,
    On { keys: KeyRing, tokens: Option<Box<Tokens>> },
}

impl Authentication {
    /// Whoever sends these headers. A credential that is not valid is refused even where none is needed, so that a
    /// client learns of it before a sale.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Self::On { keys, tokens } = self else { return Ok(Caller::Anyone) };
        let Some(credential) = bearer(headers)? else { return Ok(Caller::Visitor) };
        if credential.starts_with(secret::PREFIX) {
            return keys.holder(credential, Utc::now()).map(Caller::Key);
        }
        match tokens {
            Some(tokens) => tokens.buyer(credential).map(Caller::Buyer),
            None => Err(Problem::invalid_credential("no API key, and tokens are not taken here")),
        }
    }
}

/// The credential of a `Bearer` header (RFC 6750), where one was sent.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut sent = headers.get_all(AUTHORIZATION);
    let Some(value) = sent.next() else { return Ok(None) };
    let credential = value.to_str().ok().and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim_start_matches(' '))
    });
    let is_sound = |credential: &&str| {
        (1..=CREDENTIAL_MAX).contains(&credential.len())
            && credential.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match credential.filter(is_sound) {
        Some(credential) if sent.next().is_none() => Ok(Some(credential)),
        _ => Err(Problem::invalid_credential("Authorization is not one bearer credential")),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_credential_is_read() {
        assert_eq!(bearer(&with(&["Bearer abc"])).unwrap(), Some("abc"));
        assert_eq!(bearer(&with(&["bearer  abc"])).unwrap(), Some("abc"));
        assert_eq!(bearer(&with(&[])).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("Bearer {}", "x".repeat(CREDENTIAL_MAX + 1));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearer schlüssel", &long] {
            assert!(bearer(&with(&[bad])).is_err(), "{bad}");
        }
        assert!(bearer(&with(&["Bearer a", "Bearer b"])).is_err());
    }
}
