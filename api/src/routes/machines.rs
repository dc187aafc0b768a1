//! `GET /livez`, `/readyz`, `/metrics` and `/openapi.json`.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use crate::contract;

use super::{Answer, SharedOffice, json};

const ALIVE: &str = "alive";
const READY: &str = "ready";
const NOT_READY: &str = "not_ready";

/// Whether all that a sale needs is there.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct ReadyBody {
    #[schema(schema_with = readiness)]
    status: &'static str,
    redis: DependencyBody,
    kafka: DependencyBody,
    postgres: DependencyBody,
}

/// One of the servers behind the API.
#[derive(Serialize, ToSchema)]
#[schema(as = Dependency)]
struct DependencyBody {
    ready: bool,
    /// What is wrong with it; null where nothing is.
    #[schema(required = true)]
    reason: Option<String>,
}

fn readiness() -> Object {
    contract::one_of(&[READY, NOT_READY])
}

fn liveness() -> Object {
    contract::one_of(&[ALIVE])
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
        Self { status: if ready { READY } else { NOT_READY }, redis, kafka, postgres }
    }
}

/// That the process serves.
#[derive(Serialize, ToSchema)]
#[schema(as = Liveness)]
pub(crate) struct LiveBody {
    #[schema(schema_with = liveness)]
    status: &'static str,
}

/// The process serves
///
/// Nothing is said of what it depends on.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "machines",
    responses((status = 200, description = "It does.", body = LiveBody)),
)]
pub(crate) async fn livez() -> Answer {
    json(StatusCode::OK, &LiveBody { status: ALIVE })
}

/// Whether all that a sale needs is there, and what is missing
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "machines",
    responses(
        (status = 200, description = "All of it.", body = ReadyBody),
        (
            status = 503,
            description = "Something is missing.",
            body = ReadyBody,
            headers(("Retry-After" = u64, description = "Seconds after which to try again.")),
        ),
    ),
)]
pub(crate) async fn readyz(office: SharedOffice) -> Answer {
    let body = ReadyBody::of(&office);
    if body.status == READY {
        return json(StatusCode::OK, &body);
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &body)?;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "machines",
    responses((status = 200, description = "Its text format.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(office: SharedOffice) -> HttpResponse {
    // The gauges of the dependencies are set by looking at them.
    let _ = ReadyBody::of(&office);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(office.metrics.render())
}

/// The contract for machines
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "machines",
    responses((status = 200, description = "This document.", body = contract::Anything)),
)]
pub(crate) async fn openapi() -> HttpResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(contract::document);
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT.as_str())
}
