//! The whole of Boxoffice as processes: two API instances behind a balancer, two reconcilers, Redis, Kafka and
//! PostgreSQL behind proxies.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    balancer::{self, Balancer},
    cli::Options,
    gauge, http,
    program::Program,
    proxy::Proxy,
    redis_pair::RedisPair,
    server::Server,
};

/// From the start of the processes to an API that is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Unless an installation says otherwise, and this one does not.
const SHARDS: f64 = 16.0;

/// Reading every booking of both stores: of half an hour some hundred thousand.
const AUDIT_WITHIN: Duration = Duration::from_secs(600);

/// How long relayed records are counted to see who relays most.
const RELAY_LOOK: Duration = Duration::from_millis(300);

/// Offsets of our own ports from the stack's base, beside those that scripts/stack takes (92, 93, 379, 432).
mod port {
    pub(super) const BALANCER: u16 = 80;
    pub(super) const APIS: [u16; 2] = [81, 82];
    pub(super) const RECONCILERS: [u16; 2] = [83, 84];
    pub(super) const KAFKA_WAY: u16 = 94;
    pub(super) const REDIS_WAY: u16 = 380;
    pub(super) const REDIS_LINK: u16 = 381;
    pub(super) const POSTGRES_WAY: u16 = 433;
    pub(super) const REDIS: u16 = 379;
    pub(super) const POSTGRES: u16 = 432;
    pub(super) const KAFKA: u16 = 92;
    /// From the stack's base to the replica's.
    pub(super) const REPLICA: u16 = 1_000;
}

/// An API instance or a reconciler, and the port at which it shows its metrics.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) program: Program,
    pub(crate) port: u16,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) apis: Vec<Instance>,
    pub(crate) reconcilers: Vec<Instance>,
    pub(crate) redis: RedisPair,
    pub(crate) kafka: (Server, Proxy),
    pub(crate) postgres: (Server, Proxy),
    /// Before the APIs, once they run.
    balancer: Option<Balancer>,
    /// Where clients go.
    pub(crate) url: String,
    /// PostgreSQL without the proxy, for checks.
    pub(crate) database_url: String,
}

