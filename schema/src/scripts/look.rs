//! `look.lua`: one look at an event for all who want what was sold out.

use crate::ids::EventId;
use crate::keys::Keys;
use crate::shard::Shard;

use super::{Call, LOOK, decimal};

/// What a crowd wants to know of an event.
#[derive(Debug, Default)]
pub struct Look {
    /// Ticket types, by their ordinals, each once.
    pub ordinals: Vec<u8>,
    /// Slots, each once, with how many of their fields are known.
    pub slots: Vec<(u32, usize)>,
}

/// The reply as Redis sends it: epoch, how many are left of each ticket type, and of each slot its fields, none where what
/// is known of it is all; no fields where they were too many to be read at once. No reply at all where the event may not
/// be sold just now, which `book.lua` explains.
pub type LookReply = Option<(u32, Vec<u32>, Vec<Option<Vec<Vec<u8>>>>)>;

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
    for (slot, fields) in &look.slots {
        call.keys.push(keys.slot(shard, event, *slot));
        call.args.push(decimal(fields));
    }
    call
}
