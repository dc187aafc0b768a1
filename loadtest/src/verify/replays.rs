//! Sends keys once more after the run: the answer must be the same bytes, and the booking must be readable.

use tokio::time::Instant;

use crate::{
    client::Call,
    history::Attempt,
    judge::{self, Finding, Wrong},
    shop::{Shop, order_call, own_url},
    verdict::{Fault, Faults},
};

/// Replays each attempt and reads its booking.
pub(crate) async fn check(shop: &Shop, sample: &[Attempt]) -> Faults {
    let mut faults = Faults::default();
    for attempt in sample {
        if let Err(wrong) = replay(shop, attempt).await
            && !shop.losses.explain(&wrong, attempt)
        {
            let key = shop.market.names.key(attempt.order.number);
            faults.add(Fault::ReplayDiffers, format!("key {key}: {wrong}"));
        }
        if let Err(wrong) = read(shop, attempt).await
            && !shop.losses.explain(&wrong, attempt)
        {
            let key = shop.market.names.key(attempt.order.number);
            faults.add(Fault::ReadMismatch, format!("booking of key {key}: {wrong}"));
        }
    }
    faults
}

async fn replay(shop: &Shop, attempt: &Attempt) -> Result<(), Wrong> {
    let event = &shop.market.events[attempt.order.event];
    let call = order_call(shop, &attempt.order, attempt.order.items);
    let answer = shop.client.send(call).await.map_err(|silence| silence.to_string())?;
    match judge::order(&answer, attempt, event, &shop.market.names, false)? {
        Finding::Replayed(_) => Ok(()),
        other => Err(format!("{other:?} instead of a replay").into()),
    }
}

async fn read(shop: &Shop, attempt: &Attempt) -> Result<(), Wrong> {
    let event = &shop.market.events[attempt.order.event];
    let call = Call::get(own_url(event, attempt, ""));
    let answer = shop.client.send(call).await.map_err(|silence| silence.to_string())?;
    match judge::look(&answer, attempt, event, Instant::now())? {
        Finding::Read => Ok(()),
        other => Err(format!("{other:?} instead of the booking").into()),
    }
}
