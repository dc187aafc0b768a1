//! A shard of its own for each test, on the real Redis, with a clock that the test moves.

use std::collections::HashMap;

use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::fingerprint::CustomerHash;
use boxoffice_schema::frame::{self, FRAME_FIELD};
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::keys::Keys;
use boxoffice_schema::money::Currency;
use boxoffice_schema::record::{Message, Record};
use boxoffice_schema::scripts::{
    self, Book, Call, Decision, EventChange, EventOutcome, OutboxBounds, Outcome, RecoveryReply,
    RecoveryStart, Target, decision_call,
};
use boxoffice_schema::shard::Shard;
use boxoffice_schema::slot;
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, Name};
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use redis::streams::StreamRangeReply;
use redis::{Connection, FromRedisValue, RedisError, Value};

/// Far ahead of Redis' own clock, so that only the test moves the time: the scripts take the later of the two.
pub const START_MS: u64 = 4_102_444_800_000;

pub const BOUNDS: OutboxBounds = OutboxBounds { frames: 1_000_000, bytes: 1 << 40, age_ms: 1 << 40 };

pub struct TestShard {
    pub redis: Connection,
    pub keys: Keys,
    pub shard: Shard,
    pub bounds: OutboxBounds,
}

impl TestShard {
    /// Certified, in epoch 1, at sequence 0.
    pub fn certified() -> Self {
        let mut shard = Self::blank();
        shard.certify(1);
        shard.set_clock(START_MS);
        shard
    }

    /// Never initialised.
    pub fn blank() -> Self {
        let url = std::env::var("BOXOFFICE_REDIS_URL")
            .expect("BOXOFFICE_REDIS_URL says where Redis is; run: eval \"$(scripts/stack env)\"");
        let redis = redis::Client::open(url).unwrap().get_connection().unwrap();
        let keys = Keys::new(format!("test:{}:", EventId::new()));
        Self { redis, keys, shard: Shard::from_number(3), bounds: BOUNDS }
    }

    pub fn certify(&mut self, epoch: u32) {
        let start = self.begin_recovery(epoch).unwrap();
        let call = scripts::certify(&self.keys, self.shard, epoch, start.last.sequence, &start);
        self.run::<i64>(&call).unwrap();
    }

    pub fn begin_recovery(&mut self, epoch: u32) -> Result<RecoveryStart, RedisError> {
        let call = scripts::begin_recovery(&self.keys, self.shard, epoch);
        self.run::<RecoveryReply>(&call).map(RecoveryStart::from)
    }

    /// Which Redis this is, as a recovery that began in it remembers.
    pub fn identity(&mut self) -> String {
        let info: String = redis::cmd("INFO").arg("everything").query(&mut self.redis).unwrap();
        let of =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        format!("{}:{}", of("run_id"), of("master_replid"))
    }

    pub fn run<T: FromRedisValue>(&mut self, call: &Call) -> Result<T, RedisError> {
        let mut command = redis::cmd("EVAL");
        command.arg(call.script.source()).arg(call.keys.len()).arg(&call.keys);
        for arg in &call.args {
            command.arg(arg.as_slice());
        }
        command.query(&mut self.redis)
    }

    pub fn decide<D: Decision>(&mut self, batch: &[D]) -> Result<Vec<Outcome>, RedisError> {
        let call = decision_call(&self.keys, self.shard, self.bounds, batch);
        let replies: Vec<Value> = self.run(&call)?;
        Ok(replies
            .iter()
            .map(|reply| match reply {
                Value::BulkString(bytes) => Outcome::parse(bytes).unwrap(),
                other => panic!("unexpected reply {other:?}"),
            })
            .collect())
    }

    pub fn publish(&mut self, event: &EventImage) -> EventOutcome {
        let call = scripts::publish(&self.keys, self.shard, self.bounds, event);
        let (letter, json): (String, Vec<u8>) = self.run(&call).unwrap();
        EventOutcome::parse(&letter, &json).unwrap()
    }

    pub fn amend(&mut self, event: EventId, changes: &[EventChange]) -> EventOutcome {
        self.amend_if(event, None, changes)
    }

    pub fn amend_if(
        &mut self,
        event: EventId,
        expected: Option<DateTime<Utc>>,
        changes: &[EventChange],
    ) -> EventOutcome {
        let call = scripts::amend(&self.keys, self.shard, self.bounds, event, expected, changes);
        let (letter, json): (String, Vec<u8>) = self.run(&call).unwrap();
        EventOutcome::parse(&letter, &json).unwrap()
    }

