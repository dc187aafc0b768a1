//! Sends keys once more after the run: the answer must be the same bytes, and the booking must be readable.

use tokio::time::Instant;

use crate::{
    client::Call,
    history::Attempt,
    judge::{self, Finding},
    shop::{Shop, order_call, own_url},
    verdict::{Fault, Faults},
};

/// Replays each attempt and reads its booking.
pub(crate) async fn check(shop: &Shop, sample: &[Attempt]) -> Faults {
    let mut faults = Faults::default();
    for attempt in sample {
        let covered = || shop.losses.read().is_ok_and(|windows| windows.cover(attempt));
        if let Err(why) = replay(shop, attempt).await
            && !covered()
        {
            let key = shop.market.names.key(attempt.order.number);
            faults.add(Fault::ReplayDiffers, format!("key {key}: {why}"));
        }
        if let Err(why) = read(shop, attempt).await
            && !covered()
        {
            let key = shop.market.names.key(attempt.order.number);
            faults.add(Fault::ReadMismatch, format!("booking of key {key}: {why}"));
        }
    }
    faults
}

async fn replay(shop: &Shop, attempt: &Attempt) -> Result<(), String> {
    let event = &shop.market.events[attempt.order.event];
    let call = order_call(shop, &attempt.order, attempt.order.items);
    let answer = shop.client.send(call).await.map_err(|silence| silence.to_string())?;
    match judge::order(&answer, attempt, event, &shop.market.names, false)? {
        Finding::Replayed(_) => Ok(()),
        other => Err(format!("{other:?} instead of a replay")),
    }
}

async fn read(shop: &Shop, attempt: &Attempt) -> Result<(), String> {
    let event = &shop.market.events[attempt.order.event];
    let call = Call::get(own_url(event, attempt, ""));
    let answer = shop.client.send(call).await.map_err(|silence| silence.to_string())?;
    match judge::look(&answer, attempt, event, Instant::now())? {
        Finding::Read => Ok(()),
        other => Err(format!("{other:?} instead of the booking")),
    }
}
