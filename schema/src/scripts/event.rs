//! `publish.lua`, `amend.lua` and `read_event.lua`: one event at a time; and `read_events.lua`.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::DecodeError;
use crate::event::EventImage;
use crate::ids::EventId;
use crate::keys::Keys;
use crate::position::Position;
use crate::shard::Shard;
use crate::status::EventStatus;
use crate::text::Name;
use crate::time;

use super::booking::open_call;
use super::{AMEND, Call, OutboxBounds, PUBLISH, READ_EVENT, READ_EVENTS};

/// One change of a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventChange {
    /// Another name.
    Name(Name),
    /// Another time of the event itself.
    StartsAt(DateTime<Utc>),
    /// Another beginning of sales, or none.
    SalesOpenAt(Option<DateTime<Utc>>),
    /// Another end of sales, or none.
    SalesCloseAt(Option<DateTime<Utc>>),
    /// Another limit for each customer, or none.
    PerCustomerLimit(Option<u32>),
    /// Paused, on sale again, or closed.
    Status(EventStatus),
    /// Another capacity of the ticket type with this ordinal; absolute.
    Capacity(u8, u32),
}

impl EventChange {
    fn field(&self) -> (String, String) {
        let optional_time =
            |t: &Option<DateTime<Utc>>| t.map_or_else(String::new, |t| time::to_millis(t).to_string());
        let (field, value) = match self {
            Self::Name(name) => ("name", name.to_string()),
            Self::StartsAt(at) => ("starts", time::to_millis(*at).to_string()),
            Self::SalesOpenAt(at) => ("open", optional_time(at)),
            Self::SalesCloseAt(at) => ("close", optional_time(at)),
            Self::PerCustomerLimit(limit) => {
                ("limit", limit.map_or_else(String::new, |limit| limit.to_string()))
            }
            Self::Status(status) => ("status", status.to_string()),
            Self::Capacity(ordinal, capacity) => return (format!("cap{ordinal}"), capacity.to_string()),
        };
        (field.to_owned(), value)
    }
}

/// Puts an event on sale.
pub fn publish(keys: &Keys, shard: Shard, bounds: OutboxBounds, event: &EventImage) -> Call {
    let mut call = open_call(&PUBLISH, keys, shard, bounds);
    call.keys.push(keys.event(shard, event.id));
    call.keys.push(keys.customers(shard, event.id));
    call.args.push(event.id.as_bytes().to_vec());
    push_pairs(&mut call, event.publish_fields());
    call
}

/// Changes a published event, all or nothing, where it was last changed when that is expected.
pub fn amend(
    keys: &Keys,
    shard: Shard,
    bounds: OutboxBounds,
    event: EventId,
    expected: Option<DateTime<Utc>>,
    changes: &[EventChange],
) -> Call {
    let mut call = open_call(&AMEND, keys, shard, bounds);
    call.keys.push(keys.event(shard, event));
    call.args.push(event.as_bytes().to_vec());
    call.args.push(expected.map_or_else(String::new, |at| time::to_millis(at).to_string()).into_bytes());
    push_pairs(&mut call, changes.iter().map(EventChange::field));
    call
}

fn push_pairs(call: &mut Call, pairs: impl IntoIterator<Item = (String, String)>) {
    for (field, value) in pairs {
        call.args.push(field.into_bytes());
        call.args.push(value.into_bytes());
    }
}

/// Reads an event with its stock.
pub fn read_event(keys: &Keys, shard: Shard, event: EventId) -> Call {
    Call {
        script: &READ_EVENT,
        keys: vec![keys.shard(shard), keys.certificate(shard), keys.event(shard, event)],
        args: Vec::new(),
    }
}

/// Reads events of one shard as they stand at one moment, and where the shard stands then.
pub fn read_events(keys: &Keys, shard: Shard, events: &[EventId]) -> Call {
    let events = events.iter().map(|event| keys.event(shard, *event));
    Call {
        script: &READ_EVENTS,
        keys: std::iter::once(keys.shard(shard)).chain(events).collect(),
        args: Vec::new(),
    }
}

/// What became of a publication or a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// Done: the event as it is now.
    Changed(EventImage),
    /// It was so already.
    Unchanged(EventImage),
    /// Closed is final.
    Closed,
    /// A capacity would be below what is held and sold.
    CapacityBelowSold,
    /// Sales would close before they open.
    WindowInverted,
    /// Somebody has changed it meanwhile.
    Superseded,
    /// Too much waits for Kafka.
    OutboxFull,
    /// The event or a field of it is missing, or a number of it is none.
    Unverified,
}

impl EventOutcome {
    /// Reads the reply of `publish.lua` or `amend.lua`.
    ///
    /// # Errors
    /// Where the scripts never answer so.
    pub fn parse(letter: &str, event: &[u8]) -> Result<Self, DecodeError> {
        Ok(match letter {
            "C" => Self::Changed(EventImage::from_hash_json(event)?),
            "P" => Self::Unchanged(EventImage::from_hash_json(event)?),
            "N" => Self::Closed,
            "K" => Self::CapacityBelowSold,
            "W" => Self::WindowInverted,
            "S" => Self::Superseded,
            "O" => Self::OutboxFull,
            "U" => Self::Unverified,
            other => return Err(DecodeError::new("script reply", format!("unknown outcome {other:?}"))),
        })
    }
}

/// The reply of `read_event.lua` as Redis sends it: certified, epoch, sequence, time, fields.
pub type EventReply = (u8, i64, i64, u64, HashMap<String, String>);

/// An event and its shard at one moment.
#[derive(Clone, Debug)]
pub struct EventSnapshot {
    /// Whether the shard may sell.
    pub certified: bool,
    /// The shard's last decision; none where the shard is not initialised.
    pub position: Option<Position>,
    /// Redis' clock.
    pub now: DateTime<Utc>,
    /// The event; none where Redis does not hold it. Shared by all who share the read.
    pub event: Option<Arc<EventImage>>,
}

impl EventSnapshot {
    /// Reads the reply.
    ///
    /// # Errors
    /// Where the event's hash is not what `publish.lua` writes.
    pub fn parse(reply: &EventReply) -> Result<Self, DecodeError> {
        let (certified, epoch, sequence, now, fields) = reply;
        let position = u32::try_from(*epoch).ok().zip(u64::try_from(*sequence).ok());
        Ok(Self {
            certified: *certified == 1,
            position: position.map(|(epoch, sequence)| Position { epoch, sequence }),
            now: time::from_millis(*now)?,
            event: if fields.is_empty() { None } else { Some(Arc::new(EventImage::from_fields(fields)?)) },
        })
    }
}
