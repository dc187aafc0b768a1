//! `restate.lua`, `restate_event.lua` and `mend_stock.lua`: decisions that mend, made while tickets are being sold.

use crate::DecodeError;
use crate::event::EventImage;
use crate::ids::EventId;
use crate::keys::Keys;
use crate::position::Position;
use crate::shard::Shard;

use super::booking::{decision_call, open_call};
use super::{
    Call, Decision, Fence, MEND_STOCK, OutboxBounds, RESTATE, RESTATE_EVENT, RESTATE_EVENT_FENCED,
    RESTATE_FENCED, Script, Target, decimal,
};

/// A booking to be said once more, as it is.
pub struct Restate {
    /// The booking.
    pub target: Target,
}

impl Decision for Restate {
    fn script() -> &'static Script {
        &RESTATE
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// The scripts for a fenced shard look at no bound.
const UNBOUNDED: OutboxBounds = OutboxBounds { frames: 0, bytes: 0, age_ms: 0 };

/// Says bookings once more while their shard is fenced by the recovery that calls this, in its epoch; replies as
/// [`decision_call`] does.
pub fn restate_fenced(keys: &Keys, shard: Shard, fence: Fence<'_>, batch: &[Restate]) -> Call {
    let mut call = decision_call(keys, shard, UNBOUNDED, batch);
    call.script = &RESTATE_FENCED;
    call.args.extend(fence.args());
    call
}

/// Says an event once more, as it is; replies a [`RestatementReply`].
pub fn restate_event(keys: &Keys, shard: Shard, bounds: OutboxBounds, event: EventId) -> Call {
    let mut call = open_call(&RESTATE_EVENT, keys, shard, bounds);
    call.keys.push(keys.event(shard, event));
    call.args.push(event.as_bytes().to_vec());
    call
}

/// Says an event once more while its shard is fenced by the recovery that calls this, in its epoch; replies a
/// [`RestatementReply`].
pub fn restate_event_fenced(keys: &Keys, shard: Shard, fence: Fence<'_>, event: EventId) -> Call {
    let mut call = restate_event(keys, shard, UNBOUNDED, event);
    call.script = &RESTATE_EVENT_FENCED;
    call.args.extend(fence.args());
    call
}

/// What is to be added to the counters of a ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockDifference {
    /// The ticket type's place in its event, from 0.
    pub ordinal: u8,
    /// Added to what is held.
    pub held: i64,
    /// Added to what is sold.
    pub sold: i64,
}

/// Moves an event's counters by differences that were found at the restatement at `stated`, unless something has
/// restated, mended or restored the event since; replies a [`RestatementReply`].
pub fn mend_stock(
    keys: &Keys,
    shard: Shard,
    bounds: OutboxBounds,
    event: EventId,
    stated: Position,
    differences: &[StockDifference],
) -> Call {
    let mut call = open_call(&MEND_STOCK, keys, shard, bounds);
    call.keys.push(keys.event(shard, event));
    call.args.extend([event.as_bytes().to_vec(), decimal(stated.epoch), decimal(stated.sequence)]);
    for difference in differences {
        call.args.extend([decimal(difference.ordinal), decimal(difference.held), decimal(difference.sold)]);
    }
    call
}

/// The reply of `restate_event.lua` and `mend_stock.lua` as Redis sends it: letter, event, epoch, sequence.
pub type RestatementReply = (String, Vec<u8>, u32, u64);

/// What became of a restatement or a mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restatement {
    /// Said: the event as it is now, and where in the log that stands.
    Said(EventImage, Position),
    /// The event was restated, mended or restored since the differences were found.
    Stale,
    /// A counter would be below 0, or more would be held and sold than there is.
    Impossible,
    /// Too much waits for Kafka.
    OutboxFull,
    /// The event or a field of it is missing, or a number of it is none.
    Unverified,
}

impl Restatement {
    /// Reads the reply.
    ///
    /// # Errors
    /// Where the scripts never answer so.
    pub fn parse((letter, event, epoch, sequence): &RestatementReply) -> Result<Self, DecodeError> {
        Ok(match letter.as_str() {
            "C" => {
                let position = Position { epoch: *epoch, sequence: *sequence };
                Self::Said(EventImage::from_hash_json(event)?, position)
            }
            "X" => Self::Stale,
            "K" => Self::Impossible,
            "O" => Self::OutboxFull,
            "U" => Self::Unverified,
            other => return Err(DecodeError::new("script reply", format!("unknown outcome {other:?}"))),
        })
    }
}
