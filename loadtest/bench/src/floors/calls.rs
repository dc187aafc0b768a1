//! The real script with real arguments: the very calls that the API would send for one booking each, on an inventory of
//! their own that no relay looks after.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use boxoffice_schema::event::{EventImage, TicketTypeImage, slots_for};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::image::ImageItem;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::money::Currency;
use boxoffice_schema::rate::{Algorithm, PolicyName, Quota, SubjectHash};
use boxoffice_schema::scripts::{self, Book, Call, OutboxBounds, RateCheck, RecoveryReply, RecoveryStart};
use boxoffice_schema::shard::{Shard, ShardCount};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, Name};
use chrono::Utc;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, FromRedisValue};
use uuid::Uuid;

use super::driver::{Commands, Drive, Driven, send};

/// Nothing is refused because of what no relay takes away.
const BOUNDS: OutboxBounds = OutboxBounds { frames: 100_000_000, bytes: 1 << 40, age_ms: 86_400_000 };

const CAPACITY: u32 = 1_000_000;

/// Keys that one UNLINK names.
const UNLINKED_AT_ONCE: usize = 1_000;

/// An event in Redis that is sold by the script alone.
pub(crate) struct Script {
    redis: MultiplexedConnection,
    address: SocketAddr,
    keys: Keys,
    prefix: String,
    shard: Shard,
    event: EventImage,
}

impl Script {
    /// Certifies a shard and puts an event on sale.
    pub(crate) async fn open(redis: &MultiplexedConnection, address: SocketAddr) -> Result<Self> {
        let prefix = format!("script-{}:", Uuid::now_v7());
        let event = event()?;
        let shard = ShardCount::DEFAULT.shard_of(event.id);
        let keys = Keys::new(prefix.clone());
        let mut script = Self { redis: redis.clone(), address, keys, prefix, shard, event };
        let reply: RecoveryReply = script.run(&scripts::begin_recovery(&script.keys, shard, 1)).await?;
        let start = RecoveryStart::from(reply);
        let _: i64 = script.run(&scripts::certify(&script.keys, shard, 1, 0, &start)).await?;
        let _: (String, Vec<u8>) =
            script.run(&scripts::publish(&script.keys, shard, BOUNDS, &script.event)).await?;
        script.load(scripts::BOOK.source()).await?;
        Ok(script)
    }

    /// Sells by so many calls at most; each must make a booking, and Redis' own count must be the same.
    pub(crate) async fn sell(mut self, calls: u32, plan: Drive) -> Result<Driven> {
        let commands = self.commands(calls)?;
        let driven = send(self.address, commands, plan).await?;
        let sold: u64 = self.redis.hget(self.keys.event(self.shard, self.event.id), "sold0").await?;
        ensure!(sold == driven.done, "the script sold {sold} tickets and answered {} times", driven.done);
        self.clear().await?;
        Ok(driven)
    }

    fn commands(&self, calls: u32) -> Result<Commands> {
        let mut commands = Commands { bytes: Vec::new(), ends: Vec::new(), wanted: b"B" };
        let of_type = &self.event.ticket_types[0];
        for number in 0..calls {
            let key = IdempotencyKey::parse(format!("script-{number:012}").as_bytes())?;
            let customer = Customer::try_from(key.as_str().to_owned())?;
            let item =
                ImageItem { ordinal: 0, quantity: 1, ticket_type_id: of_type.id, unit_price: of_type.price };
            let EventImage { id, slots, currency, .. } = self.event;
            let book = Book::new(id, slots, &Caller::anonymous(), &key, &customer, currency, 0, vec![item]);
            let call = scripts::decision_call(&self.keys, self.shard, BOUNDS, [&book]);
            encode(&call, &mut commands.bytes);
            commands.ends.push(commands.bytes.len());
        }
        Ok(commands)
    }

    async fn load(&mut self, source: &str) -> Result<()> {
        Ok(redis::cmd("SCRIPT").arg("LOAD").arg(source).exec_async(&mut self.redis).await?)
    }

    async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T> {
        let mut redis = self.redis.clone();
        let mut command = redis::cmd("EVAL");
        command.arg(call.script.source()).arg(call.keys.len()).arg(&call.keys);
        for arg in &call.args {
            command.arg(arg.as_slice());
        }
        command.query_async(&mut redis).await.with_context(|| format!("the script {}", call.script.name))
    }

