//! `GET /v1/events`.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use boxoffice_schema::status::EventStatus;
use serde::Serialize;

use super::body::EventBody;
use crate::error::Problem;
use crate::identity::Caller;
use crate::office::Office;
use crate::record::{self, StoredEvent};
use crate::request::{After, Page, next_cursor};
use crate::routes::{Answer, SharedOffice, in_time, json};

#[derive(Serialize)]
struct ListBody<'a> {
    items: Vec<EventBody<'a>>,
    next_cursor: Option<String>,
}

pub(crate) async fn list(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let page = Page::parse(request.query_string(), false)?;
    let (events, next_cursor) = in_time(read(&office, &page)).await?;
    let items = events.iter().map(|stored| EventBody::of(&stored.image)).collect();
    json(StatusCode::OK, &ListBody { items, next_cursor })
}

async fn read(office: &Office, page: &Page) -> Result<(Vec<StoredEvent>, Option<String>), Problem> {
    let (after, rows) = (page.after, page.rows());
    let read = async |connection: &mut _| record::events(connection, after, rows).await;
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
                stored.image = event;
            }
        }
    }
}
