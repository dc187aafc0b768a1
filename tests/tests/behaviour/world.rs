//! A world for each test: a database, keys and topics of its own, with an API and a reconciler in this process.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use boxoffice_schema::keys::Keys;
use boxoffice_schema::shard::{Shard, ShardCount};
use clap::Parser;
use redis::FromRedisValue;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::{Event, Reply};
use crate::private_redis::PrivateRedis;

/// Enough to tell shards apart, few enough for a hundred worlds on one broker.
pub const SHARDS: u16 = 2;

const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub base: String,
    pub http: reqwest::Client,
    pub pool: PgPool,
    pub keys: Keys,
    pub settings: Settings,
    redis: redis::aio::MultiplexedConnection,
    stop: CancellationToken,
}

/// Where everything of a world is.
#[derive(Clone)]
pub struct Settings {
    pub name: String,
    pub redis_url: String,
    pub database_url: String,
    pub kafka_brokers: String,
}

/// The reconciler's options without its subcommands.
#[derive(clap::Parser)]
struct ReconcilerArguments {
    #[command(flatten)]
    options: boxoffice_reconciler::config::Options,
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run: eval \"$(scripts/stack env)\""))
}

impl Settings {
    /// Of a world that has a database, but nothing running yet.
    pub async fn fresh() -> Self {
        let name = format!("w{}", uuid::Uuid::now_v7().simple());
        let admin = env("BOXOFFICE_DATABASE_URL");
        let mut connection = PgConnection::connect(&admin).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        let (server, _) = admin.rsplit_once('/').unwrap();
        Self {
            redis_url: env("BOXOFFICE_REDIS_URL"),
            database_url: format!("{server}/{name}"),
            kafka_brokers: env("BOXOFFICE_KAFKA_BROKERS"),
            name,
        }
    }

