//! `GET /v1/events/{event_id}`.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;

use super::body::EventBody;
use crate::identity::Caller;
use crate::request::event_id;
use crate::routes::{Answer, SharedOffice, in_time, json, marked_stale};

pub(crate) async fn read(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let found = in_time(office.stores.find(event_id(&request)?)).await?;
    Ok(marked_stale(json(StatusCode::OK, &EventBody::of(found.event()))?, found.is_stale()))
}
