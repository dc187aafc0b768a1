//! A published event as Redis holds it, and as its decisions carry it.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::ids::{EventId, TicketTypeId};
use crate::money::Currency;
use crate::status::EventStatus;
use crate::text::Name;
use crate::time;

/// An event in full, with the totals of its ticket types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventImage {
    /// The event.
    pub id: EventId,
    /// What it is called.
    pub name: Name,
    /// When it takes place.
    #[serde(serialize_with = "time::serialize")]
    pub starts_at: DateTime<Utc>,
    /// Sales begin; none: as soon as it is published.
    #[serde(serialize_with = "time::serialize_option")]
    pub sales_open_at: Option<DateTime<Utc>>,
    /// Sales end; none: when it is closed.
    #[serde(serialize_with = "time::serialize_option")]
    pub sales_close_at: Option<DateTime<Utc>>,
    /// The most tickets a customer may have of the event.
    pub per_customer_limit: Option<u32>,
    /// How long a hold lasts.
    pub hold_seconds: u32,
    /// Of all prices.
    pub currency: Currency,
    /// Never `draft`: a draft is in PostgreSQL only.
    pub status: EventStatus,
    /// In how many slots its bookings lie; fixed at publication, a power of two.
    pub slots: u32,
    /// When it was made.
    #[serde(serialize_with = "time::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    #[serde(serialize_with = "time::serialize")]
    pub updated_at: DateTime<Utc>,
    /// In the order in which they were made; a type's place is its ordinal.
    pub ticket_types: Vec<TicketTypeImage>,
}

/// A ticket type with its totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketTypeImage {
    /// The ticket type.
    pub id: TicketTypeId,
    /// What it is called.
    pub name: Name,
    /// What a ticket costs, in minor units.
    pub price: u64,
    /// The most tickets a customer may have of this type.
    pub per_customer_limit: Option<u32>,
    /// How many tickets there are.
    pub capacity: u32,
    /// How many are held.
    pub held: u32,
    /// How many are sold.
    pub sold: u32,
}

impl TicketTypeImage {
    /// What is left; `None` where the counters contradict each other, which breaks promise P1.
    pub fn available(&self) -> Option<u32> {
        self.capacity.checked_sub(self.held)?.checked_sub(self.sold)
    }
}

/// In how many slots the bookings of an event lie: 32 to 64 bookings to a slot when it is sold out, so that the
/// slot's hash stays in Redis' compact form (`hash-max-listpack-entries`).
pub fn slots_for(total_capacity: u64) -> u32 {
    let wanted = total_capacity.div_ceil(64).clamp(1, 65_536).next_power_of_two();
    u32::try_from(wanted).expect("clamped to 65,536")
}

/// How long after the end of sales and of the event itself its bookings are still changed and its retries answered, in
/// hours.
const OVER_AFTER_HOURS: i64 = 24;

impl EventImage {
    /// Whether nothing is decided about the event any more: it was closed a day ago, and took place a day ago. Until then
    /// Redis has all of its bookings, since tickets are given back, and keys asked for again, long after sales have ended.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        let ended = self.updated_at.max(self.starts_at);
        self.status == EventStatus::Closed && ended < now - TimeDelta::hours(OVER_AFTER_HOURS)
    }

    /// The fields of the event's hash that publication sets; status, update time and totals are the script's.
    pub fn publish_fields(&self) -> Vec<(String, String)> {
        let optional_time = |time: Option<DateTime<Utc>>| time.map_or_else(String::new, millis);
        let optional = |limit: Option<u32>| limit.map_or_else(String::new, |limit| limit.to_string());
        let mut fields: Vec<(String, String)> = [
            ("id", self.id.to_string()),
            ("name", self.name.to_string()),
            ("starts", millis(self.starts_at)),
            ("open", optional_time(self.sales_open_at)),
            ("close", optional_time(self.sales_close_at)),
            ("limit", optional(self.per_customer_limit)),
            ("hold", self.hold_seconds.to_string()),
            ("currency", self.currency.to_string()),
            ("slots", self.slots.to_string()),
            ("created", millis(self.created_at)),
            ("types", self.ticket_types.len().to_string()),
        ]
        .map(|(field, value)| (field.to_owned(), value))
        .into();
        for (ordinal, ticket_type) in self.ticket_types.iter().enumerate() {
            fields.extend([
                (format!("id{ordinal}"), ticket_type.id.to_string()),
                (format!("name{ordinal}"), ticket_type.name.to_string()),
                (format!("price{ordinal}"), ticket_type.price.to_string()),
                (format!("limit{ordinal}"), optional(ticket_type.per_customer_limit)),
                (format!("cap{ordinal}"), ticket_type.capacity.to_string()),
            ]);
        }
        fields
    }

    /// All fields of the event's hash: those of publication, and what the scripts keep beside them.
    pub fn hash_fields(&self) -> Vec<(String, String)> {
        let mut fields = self.publish_fields();
        fields.push(("status".to_owned(), self.status.to_string()));
        fields.push(("updated".to_owned(), millis(self.updated_at)));
        for (ordinal, ticket_type) in self.ticket_types.iter().enumerate() {
            fields.push((format!("held{ordinal}"), ticket_type.held.to_string()));
            fields.push((format!("sold{ordinal}"), ticket_type.sold.to_string()));
        }
        fields
    }

    /// From the fields of the event's hash.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn from_fields(fields: &HashMap<String, String>) -> Result<Self, DecodeError> {
        let read = Fields(fields);
        let count: u8 = read.parse("types")?;
        let ticket_types = (0..count).map(|ordinal| read.ticket_type(ordinal)).collect::<Result<_, _>>()?;
        Ok(Self {
            id: read.parse("id")?,
            name: read.name("name")?,
            starts_at: read.time("starts")?,
            sales_open_at: read.optional("open")?.map(time::from_millis).transpose()?,
            sales_close_at: read.optional("close")?.map(time::from_millis).transpose()?,
            per_customer_limit: read.optional("limit")?,
            hold_seconds: read.parse("hold")?,
            currency: Currency::parse(read.get("currency")?).map_err(|e| bad("currency", e))?,
            status: EventStatus::parse(read.get("status")?)?,
            slots: read.parse("slots")?,
            created_at: read.time("created")?,
            updated_at: read.time("updated")?,
            ticket_types,
        })
    }

    /// From the JSON object of the event's hash that `publish.lua` and `amend.lua` return and log.
    ///
    /// # Errors
    /// Where it is not such an object.
    pub fn from_hash_json(json: &[u8]) -> Result<Self, DecodeError> {
        let fields = serde_json::from_slice(json).map_err(|e| bad("json", e))?;
        Self::from_fields(&fields)
    }
}