impl House {
    /// Whether everything runs that nobody has ended.
    ///
    /// # Errors
    /// Names an API or a reconciler that ended by itself: another one or the balancer would hide it.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        for Instance { program, .. } in self.reconcilers.iter_mut().chain(&mut self.apis) {
            program.check_alive()?;
        }
        Ok(())
    }

    /// Prepares a database, topics and a Redis of this run's own, and starts everything. `run` is the run's name.
    pub(crate) async fn start(options: &Options, run: &str) -> Result<Self> {
        let mut house = Self::build(options, run).await?;
        house.redis.begin().await?;
        house.kafka.0.start().await?;
        house.postgres.0.start().await?;
        make_database(options, run).await?;
        let settings = settings(options, run);
        let reconciler = options.bin.join("boxoffice-reconciler");
        let migrate = Program::new("migrate", reconciler, &options.run_dir);
        migrate.arguments(&["migrate"]).settings(&settings).finish().await?;
        for instance in house.reconcilers.iter_mut().chain(&mut house.apis) {
            instance.program.start()?;
        }
        let ports: Vec<u16> = house.apis.iter().map(|api| api.port).collect();
        house.balancer = Some(balancer::start(options.port_base + port::BALANCER, &ports).await?);
        wait_until_ready(&ports).await.context("the API is not ready")?;
        house.wait_until_certified(READY_WITHIN).await?;
        Ok(house)
    }

    /// Waits until every shard may sell. What is broken is to be what runs, and not what starts; and what was healed is healed
    /// on the shards as well that no probe looks at.
    pub(crate) async fn wait_until_certified(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let certified = self.certified_shards().await;
            if certified >= SHARDS {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {certified} shards are certified after {patience:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// As the reconciler that leads sees it: another one shows what it saw when it last led. Where two believe to lead, as
    /// after a pause, the fewer count.
    async fn certified_shards(&self) -> f64 {
        let mut fewest: Option<f64> = None;
        for reconciler in &self.reconcilers {
            let read = async |metric: &'static str| gauge::read(reconciler.port, metric).await.unwrap_or(0.0);
            if read("boxoffice_reconciler_leader").await > 0.5 {
                let certified = read("boxoffice_reconciler_certified_shards").await;
                fewest = Some(fewest.map_or(certified, |fewest| fewest.min(certified)));
            }
        }
        fewest.unwrap_or(0.0)
    }

    /// Everything but running.
    async fn build(options: &Options, run: &str) -> Result<Self> {
        let (base, stack) = (options.port_base, &options.stack);
        let server = |name, offset| Server::new(&options.checkout, stack, name, base + offset);
        let replica = format!("{stack}-replica");
        let replica = Server::new(&options.checkout, &replica, "redis", base + port::REPLICA + port::REDIS);
        let way = |offset, target| Proxy::start(base + offset, base + target);
        let link = (way(port::REDIS_LINK, port::REDIS).await?, base + port::REDIS_LINK);
        let redis_way = way(port::REDIS_WAY, port::REDIS).await?;
        let redis = RedisPair::new(server("redis", port::REDIS), replica, redis_way, link, &prefix(run));
        Ok(Self {
            apis: port::APIS.iter().enumerate().map(|(at, offset)| api(options, run, at, *offset)).collect(),
            reconcilers: port::RECONCILERS
                .iter()
                .enumerate()
                .map(|(at, offset)| reconciler(options, run, at, *offset))
                .collect(),
            redis,
            kafka: (server("kafka", port::KAFKA), way(port::KAFKA_WAY, port::KAFKA).await?),
            postgres: (server("postgres", port::POSTGRES), way(port::POSTGRES_WAY, port::POSTGRES).await?),
            balancer: None,
            url: format!("http://127.0.0.1:{}", base + port::BALANCER),
            database_url: database_url(base + port::POSTGRES, run),
        })
    }

    /// The API instance that relays most; while Kafka is away and none does, the one that has relayed most.
    pub(crate) async fn relay_owner(&self) -> usize {
        let before = self.relayed().await;
        sleep(RELAY_LOOK).await;
        let after = self.relayed().await;
        let growth = [after[0] - before[0], after[1] - before[1]];
        let [first, second] = if growth == [0.0; 2] { after } else { growth };
        usize::from(second > first)
    }

    /// Records that each API instance has relayed; one that does not answer is not the one that relays.
    async fn relayed(&self) -> [f64; 2] {
        let relayed = async |at: usize| {
            gauge::read(self.apis[at].port, "boxoffice_relayed_records_total").await.unwrap_or(0.0)
        };
        [relayed(0).await, relayed(1).await]
    }

    /// The reconciler that holds the lease, or the first.
    pub(crate) async fn leader(&self) -> usize {
        let second = gauge::read(self.reconcilers[1].port, "boxoffice_reconciler_leader").await;
        usize::from(second.is_ok_and(|leads| leads > 0.5))
    }

    /// Ends everything of Boxoffice; the stack's servers are ended by whoever started them.
    pub(crate) async fn stop(&mut self) {
        for instance in self.apis.iter_mut().chain(&mut self.reconcilers) {
            if let Err(error) = instance.program.stop().await {
                eprintln!("{} was not ended in order: {error:#}", instance.program.name);
            }
        }
    }
}

fn api(options: &Options, run: &str, at: usize, offset: u16) -> Instance {
    let port = options.port_base + offset;
    let name = format!("api-{}", at + 1);
    let program = Program::new(&name, options.bin.join("boxoffice-api"), &options.run_dir)
        .settings(&settings(options, run))
        .setting("BOXOFFICE_LISTEN", &format!("127.0.0.1:{port}"))
        .setting("BOXOFFICE_AUTH", "off")
        .setting("BOXOFFICE_SHUTDOWN_SECONDS", "10");
    Instance { program, port }
}

fn reconciler(options: &Options, run: &str, at: usize, offset: u16) -> Instance {
    let port = options.port_base + offset;
    let name = format!("reconciler-{}", at + 1);
    let program = Program::new(&name, options.bin.join("boxoffice-reconciler"), &options.run_dir)
        .arguments(&["run"])
        .settings(&settings(options, run))
        .setting("BOXOFFICE_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    Instance { program, port }
}

/// Holds the stores against each other booking by booking, as an operator would; what that says where they differ.
pub(crate) async fn audit(options: &Options, run: &str) -> Result<Option<String>> {
    let audit = Program::new("audit", options.bin.join("boxoffice-reconciler"), &options.run_dir);
    audit.arguments(&["audit", "--deep"]).settings(&settings(options, run)).complaint(AUDIT_WITHIN).await
}

/// What all processes are told: everything goes through the proxies.
fn settings(options: &Options, run: &str) -> Vec<(String, String)> {
    let base = options.port_base;
    let mut settings = vec![
        ("BOXOFFICE_REDIS_URL", format!("redis://127.0.0.1:{}/", base + port::REDIS_WAY)),
        ("BOXOFFICE_KAFKA_BROKERS", format!("127.0.0.1:{}", base + port::KAFKA_WAY)),
        ("BOXOFFICE_DATABASE_URL", database_url(base + port::POSTGRES_WAY, run)),
        ("BOXOFFICE_REDIS_PREFIX", prefix(run)),
        ("BOXOFFICE_KAFKA_TOPIC", format!("{run}.decisions")),
        ("BOXOFFICE_DEAD_LETTER_TOPIC", format!("{run}.dead-letters")),
        ("BOXOFFICE_RATE_LIMIT_TOPIC", format!("{run}.rate-limits")),
        ("BOXOFFICE_ACK", options.ack.word().to_owned()),
        ("BOXOFFICE_AUDIT_INTERVAL_MS", "2000".to_owned()),
    ];
    settings.extend(options.mutant.iter().map(|mutant| ("BOXOFFICE_MUTANT", mutant.clone())));
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn prefix(run: &str) -> String {
    format!("{run}:")
}

fn database_url(port: u16, database: &str) -> String {
    format!("postgres://boxoffice:boxoffice@127.0.0.1:{port}/{database}")
}

/// A database for this run; those of earlier runs on this stack are dropped.
async fn make_database(options: &Options, run: &str) -> Result<()> {
    let url = database_url(options.port_base + port::POSTGRES, "boxoffice");
    let mut connection = PgConnection::connect(&url).await.context("PostgreSQL of the stack")?;
    let old: Vec<String> = sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'chaos%'")
        .fetch_all(&mut connection)
        .await?;
    for name in old {
        let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await?;
    }
    let create = format!("CREATE DATABASE \"{run}\"");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Waits until every instance says that it is ready.
pub(crate) async fn wait_until_ready(ports: &[u16]) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    for port in ports {
        loop {
            let answer = timeout(Duration::from_secs(2), http::get(*port, "/readyz")).await;
            match answer {
                Ok(Ok((200, _))) => break,
                other if Instant::now() > deadline => {
                    bail!("/readyz at port {port} after {READY_WITHIN:?}: {other:?}")
                }
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    Ok(())
}

/// A folder for logs, empty.
pub(crate) fn make_run_dir(folder: &Path) -> Result<()> {
    let failed = || format!("{} cannot be made anew", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(failed)?;
    }
    std::fs::create_dir_all(folder).with_context(failed)
}
