//! The scripts with which recovery puts a shard back into a Redis that lost it.

use std::collections::BTreeMap;

use crate::event::EventImage;
use crate::ids::BookingId;
use crate::image::BookingImage;
use crate::keys::Keys;
use crate::position::Position;
use crate::shard::Shard;
use crate::slot;
use crate::status::BookingStatus;
use crate::time;

use super::booking::expiry_member;
use super::{
    Call, Fence, NOTE_LOST, RESTORE_BOOKINGS, RESTORE_CLEAR, RESTORE_EVENT, RESTORE_SHARD,
    RESTORE_UNSCHEDULE, Script, decimal,
};

/// Notes that a key of a shard is missing, before something is put in its place; replies 1.
pub fn note_lost(keys: &Keys, shard: Shard, fence: Fence<'_>, key: String) -> Call {
    let mut call = fenced(&NOTE_LOST, keys, shard, fence);
    call.keys.push(key);
    call
}

/// Removes keys of a shard that was found to be wrong; replies their number.
pub fn restore_clear(keys: &Keys, shard: Shard, fence: Fence<'_>, doomed: Vec<String>) -> Call {
    let mut call = fenced(&RESTORE_CLEAR, keys, shard, fence);
    call.keys.extend(doomed);
    call
}

/// Removes holds of one event from the shard's expiry queue, by the members that stand for them; replies their number.
pub fn restore_unschedule(keys: &Keys, shard: Shard, fence: Fence<'_>, members: Vec<Vec<u8>>) -> Call {
    let mut call = fenced(&RESTORE_UNSCHEDULE, keys, shard, fence);
    call.keys.push(keys.expiry(shard));
    call.args.extend(members);
    call
}

/// Puts an event back, with the counters of its image.
pub fn restore_event(keys: &Keys, shard: Shard, fence: Fence<'_>, event: &EventImage) -> Call {
    let mut call = fenced(&RESTORE_EVENT, keys, shard, fence);
    call.keys.extend([keys.event(shard, event.id), keys.customers(shard, event.id)]);
    for (field, value) in event.hash_fields() {
        call.args.extend([field.into_bytes(), value.into_bytes()]);
    }
    call
}

/// The most bookings of a call, which nobody else can interrupt: about 6 ms of Redis' time. Redis flushes its file after
/// each call, and a restoration waits for that.
const BOOKINGS_MAX: usize = 1_000;

/// Puts bookings of an event back, in as many calls as it takes. They are put in the order of their slots, so that a
/// call writes few slots with many bookings each. Each call replies 1.
pub fn restore_bookings<'a>(
    keys: &'a Keys,
    shard: Shard,
    fence: Fence<'a>,
    event: &'a EventImage,
    bookings: &'a mut [(BookingId, BookingImage)],
) -> impl Iterator<Item = Call> + use<'a> {
    bookings.sort_unstable_by_key(|(id, _)| id.slot(event.slots));
    bookings.chunks(BOOKINGS_MAX).map(move |some| restore_some(keys, shard, fence, event, some))
}

/// `bookings` are in the order of their slots.
fn restore_some(
    keys: &Keys,
    shard: Shard,
    fence: Fence<'_>,
    event: &EventImage,
    bookings: &[(BookingId, BookingImage)],
) -> Call {
    let mut call = fenced(&RESTORE_BOOKINGS, keys, shard, fence);
    call.keys.extend([keys.expiry(shard), keys.customers(shard, event.id)]);
    let (fields, tickets): (Vec<_>, Vec<_>) =
        allowances(event, bookings).into_iter().map(|(field, tickets)| (field, decimal(tickets))).unzip();
    push_list(&mut call.args, fields);
    push_list(&mut call.args, tickets);
    push_list(&mut call.args, expiries(event, bookings));
    for of_slot in bookings.chunk_by(|(one, _), (next, _)| one.slot(event.slots) == next.slot(event.slots)) {
        call.keys.push(keys.slot(shard, event.id, of_slot[0].0.slot(event.slots)));
        let written = [Vec::new(), b"1".to_vec()];
        let fields =
            of_slot.iter().flat_map(|(id, image)| [id.field().as_bytes().to_vec(), slot::encode(*id, image)]);
        push_list(&mut call.args, written.into_iter().chain(fields).collect());
    }
    call
}

/// A list is preceded by its length.
fn push_list(args: &mut Vec<Vec<u8>>, list: Vec<Vec<u8>>) {
    args.push(decimal(list.len()));
    args.extend(list);
}

/// Time and subject of each booking that is held.
fn expiries(event: &EventImage, bookings: &[(BookingId, BookingImage)]) -> Vec<Vec<u8>> {
    let held = bookings.iter().filter(|(_, image)| image.status == BookingStatus::Held);
    held.filter_map(|(id, image)| Some((id, image.hold_expires_at?)))
        .flat_map(|(id, at)| [decimal(time::to_millis(at)), expiry_member(event.id, *id)])
        .collect()
}

/// Puts the shard's own accounts back; it may be certified then. `is_whole` says that all of its events were restored,
/// so that nothing is lost any more.
pub fn restore_shard(
    keys: &Keys,
    shard: Shard,
    fence: Fence<'_>,
    last: Position,
    clock_ms: u64,
    is_whole: bool,
) -> Call {
    let mut call = fenced(&RESTORE_SHARD, keys, shard, fence);
    call.keys.push(keys.expiry(shard));
    let [last_epoch, sequence] = [decimal(last.epoch), decimal(last.sequence)];
    call.args.extend([last_epoch, sequence, decimal(clock_ms), decimal(u8::from(is_whole))]);
    call
}

/// A call of a script that looks at the fence first, so far without what is its own.
fn fenced(script: &'static Script, keys: &Keys, shard: Shard, fence: Fence<'_>) -> Call {
    Call { script, keys: vec![keys.shard(shard), keys.certificate(shard)], args: fence.args().into() }
}

/// The tickets that count against limits, by field of the customers hash: all of a customer's, and those of each type
/// that has a limit of its own.
pub fn allowances(event: &EventImage, bookings: &[(BookingId, BookingImage)]) -> BTreeMap<Vec<u8>, u64> {
    let mut allowances: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let counted = bookings
        .iter()
        .filter(|(_, image)| matches!(image.status, BookingStatus::Held | BookingStatus::Confirmed));
    for (_, image) in counted {
        for item in &image.items {
            let customer = image.customer_hash.field();
            *allowances.entry(customer.to_vec()).or_default() += u64::from(item.quantity);
            let ticket_type = event.ticket_types.get(usize::from(item.ordinal));
            if ticket_type.is_some_and(|ticket_type| ticket_type.per_customer_limit.is_some()) {
                let field = [customer, &[item.ordinal]].concat();
                *allowances.entry(field).or_default() += u64::from(item.quantity);
            }
        }
    }
    allowances
}
