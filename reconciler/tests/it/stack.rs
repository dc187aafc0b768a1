//! One installation for one test.

use std::process::Output;
use std::time::{Duration, Instant};

use boxoffice_reconciler::{Config, migrate, run};
use boxoffice_schema::ids::EventId;
use boxoffice_schema::record::Record;
use boxoffice_schema::scripts::{Call, EventReply, read_event};
use boxoffice_schema::shard::{Shard, ShardCount};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use redis::aio::MultiplexedConnection;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Long enough for a busy machine; no test waits for it unless it fails.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const UNCOPIED: &str = "SELECT count(*) FROM dead_letters WHERE copied_at IS NULL";

pub(crate) const FIRST: Shard = Shard::from_number(0);
pub(crate) const SECOND: Shard = Shard::from_number(1);

/// A database, two topics with a partition for each of two shards, and a prefix in Redis.
pub(crate) struct Stack {
    pub(crate) config: Config,
    pub(crate) pool: PgPool,
    pub(crate) redis: MultiplexedConnection,
    producer: FutureProducer,
    server_url: String,
    name: String,
}

/// The service, running in this process.
pub(crate) struct Service {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Ends it as a signal would.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: eval \"$(scripts/stack env)\""))
}

impl Stack {
    pub(crate) async fn prepare() -> Self {
        Self::prepare_with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn prepare_with(change: impl FnOnce(&mut Config)) -> Self {
        let server_url = required("BOXOFFICE_DATABASE_URL");
        let name = format!("bo_it_{}", Uuid::now_v7().simple());
        let mut server = PgConnection::connect(&server_url).await.expect("PostgreSQL answers");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut server).await.unwrap();
        let (base, _) = server_url.rsplit_once('/').unwrap();
        let mut config = Config {
            database_url: format!("{base}/{name}").into(),
            redis_url: required("BOXOFFICE_REDIS_URL").into(),
            kafka_brokers: required("BOXOFFICE_KAFKA_BROKERS"),
            shards: ShardCount::new(2).unwrap(),
            redis_prefix: format!("{name}:"),
            kafka_topic: format!("{name}.decisions"),
            dead_letter_topic: format!("{name}.dead-letters"),
            rate_limit_topic: format!("{name}.rate-limits"),
            kafka_replication: None,
            kafka_retention: Duration::from_secs(3_600),
            strict: false,
            audit_interval: Duration::from_millis(200),
            metrics_listen: None,
        };
        change(&mut config);
        migrate::migrate(&config).await.expect("the installation is prepared");
        let pool = PgPool::connect(config.database_url.expose_secret()).await.unwrap();
        let client = redis::Client::open(config.redis_url.expose_secret()).unwrap();
        let redis = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &config.kafka_brokers)
            .set("acks", "all")
            .set("linger.ms", "1")
            // As others may: more than the reconciler's own client would send.
            .set("message.max.bytes", "2000000")
            .create()
            .unwrap();
        Self { config, pool, redis, producer, server_url, name }
    }

    /// Removes what `prepare` made. A test that failed leaves it for a look.
    pub(crate) async fn remove(self) {
        self.pool.close().await;
        let mut server = PgConnection::connect(&self.server_url).await.unwrap();
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::query(drop).execute(&mut server).await.unwrap();
        let topics =
            [&self.config.kafka_topic, &self.config.dead_letter_topic, &self.config.rate_limit_topic];
        let topics: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        self.admin().delete_topics(&topics, &AdminOptions::new()).await.unwrap();
        self.wipe_redis().await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.config.kafka_brokers).create().unwrap()
    }

    /// Deletes a topic; returns when Kafka does not know it any more.
    pub(crate) async fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        wait_until("the topic is gone", async || {
            let told = admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap();
            told.topics().iter().all(|topic| topic.partitions().is_empty())
        })
        .await;
    }

    /// All keys of this installation.
    pub(crate) async fn redis_keys(&self) -> Vec<String> {
        let mut redis = self.redis.clone();
        redis::cmd("KEYS")
            .arg(format!("{}*", self.config.redis_prefix))
            .query_async(&mut redis)
            .await
            .unwrap()
    }

    /// As if Redis had lost its disk.
    pub(crate) async fn wipe_redis(&self) {
        let keys = self.redis_keys().await;
        if !keys.is_empty() {
            let _: i64 = redis::cmd("DEL").arg(keys).query_async(&mut self.redis.clone()).await.unwrap();
        }
    }

    /// All keys as they are now.
    pub(crate) async fn dump_redis(&self) -> Vec<(String, Vec<u8>)> {
        let mut dump = Vec::new();
        for key in self.redis_keys().await {
            let value = redis::cmd("DUMP").arg(&key).query_async(&mut self.redis.clone()).await.unwrap();
            dump.push((key, value));
        }
        dump
    }

    /// As if Redis had gone back to the time of the dump.
    pub(crate) async fn load_redis(&self, dump: &[(String, Vec<u8>)]) {
        for (key, value) in dump {
            let mut command = redis::cmd("RESTORE");
            // A recovery that noticed the loss may have written already.
            command.arg(key).arg(0).arg(value).arg("REPLACE");
            let _: () = command.query_async(&mut self.redis.clone()).await.unwrap();
        }
    }

    /// The service in this process.
    pub(crate) fn start(&self) -> Service {
        self.start_with(|_| {})
    }

    /// The same with another configuration.
    pub(crate) fn start_with(&self, change: impl FnOnce(&mut Config)) -> Service {
        let mut config = self.config.clone();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, shutdown.clone()));
        Service { shutdown, task }
    }

    /// The binary with this installation's environment.
    pub(crate) fn binary(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_boxoffice-reconciler"));
        command
            .args(arguments)
            .env("BOXOFFICE_DATABASE_URL", self.config.database_url.expose_secret())
            .env("BOXOFFICE_SHARDS", "2")
            .env("BOXOFFICE_REDIS_PREFIX", &self.config.redis_prefix)
            .env("BOXOFFICE_KAFKA_TOPIC", &self.config.kafka_topic)
            .env("BOXOFFICE_DEAD_LETTER_TOPIC", &self.config.dead_letter_topic)
            .env("BOXOFFICE_RATE_LIMIT_TOPIC", &self.config.rate_limit_topic)
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end; returns its exit code and what it printed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.binary(arguments).output().await.unwrap();
        // The logs are on stderr; what a command has to say when it fails is there, too.
        let text = if status.code() == Some(2) && stdout.is_empty() { stderr } else { stdout };
        let printed = String::from_utf8(text).unwrap();
        (status.code().unwrap(), printed)
    }

    /// Appends records to their shards' partitions, as a relay does.
    pub(crate) async fn append(&self, records: &[Record]) {
        let deliveries: Vec<_> = records
            .iter()
            .map(|record| {
                let message = record.message();
                self.enqueue(record.shard, &message.value, owned(&message.headers()))
            })
            .collect();
        for delivery in deliveries {
            delivery.await.unwrap().unwrap();
        }
    }

    /// Appends other bytes in a record's place.
    pub(crate) async fn append_as(&self, record: &Record, value: &[u8]) {
        let headers = owned(&record.message().headers());
        self.enqueue(record.shard, value, headers).await.unwrap().unwrap();
    }

    /// Appends bytes as they are.
    pub(crate) async fn append_raw(&self, shard: Shard, value: &[u8], headers: &[(&str, &str)]) {
        self.enqueue(shard, value, owned(headers)).await.unwrap().unwrap();
    }

    /// Appends what an API counted for the rate limits, or anything else.
    pub(crate) async fn append_rates(&self, value: &[u8]) {
        let message: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(&self.config.rate_limit_topic).partition(0).payload(value);
        let delivery = self.producer.send_result(message).map_err(|(error, _)| error).unwrap();
        delivery.await.unwrap().unwrap();
    }

    fn enqueue(&self, shard: Shard, value: &[u8], headers: OwnedHeaders) -> DeliveryFuture {
        let message: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.config.kafka_topic)
            .partition(shard.partition())
            .key("key")
            .payload(value)
            .headers(headers);
        self.producer.send_result(message).map_err(|(error, _)| error).unwrap()
    }

    /// All records of the dead-letter topic, when it has all that was set aside.
    pub(crate) async fn dead_letter_topic(&self) -> Vec<OwnedMessage> {
        self.wait_for_number("the dead letters are copied", UNCOPIED, 0).await;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.config.kafka_brokers)
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        for shard in [FIRST, SECOND] {
            let offset = rdkafka::Offset::Beginning;
            list.add_partition_offset(&self.config.dead_letter_topic, shard.partition(), offset).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        let mut ended = 0;
        while ended < 2 {
            match consumer.poll(DEADLINE).expect("Kafka answers") {
                Ok(message) => found.push(message.detach()),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{error}"),
            }
        }
        found
    }

    /// Where a shard stands: epoch, sequence, next offset.
    pub(crate) async fn position(&self, shard: Shard) -> (i32, i64, i64) {
        sqlx::query_as("SELECT epoch, sequence, next_offset FROM shards WHERE shard = $1")
            .bind(i16::try_from(shard.number()).unwrap())
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// A number that a query gives.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// One column of all rows, in words.
    pub(crate) async fn words(&self, query: &'static str) -> Vec<String> {
        sqlx::query_scalar(query).fetch_all(&self.pool).await.unwrap()
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn wait_for_sequence(&self, shard: Shard, sequence: i64) {
        wait_until(&format!("shard {shard} is applied up to {sequence}"), async || {
            self.position(shard).await.1 >= sequence
        })
        .await;
    }

    pub(crate) async fn wait_for_offset(&self, shard: Shard, offset: i64) {
        wait_until(&format!("shard {shard} is applied up to offset {offset}"), async || {
            self.position(shard).await.2 >= offset
        })
        .await;
    }

    pub(crate) async fn wait_for_number(&self, what: &str, query: &'static str, wanted: i64) {
        wait_until(what, async || self.number(query).await == wanted).await;
    }

    /// Whether a shard's certificate names the present Redis and the shard's epoch.
    pub(crate) async fn is_certified(&self, shard: Shard) -> bool {
        let nobody = EventId::from_bytes([0; 16]);
        let reply: EventReply = self.run_script(&read_event(&self.config.keys(), shard, nobody)).await;
        reply.0 == 1
    }

    pub(crate) async fn wait_until_certified(&self) {
        wait_until("both shards are certified", async || {
            self.is_certified(FIRST).await && self.is_certified(SECOND).await
        })
        .await;
    }

    /// Runs a script as the API does.
    pub(crate) async fn run_script<T: redis::FromRedisValue>(&self, call: &Call) -> T {
        self.try_script(call).await.unwrap()
    }

    /// The same where the script may refuse.
    pub(crate) async fn try_script<T: redis::FromRedisValue>(&self, call: &Call) -> redis::RedisResult<T> {
        let mut command = redis::cmd("EVAL");
        command.arg(call.script.source()).arg(call.keys.len()).arg(&call.keys);
        for argument in &call.args {
            command.arg(argument);
        }
        command.query_async(&mut self.redis.clone()).await
    }
}

/// Waits for a condition, up to the deadline.
pub(crate) async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    wait_within(DEADLINE, what, condition).await;
}

/// The same with another deadline, for what takes longer by itself.
pub(crate) async fn wait_within(deadline: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn owned(headers: &[(&str, impl AsRef<str>)]) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_ref()) })
    })
}
