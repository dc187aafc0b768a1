//! The contract for machines: an OpenAPI 3.1 document, made from the annotations of the handlers and from the types
//! that they read and write. `docs/openapi.json` is a copy of it, which `scripts/test` holds against the code.

mod examples;
mod parameters;
mod refusals;
mod shapes;

use actix_web::http::Method;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Components, Object, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, Modify, OpenApi};

use parameters::IfNoneMatchHeader;

use crate::error::Code;
use crate::routes::{audit, bookings, events, limited, machines, rate_limit};

pub(crate) use examples::*;
pub(crate) use parameters::{
    BookingPath, BookingStatusQuery, CustomerPath, CustomerQuery, EventPath, EventStatusQuery, IfMatchHeader,
    KeyHeader, PageQuery,
};
pub(crate) use refusals::{DECIDING, OPERATING, READ_BODY, READING, RECORDED, TRADING, problems, refusals};
pub(crate) use shapes::*;

/// What holds for every call, for whoever reads the document.
const DESCRIPTION: &str = "Sells exactly the tickets that exist. JSON; ids are UUIDv7; times RFC 3339 in UTC; money in minor units with an ISO 4217 code; \
    absent values are null. Unknown fields are refused (422). Unknown routes answer 404 `not_found`, other methods 405 \
    `method_not_allowed` with `Allow`; a call that needs a credential refuses without one, by 401 `unauthenticated`, unless \
    the installation runs without authentication. HEAD is GET without the body, OPTIONS \
    answers 204 with `Allow`, and to a preflight of CORS 200 or 400. Every answer but those to preflights, and a bare 400, 408 or \
    431 of the HTTP parser, carries `X-Request-Id`: the request's own where it has 1 to 128 \
    visible ASCII characters, a new one otherwise. New codes and new members of answers may be added; a client goes by \
    the status where it does not know a code, and ignores members that it does not know.";

const API_KEY: &str = "Of an operator or a storefront. A call names the scope that the key must have. An operator's key reaches \
    every booking, a storefront's those that were made with this storefront's keys; others are answered as if there were none.";

const TOKEN: &str = "Of a buyer, from the identity provider, where the installation takes tokens. Its subject is the \
    customer, and only this customer's bookings are there.";

const LIMIT_POLICIES: &str = "Where policies counted the request: an item a policy, its name with `q`, the units, and `w`, the seconds \
    in which they are granted (draft-ietf-httpapi-ratelimit-headers-11).";

const LIMIT_STANDINGS: &str = "Where policies counted the request: an item a policy, its name with `r`, the units that are left, and `t`, \
    the seconds until all are back.";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Boxoffice",
        version = "1.0.0",
        description = DESCRIPTION,
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "events", description = "Made as drafts, published, changed, read."),
        (name = "bookings", description = "Made, confirmed, cancelled, read."),
        (name = "limits", description = "Asked by other services before they work."),
        (name = "machines", description = "For load balancers, monitoring and generators."),
    ),
    paths(
        events::create::create,
        events::list::list,
        events::read::read,
        events::amend::amend,
        events::publish::publish,
        events::availability::availability,
        audit::audit,
        bookings::create::create,
        bookings::list::of_event,
        bookings::read::read,
        bookings::decide::confirm,
        bookings::decide::cancel,
        bookings::list::of_customer,
        rate_limit::check,
        machines::livez,
        machines::readyz,
        machines::metrics,
        machines::openapi,
    ),
    components(schemas(crate::error::Body)),
    modifiers(&Everywhere),
)]
struct Contract;

/// The document, as it is served and committed.
///
/// # Panics
/// Never: texts, numbers, lists and objects always serialize.
pub(crate) fn document() -> String {
    let json = Contract::openapi().to_pretty_json();
    json.expect("texts, numbers, lists and objects always serialize") + "\n"
}

/// What every operation and every answer has.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme("apiKey", SecurityScheme::Http(bearer("bok_...", API_KEY)));
        components.add_security_scheme("token", SecurityScheme::Http(bearer("JWT", TOKEN)));
        for (path, item) in &mut document.paths.paths {
            if let Some(read) = item.get.as_mut().filter(|_| path.starts_with("/v1/")) {
                add_tags(read);
            }
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PATCH, &mut item.patch),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                if limited::action_of(path, &method).is_some() {
                    add_limits(operation);
                }
                add_to_answers(operation, "X-Request-Id", "Finds the request in the logs.");
            }
        }
    }
}

fn bearer(format: &str, description: &str) -> Http {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
    bearer.description(Some(description)).build()
}

/// Every read has a tag, and takes those that the client has. Whoever has the body already is told all but that again.
fn add_tags(read: &mut Operation) {
    let parameters = read.parameters.get_or_insert_with(Vec::new);
    parameters.extend(IfNoneMatchHeader::into_params(|| None).into_iter().map(RefOr::T));
    let responses = &mut read.responses.responses;
    let Some(RefOr::T(whole)) = responses.get_mut("200") else { return };
    add_header(whole, "ETag", "Names what was read; for `If-None-Match`, and an event's for `If-Match`.");
    // Pages of lists are what is linked, and what comes compressed.
    let is_list = whole.headers.contains_key("Link");
    if is_list {
        add_header(whole, "Vary", "`Accept-Encoding`: a page may come compressed or not.");
    }
    let same = ResponseBuilder::new().description("What `If-None-Match` names is still right; no body.");
    let mut same = same.build();
    same.headers.clone_from(&whole.headers);
    if is_list {
        add_header(whole, "Content-Encoding", "`gzip` where the client takes it and the page is not small.");
    }
    responses.insert("304".to_owned(), same.into());
}

fn add_header(response: &mut Response, name: &str, description: &str) {
    let text = Object::with_type(Type::String);
    let header = HeaderBuilder::new().schema(Some(text)).description(Some(description)).build();
    response.headers.insert(name.to_owned(), header.into());
}

/// What may be asked for too often says so, and how the client stands.
fn add_limits(operation: &mut Operation) {
    let refusal = refusals::response(&[Code::RateLimited]);
    operation.responses.responses.insert("429".to_owned(), refusal.into());
    add_to_answers(operation, "RateLimit-Policy", LIMIT_POLICIES);
    add_to_answers(operation, "RateLimit", LIMIT_STANDINGS);
}

fn add_to_answers(operation: &mut Operation, name: &str, description: &str) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            add_header(response, name, description);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Scope;

    const COMMITTED: &str = include_str!("../../../docs/openapi.json");

    fn parsed(document: &str) -> serde_json::Value {
        serde_json::from_str(document).unwrap()
    }

    #[test]
    fn the_committed_document_is_the_codes() {
        assert!(
            parsed(COMMITTED) == parsed(&document()),
            "docs/openapi.json is not what the code says; refresh it, and look at what changed:\n\
             cargo run --locked -p boxoffice-api -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_scope_that_a_key_may_have_allows_something() {
        let document = document();
        for scope in Scope::ALL {
            assert!(document.contains(&format!("\"{scope}\"")), "no call asks for {scope}");
        }
    }
}
