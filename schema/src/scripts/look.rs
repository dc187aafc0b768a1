//! `look.lua` and `replays.lua`: one look at an event for all who want what was sold out, and one at a shard for all
//! who retry.

use crate::DecodeError;
use crate::ids::EventId;
use crate::keys::Keys;
use crate::shard::Shard;

use super::{Call, LOOK, REPLAYS, Target};

/// What a crowd wants to know of an event.
#[derive(Debug)]
pub struct Look {
    /// Ticket types, by their ordinals, each once.
    pub ordinals: Vec<u8>,
    /// Slots, each once, with how many of their fields are known.
    pub slots: Vec<(u32, u32)>,
}

/// The reply as Redis sends it: certificate, tickets left, which slots have other fields than are known, and those fields. None
/// where the event may not be sold just now.
pub type LookReply = Option<(String, Vec<u32>, Vec<usize>, Vec<Vec<Vec<u8>>>)>;

/// What a look saw at one moment, of a certified shard and an event on sale.
#[derive(Debug, PartialEq, Eq)]
pub struct Sight {
    /// The shard's certificate: it names the Redis and the epoch.
    pub certificate: String,
    /// How many tickets are left of each ticket type, by ordinal.
    pub left: Vec<(u8, u32)>,
    /// What is in each slot.
    pub slots: Vec<(u32, SlotSight)>,
}

/// What a look saw of a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum SlotSight {
    /// As many fields as were known: under the same certificate, the same ones.
    Same,
    /// Its fields: what the keys that made bookings are called, and an empty one.
    Fields(Vec<Vec<u8>>),
    /// More fields than one look reads, together with those of the slots in front of it.
    Unread,
}

/// Looks at an event.
pub fn look(keys: &Keys, shard: Shard, event: EventId, look: &Look) -> Call {
    let mut call = Call {
        script: &LOOK,
        keys: vec![
            keys.shard(shard),
            keys.certificate(shard),
            keys.event(shard, event),
            keys.customers(shard, event),
        ],
        args: vec![look.ordinals.clone()],
    };
    let mut known = Vec::with_capacity(4 * look.slots.len());
    for (slot, fields) in &look.slots {
        call.keys.push(keys.slot(shard, event, *slot));
        known.extend_from_slice(&fields.to_be_bytes());
    }
    call.args.push(known);
    call
}

/// Looks at the shard of what was booked before, at least one booking: replies the epoch in which it may sell, or none
/// where it may not, or has lost a slot of theirs.
pub fn replays<'a>(keys: &Keys, shard: Shard, booked: impl IntoIterator<Item = &'a Target>) -> Call {
    let slot = |target: &Target| keys.slot_of(shard, target.event_id, target.booking_id, target.slots);
    let mut names = vec![keys.shard(shard), keys.certificate(shard)];
    names.extend(booked.into_iter().map(slot));
    Call { script: &REPLAYS, keys: names, args: Vec::new() }
}

impl Sight {
    /// Reads the reply to a look; none where the event may not be sold just now, which `book.lua` explains.
    ///
    /// # Errors
    /// Where the script never answers so.
    pub fn parse(look: &Look, reply: LookReply) -> Result<Option<Self>, DecodeError> {
        let Some((certificate, left, added_to, fields)) = reply else { return Ok(None) };
        let misfit =
            || DecodeError::new("reply to a look", "says of fewer or more things than were asked for");
        if (left.len(), added_to.len()) != (look.ordinals.len(), fields.len()) {
            return Err(misfit());
        }
        let mut slots: Vec<_> = look.slots.iter().map(|(slot, _)| (*slot, SlotSight::Same)).collect();
        for (at, fields) in added_to.into_iter().zip(fields) {
            let (_, sight) = slots.get_mut(at).ok_or_else(misfit)?;
            *sight = if fields.is_empty() { SlotSight::Unread } else { SlotSight::Fields(fields) };
        }
        let left = look.ordinals.iter().copied().zip(left);
        Ok(Some(Self { certificate, left: left.collect(), slots }))
    }
}
