//! Who calls, and what they may do.
//!
//! `Caller` is the answer: an argument of a handler, or `Caller::of` for what stands before handlers. It is found
//! once a request, before the body is read, and without asking anybody: the valid API keys are in memory, and so
//! are the public keys of tokens.

mod authentication;
mod caller;
mod jwks;
mod keyring;
mod mode;
mod scope;
mod secret;
mod store;
mod tokens;

use std::future::{Ready, ready};
use std::sync::LazyLock;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

pub(crate) use authentication::Authentication;
pub(crate) use caller::{Caller, KeyId};
pub(crate) use jwks::JwksReader;
pub use jwks::JwksSource;
pub(crate) use keyring::{KeyRing, KeyRingWriter};
pub use mode::Mode;
pub(crate) use scope::{Scope, Scopes};
pub(crate) use secret::PREFIX;
pub(crate) use store::{Grant, KeyRow, create, list, live, revoke, rotate};
pub use tokens::TokenSettings;
pub(crate) use tokens::Tokens;

use crate::error::Problem;
use crate::routes::SharedOffice;

impl Caller {
    /// Whoever sent this request; found the first time, remembered for the next.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        once(request, || {
            let office = request.app_data::<SharedOffice>();
            let office = office.ok_or_else(|| Problem::internal("a route without an office"))?;
            office.authentication.identify(request.headers())
        })
    }
}

/// Who sent a request, or why nobody is taken for its sender; among its extensions.
struct Known(Result<Caller, Problem>);

/// A refusal is remembered like a caller: what is forged costs one verification, whoever asks for its sender.
fn once(
    request: &HttpRequest,
    identify: impl FnOnce() -> Result<Caller, Problem>,
) -> Result<Caller, Problem> {
    if let Some(Known(known)) = request.extensions().get::<Known>() {
        return known.clone();
    }
    let known = identify();
    request.extensions_mut().insert(Known(known.clone()));
    known
}

/// Tries whatever was sent as a credential on an installation that knows one public key and no API key; whoever is let
/// in has forged something. For fuzzing.
///
/// # Panics
/// Where somebody is let in.
pub(crate) fn try_credential(headers: &HeaderMap, set: &[u8]) {
    static INSTALLATION: LazyLock<(Authentication, JwksReader)> = LazyLock::new(|| {
        let (tokens, reader) = Tokens::new(TokenSettings {
            issuer: "https://id.example".to_owned(),
            audience: "boxoffice".to_owned(),
            jwks: JwksSource::File("nowhere".into()),
            leeway: Duration::from_secs(30),
            kept: Duration::from_secs(86_400),
        })
        .expect("a client of HTTP can be made");
        let (keys, _) = KeyRing::new(Duration::from_secs(86_400));
        (Authentication::On { keys, tokens: Some(Box::new(tokens)) }, reader)
    });
    let (authentication, reader) = &*INSTALLATION;
    // A set that is broken leaves the one before.
    let _ = reader.hold(set);
    if let Ok(caller) = authentication.identify(headers) {
        assert!(matches!(caller, Caller::Visitor), "{caller} was let in");
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use actix_web::test::TestRequest;

    use super::*;
    use crate::error::Code;

    #[test]
    fn a_credential_is_verified_once_whether_it_is_right_or_forged() {
        for is_right in [true, false] {
            let (request, verified) = (TestRequest::default().to_http_request(), Cell::new(0));
            let identify = || {
                verified.set(verified.get() + 1);
                if is_right { Ok(Caller::Anyone) } else { Err(Problem::new(Code::Unauthenticated)) }
            };
            for _ in 0..2 {
                assert_eq!(once(&request, identify).is_ok(), is_right);
            }
            assert_eq!(verified.get(), 1);
        }
    }
}
