//! A booking as a client receives it.

use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::money::Money;
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::record::StoredBooking;

#[derive(Serialize)]
pub(super) struct BookingBody<'a> {
    id: BookingId,
    event_id: EventId,
    customer: &'a str,
    items: Vec<ItemBody>,
    total: Money,
    status: BookingStatus,
    #[serde(serialize_with = "time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize_option")]
    expires_at: Option<DateTime<Utc>>,
    payment_reference: Option<&'a str>,
}

#[derive(Serialize)]
struct ItemBody {
    ticket_type_id: TicketTypeId,
    quantity: u16,
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
