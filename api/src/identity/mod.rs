//! Who calls, and what they may do.
//!
//! [`Caller`] is the answer: an argument of a handler, or [`Caller::of`] for what stands before handlers. It is found
//! once a request, before the body is read.

mod caller;
mod scope;

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

pub(crate) use caller::{Buyer, Caller, KeyHolder, KeyId};
pub(crate) use scope::{Scope, Scopes};

use crate::error::Problem;

impl Caller {
    /// Whoever sent this request; found the first time, remembered for the next.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        if let Some(known) = request.extensions().get::<Self>() {
            return Ok(known.clone());
        }
        let caller = Self::Anyone;
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
