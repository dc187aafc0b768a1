//! A booking as a client receives it.

use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::money::Money;
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::contract;
use crate::record::StoredBooking;

/// A booking.
#[derive(Serialize, ToSchema)]
#[schema(as = Booking, examples(contract::booking))]
pub(crate) struct BookingBody<'a> {
    #[schema(schema_with = contract::id)]
    id: BookingId,
    #[schema(schema_with = contract::id)]
    event_id: EventId,
    #[schema(schema_with = contract::customer)]
    customer: &'a str,
    #[schema(min_items = 1, max_items = 20)]
    items: Vec<ItemBody>,
    #[schema(value_type = contract::MoneyShape)]
    total: Money,
    #[schema(value_type = contract::BookingStatusWords)]
    status: BookingStatus,
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize_option")]
    #[schema(schema_with = contract::time_or_null, required = true)]
    expires_at: Option<DateTime<Utc>>,
    #[schema(schema_with = contract::payment_reference_or_null, required = true)]
    payment_reference: Option<&'a str>,
}

/// What was booked of one ticket type.
#[derive(Serialize, ToSchema)]
#[schema(as = BookedItem)]
struct ItemBody {
    #[schema(schema_with = contract::id)]
    ticket_type_id: TicketTypeId,
    #[schema(schema_with = contract::quantity)]
    quantity: u16,
    #[schema(value_type = contract::MoneyShape)]
    unit_price: Money,
}

impl<'a> BookingBody<'a> {
    /// As it is now.
    pub(super) fn of(event: EventId, id: BookingId, image: &'a BookingImage) -> Self {
        let payment_reference = image.payment_reference.as_ref().map(|reference| reference.as_str());
        Self { payment_reference, ..Self::in_status(event, id, image, image.status) }
    }

    /// As its first response said it, to the letter, whatever has become of it since.
    pub(super) fn at_first(event: EventId, id: BookingId, image: &'a BookingImage) -> Self {
        Self::in_status(event, id, image, image.first_status)
    }

    fn in_status(event_id: EventId, id: BookingId, image: &'a BookingImage, status: BookingStatus) -> Self {
        let currency = image.currency;
        let items = image.items.iter().map(|item| ItemBody {
            ticket_type_id: item.ticket_type_id,
            quantity: item.quantity,
            unit_price: Money { amount: item.unit_price, currency },
        });
        Self {
            id,
            event_id,
            customer: image.customer.as_str(),
            items: items.collect(),
            total: Money { amount: image.total(), currency },
            status,
            created_at: image.created_at,
            expires_at: image.shown_expiry(status),
            payment_reference: None,
        }
    }

    /// As PostgreSQL has it.
    pub(super) fn recorded(booking: &'a StoredBooking) -> Self {
        let currency = booking.currency;
        let items = booking.items.iter().map(|item| ItemBody {
            ticket_type_id: item.ticket_type_id,
            quantity: item.quantity,
            unit_price: Money { amount: item.unit_price, currency },
        });
        let shows_expiry = matches!(booking.status, BookingStatus::Held | BookingStatus::Expired);
        Self {
            id: booking.id,
            event_id: booking.event_id,
            customer: &booking.customer,
            items: items.collect(),
            total: Money { amount: booking.total, currency },
            status: booking.status,
            created_at: booking.created_at,
            expires_at: booking.hold_expires_at.filter(|_| shows_expiry),
            payment_reference: booking.payment_reference.as_deref(),
        }
    }
}
