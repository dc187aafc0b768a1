//! `GET /livez`, `/readyz`, `/metrics` and `/openapi.json`.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;

use super::{Answer, SharedOffice, json};

#[derive(Serialize)]
struct ReadyBody {
    status: &'static str,
    redis: DependencyBody,
    kafka: DependencyBody,
    postgres: DependencyBody,
}

#[derive(Serialize)]
struct DependencyBody {
    ready: bool,
    reason: Option<String>,
}

impl DependencyBody {
    fn of(name: &'static str, health: Result<(), String>) -> Self {
        metrics::gauge!("boxoffice_dependency_up", "dependency" => name).set(if health.is_ok() {
            1.0
        } else {
            0.0
        });
        Self { ready: health.is_ok(), reason: health.err() }
    }
}

impl ReadyBody {
    fn of(office: &SharedOffice) -> Self {
        let inventory = office.stores.inventory.health();
        let redis = DependencyBody::of("redis", inventory.redis);
        let kafka = DependencyBody::of("kafka", inventory.kafka);
        let postgres = DependencyBody::of("postgres", office.stores.database.health());
        let ready = redis.ready && kafka.ready && postgres.ready;
        Self { status: if ready { "ready" } else { "not_ready" }, redis, kafka, postgres }
    }
}

/// The process serves; nothing is said of what it depends on.
pub(crate) async fn livez() -> Answer {
    json(StatusCode::OK, &serde_json::json!({ "status": "alive" }))
}

/// Whether all that a sale needs is there, and what is missing.
pub(crate) async fn readyz(office: SharedOffice) -> Answer {
    let body = ReadyBody::of(&office);
    if body.status == "ready" {
        return json(StatusCode::OK, &body);
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &body)?;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

pub(crate) async fn metrics(office: SharedOffice) -> HttpResponse {
    // The gauges of the dependencies are set by looking at them.
    let _ = ReadyBody::of(&office);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(office.metrics.render())
}

/// The contract for machines.
pub(crate) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(include_str!("../../../docs/openapi.json"))
}
