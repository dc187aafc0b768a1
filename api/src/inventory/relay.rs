//! Brings a shard's decisions from its outbox to Kafka. One instance does it for a shard at a time, by a lease.
//!
//! A relay always begins at the outbox's head, before which everything is confirmed, and sends in order. Two relays
//! at once, one of which believes in a lease that it lost, therefore send twice but never leave a gap.
//!
//! An instance may reach Kafka and yet not the leader of one partition. It then gives that shard's lease back, to whoever
//! does, and keeps the producer: all shards share that, and with another one they would all begin again at their heads,
//! every few seconds if the leader is away for everybody. What the client was given of the shard stays on its way. When
//! the shard is this instance's once more, it waits for that instead of sending it again, or the client's queue would
//! fill with the same records.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use boxoffice_schema::frame::{self, FRAME_FIELD};
use boxoffice_schema::position::Position;
use boxoffice_schema::record::Message;
use boxoffice_schema::scripts::{self, LeaseOutcome, error_code};
use boxoffice_schema::shard::Shard;
use redis::streams::StreamRangeReply;
use tokio_util::sync::CancellationToken;

use super::link::classify;
use super::log::{NotDelivered, OnTheWay};
use super::{Acknowledge, InventoryError, Shared, expirer};

/// Frames of one round: with batches of at most 128 decisions, about a megabyte of ordinary bookings. Those of all shards
/// come over one connection, each within its time-out.
const FRAMES_MAX: usize = 32;

/// How long a decision of another instance may wait to be seen; this instance's own wake the relay.
const POLL: Duration = Duration::from_millis(50);

/// How often an instance that does not relay a shard looks how far it is confirmed, while somebody waits for that.
const CONFIRMED_POLL: Duration = Duration::from_millis(5);

/// The same of the instance that relays it: its own trims tell it sooner, unless nothing is decided any more.
const CONFIRMED_RECHECK: Duration = Duration::from_millis(200);

/// The time from one round to the next where no client waits for Kafka: what gathers meanwhile goes in one round, and the
/// processors are left to those who are waited for.
const PACE: Duration = Duration::from_millis(20);

const FAILURE_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause of a shard of which Kafka refuses a record again and again. Each time the client gives up what it has of all
/// shards, and the others need some rounds in between.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A shard of which Kafka has confirmed nothing for so long is left to another instance: about as long as it takes to
/// notice that no broker answers this one (`log::watch`).
const CONFIRMED_WITHIN: Duration = Duration::from_secs(6);

/// Runs until shutdown; then what this instance's clients were told is sent, and the lease given back.
pub(super) async fn serve(shared: Arc<Shared>, shard: Shard, shutdown: CancellationToken) {
    let mut sent = None;
    while !shutdown.is_cancelled() {
        match take_lease(&shared, shard).await {
            Some(epoch) => match hold(&shared, shard, epoch, &mut sent, &shutdown).await {
                Ended::Over => {}
                // Whoever stands by looks twice as often as this instance waits.
                Ended::CutOff => {
                    give_back(&shared, shard).await;
                    stand_by(&shared, shard, shared.settings.lease / 3, &shutdown).await;
                }
            },
            // Often enough that the wait behind a lease that ran out adds little to it.
            None => stand_by(&shared, shard, shared.settings.lease / 6, &shutdown).await,
        }
    }
    give_back(&shared, shard).await;
}

async fn give_back(shared: &Shared, shard: Shard) {
    let unlease = scripts::unlease(&shared.settings.keys, shard, &shared.instance);
    if let Err(error) = shared.background.run::<i64>(&unlease).await {
        tracing::debug!(%error, %shard, "the lease was not given back; it runs out by itself");
    }
}

/// How the time of a lease ended.
enum Ended {
    /// By another relay, a recovery or the shutdown.
    Over,
    /// This instance does not reach Kafka, or not the leader of the shard's partition. Another may; where none does, it
    /// is this one's turn again.
    CutOff,
}

/// The shard's epoch, where the lease is ours.
async fn take_lease(shared: &Shared, shard: Shard) -> Option<u32> {
    let ttl = u64::try_from(shared.settings.lease.as_millis()).unwrap_or(u64::MAX);
    let call = scripts::lease(&shared.settings.keys, shard, &shared.instance, ttl);
    match LeaseOutcome::parse(shared.background.run(&call).await.ok()?) {
        LeaseOutcome::Ours(epoch) => {
            shared.epochs.note_seen(shard, epoch);
            Some(epoch)
        }
        LeaseOutcome::Anothers | LeaseOutcome::NoShard => None,
    }
}

