//! What a client sent: parsed once, at the edge.

mod address;
mod body;
mod checks;
mod json;
mod key;
mod page;
mod path;
mod shape;

pub(crate) use address::TrustedProxies;
pub(crate) use body::read_json;
pub(crate) use checks::Checks;
pub(crate) use json::parse;
pub(crate) use key::idempotency_key;
pub(crate) use page::{After, ListOf, Page, next_cursor};
pub(crate) use path::{booking_id, customer, event_id};
pub(crate) use shape::{Integer, Object, present};