    /// A copy of the database, as if restored from a backup of this moment, once nobody is connected to it any more.
    pub async fn copy_of_database(&self) -> Self {
        let admin = env("BOXOFFICE_DATABASE_URL");
        let (server, _) = admin.rsplit_once('/').unwrap();
        let copy = format!("{}copy", self.name);
        let statement = format!("CREATE DATABASE {copy} TEMPLATE {}", self.name);
        eventually("everybody to leave the database", || async {
            let mut connection = PgConnection::connect(&admin).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut connection).await.is_ok()
        })
        .await;
        Self { database_url: format!("{server}/{copy}"), ..self.clone() }
    }

    /// The arguments that API and reconciler share.
    fn common(&self) -> Vec<String> {
        let flags = [
            ("--redis-url", self.redis_url.clone()),
            ("--database-url", self.database_url.clone()),
            ("--kafka-brokers", self.kafka_brokers.clone()),
            ("--shards", SHARDS.to_string()),
            ("--redis-prefix", format!("{}:", self.name)),
            ("--kafka-topic", self.topic()),
            ("--rate-limit-topic", format!("{}.rate-limits", self.name)),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("test".to_owned()).chain(flags).collect()
    }

    pub fn topic(&self) -> String {
        format!("{}.decisions", self.name)
    }

    pub fn dead_letter_topic(&self) -> String {
        format!("{}.dead-letters", self.name)
    }

    /// The API's arguments but for its address, behind the program's name.
    pub fn api_arguments(&self, more: &[&str]) -> Vec<String> {
        let mut args = self.common();
        for usual in [["--auth", "off"], ["--workers", "2"], ["--database-pool", "4"]] {
            if !more.contains(&usual[0]) {
                args.extend(usual.map(str::to_owned));
            }
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    pub fn api(&self, more: &[&str]) -> boxoffice_api::config::Config {
        let mut args = self.api_arguments(more);
        args.extend(["--listen", "127.0.0.1:0"].map(str::to_owned));
        boxoffice_api::config::Options::parse_from(args).checked().unwrap()
    }

    /// The reconciler's arguments, behind the program's name.
    pub fn reconciler_arguments(&self) -> Vec<String> {
        let mut args = self.common();
        args.extend(["--dead-letter-topic".to_owned(), self.dead_letter_topic()]);
        args.extend(["--audit-interval-ms", "500"].map(str::to_owned));
        args
    }

    pub fn reconciler(&self) -> boxoffice_reconciler::config::Config {
        ReconcilerArguments::parse_from(self.reconciler_arguments()).options.checked().unwrap()
    }

    /// Starts an API; its address, for as long as the token is not cancelled.
    pub async fn start_api(&self, more: &[&str], stop: &CancellationToken) -> String {
        let application = boxoffice_api::startup::Application::build(self.api(more)).await.unwrap();
        let base = format!("http://127.0.0.1:{}", application.port());
        let stop = stop.clone();
        // A thread of its own: actix wants its system, and a test its own runtime.
        std::thread::spawn(move || actix_main(application, stop));
        base
    }

    /// Starts a reconciler, which ends with the token.
    pub fn start_reconciler(&self, stop: &CancellationToken) -> JoinHandle<()> {
        let (config, stop) = (self.reconciler(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = boxoffice_reconciler::run(config, stop).await {
                eprintln!("the reconciler ended: {error:?}");
            }
        })
    }
}

fn actix_main(application: boxoffice_api::startup::Application, stop: CancellationToken) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(application.run_until_stopped(stop)) {
        eprintln!("the API ended: {error:?}");
    }
}

impl World {
    /// Migrated, running, certified.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments for the API.
    pub async fn start_with(api: &[&str]) -> Self {
        Self::start_in(Settings::fresh().await, api).await
    }

    /// On a Redis of its own.
    pub async fn on(redis: &PrivateRedis) -> Self {
        let mut settings = Settings::fresh().await;
        settings.redis_url = redis.url();
        Self::start_in(settings, &[]).await
    }

    /// In a world that nothing runs in yet.
    pub async fn start_in(settings: Settings, api: &[&str]) -> Self {
        Self::reached(settings.clone(), &settings, &settings, api).await
    }

    /// The same, in which reconciler and API have ways of their own to the servers; the test itself looks straight at them.
    pub async fn reached(
        direct: Settings,
        by_reconciler: &Settings,
        by_api: &Settings,
        api: &[&str],
    ) -> Self {
        boxoffice_reconciler::migrate::migrate(&direct.reconciler()).await.unwrap();
        let stop = CancellationToken::new();
        by_reconciler.start_reconciler(&stop);
        let base = by_api.start_api(api, &stop).await;
        let world = Self::looking_at(direct, base, stop).await;
        world.selling().await;
        world
    }

    /// The same with a reconciler that can be ended by itself.
    pub async fn beside_a_reconciler(settings: Settings) -> (Self, (CancellationToken, JoinHandle<()>)) {
        boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
        let stop = CancellationToken::new();
        let reconciler = settings.start_reconciler(&stop);
        let world = Self::around(settings, &[], CancellationToken::new()).await;
        world.selling().await;
        (world, (stop, reconciler))
    }

    /// An API in front of whatever is there.
    pub async fn around(settings: Settings, api: &[&str], stop: CancellationToken) -> Self {
        let base = settings.start_api(api, &stop).await;
        Self::looking_at(settings, base, stop).await
    }

    /// A world whose API runs already.
    pub async fn looking_at(settings: Settings, base: String, stop: CancellationToken) -> Self {
        let client = redis::Client::open(settings.redis_url.as_str()).unwrap();
        // What a test looks at has no deadline of its own, and all tests begin at the same moment.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        Self {
            base,
            http: reqwest::Client::new(),
            pool: PgPoolOptions::new().max_connections(2).connect(&settings.database_url).await.unwrap(),
            keys: Keys::new(format!("{}:", settings.name)),
            redis: client.get_multiplexed_async_connection_with_config(&patient).await.unwrap(),
            settings,
            stop,
        }
    }

    /// Waits until every shard may sell.
    pub async fn selling(&self) {
        eventually("all shards to be certified", || async {
            for shard in ShardCount::new(SHARDS).unwrap().shards() {
                let mut command = redis::cmd("EXISTS");
                command.arg(self.keys.certificate(shard));
                if self.redis::<i64>(&command).await == 0 {
                    return false;
                }
            }
            self.http.get(self.url("/readyz")).send().await.is_ok_and(|reply| reply.status() == 200)
        })
        .await;
    }

    /// Ends what this world started, in order.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub async fn redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        command.query_async(&mut self.redis.clone()).await.unwrap()
    }

    pub fn shard_of(&self, event: &Event) -> Shard {
        ShardCount::new(SHARDS).unwrap().shard_of(event.id.parse().unwrap())
    }

    pub fn shard_key(&self, event: &Event) -> String {
        self.keys.shard(self.shard_of(event))
    }

    pub fn event_key(&self, event: &Event) -> String {
        self.keys.event(self.shard_of(event), event.id.parse().unwrap())
    }

    /// `book`, for a future that outlives its arguments.
    pub async fn book_owned(&self, event: &Event, key: &str, body: Value) -> Reply {
        self.book(&event.id, key, &body).await
    }

    /// Waits until a ticket of the first type is sold under this key, after something that closed sales.
    pub async fn sells_again(&self, event: &Event, key: &str, customer: &str) {
        let body = event.request(customer, 1);
        eventually("sales to go on", || async { self.book(&event.id, key, &body).await.status == 201 }).await;
    }

    /// Moves the shard's clock to the moment at which a hold runs out; also in a Redis that is full.
    pub async fn let_run_out(&self, event: &Event, held: &Value) {
        let expires = held["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        let mut command = redis::cmd("EVAL");
        command.arg("#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], 'clock', ARGV[1])");
        command.arg(1).arg(self.shard_key(event)).arg(expires.timestamp_millis());
        let _: i64 = self.redis(&command).await;
    }

    /// Waits until PostgreSQL has everything; the audit of that moment, which must show no drift and no gap.
    pub async fn drained(&self, event: &Event) -> Value {
        let path = format!("/v1/events/{}/audit", event.id);
        let last = RefCell::new(Value::Null);
        eventually("the log to be drained", || async {
            let audit = self.get(&path).await.expect(200);
            let is_drained = audit["lag"] == 0;
            last.replace(audit);
            is_drained
        })
        .await;
        let audit = last.into_inner();
        assert_eq!(audit["gaps"], json!([]), "{audit}");
        for t in audit["ticket_types"].as_array().unwrap() {
            assert_eq!(t["drift"], 0, "{audit}");
        }
        audit
    }

    /// Held and sold of a ticket type, as PostgreSQL counted them; its bookings must add up to the same.
    pub async fn rows_counted(&self, event: &Event, ordinal: usize) -> (i64, i64) {
        let (held, sold, held_sum, sold_sum): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT t.held::int8, t.sold::int8,
                    coalesce(sum(i.quantity) FILTER (WHERE b.status = 'held'), 0),
                    coalesce(sum(i.quantity) FILTER (WHERE b.status = 'confirmed'), 0)
             FROM ticket_types t
             LEFT JOIN booking_items i ON i.ticket_type_id = t.id
             LEFT JOIN bookings b ON b.id = i.booking_id
             WHERE t.id = $1::uuid GROUP BY t.id",
        )
        .bind(&event.types[ordinal])
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!((held, sold), (held_sum, sold_sum), "counts and rows disagree");
        (held, sold)
    }

    /// No gap, no alarm, no dead letter: the log held nothing that it should not.
    pub async fn nothing_found(&self) {
        let found: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM gaps), (SELECT count(*) FROM alarms), (SELECT count(*) FROM dead_letters)",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(found, (0, 0, 0), "gaps, alarms, dead letters");
    }

    /// How many bookings PostgreSQL has of an event.
    pub async fn rows_of(&self, event: &Event) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM bookings WHERE event_id = $1::uuid")
            .bind(&event.id)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks again and again until the answer is yes, for a minute at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
