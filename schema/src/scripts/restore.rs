//! The scripts with which recovery puts a shard back into a Redis that lost it.

use std::collections::BTreeMap;

use crate::event::EventImage;
use crate::fingerprint::IdempotencyField;
use crate::ids::BookingId;
use crate::image::BookingImage;
use crate::keys::Keys;
use crate::shard::Shard;
use crate::status::BookingStatus;
use crate::time;

use super::booking::subject;
use super::{Call, RESTORE_BOOKINGS, RESTORE_CLEAR, RESTORE_EVENT, RESTORE_SHARD, decimal};

/// Removes keys of a shard that was found to be wrong; replies their number.
pub fn restore_clear(keys: &Keys, shard: Shard, epoch: u32, doomed: Vec<String>) -> Call {
    Call { script: &RESTORE_CLEAR, keys: [fence(keys, shard), doomed].concat(), args: vec![decimal(epoch)] }
}

/// Puts an event back, with the counters of its image.
pub fn restore_event(keys: &Keys, shard: Shard, epoch: u32, event: &EventImage) -> Call {
    let mut call = Call { script: &RESTORE_EVENT, keys: fence(keys, shard), args: vec![decimal(epoch)] };
    call.keys.extend([keys.event(shard, event.id), keys.customers(shard, event.id)]);
    for (field, value) in event.hash_fields() {
        call.args.extend([field.into_bytes(), value.into_bytes()]);
    }
    call
}

/// Puts a page of an event's bookings back; replies their number.
pub fn restore_bookings(
    keys: &Keys,
    shard: Shard,
    epoch: u32,
    event: &EventImage,
    bookings: &[(BookingId, BookingImage)],
) -> Call {
    let mut call = Call { script: &RESTORE_BOOKINGS, keys: fence(keys, shard), args: vec![decimal(epoch)] };
    call.keys.extend([keys.expiry(shard), keys.customers(shard, event.id)]);
    let allowances = allowances(event, bookings);
    call.args.push(decimal(allowances.len()));
    for (field, tickets) in allowances {
        call.args.extend([field, decimal(tickets)]);
    }
    let mut slots: BTreeMap<u32, usize> = BTreeMap::new();
    for (id, image) in bookings {
        let next = slots.len();
        let slot = id.slot(event.slots);
        let index = *slots.entry(slot).or_insert_with(|| {
            call.keys.push(keys.slot(shard, event.id, slot));
            next
        });
        let idempotency = IdempotencyField::of(&image.caller, event.id, &image.idempotency_key);
        let expiry = match (image.status, image.hold_expires_at) {
            (BookingStatus::Held, Some(at)) => decimal(time::to_millis(at)),
            _ => Vec::new(),
        };
        let subject = subject(event.id, *id);
        call.args.extend([decimal(index), idempotency.as_bytes().to_vec(), subject, image.encode(), expiry]);
    }
    call
}

/// Puts the shard's own accounts back; it may be certified then.
pub fn restore_shard(keys: &Keys, shard: Shard, epoch: u32, sequence: u64, clock_ms: u64) -> Call {
    Call {
        script: &RESTORE_SHARD,
        keys: fence(keys, shard),
        args: vec![decimal(epoch), decimal(sequence), decimal(clock_ms)],
    }
}

fn fence(keys: &Keys, shard: Shard) -> Vec<String> {
    vec![keys.shard(shard), keys.certificate(shard)]
}

/// The tickets that count against limits, by field of the customers hash: all of a customer's, and those of each type
/// that has a limit of its own.
fn allowances(event: &EventImage, bookings: &[(BookingId, BookingImage)]) -> BTreeMap<Vec<u8>, u64> {
    let mut allowances: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let counted = bookings
        .iter()
        .filter(|(_, image)| matches!(image.status, BookingStatus::Held | BookingStatus::Confirmed));
    for (_, image) in counted {
        for item in &image.items {
            let customer = image.customer_hash.as_bytes();
            *allowances.entry(customer.to_vec()).or_default() += u64::from(item.quantity);
            let ticket_type = event.ticket_types.get(usize::from(item.ordinal));
            if ticket_type.is_some_and(|ticket_type| ticket_type.per_customer_limit.is_some()) {
                let field = [customer.as_slice(), &[item.ordinal]].concat();
                *allowances.entry(field).or_default() += u64::from(item.quantity);
            }
        }
    }
    allowances
}
