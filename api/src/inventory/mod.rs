//! The only code that talks to Redis about stock.
//!
//! A request goes one way: [`Inventory::book`] and its like put it into its shard's queue (`batcher`); what has gathered
//! leaves, as one script call a shard, over the held connection (`link`); the decision waits in the shard's outbox until
//! this or another instance has brought it to Kafka (`relay`, `log`). What changes nothing each HTTP thread asks Redis itself,
//! over a connection of its own (`looks`). Whoever wants what was sold out before, or retries what was just booked, first
//! shares a look with all of their thread who do, which answers most of them (`sold_out`, and `replays` by what was `made`);
//! reads of an event are shared likewise (`reader`), and whoever shares waits for company (`crowd`). The relays and whatever else
//! runs in the background have another connection. Rate limits of anything but bookings are gathered as bookings are (`rates`).
//! `acknowledge` makes an answer wait for Kafka where that is asked for. Those of an HTTP thread who wait for another thread's
//! word are woken together (`together`).

mod acknowledge;
mod batcher;
mod crowd;
mod deliveries;
mod epochs;
mod expirer;
mod guarantees;
mod link;
mod log;
mod looks;
mod made;
mod pressure;
mod rates;
mod reader;
mod relay;
mod replays;
mod sold_out;
mod together;

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    self, Book, Cancel, Confirm, Decided, Decision, EventChange, EventOutcome, EventSnapshot, OutboxBounds,
    Outcome, RateCheck, Standing, Target,
};
use boxoffice_schema::shard::{Shard, ShardCount};
use chrono::{DateTime, Utc};
use foldhash::HashMap;
use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use epochs::Epochs;
pub(crate) use guarantees::refuse_unsafe;
pub(crate) use made::{Again, FirstResponse};

use acknowledge::{Acknowledgements, Reached};
use batcher::Batcher;
use link::Link;
use log::DecisionLog;
use looks::{Looks, OwnLooks};
use made::Made;
use pressure::Pressure;
use rates::Rates;

/// When a decision is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Acknowledge {
    /// When Redis has made it, and has written it to its disk (`appendfsync always`).
    Redis,
    /// When Kafka has confirmed it as well.
    Kafka,
}

/// What an inventory is told at start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where Redis is.
    pub(crate) redis_url: SecretString,
    /// The bootstrap servers of Kafka, separated by commas.
    pub(crate) kafka_brokers: String,
    /// The topic of the decisions.
    pub(crate) topic: String,
    /// As recorded at installation.
    pub(crate) shards: ShardCount,
    /// Names the keys.
    pub(crate) keys: Keys,
    /// Past these bounds new bookings are refused.
    pub(crate) outbox: OutboxBounds,
    /// How many requests of one kind may wait for one shard; past it they are refused.
    pub(crate) queue: usize,
    /// How long one answer of Redis may take.
    pub(crate) redis_timeout: Duration,
    /// How long a lease lasts without renewal: a dead instance is replaced after this time.
    pub(crate) lease: Duration,
    /// When a decision is acknowledged.
    pub(crate) acknowledge: Acknowledge,
    /// How many replicas Redis is to have.
    pub(crate) redis_replicas: u16,
}

/// Why there is no outcome. Nothing is known to have been sold; a retry with the same key finds out.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum InventoryError {
    /// The shard is not certified: recovery is checking it.
    #[error("the inventory of this event is being verified")]
    Unverified,
    /// More waits for Kafka than the outbox may hold.
    #[error("too many decisions are waiting for Kafka")]
    OutboxFull,
    /// More requests wait for this shard than its queue may hold, or this one waited too long.
    #[error("too many requests are waiting for this event")]
    Overloaded,
    /// No answer from Redis, for the reason given.
    #[error("Redis does not answer: {0}")]
    RedisUnavailable(String),
    /// The decision was made, but Kafka did not confirm it in time.
    #[error("Kafka did not confirm in time")]
    KafkaUnavailable,
    /// Redis holds something that no script writes.
    #[error("the inventory holds what it should not: {0}")]
    Corrupt(#[from] DecodeError),
}

/// The state of what the inventory needs, from memory.
#[derive(Clone, Debug)]
pub(crate) struct InventoryHealth {
    /// Whether Redis answers, or why not.
    pub(crate) redis: Result<(), String>,
    /// Whether Kafka answers and its topic fits, or why not.
    pub(crate) kafka: Result<(), String>,
}

