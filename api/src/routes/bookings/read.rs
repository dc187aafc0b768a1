//! `GET /v1/events/{event_id}/bookings/{booking_id}`.

use actix_web::HttpRequest;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::scripts::Target;

use super::body::BookingBody;
use crate::contract::{BookingPath, READING, TRADING, refusals};
use crate::error::{Code, Problem};
use crate::identity::{Caller, Scope};
use crate::inventory::InventoryError;
use crate::office::Office;
use crate::record::{self, StoredBooking};
use crate::request::{booking_id, event_id};
use crate::routes::{Answer, SharedOffice, in_time_left, marked_stale, shown};

enum Found {
    Live(Box<BookingImage>),
    Recorded { booking: Box<StoredBooking>, stale: bool },
}

// What Kafka has not confirmed yet is not shown, where a booking waits for it.
refusals!(ReadRefusals: TRADING, &[Code::EventNotFound, Code::BookingNotFound, Code::InventoryUnverified, Code::KafkaUnavailable], READING);

/// The booking as it is now
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}/bookings/{booking_id}",
    operation_id = "getBooking",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsRead]), ("token" = [])),
    params(BookingPath),
    responses(
        (
            status = 200,
            description = "The booking.",
            body = BookingBody<'_>,
            headers(("Boxoffice-Stale" = String, description = "`true` where Redis is away or is being verified, so that this may be older.")),
        ),
        ReadRefusals,
    ),
)]
pub(crate) async fn read(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.trades(Scope::BookingsRead)?;
    let (target, found) = in_time_left(&request, async {
        let (target, _) = target_of(&office, &request).await?;
        Ok((target, find_own(&office, &caller, target).await?))
    })
    .await?;
    match found {
        Found::Live(image) => shown(&request, &BookingBody::of(target.event_id, target.booking_id, &image)),
        Found::Recorded { booking, stale } => {
            Ok(marked_stale(shown(&request, &BookingBody::recorded(&booking))?, stale))
        }
    }
}

/// The booking that a request names, and whether its event is over.
pub(super) async fn target_of(office: &Office, request: &HttpRequest) -> Result<(Target, bool), Problem> {
    let (event_id, booking_id) = (event_id(request)?, booking_id(request)?);
    match office.catalogue.listing(event_id).await {
        Ok(listing) => Ok((Target { event_id, booking_id, slots: listing.slots }, listing.over)),
        // A draft has no bookings.
        Err(problem) if problem.code() == Code::NotOnSale => Err(Problem::new(Code::BookingNotFound)),
        Err(problem) => Err(problem),
    }
}

/// The booking, where it is the caller's. Another's is answered as one that does not exist.
async fn find_own(office: &Office, caller: &Caller, target: Target) -> Result<Found, Problem> {
    let found = find(office, target).await?;
    if found.belongs_to(caller) { Ok(found) } else { Err(Problem::new(Code::BookingNotFound)) }
}

/// Refuses what is not the caller's before anything is decided about it. Nothing can change between the question and the
/// decision: a booking keeps its customer and its maker for ever.
pub(super) async fn refuse_another_ones(
    office: &Office,
    caller: &Caller,
    target: Target,
) -> Result<(), Problem> {
    if caller.owns_everything() {
        return Ok(());
    }
    find_own(office, caller, target).await.map(drop)
}

impl Found {
    fn belongs_to(&self, caller: &Caller) -> bool {
        match self {
            Self::Live(image) => caller.owns(image.customer.as_str(), image.caller.as_str()),
            Self::Recorded { booking, .. } => caller.owns(&booking.customer, &booking.maker),
        }
    }
}

async fn find(office: &Office, target: Target) -> Result<Found, Problem> {
    let redis = match office.stores.inventory.booking(target).await {
        Ok(Some(image)) => return Ok(Found::Live(Box::new(image))),
        Ok(None) => None,
        // PostgreSQL may know less than was promised, but never what Kafka has not confirmed. What an unverified Redis
        // holds may be older than that.
        Err(error @ (InventoryError::RedisUnavailable(_) | InventoryError::Unverified)) => Some(error),
        Err(error) => return Err(error.into()),
    };
    match recorded(office, target).await {
        Ok(Some(booking)) => Ok(Found::Recorded { booking: Box::new(booking), stale: redis.is_some() }),
        // It may be on its way through the log: only Redis could say that it does not exist.
        Ok(None) => Err(redis.map_or_else(|| Problem::new(Code::BookingNotFound), Problem::from)),
        Err(problem) => Err(redis.map_or(problem, Problem::from)),
    }
}

/// The booking as PostgreSQL has it.
pub(super) async fn recorded(office: &Office, target: Target) -> Result<Option<StoredBooking>, Problem> {
    let Target { event_id, booking_id, .. } = target;
    let read = async |connection: &mut _| record::booking(connection, event_id, booking_id).await;
    Ok(office.stores.database.run(read).await?)
}