    pub fn set_clock(&mut self, ms: u64) {
        redis::cmd("HSET")
            .arg(self.keys.shard(self.shard))
            .arg("clock")
            .arg(ms)
            .query::<i64>(&mut self.redis)
            .unwrap();
    }

    pub fn shard_field(&mut self, field: &str) -> u64 {
        redis::cmd("HGET").arg(self.keys.shard(self.shard)).arg(field).query(&mut self.redis).unwrap()
    }

    pub fn event(&mut self, event: EventId) -> EventImage {
        let fields: HashMap<String, String> =
            redis::cmd("HGETALL").arg(self.keys.event(self.shard, event)).query(&mut self.redis).unwrap();
        EventImage::from_fields(&fields).unwrap()
    }

    pub fn booking(&mut self, target: &Target) -> Option<BookingImage> {
        let key = self.keys.slot_of(self.shard, target.event_id, target.booking_id, target.slots);
        let field = target.booking_id.field();
        let value: Option<Vec<u8>> =
            redis::cmd("HGET").arg(key).arg(field.as_bytes()).query(&mut self.redis).unwrap();
        let (id, image) = slot::decode(field, &value?).unwrap();
        (id == target.booking_id).then_some(image)
    }

    pub fn customers(&mut self, event: EventId) -> HashMap<Vec<u8>, u64> {
        let key = self.keys.customers(self.shard, event);
        let mut fields: HashMap<Vec<u8>, u64> =
            redis::cmd("HGETALL").arg(key).query(&mut self.redis).unwrap();
        // Slots that were written have a field of their own, which is shorter than a customer's.
        fields.retain(|field, _| field.is_empty() || field.len() >= CustomerHash::FIELD);
        fields
    }

    pub fn expiries(&mut self) -> Vec<(EventId, BookingId)> {
        let members: Vec<Vec<u8>> = redis::cmd("ZRANGE")
            .arg(self.keys.expiry(self.shard))
            .arg(0)
            .arg(-1)
            .query(&mut self.redis)
            .unwrap();
        let holds = members.iter().filter(|member| !member.is_empty());
        holds.map(|member| scripts::parse_expiry_member(member).unwrap()).collect()
    }

    /// All that is in the outbox, as Kafka would get it.
    pub fn records(&mut self) -> Vec<Record> {
        let key = self.keys.outbox(self.shard);
        let frames: StreamRangeReply =
            redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(&mut self.redis).unwrap();
        let frame = |id: &redis::streams::StreamId| id.get::<Vec<u8>>(FRAME_FIELD).unwrap();
        frames.ids.iter().flat_map(|id| frame::messages(self.shard, &frame(id)).unwrap()).map(read).collect()
    }
}

/// What the scripts packed is what Rust reads and packs.
fn read(message: Message) -> Record {
    let record = Record::decode(&message.value).unwrap();
    assert_eq!(record.message(), message);
    record
}

/// An event that is on sale without a window, with these capacities.
pub fn event(capacities: &[u32]) -> EventImage {
    let at = time::from_millis(START_MS).unwrap();
    EventImage {
        id: EventId::new(),
        name: Name::try_from("Größenwahn {live}".to_owned()).unwrap(),
        starts_at: at,
        sales_open_at: None,
        sales_close_at: None,
        per_customer_limit: None,
        hold_seconds: 600,
        currency: Currency::parse("EUR").unwrap(),
        status: EventStatus::OnSale,
        slots: 4,
        created_at: at,
        updated_at: at,
        ticket_types: capacities
            .iter()
            .enumerate()
            .map(|(i, capacity)| TicketTypeImage {
                id: TicketTypeId::new(),
                name: Name::try_from(format!("type {i}")).unwrap(),
                price: 1_000 + i as u64,
                per_customer_limit: None,
                capacity: *capacity,
                held: 0,
                sold: 0,
            })
            .collect(),
    }
}

/// A request for `items` (ordinal, quantity); `hold_ms` is 0 for a sale at once.
pub fn book(event: &EventImage, key: &str, customer: &str, hold_ms: u64, items: &[(u8, u16)]) -> Book {
    let items = items.iter().map(|(ordinal, quantity)| {
        let ticket_type = &event.ticket_types[usize::from(*ordinal)];
        ImageItem {
            ordinal: *ordinal,
            quantity: *quantity,
            ticket_type_id: ticket_type.id,
            unit_price: ticket_type.price,
        }
    });
    Book::new(
        event.id,
        event.slots,
        &Caller::anonymous(),
        &IdempotencyKey::parse(key.as_bytes()).unwrap(),
        &Customer::try_from(customer.to_owned()).unwrap(),
        event.currency,
        hold_ms,
        items.collect(),
    )
}
