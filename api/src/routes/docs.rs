//! `GET /docs/`: the contract for people, with Swagger UI from this very binary, so that it needs no other server.

use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use actix_web::web::Path;
use utoipa_swagger_ui::Config;

use super::Answer;
use crate::error::{Code, Problem};

/// Swagger UI styles its elements itself and brings its pictures along; nothing comes from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("/openapi.json").try_it_out_enabled(true).display_request_duration(true);
    Arc::new(config.persist_authorization(false).validator_url("none"))
});

/// The page names its parts relative to a folder.
pub(crate) async fn entrance() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "/docs/")).finish()
}

/// The page and its parts.
pub(crate) async fn file(file: Path<String>) -> Answer {
    let found = utoipa_swagger_ui::serve(&file, Arc::clone(&CONFIG)).map_err(Problem::internal)?;
    let found = found.ok_or_else(|| Problem::new(Code::NotFound))?;
    let mut response = HttpResponse::Ok();
    response.content_type(found.content_type).insert_header((CONTENT_SECURITY_POLICY, POLICY));
    Ok(response.body(found.bytes.into_owned()))
}
