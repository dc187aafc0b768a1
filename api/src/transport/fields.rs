//! What every answer tells browsers and connections, and which other sites' pages may call.

use std::str::FromStr;

use actix_cors::Cors;
use actix_web::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{ConnectionType, Method};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use reqwest::Url;

use crate::office::Office;

/// A year, as browsers' own lists ask for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// An answer is data: were it ever shown as a page, it could load nothing and be framed nowhere.
const DATA_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Seconds for which a browser remembers what it may send.
const PREFLIGHT_KEPT_SECONDS: usize = 600;

/// What anybody may read. It may be kept, and has to be asked for again, which its tag makes cheap.
const PUBLIC: [&str; 6] = [
    "/v1/events/{event_id}",
    "/v1/events/{event_id}/availability",
    "/v1/events",
    "/openapi.json",
    "/docs",
    "/docs/{file:.*}",
];

/// Puts on an answer what protects whoever reads it in a browser. What a handler said itself stays.
pub(crate) fn protect(route: &str, request: &HttpRequest, response: &mut HttpResponse) {
    let status = response.status();
    let is_refused = status.is_client_error() || status.is_server_error();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_public = is_read && !is_refused && PUBLIC.contains(&route);
    let is_secure = request.app_data::<Data<Office>>().is_some_and(|office| office.is_secure);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let cache = HeaderValue::from_static(if is_public { "no-cache" } else { "no-store" });
    headers.insert(CACHE_CONTROL, cache);
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, DATA_POLICY);
    }
    if is_secure {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

/// Says that the connection ends, where the request asked to upgrade it. Nothing here is upgraded, and actix keeps no such
/// connection; it would send `Connection: Upgrade` back, and a client that took that for more than it is would lose its next
/// request (RFC 9112, section 9.6).
pub(crate) fn end_instead_of_upgrading(request: &HttpRequest, response: &mut HttpResponse) {
    if request.head().connection_type() == ConnectionType::Upgrade {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
}

/// The sites whose pages may call from a browser.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(Vec<String>);

/// It is no origin.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{0} is no origin as in https://shop.example or http://localhost:3000: scheme, host, port, and nothing behind them"
)]
pub(crate) struct InvalidOrigin(String);

impl FromStr for Origins {
    type Err = InvalidOrigin;

    fn from_str(list: &str) -> Result<Self, InvalidOrigin> {
        let origin = |text: &str| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            // As browsers write it: in lower case, without the scheme's own port.
            let written = url.map(|url| url.origin().ascii_serialization());
            written
                .filter(|written| written == text && !text.contains('*'))
                .ok_or_else(|| InvalidOrigin(text.to_owned()))
        };
        let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self(parts.map(origin).collect::<Result<_, _>>()?))
    }
}

impl Origins {
    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What browsers are told: the methods and fields of the contract. Without cookies, which nothing here reads.
    pub(super) fn cors(&self) -> Cors {
        let field = HeaderName::from_static;
        let cors = Cors::default()
            .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH])
            .allowed_headers([
                AUTHORIZATION,
                CONTENT_TYPE,
                IF_MATCH,
                IF_NONE_MATCH,
                field("idempotency-key"),
                field("x-request-id"),
            ])
            .expose_headers([
                ALLOW,
                ETAG,
                LINK,
                LOCATION,
                RETRY_AFTER,
                WWW_AUTHENTICATE,
                field("boxoffice-stale"),
                field("idempotent-replayed"),
                field("ratelimit"),
                field("ratelimit-policy"),
                field("x-request-id"),
            ])
            .max_age(PREFLIGHT_KEPT_SECONDS);
        self.0.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_origins_is_read_or_refused() {
        assert!("".parse::<Origins>().unwrap().is_empty());
        let two: Origins = "https://shop.example, http://localhost:3000".parse().unwrap();
        assert_eq!(two.0, ["https://shop.example", "http://localhost:3000"]);
        for bad in [
            "*",
            "null",
            "shop.example",
            "https://shop.example/",
            "https://shop.example/path",
            "https://shop.example:443",
            "https://SHOP.example",
            "https://*.shop.example",
            "https://user@shop.example",
            "ftp://shop.example",
        ] {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}