/// What became of a request for a booking.
#[derive(Debug)]
pub(crate) enum Booked {
    /// It was decided, or refused since nothing is left.
    Decided(Decided),
    /// This instance remembers that it made the booking, which Redis still has.
    Again(Again),
}

/// What was known of a shard before Redis was asked.
#[derive(Clone, Copy)]
struct Known {
    /// How far Kafka had confirmed it.
    confirmed: Position,
    /// The latest epoch.
    epoch: u32,
}

/// What all tasks of an inventory share.
struct Shared {
    settings: Settings,
    /// Names this inventory among the instances, for leases above all.
    instance: String,
    background: Link,
    log: DecisionLog,
    epochs: Arc<Epochs>,
    acknowledgements: Acknowledgements,
    pressure: Pressure,
    made: Made,
    wake_ups: HashMap<Shard, tokio::sync::Notify>,
}

/// The inventory of all events, as Redis holds it.
#[derive(Clone)]
pub(crate) struct Inventory {
    shared: Arc<Shared>,
    link: Link,
    bookings: Arc<Batcher<Book>>,
    confirmations: Arc<Batcher<Confirm>>,
    cancellations: Arc<Batcher<Cancel>>,
    rates: Rates,
    looks: Arc<Looks>,
    own_looks: Option<Arc<OwnLooks>>,
}

/// The tasks behind an inventory; they end by themselves once the token that they were started with is cancelled.
pub(crate) struct Workers {
    tasks: JoinSet<()>,
    /// Keep the connections to Redis for as long as any task may need them.
    _keepers: JoinSet<()>,
}

impl Inventory {
    /// Starts the tasks of an inventory. Neither Redis nor Kafka need to be there yet.
    ///
    /// # Errors
    /// Where an address cannot be one, or a Kafka client cannot be made.
    pub(crate) fn start(
        settings: Settings,
        epochs: Arc<Epochs>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(Self, Workers)> {
        let (mut tasks, mut keepers) = (JoinSet::new(), JoinSet::new());
        let shards: Vec<Shard> = settings.shards.shards().collect();
        let instance = Uuid::now_v7().to_string();
        let link = Link::start(&settings, epochs.clone(), &mut keepers)?;
        let shared = Arc::new(Shared {
            background: link.of_the_background(settings.redis_timeout, &mut keepers),
            log: DecisionLog::new(&settings, &instance)?,
            epochs,
            acknowledgements: Acknowledgements::new(settings.shards),
            pressure: Pressure::default(),
            made: Made::default(),
            wake_ups: shards.iter().map(|shard| (*shard, tokio::sync::Notify::new())).collect(),
            settings,
            instance,
        });
        let inventory = Self {
            bookings: Arc::new(Batcher::start(&shared, &link, &mut tasks)),
            confirmations: Arc::new(Batcher::start(&shared, &link, &mut tasks)),
            cancellations: Arc::new(Batcher::start(&shared, &link, &mut tasks)),
            rates: Rates::start(&shared.settings, &link, &mut tasks),
            looks: Arc::new(Looks::start(&shared, link.clone(), &mut tasks)),
            own_looks: None,
            shared: shared.clone(),
            link,
        };
        tasks.spawn(guarantees::watch(shared.clone(), shutdown.clone()));
        tasks.spawn(pressure::watch(shared.clone(), shutdown.clone()));
        tasks.spawn(log::watch(shared.clone(), shutdown.clone()));
        for shard in shards {
            tasks.spawn(relay::serve(shared.clone(), shard, shutdown.clone()));
        }
        Ok((inventory, Workers { tasks, _keepers: keepers }))
    }

    /// The same inventory, for the requests of the thread that calls this.
    #[must_use]
    pub(crate) fn of_this_thread(&self) -> Self {
        let own_looks = OwnLooks::start(&self.shared, &self.link);
        Self { own_looks: Some(Arc::new(own_looks)), ..self.clone() }
    }

    /// Those of this thread. While its own connection is away, it asks as all do whose thread has none: how the inventory fares
    /// is how that one does.
    fn looks(&self) -> &Looks {
        let own = self.own_looks.as_ref().map(|own| &own.looks);
        own.filter(|own| own.link.is_connected()).unwrap_or(&self.looks)
    }

    /// The shard of an event.
    pub(crate) fn shard_of(&self, event: EventId) -> Shard {
        self.shared.settings.shards.shard_of(event)
    }

    /// Makes a booking, or finds the one that its key made; unless its rate limits refuse it.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn book(&self, request: Book) -> Result<Booked, InventoryError> {
        let target = *request.target();
        let known = self.known(target.event_id)?;
        let looks = self.looks();
        if let Some(again) = looks.replays.of(&request).await? {
            let target = Target { booking_id: again.booking_id, ..target };
            self.wait_for(known, target, again.position).await?;
            return Ok(Booked::Again(again));
        }
        let decided = if looks.sold_out.refuses(&request).await? {
            Decided { outcome: Outcome::SoldOut, standings: Vec::new() }
        } else {
            self.decide(request).await?
        };
        Ok(Booked::Decided(self.acknowledged(known, target, decided).await?))
    }

