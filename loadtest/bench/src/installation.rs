//! An installation of Boxoffice of its own for each section: a database, a prefix in Redis and topics that nothing else
//! uses, so that sections do not depend on each other and may be run alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boxoffice_schema::keys::Keys;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, InfoDict};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::boxoffice::{Home, Process};
use crate::http::Connection;
use crate::load::Tally;
use crate::market::{Event, put_on_sale};
use crate::place::Place;
use crate::processor::Crew;
use crate::record;
use crate::section::say;

/// How long the log may take to be applied after a run.
const APPLIED: Duration = Duration::from_secs(300);

/// How long Redis may take for an answer. The longest is to forget a million bookings of the section before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Ids that one question to PostgreSQL holds.
const ASKED_AT_ONCE: usize = 10_000;

/// When a booking is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledge {
    Redis,
    Kafka,
}

impl Acknowledge {
    fn word(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Kafka => "kafka",
        }
    }
}

/// Everything running: API, relay, Kafka, reconciler, PostgreSQL.
pub(crate) struct Installation {
    pub(crate) pool: PgPool,
    pub(crate) redis: MultiplexedConnection,
    /// What Redis and the API are told about when a sale is safe.
    pub(crate) durability: String,
    pub(crate) api: Process,
    pub(crate) reconciler: Process,
    home: Home,
    keys: Keys,
    place: Place,
    acknowledge: Acknowledge,
    sold: u64,
}