    /// Frees what was made, so that the next round begins as this one did.
    async fn clear(&mut self) -> Result<()> {
        let pattern = format!("{}*", self.prefix);
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(UNLINKED_AT_ONCE);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut self.redis).await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(&keys).exec_async(&mut self.redis).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn event() -> Result<EventImage> {
    let now = Utc::now();
    Ok(EventImage {
        id: EventId::new(),
        name: Name::try_from("Script".to_owned())?,
        starts_at: now + chrono::Days::new(30),
        sales_open_at: None,
        sales_close_at: None,
        per_customer_limit: None,
        hold_seconds: 600,
        currency: Currency::parse("EUR")?,
        status: EventStatus::OnSale,
        slots: slots_for(u64::from(CAPACITY)),
        created_at: now,
        updated_at: now,
        ticket_types: vec![TicketTypeImage {
            id: TicketTypeId::from_uuid(Uuid::now_v7()),
            name: Name::try_from("Standing".to_owned())?,
            price: 4_500,
            per_customer_limit: None,
            capacity: CAPACITY,
            held: 0,
            sold: 0,
        }],
    })
}

/// `EVALSHA` as the API sends it.
fn encode(call: &Call, into: &mut Vec<u8>) {
    let count = call.keys.len().to_string();
    let head = [b"EVALSHA".as_slice(), call.script.sha1().as_bytes(), count.as_bytes()];
    let keys = call.keys.iter().map(String::as_bytes);
    let parts: Vec<&[u8]> = head.into_iter().chain(keys).chain(call.args.iter().map(Vec::as_slice)).collect();
    encode_command(&parts, into);
}

fn encode_command(parts: &[&[u8]], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        into.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        into.extend_from_slice(part);
        into.extend_from_slice(b"\r\n");
    }
}

/// The script of the rate limiter, with one check of one unit in each call.
pub(crate) struct CheckScript {
    keys: Keys,
    policy: PolicyName,
    quota: Quota,
    subjects: u64,
}

impl CheckScript {
    /// For so many subjects of a bucket that nobody empties.
    pub(crate) fn new(subjects: u64) -> Result<Self> {
        let quota = Quota::new(Algorithm::TokenBucket, 1_000_000, 60, None)?;
        let keys = Keys::new(format!("script-{}:", Uuid::now_v7()));
        Ok(Self { keys, policy: PolicyName::parse("checks")?, quota, subjects })
    }

    pub(crate) async fn load(&self, redis: &mut MultiplexedConnection) -> Result<()> {
        let source = scripts::CHECK_RATES.source();
        Ok(redis::cmd("SCRIPT").arg("LOAD").arg(source).exec_async(redis).await?)
    }

    /// The call that the API would send for the check of this number.
    fn call(&self, number: u64) -> Call {
        let subject = SubjectHash::of(&format!("subject-{:012}", number % self.subjects));
        let key = self.keys.rate(&self.policy, &self.quota, subject);
        let check = RateCheck { key, quota: self.quota, cost: 1 };
        scripts::check_rates([std::slice::from_ref(&check)])
    }

    /// Checks by so many calls at most, each of which must be allowed.
    pub(crate) async fn drive(&self, redis: SocketAddr, calls: u32, plan: Drive) -> Result<Driven> {
        // One standing that does not refuse.
        let mut commands = Commands { bytes: Vec::new(), ends: Vec::new(), wanted: &[1, 0] };
        for number in 0..calls {
            encode(&self.call(number.into()), &mut commands.bytes);
            commands.ends.push(commands.bytes.len());
        }
        send(redis, commands, plan).await
    }
}

/// `SET` of one key, which `redis-benchmark` can express as well.
pub(crate) struct SetCommand {
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) times: u32,
}

impl SetCommand {
    /// Sends it as the script's calls are sent.
    pub(crate) async fn drive(&self, redis: SocketAddr, plan: Drive) -> Result<Driven> {
        let mut commands = Commands { bytes: Vec::new(), ends: Vec::new(), wanted: b"+OK" };
        for _ in 0..self.times {
            encode_command(&[b"SET", self.key.as_bytes(), self.value.as_bytes()], &mut commands.bytes);
            commands.ends.push(commands.bytes.len());
        }
        send(redis, commands, plan).await
    }
}
