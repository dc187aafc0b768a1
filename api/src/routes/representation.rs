//! What a read answers: JSON with an entity tag, so that a client that has it already is told so; lists with a link to
//! the next page, and small on the wire where the client takes it so.

use std::io::Write;

use actix_web::body::MessageBody;
use actix_web::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, EntityTag, Header, HeaderMap, HeaderValue, IfNoneMatch, LINK,
    VARY,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Answer, written};
use crate::error::Problem;

/// Less is not worth compressing.
const GZIP_FROM_BYTES: usize = 1_024;

/// Bytes of a tag: enough that no two representations ever share one.
const TAG_BYTES: usize = 16;

/// One thing, by its tag or whole.
pub(crate) fn shown(request: &HttpRequest, body: &impl Serialize) -> Answer {
    let (bytes, tag) = represented(body)?;
    Ok(tagged(request, &tag, bytes))
}

/// One thing as JSON, and what a client names it by that has read or written it.
pub(crate) fn represented(body: &impl Serialize) -> Result<(Vec<u8>, EntityTag), Problem> {
    let bytes = written(body)?;
    let tag = EntityTag::new_strong(digest(&bytes));
    Ok((bytes, tag))
}

/// One thing that says when it was read, as whoever shares the read is shown it.
pub(crate) struct Reading {
    tag: EntityTag,
    bytes: Bytes,
}

impl Reading {
    /// Its tag is that of `essence`, what does not change by being read again.
    pub(crate) fn new(essence: &impl Serialize, body: &impl Serialize) -> Result<Self, Problem> {
        let tag = EntityTag::new_weak(digest(&written(essence)?));
        Ok(Self { tag, bytes: written(body)?.into() })
    }

    /// By its tag or whole.
    pub(crate) fn shown(&self, request: &HttpRequest) -> HttpResponse {
        tagged(request, &self.tag, self.bytes.clone())
    }
}

/// A page of a list. Its tag is weak, since one page may go out in two encodings.
pub(crate) fn listed(request: &HttpRequest, next_cursor: Option<&str>, body: &impl Serialize) -> Answer {
    let bytes = written(body)?;
    let tag = EntityTag::new_weak(digest(&bytes));
    let mut response = if is_known(request, &tag) {
        unchanged(&tag)
    } else if bytes.len() < GZIP_FROM_BYTES || !takes_gzip(request.headers()) {
        whole(&tag, bytes)
    } else {
        let mut small = whole(&tag, gzip(&bytes).map_err(Problem::internal)?);
        small.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        small
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(cursor) = next_cursor {
        response.headers_mut().insert(LINK, next_page(request, cursor)?);
    }
    Ok(response)
}

fn digest(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..TAG_BYTES])
}

fn tagged(request: &HttpRequest, tag: &EntityTag, bytes: impl MessageBody + 'static) -> HttpResponse {
    if is_known(request, tag) { unchanged(tag) } else { whole(tag, bytes) }
}

fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        // A header that cannot be read saves nothing, and does no harm.
        Err(_) => false,
    }
}

fn unchanged(tag: &EntityTag) -> HttpResponse {
    HttpResponse::NotModified().insert_header((ETAG, tag.to_string())).finish()
}

fn whole(tag: &EntityTag, bytes: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").insert_header((ETAG, tag.to_string())).body(bytes)
}

/// Whether gzip is named with a quality above 0. A client that says nothing gets what everyone can read.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|entry| {
        let (coding, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let quality =
            parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
        coding.trim().eq_ignore_ascii_case("gzip") && quality.is_some_and(|quality| quality > 0.0)
    })
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The same list from the cursor on, with the same limit and filters.
fn next_page(request: &HttpRequest, cursor: &str) -> Result<HeaderValue, Problem> {
    let kept =
        request.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<&str> = kept.collect();
    let query = query.iter().fold(String::new(), |query, pair| query + pair + "&");
    // An address may hold brackets, which would end the link's own.
    let target =
        format!("{}?{query}cursor={cursor}", request.uri().path()).replace('<', "%3C").replace('>', "%3E");
    HeaderValue::from_str(&format!("<{target}>; rel=\"next\"")).map_err(Problem::internal)
}
