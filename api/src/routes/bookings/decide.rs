//! `POST /v1/events/{event_id}/bookings/{booking_id}/confirm` and `/cancel`.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use boxoffice_schema::scripts::{Cancel, Confirm, Outcome, Target};
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::text::PaymentReference;
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::BookingBody;
use super::read::{recorded, refuse_another_ones, target_of};
use crate::contract::{self, BookingPath, DECIDING, READ_BODY, TRADING, refusals};
use crate::error::{Code, Problem, refusal};
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::record::StoredBooking;
use crate::request::{Checks, parse, read_json};
use crate::routes::{Answer, SharedOffice, in_time_left, json};

/// That a held booking was paid for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payment {
    #[schema(schema_with = contract::payment_reference, required = true)]
    payment_reference: Option<String>,
}

refusals!(ConfirmRefusals:
    TRADING,
    READ_BODY,
    &[Code::EventNotFound, Code::BookingNotFound],
    &[Code::BookingCancelled, Code::HoldExpired],
    DECIDING,
);
refusals!(CancelRefusals: TRADING, &[Code::EventNotFound, Code::BookingNotFound, Code::NotOnSale], DECIDING);

/// Sell what is held
///
/// Already confirmed: the first reference is kept. Expired: the tickets are taken again where they can be.
#[utoipa::path(
    post,
    path = "/v1/events/{event_id}/bookings/{booking_id}/confirm",
    operation_id = "confirmBooking",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsWrite]), ("token" = [])),
    params(BookingPath),
    request_body = Payment,
    responses((status = 200, description = "Confirmed.", body = BookingBody<'_>), ConfirmRefusals),
)]
pub(crate) async fn confirm(
    caller: Caller,
    office: SharedOffice,
    request: HttpRequest,
    payload: Payload,
) -> Answer {
    caller.trades(Scope::BookingsWrite)?;
    let body = read_json(&request, payload).await?;
    let payment_reference = parse::<Payment>(&body)?.check()?;
    in_time_left(&request, async {
        match subject(&office, &caller, &request).await? {
            Subject::Live(target) => {
                let outcome = office.stores.inventory.confirm(Confirm { target, payment_reference }).await?;
                respond(&office, target, &outcome).await
            }
            Subject::Past(booking) => match booking.status {
                BookingStatus::Confirmed => json(StatusCode::OK, &BookingBody::recorded(&booking)),
                BookingStatus::Cancelled => Err(Problem::new(Code::BookingCancelled)),
                BookingStatus::Held | BookingStatus::Expired => Err(Problem::new(Code::HoldExpired)),
            },
        }
    })
    .await
}

/// Give the tickets back
///
/// No body. Already cancelled or expired: unchanged. An event that is over may be in PostgreSQL alone: then 409 `not_on_sale`.
#[utoipa::path(
    post,
    path = "/v1/events/{event_id}/bookings/{booking_id}/cancel",
    operation_id = "cancelBooking",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsWrite]), ("token" = [])),
    params(BookingPath),
    responses((status = 200, description = "Cancelled, or expired before.", body = BookingBody<'_>), CancelRefusals),
)]
pub(crate) async fn cancel(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.trades(Scope::BookingsWrite)?;
    in_time_left(&request, async {
        match subject(&office, &caller, &request).await? {
            Subject::Live(target) => {
                let outcome = office.stores.inventory.cancel(Cancel { target }).await?;
                respond(&office, target, &outcome).await
            }
            Subject::Past(booking) => match booking.status {
                BookingStatus::Cancelled | BookingStatus::Expired => {
                    json(StatusCode::OK, &BookingBody::recorded(&booking))
                }
                BookingStatus::Held | BookingStatus::Confirmed => {
                    Err(Problem::because(Code::NotOnSale, PAST))
                }
            },
        }
    })
    .await
}

/// The booking that is to be changed.
enum Subject {
    /// Redis decides about it.
    Live(Target),
    /// Its event is over and gone from Redis: it stays as PostgreSQL has it.
    Past(Box<StoredBooking>),
}

const PAST: &str = "The event took place and was closed; its bookings can no longer be changed here.";

async fn subject(office: &Office, caller: &Caller, request: &HttpRequest) -> Result<Subject, Problem> {
    let (target, is_over) = target_of(office, request).await?;
    refuse_another_ones(office, caller, target).await?;
    // An event is gone from a Redis that lost it as from one that was restored without it. The second is certified, and then
    // PostgreSQL knows all that was decided.
    if !is_over || office.stores.inventory.booking(target).await?.is_some() {
        return Ok(Subject::Live(target));
    }
    let booking = recorded(office, target).await?.ok_or_else(|| Problem::new(Code::BookingNotFound))?;
    Ok(Subject::Past(Box::new(booking)))
}

async fn respond(office: &Office, target: Target, outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Changed(image) | Outcome::Unchanged(image) => {
            json(StatusCode::OK, &BookingBody::of(target.event_id, target.booking_id, image))
        }
        Outcome::Missing => Err(missing(office, target).await),
        refused => Err(refusal(refused)),
    }
}

/// Redis does not know the booking. Where PostgreSQL does, Redis has lost it, and recovery is to bring it back.
async fn missing(office: &Office, target: Target) -> Problem {
    match recorded(office, target).await {
        Ok(Some(_)) => Problem::new(Code::InventoryUnverified),
        Ok(None) => Problem::new(Code::BookingNotFound),
        Err(problem) => problem,
    }
}

/// Parses and checks a body, for fuzzing.
pub(crate) fn try_payment(body: &[u8]) -> Result<(), Problem> {
    parse::<Payment>(body)?.check().map(drop)
}

impl Payment {
    fn check(self) -> Result<PaymentReference, Problem> {
        let mut checks = Checks::default();
        let reference = checks.required("payment_reference", self.payment_reference);
        let reference = reference.and_then(|reference| checks.text("payment_reference", reference));
        checks.done()?;
        reference.ok_or_else(|| Problem::internal("a check let something through"))
    }
}