impl Installation {
    /// Empties the servers, prepares them and starts the processes; the API with these rate limits, if any.
    pub(crate) async fn open(place: &Place, name: &str, policies: Option<&str>) -> Result<Self> {
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWERED_WITHIN));
        let client = redis::Client::open(place.redis_url.as_str())?;
        let mut redis = client.get_multiplexed_async_connection_with_config(&patient).await?;
        redis::cmd("FLUSHALL").arg("SYNC").exec_async(&mut redis).await?;
        let (database_url, pool) = make_database(place, name).await?;
        let prefix = format!("{name}:");
        let mut home = Home {
            binaries: place.binaries.clone(),
            logs: place.logs.clone(),
            variables: vec![
                ("BOXOFFICE_DATABASE_URL", database_url),
                ("BOXOFFICE_REDIS_URL", place.redis_url.clone()),
                ("BOXOFFICE_REDIS_PREFIX", prefix.clone()),
                ("BOXOFFICE_SHARDS", place.shards.get().to_string()),
                ("BOXOFFICE_KAFKA_TOPIC", format!("{name}.decisions.{}", Uuid::now_v7())),
                ("BOXOFFICE_DEAD_LETTER_TOPIC", format!("{name}.dead-letters.{}", Uuid::now_v7())),
                ("BOXOFFICE_RATE_LIMIT_TOPIC", format!("{name}.rate-limits.{}", Uuid::now_v7())),
                // Neither starts where Redis would break a promise.
                ("BOXOFFICE_STRICT", "true".to_owned()),
            ],
        };
        if let Some(policies) = policies {
            let file = place.logs.join(format!("{name}-limits.toml"));
            std::fs::write(&file, policies).with_context(|| file.display().to_string())?;
            home.variables.push(("BOXOFFICE_RATE_LIMITS", file.display().to_string()));
        }
        home.migrate().await?;
        let reconciler = home.reconciler()?;
        let acknowledge = Acknowledge::Redis;
        let api = start_api(&home, place.listen, acknowledge).await?;
        let durability = durability(&mut redis, acknowledge).await?;
        let (keys, place) = (Keys::new(prefix), place.clone());
        Ok(Self { pool, redis, durability, api, reconciler, home, keys, place, acknowledge, sold: 0 })
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.place.listen
    }

    /// Where the servers are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Starts the handler without a store.
    pub(crate) async fn floor(&self) -> Result<Process> {
        self.home.floor(self.place.floor()).await
    }

    /// Ends the API in order, and starts it so that it acknowledges in the given way.
    pub(crate) async fn acknowledging(self, acknowledge: Acknowledge) -> Result<Self> {
        if self.acknowledge == acknowledge {
            return Ok(self);
        }
        self.api.stop().await?;
        let api = start_api(&self.home, self.place.listen, acknowledge).await?;
        let mut redis = self.redis.clone();
        let durability = durability(&mut redis, acknowledge).await?;
        Ok(Self { api, acknowledge, durability, ..self })
    }

    /// Puts events on sale.
    pub(crate) async fn events(&self, count: usize, capacity: u64) -> Result<Vec<Event>> {
        let mut connection = Connection::open(self.address()).await?;
        let mut events = Vec::with_capacity(count);
        for number in 0..count {
            events.push(put_on_sale(&mut connection, number, capacity).await?);
        }
        Ok(events)
    }

    /// The processes whose time is accounted for.
    pub(crate) fn crew(&self) -> Result<Crew> {
        Ok(Crew::new(self.api.id()?, self.reconciler.id()?, &self.place.servers))
    }

    /// Waits until PostgreSQL has every decision that Redis made; how long that took.
    pub(crate) async fn drained(&self) -> Result<Duration> {
        let start = Instant::now();
        let made = self.decisions().await?;
        record::until_applied(&self.pool, made).await?;
        ensure!(start.elapsed() < APPLIED, "the log was applied too late");
        Ok(start.elapsed())
    }

    /// Bookings that were made so far.
    pub(crate) fn sold(&self) -> u64 {
        self.sold
    }

    /// Bytes that Redis uses, once its outboxes are empty.
    pub(crate) async fn redis_memory(&self) -> Result<u64> {
        let mut redis = self.redis.clone();
        let start = Instant::now();
        for shard in self.place.shards.shards() {
            while redis.xlen::<_, u64>(self.keys.outbox(shard)).await? > 0 {
                ensure!(start.elapsed() < APPLIED, "the outboxes do not empty");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let info: InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut redis).await?;
        info.get::<u64>("used_memory").context("used_memory")
    }

    /// The sequences of all shards in Redis, added up.
    async fn decisions(&self) -> Result<i64> {
        let mut redis = self.redis.clone();
        let mut sum = 0;
        for shard in self.place.shards.shards() {
            let sequence: i64 = redis.hget(self.keys.shard(shard), "seq").await?;
            sum += sequence;
        }
        Ok(sum)
    }

    /// The audit after a run: each sale that a client saw is a row, nothing was sold beside, nothing is complained of, and
    /// Redis and PostgreSQL are equal. Every event is read for that, so a run that sold nothing is left to the next time, or
    /// to the end.
    ///
    /// Where requests were left without an answer, they may have been sold: the tally says how many.
    pub(crate) async fn verify(&mut self, tally: &Tally) -> Result<()> {
        let unanswered = tally.unanswered;
        // Said before anything can end the check: it may be why.
        if let Some(first) = &tally.first_unanswered {
            say(&format!("{unanswered} requests got no decision, the first of them this: {first}"));
        }
        self.drained().await?;
        for ids in tally.sold.chunks(ASKED_AT_ONCE) {
            let found: i64 = sqlx::query_scalar("SELECT count(*) FROM bookings WHERE id = ANY ($1)")
                .bind(ids)
                .fetch_one(&self.pool)
                .await?;
            ensure!(
                usize::try_from(found)? == ids.len(),
                "{} of {} acknowledged bookings are not in PostgreSQL",
                ids.len() - usize::try_from(found)?,
                ids.len()
            );
        }
        self.sold += u64::try_from(tally.sold.len())?;
        let rows = u64::try_from(record::bookings(&self.pool).await?)?;
        ensure!(
            (self.sold..=self.sold + unanswered).contains(&rows),
            "{} bookings were acknowledged, {unanswered} requests got no answer, and {rows} bookings are in PostgreSQL",
            self.sold
        );
        self.sold = rows;
        let complaints = record::complaints(&self.pool).await?;
        ensure!(complaints == 0, "{complaints} gaps, alarms or dead letters are open");
        if !tally.sold.is_empty() || unanswered > 0 {
            self.audit().await?;
        }
        Ok(())
    }

    /// Redis and PostgreSQL must be equal.
    async fn audit(&self) -> Result<()> {
        ensure!(self.home.audit().await?, "the audit found a drift; see audit.log");
        Ok(())
    }

    /// Audits whatever came after the last sale, and ends the processes in order.
    pub(crate) async fn close(self) -> Result<()> {
        self.audit().await?;
        self.api.stop().await?;
        self.reconciler.stop().await?;
        self.pool.close().await;
        Ok(())
    }
}

async fn start_api(home: &Home, at: SocketAddr, acknowledge: Acknowledge) -> Result<Process> {
    home.api_told("api", at, &[("BOXOFFICE_ACK", acknowledge.word())]).await
}

/// A database of this name, new.
async fn make_database(place: &Place, name: &str) -> Result<(String, PgPool)> {
    let name = format!("bench_{name}");
    let server = PgPool::connect(&place.database_url).await.context("PostgreSQL")?;
    // The name is one of our sections'.
    for statement in
        [format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")]
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&server).await?;
    }
    server.close().await;
    let (server, _) =
        place.database_url.rsplit_once('/').context("BOXOFFICE_DATABASE_URL names no database")?;
    let url = format!("{server}/{name}");
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&url)?;
    Ok((url, pool))
}

/// Asked of Redis itself, and printed beside each figure.
async fn durability(redis: &mut MultiplexedConnection, acknowledge: Acknowledge) -> Result<String> {
    let mut words = Vec::new();
    for name in ["appendonly", "appendfsync"] {
        let (_, value): (String, String) =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(redis).await?;
        words.push(format!("{name} {value}"));
    }
    Ok(format!("{}, ack={}", words.join(", "), acknowledge.word()))
}
