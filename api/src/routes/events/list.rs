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
use crate::routes::{Answer, SharedOffice, in_time_left, listed, marked_stale};

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
            headers(
                ("Link" = String, description = "The next page, as `rel=\"next\"`; absent on the last one."),
                ("Boxoffice-Stale" = String, description = "`true` where Redis is away or is being verified, and could not say what was just published."),
            ),
        ),
        ListRefusals,
    ),
)]
pub(crate) async fn list(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let page = Page::parse(request.query_string(), ListOf::Events)?;
    let (events, next_cursor, stale) = in_time_left(&request, read(&office, &page)).await?;
    let items = events.iter().map(|stored| EventBody::of(&stored.image)).collect();
    let body = ListBody { items, next_cursor: next_cursor.clone() };
    Ok(marked_stale(listed(&request, next_cursor.as_deref(), &body)?, stale))
}

/// A page, the cursor of the next one, and whether Redis should have said more of it.
async fn read(office: &Office, page: &Page) -> Result<(Vec<StoredEvent>, Option<String>, bool), Problem> {
    let read = async |connection: &mut _| record::events(connection, page).await;
    let mut events = office.stores.database.run(read).await?;
    let cursor = next_cursor(page, &mut events, |stored| After {
        created_at: stored.image.created_at,
        id: stored.image.id.as_uuid(),
    });
    let stale = !show_publications(office, &mut events).await;
    // PostgreSQL still took for a draft what is on sale by now.
    events.retain(|stored| page.status.is_none_or(|status| stored.image.status.as_str() == status));
    Ok((events, cursor, stale))
}

/// A publication takes a moment through the log; whoever has just put an event on sale finds it so here too. Without
/// Redis the list is as PostgreSQL has it: whether Redis was there, and verified, wherever it was needed.
async fn show_publications(office: &Office, events: &mut [StoredEvent]) -> bool {
    let mut is_certain = true;
    for stored in events {
        if stored.frozen && stored.image.status == EventStatus::Draft {
            let Ok(snapshot) = office.stores.snapshot(stored.image.id).await else { return false };
            is_certain &= snapshot.certified;
            if let Some(event) = snapshot.event {
                stored.image = Arc::unwrap_or_clone(event);
            }
        }
    }
    is_certain
}
