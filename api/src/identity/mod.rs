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

use actix_web::dev::Payload;
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
        if let Some(known) = request.extensions().get::<Self>() {
            return Ok(known.clone());
        }
        let office = request.app_data::<SharedOffice>();
        let office = office.ok_or_else(|| Problem::internal("a route without an office"))?;
        let caller = office.authentication.identify(request.headers())?;
        request.extensions_mut().insert(caller.clone());
        Ok(caller)
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}