fn millis(time: DateTime<Utc>) -> String {
    time::to_millis(time).to_string()
}

fn bad(field: &str, why: impl std::fmt::Display) -> DecodeError {
    DecodeError::new("event hash", format!("field {field}: {why}"))
}

struct Fields<'a>(&'a HashMap<String, String>);

impl Fields<'_> {
    fn get(&self, field: &str) -> Result<&str, DecodeError> {
        self.0.get(field).map(String::as_str).ok_or_else(|| bad(field, "is missing"))
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, field: &str) -> Result<T, DecodeError> {
        self.get(field)?.parse().map_err(|e| bad(field, e))
    }

    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        field: &str,
    ) -> Result<Option<T>, DecodeError> {
        if self.get(field)?.is_empty() { Ok(None) } else { self.parse(field).map(Some) }
    }

    fn time(&self, field: &str) -> Result<DateTime<Utc>, DecodeError> {
        time::from_millis(self.parse(field)?)
    }

    fn name(&self, field: &str) -> Result<Name, DecodeError> {
        Name::try_from(self.get(field)?.to_owned()).map_err(|e| bad(field, e))
    }

    fn ticket_type(&self, ordinal: u8) -> Result<TicketTypeImage, DecodeError> {
        Ok(TicketTypeImage {
            id: self.parse(&format!("id{ordinal}"))?,
            name: self.name(&format!("name{ordinal}"))?,
            price: self.parse(&format!("price{ordinal}"))?,
            per_customer_limit: self.optional(&format!("limit{ordinal}"))?,
            capacity: self.parse(&format!("cap{ordinal}"))?,
            held: self.parse(&format!("held{ordinal}"))?,
            sold: self.parse(&format!("sold{ordinal}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: EventStatus, starts_at: DateTime<Utc>, updated_at: DateTime<Utc>) -> EventImage {
        EventImage {
            id: EventId::from_bytes([1; 16]),
            name: Name::try_from("A night out".to_owned()).unwrap(),
            starts_at,
            sales_open_at: None,
            sales_close_at: None,
            per_customer_limit: None,
            hold_seconds: 600,
            currency: Currency::parse("EUR").unwrap(),
            status,
            slots: 1,
            created_at: starts_at.min(updated_at),
            updated_at,
            ticket_types: Vec::new(),
        }
    }

    #[test]
    fn an_event_is_over_a_day_after_it_was_closed_and_took_place_whichever_came_later() {
        let earlier = time::from_millis(1_800_000_000_000).unwrap();
        let later = earlier + TimeDelta::hours(5);
        let (a_day_later, moment) = (later + TimeDelta::hours(24), TimeDelta::milliseconds(1));
        for (starts_at, updated_at) in [(earlier, later), (later, earlier)] {
            let closed = event(EventStatus::Closed, starts_at, updated_at);
            assert!(!closed.is_over(a_day_later - moment), "{closed:?}");
            assert!(closed.is_over(a_day_later + moment), "{closed:?}");
            for status in [EventStatus::OnSale, EventStatus::Paused] {
                let open = event(status, starts_at, updated_at);
                assert!(!open.is_over(a_day_later + TimeDelta::days(365)), "{open:?}");
            }
        }
    }
}