/// Relays and expires for as long as the lease is ours.
async fn hold(
    shared: &Shared,
    shard: Shard,
    epoch: u32,
    sent: &mut Option<Sent>,
    shutdown: &CancellationToken,
) -> Ended {
    // From here on this instance's own trims say how far the shard is confirmed; what was before them Redis says.
    note_confirmed(shared, shard).await;
    tokio::select! {
        () = renew(shared, shard, epoch) => Ended::Over,
        ended = relay(shared, shard, epoch, sent) => ended,
        () = expirer::expire(shared, shard) => Ended::Over,
        () = recheck_confirmed(shared, shard) => Ended::Over,
        () = shared.log.cut_off() => Ended::CutOff,
        () = shutdown.cancelled() => {
            flush(shared, shard, epoch, sent).await;
            Ended::Over
        }
    }
}

/// Returns when the lease is lost or the epoch changed.
async fn renew(shared: &Shared, shard: Shard, epoch: u32) {
    loop {
        tokio::time::sleep(shared.settings.lease / 3).await;
        if take_lease(shared, shard).await != Some(epoch) {
            return;
        }
        if let Err(error) = measure(shared, shard).await {
            tracing::debug!(%error, %shard, "the outbox was not measured");
        }
    }
}

/// While another instance relays the shard: wait for its lease to end, and see how far it is where that is needed.
async fn stand_by(shared: &Shared, shard: Shard, pause: Duration, shutdown: &CancellationToken) {
    let again = tokio::time::Instant::now() + pause;
    while tokio::time::Instant::now() < again && !shutdown.is_cancelled() {
        if shared.acknowledgements.is_waited_for(shard) {
            note_confirmed(shared, shard).await;
        }
        tokio::select! {
            () = tokio::time::sleep(CONFIRMED_POLL) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// While somebody waits, looks whether Redis knows more than this instance's own trims said: a restoration writes the
/// confirmed position too, and may end after the lease was taken. Of a shard that is quiet from then on nothing else would
/// be heard. Does not return.
async fn recheck_confirmed(shared: &Shared, shard: Shard) {
    loop {
        tokio::time::sleep(CONFIRMED_RECHECK).await;
        if shared.acknowledgements.is_waited_for(shard) {
            note_confirmed(shared, shard).await;
        }
    }
}

/// Notes how far Redis says that Kafka has confirmed the shard; nothing, where it does not answer.
async fn note_confirmed(shared: &Shared, shard: Shard) {
    let mut command = redis::cmd("HMGET");
    command.arg(shared.settings.keys.shard(shard)).arg("conf_epoch").arg("conf_seq");
    if let Ok((Some(epoch), Some(sequence))) = shared.background.command(&command).await {
        shared.epochs.note_seen(shard, epoch);
        shared.acknowledgements.note(shard, Position { epoch, sequence });
    }
}

/// Returns when a trim was refused, since another relay or a recovery took over, and when Kafka confirms nothing.
async fn relay(shared: &Shared, shard: Shard, epoch: u32, sent: &mut Option<Sent>) -> Ended {
    let is_waited_for = shared.settings.acknowledge == Acknowledge::Kafka;
    let (mut frames_max, mut pause) = (FRAMES_MAX, FAILURE_PAUSE);
    loop {
        let outcome = send_head(shared, shard, epoch, frames_max, sent).await;
        let is_full = outcome.as_ref().is_ok_and(|frames| *frames == frames_max);
        frames_max = next_page(frames_max, &outcome);
        pause = next_pause(pause, &outcome);
        match outcome {
            Ok(0) => {
                tokio::select! {
                    () = shared.wake_ups[&shard].notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
            }
            // A full round means that more is waiting already.
            Ok(_) if is_full => {}
            Ok(_) if is_waited_for => {}
            Ok(_) => tokio::time::sleep_until(next_rounds()).await,
            Err(RelayError::LostShard) => return Ended::Over,
            Err(error @ RelayError::Unconfirmed) => {
                tracing::warn!(%error, %shard, "the shard is left to whoever reaches its partition");
                return Ended::CutOff;
            }
            Err(error) => {
                tracing::warn!(%error, %shard, "the relay starts again at the outbox's head");
                if let RelayError::NotDelivered(failure) = &error {
                    shared.log.start_over(failure).await;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// How long the relay waits behind this round, where it failed, after one behind which it would have waited so long.
fn next_pause(pause: Duration, round: &Result<usize, RelayError>) -> Duration {
    match round {
        Err(RelayError::NotDelivered(failure)) if failure.is_refused() => (2 * pause).min(REFUSED_PAUSE_MAX),
        Err(_) => pause,
        Ok(_) => FAILURE_PAUSE,
    }
}

/// How many frames the next round may take, after one that was to take so many. Less comes sooner, where so much does not come
/// within the time-out; and one more is tried after each round that was full, or a flood would never get from small pages again.
/// What else fails says nothing of the page.
fn next_page(frames_max: usize, round: &Result<usize, RelayError>) -> usize {
    match round {
        Err(RelayError::LatePage) => (frames_max / 2).max(1),
        Err(_) => frames_max,
        Ok(frames) if *frames < frames_max => FRAMES_MAX,
        Ok(_) => (frames_max + 1).min(FRAMES_MAX),
    }
}

/// When the next rounds begin, those of all shards together: Redis answers them in one go, and flushes its file once for
/// their trims.
fn next_rounds() -> tokio::time::Instant {
    static FIRST: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);
    let rounds = FIRST.elapsed().as_millis() / PACE.as_millis() + 1;
    *FIRST + PACE.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
}

/// At shutdown: whatever is in the outbox is sent, until it is empty or something fails.
async fn flush(shared: &Shared, shard: Shard, epoch: u32, sent: &mut Option<Sent>) {
    loop {
        match send_head(shared, shard, epoch, FRAMES_MAX, sent).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, %shard, "not all decisions were sent; another instance takes them over");
                return;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("another relay or a recovery took the shard over")]
    LostShard,
    #[error("Kafka has confirmed nothing for {} s", CONFIRMED_WITHIN.as_secs())]
    Unconfirmed,
    #[error("a page of the outbox did not come in time")]
    LatePage,
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error(transparent)]
    NotDelivered(#[from] NotDelivered),
}

/// The frames of a round, whose records Kafka's client is given. Once Kafka has confirmed them they are removed.
struct Sent {
    /// In which they were read.
    epoch: u32,
    frames: usize,
    records: usize,
    last: Position,
    on_the_way: OnTheWay,
    /// What the client was not given yet.
    rest: Vec<Message>,
}

impl Sent {
    /// Gives the client what it was not given yet, and waits until Kafka has confirmed the whole round. Whoever gave up may wait
    /// again.
    async fn confirmed(&mut self, shared: &Shared, shard: Shard) -> Result<(), NotDelivered> {
        loop {
            self.on_the_way.confirmed().await?;
            if self.rest.is_empty() {
                return Ok(());
            }
            // What was given in part, because somebody gave up, is given again from its beginning.
            self.on_the_way = shared.log.hand_over(shard, &self.rest).await?;
            self.rest.drain(..self.on_the_way.records());
        }
    }
}

/// Sends the frames at the outbox's head, unless they are on their way, waits for Kafka, removes them. The number of frames.
async fn send_head(
    shared: &Shared,
    shard: Shard,
    epoch: u32,
    frames_max: usize,
    sent: &mut Option<Sent>,
) -> Result<usize, RelayError> {
    // What was read in another epoch, or given to a client that was replaced, says nothing of the head any more.
    let round = match sent.take().filter(|sent| sent.epoch == epoch && !sent.on_the_way.are_taken_back()) {
        Some(round) => round,
        None => match hand_over_head(shared, shard, epoch, frames_max).await? {
            Some(round) => round,
            None => return Ok(0),
        },
    };
    let Sent { frames, records, last, .. } = round;
    // It outlives this wait.
    let confirmed = sent.insert(round).confirmed(shared, shard);
    let Ok(confirmed) = tokio::time::timeout(CONFIRMED_WITHIN, confirmed).await else {
        return Err(RelayError::Unconfirmed);
    };
    *sent = None;
    confirmed?;
    metrics::counter!("boxoffice_relayed_records_total").increment(records as u64);
    // What was gone already is not noted: it may have come to Kafka behind a barrier, which ended its epoch.
    if trim(shared, shard, epoch, last).await? == 0 {
        return Err(RelayError::LostShard);
    }
    shared.acknowledgements.note(shard, last);
    Ok(frames)
}

/// Gives the frames at the outbox's head to Kafka's client, if there are any.
async fn hand_over_head(
    shared: &Shared,
    shard: Shard,
    epoch: u32,
    frames_max: usize,
) -> Result<Option<Sent>, RelayError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(shared.settings.keys.outbox(shard)).arg("-").arg("+").arg("COUNT").arg(frames_max);
    let head: StreamRangeReply =
        shared.background.try_command(&command).await?.map_err(|error| {
            if error.is_timeout() { RelayError::LatePage } else { classify(&error).into() }
        })?;
    let mut records: Vec<Message> = Vec::new();
    for entry in &head.ids {
        let bytes: Vec<u8> = entry.get(FRAME_FIELD).unwrap_or_default();
        records.extend(frame::messages(shard, &bytes).map_err(InventoryError::from)?);
        // The thread is the batchers' too, and after an outage of Kafka a round has thousands of records.
        tokio::task::yield_now().await;
    }
    let Some(last) = records.last().map(|record| record.position) else { return Ok(None) };
    #[cfg(feature = "mutants")]
    if boxoffice_schema::mutants::is_off("early-trim") {
        trim(shared, shard, epoch, last).await?;
    }
    let on_the_way = shared.log.hand_over(shard, &records).await?;
    let (frames, count) = (head.ids.len(), records.len());
    let rest = records.split_off(on_the_way.records());
    Ok(Some(Sent { epoch, frames, records: count, last, on_the_way, rest }))
}

/// Removes what Kafka has confirmed; the number of frames. Before the shard is verified nothing is removed: the call is
/// made again until it is, or until a recovery has begun, and nothing is sent meanwhile.
async fn trim(shared: &Shared, shard: Shard, epoch: u32, confirmed: Position) -> Result<i64, RelayError> {
    let call = scripts::trim(&shared.settings.keys, shard, &shared.instance, epoch, confirmed);
    loop {
        return match shared.background.try_run::<i64>(&call).await? {
            Ok(removed) => Ok(removed),
            Err(error) => match error.code() {
                Some(error_code::LEASE_LOST | error_code::EPOCH_CHANGED) => Err(RelayError::LostShard),
                Some(error_code::UNVERIFIED) => {
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    continue;
                }
                _ => Err(classify(&error).into()),
            },
        };
    }
}

/// The gauges of the outbox, by the instance that relays it.
async fn measure(shared: &Shared, shard: Shard) -> Result<(), InventoryError> {
    let keys = &shared.settings.keys;
    let frames: u64 = shared.background.command(redis::cmd("XLEN").arg(keys.outbox(shard))).await?;
    let mut command = redis::cmd("HMGET");
    command.arg(keys.shard(shard)).arg("head_ms").arg("seq").arg("conf_seq");
    let (head_ms, sequence, confirmed): (i64, u64, u64) = shared.background.command(&command).await?;
    let age_ms = if frames == 0 { 0 } else { (chrono::Utc::now().timestamp_millis() - head_ms).max(0) };
    let label = shard.to_string();
    #[expect(clippy::cast_precision_loss, reason = "gauges need no more than 52 bits")]
    {
        metrics::gauge!("boxoffice_outbox_frames", "shard" => label.clone()).set(frames as f64);
        metrics::gauge!("boxoffice_outbox_age_seconds", "shard" => label.clone())
            .set(age_ms as f64 / 1_000.0);
        metrics::gauge!("boxoffice_relay_lag_records", "shard" => label)
            .set(sequence.saturating_sub(confirmed) as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_halved_where_it_was_late_itself_and_grows_back_while_rounds_are_full() {
        let late = || Err(RelayError::LatePage);
        assert_eq!(next_page(FRAMES_MAX, &late()), 16);
        assert_eq!(next_page(1, &late()), 1);
        let broken = InventoryError::RedisUnavailable("the connection broke".to_owned());
        assert_eq!(next_page(7, &Err(broken.into())), 7);
        assert_eq!(next_page(7, &Err(RelayError::Unconfirmed)), 7);
        assert_eq!(next_page(7, &Ok(6)), FRAMES_MAX);

        let mut page = 1;
        for _ in 1..FRAMES_MAX {
            page = next_page(page, &Ok(page));
        }
        assert_eq!(page, FRAMES_MAX);
        assert_eq!(next_page(page, &Ok(page)), FRAMES_MAX);
    }
}