    /// A booking's first response was made; whoever asks again gets the same.
    pub(crate) fn keep_response(&self, target: &Target, body: &[u8]) {
        self.shared.made.keep_response(target, body);
    }

    async fn decide(&self, request: Book) -> Result<Decided, InventoryError> {
        let event = request.target().event_id;
        let ordinals: Vec<u8> = request.items().iter().map(|item| item.ordinal).collect();
        let decided = self.bookings.decide(request).await?;
        if decided.outcome == Outcome::SoldOut {
            self.looks().sold_out.note(event, &ordinals);
        }
        Ok(decided)
    }

    /// Confirms a hold.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn confirm(&self, request: Confirm) -> Result<Outcome, InventoryError> {
        let target = *request.target();
        let known = self.known(target.event_id)?;
        Ok(self.acknowledged(known, target, self.confirmations.decide(request).await?).await?.outcome)
    }

    /// Cancels a booking.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn cancel(&self, request: Cancel) -> Result<Outcome, InventoryError> {
        let target = *request.target();
        let known = self.known(target.event_id)?;
        Ok(self.acknowledged(known, target, self.cancellations.decide(request).await?).await?.outcome)
    }

    /// Counts a request against rate limits where it is not a booking: how it stands with each, in their order.
    ///
    /// # Errors
    /// See [`InventoryError`]. Nothing is known to have been counted.
    pub(crate) async fn check_rates(&self, checks: Vec<RateCheck>) -> Result<Vec<Standing>, InventoryError> {
        // A Redis that is known to be away is not waited for.
        self.link.health().map_err(InventoryError::RedisUnavailable)?;
        self.rates.check(checks).await
    }

    /// The booking as Redis holds it; `None` where it holds no such booking.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn booking(&self, target: Target) -> Result<Option<BookingImage>, InventoryError> {
        let known = self.known(target.event_id)?;
        let Some(image) = self.shown(target).await? else { return Ok(None) };
        self.wait_for(known, target, image.position).await?;
        Ok(Some(image))
    }

    /// The booking as Redis holds it, whether Kafka has it or not.
    async fn shown(&self, target: Target) -> Result<Option<BookingImage>, InventoryError> {
        let call = scripts::read_booking(&self.shared.settings.keys, self.shard_of(target.event_id), target);
        let bytes: Option<Vec<u8>> = self.looks().link.run(&call).await?;
        let image = bytes.map(|bytes| BookingImage::decode(&bytes)).transpose();
        // As the scripts have it that would change the booking; PostgreSQL may know better.
        image.map_err(|error| {
            let Target { event_id, booking_id, .. } = target;
            tracing::error!(%error, %event_id, %booking_id, "Redis holds a booking that cannot be read");
            InventoryError::Unverified
        })
    }

    /// The event, its stock and its shard, as they stand at one moment.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn event(&self, event: EventId) -> Result<EventSnapshot, InventoryError> {
        self.known(event)?;
        self.looks().reader.read(event).await
    }

    /// Puts an event on sale.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn publish(&self, event: &EventImage) -> Result<EventOutcome, InventoryError> {
        let Settings { keys, outbox, .. } = &self.shared.settings;
        let call = scripts::publish(keys, self.shard_of(event.id), *outbox, event);
        self.decide_event(event.id, &call).await
    }

    /// Changes an event that was put on sale, where it was last changed when that is expected.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub(crate) async fn amend(
        &self,
        event: EventId,
        expected: Option<DateTime<Utc>>,
        changes: &[EventChange],
    ) -> Result<EventOutcome, InventoryError> {
        let Settings { keys, outbox, .. } = &self.shared.settings;
        let call = scripts::amend(keys, self.shard_of(event), *outbox, event, expected, changes);
        self.decide_event(event, &call).await
    }

    async fn decide_event(
        &self,
        event: EventId,
        call: &scripts::Call,
    ) -> Result<EventOutcome, InventoryError> {
        let known = self.known(event)?;
        let (letter, json): (String, Vec<u8>) = self.link.run(call).await?;
        // What was decided is to be relayed, whatever becomes of the answer.
        self.shared.wake_ups[&self.shard_of(event)].notify_one();
        self.is_of_now(known, event, None).await?;
        Ok(EventOutcome::parse(&letter, &json)?)
    }

    /// Cheap: from memory.
    pub(crate) fn health(&self) -> InventoryHealth {
        InventoryHealth { redis: self.link.health(), kafka: self.shared.log.health() }
    }

    /// To be asked for before Redis is, which is not asked for a shard that stands in an ended epoch there.
    fn known(&self, event: EventId) -> Result<Known, InventoryError> {
        let shard = self.shard_of(event);
        if self.shared.epochs.is_over(shard) {
            return Err(InventoryError::Unverified);
        }
        let confirmed = self.shared.acknowledgements.known(shard);
        Ok(Known { confirmed, epoch: self.shared.epochs.latest(shard) })
    }

    /// In `kafka` mode every outcome that reveals a booking waits for the booking's last change that is known here.
    async fn acknowledged(
        &self,
        known: Known,
        target: Target,
        decided: Decided,
    ) -> Result<Decided, InventoryError> {
        match &decided.outcome {
            // Nothing new is of an epoch that has ended: see `is_of_now`.
            Outcome::Changed(image) if image.position.epoch < known.epoch => {
                return Err(InventoryError::Unverified);
            }
            Outcome::Replayed(booking_id, image) => {
                let target = Target { booking_id: *booking_id, ..target };
                self.wait_for(known, target, image.position).await?;
            }
            Outcome::Changed(image)
            | Outcome::Unchanged(image)
            | Outcome::AlreadyCancelled(image)
            | Outcome::HoldExpired(image) => self.wait_for(known, target, image.position).await?,
            Outcome::OutboxFull => return Err(InventoryError::OutboxFull),
            Outcome::Unverified => return Err(InventoryError::Unverified),
            _ => {}
        }
        Ok(decided)
    }

    /// Refuses what was shown by a Redis that has not heard of the recovery which began the known epoch: an old primary to which the
    /// address leads again, and whose certificate holds. What is of that epoch needs no question.
    async fn is_of_now(
        &self,
        known: Known,
        event: EventId,
        shown: Option<u32>,
    ) -> Result<(), InventoryError> {
        if shown.is_some_and(|epoch| epoch >= known.epoch) {
            return Ok(());
        }
        let stands = self.event(event).await?.position.map_or(0, |position| position.epoch);
        if stands < known.epoch { Err(InventoryError::Unverified) } else { Ok(()) }
    }

    /// Waits until Kafka has what Redis has shown of a booking.
    async fn wait_for(&self, known: Known, target: Target, position: Position) -> Result<(), InventoryError> {
        self.is_of_now(known, target.event_id, Some(position.epoch)).await?;
        #[cfg(feature = "mutants")]
        if boxoffice_schema::mutants::is_off("ack-before-write") {
            return Ok(());
        }
        if self.shared.settings.acknowledge == Acknowledge::Redis {
            return Ok(());
        }
        let shard = self.shard_of(target.event_id);
        match self.shared.acknowledgements.reached(shard, known.confirmed, position).await? {
            Reached::Confirmed => Ok(()),
            // This instance had not heard of the recovery when it asked Redis, or asked before it. Whatever stands in the
            // way of asking again: the client was shown nothing, and the decision may stand.
            Reached::LaterEpoch => match self.shown(target).await {
                Ok(Some(image)) if image.position == position => Ok(()),
                _ => Err(InventoryError::KafkaUnavailable),
            },
        }
    }
}

impl Workers {
    /// Waits until every task has ended, for as long as `deadline`; whether they did. Cancel their token before, and
    /// drop the last [`Inventory`]: the queues close with it.
    pub(crate) async fn finished(mut self, deadline: Duration) -> bool {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(deadline, all).await.is_ok()
    }
}
