//! `GET /v1/events`.

use std::sync::Arc;

use actix_web::HttpRequest;
use boxoffice_schema::status::EventStatus;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::EventBody;
use crate::contract::{EventStatusQuery, PageQuery, RECORDED, refusals};
use crate::error::{Code, Problem};
use crate::identity::Caller;
use crate::office::Office;
use crate::record::{self, StoredEvent};
use crate::request::{After, ListOf, Page, next_cursor};
use crate::routes::{Answer, SharedOffice, in_time, listed};

/// A page of events, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = EventList)]
pub(crate) struct ListBody<'a> {
    #[schema(max_items = 200)]
    items: Vec<EventBody<'a>>,
    /// For `cursor`; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

refusals!(ListRefusals: &[Code::MalformedRequest], RECORDED);

/// List events, newest first
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "listEvents",
    tag = "events",
    security((), ("apiKey" = []), ("token" = [])),
    params(PageQuery, EventStatusQuery),
    responses(
        (
            status = 200,
            description = "A page.",
            body = ListBody<'_>,
            headers(("Link" = String, description = "The next page, as `rel=\"next\"`; absent on the last one.")),
        ),
        ListRefusals,
    ),
)]
pub(crate) async fn list(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let page = Page::parse(request.query_string(), ListOf::Events)?;
    let (events, next_cursor) = in_time(read(&office, &page)).await?;
    let items = events.iter().map(|stored| EventBody::of(&stored.image)).collect();
    listed(&request, next_cursor.as_deref(), &ListBody { items, next_cursor: next_cursor.clone() })
}

async fn read(office: &Office, page: &Page) -> Result<(Vec<StoredEvent>, Option<String>), Problem> {
    let read = async |connection: &mut _| record::events(connection, page).await;
    let mut events = office.stores.database.run(read).await?;
    let cursor = next_cursor(page, &mut events, |stored| After {
        created_at: stored.image.created_at,
        id: stored.image.id.as_uuid(),
    });
    show_publications(office, &mut events).await;
    Ok((events, cursor))
}

/// A publication takes a moment through the log; whoever has just put an event on sale finds it so here too. Without
/// Redis the list is as PostgreSQL has it.
async fn show_publications(office: &Office, events: &mut [StoredEvent]) {
    for stored in events {
        if stored.frozen && stored.image.status == EventStatus::Draft {
            let Ok(snapshot) = office.stores.snapshot(stored.image.id).await else { return };
            if let Some(event) = snapshot.event {
                stored.image = Arc::unwrap_or_clone(event);
            }
        }
    }
}
