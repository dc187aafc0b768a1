//! Connections to Redis, each shared by all who use it, their requests pipelined: one for clients who wait for a decision, one
//! for what each HTTP thread only asks, and one for the work in the background, whose large answers must not stand before
//! theirs.
//!
//! While the clients' is down, they are told so at once instead of waiting for another attempt: a task makes the attempts.
//! The others are made when the clients' is, so that all lead to the same Redis: what was decided over one must be read and
//! relayed over another. While its own is down the background waits for it, and a thread asks over the clients'.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_schema::scripts::{BEAT, Call};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, InfoDict, RedisError, Value, from_redis_value,
};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::epochs::Epochs;
use super::{InventoryError, Settings};

const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Sales go on this much after Redis is back; an attempt costs it next to nothing.
const RETRY_MAX: Duration = Duration::from_millis(250);

/// How often Redis is asked whether it still answers: one that hangs is known as such before a client asks.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A connection, and which one it is since the start.
#[derive(Clone)]
struct Connected {
    connection: MultiplexedConnection,
    number: u64,
}

/// Why there is no connection, or the connection.
type State = Result<Connected, String>;

/// Who uses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Users {
    /// Bookings, rate limits, administration; and who has no other.
    Clients,
    /// Reads and looks of one HTTP thread.
    Thread,
    /// The relays, the expiry of holds, and what looks after Redis.
    Background,
}

/// A connection that is made again after it broke. Whoever finds it broken says so for all, at once: nobody else waits
/// for a time-out of their own. What it cannot answer meanwhile is [`InventoryError::RedisUnavailable`].
#[derive(Clone)]
pub(super) struct Link {
    users: Users,
    /// How long a call waits for a connection while there is none.
    patience: Duration,
    client: Client,
    config: AsyncConnectionConfig,
    epochs: Arc<Epochs>,
    state: Arc<watch::Sender<State>>,
}

fn unconnected() -> Arc<watch::Sender<State>> {
    Arc::new(watch::Sender::new(Err("not connected yet".to_owned())))
}

/// The client for an address, with `TCP_NODELAY`: a script call must not wait for more bytes.
fn client(settings: &Settings) -> anyhow::Result<Client> {
    use redis::IntoConnectionInfo;
    let info = settings.redis_url.expose_secret().into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(Client::open(info.set_tcp_settings(tcp))?)
}

/// Every wait for an answer ends after the configured time-out.
fn connection_config(settings: &Settings) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.redis_timeout))
        .set_response_timeout(Some(settings.redis_timeout))
}

impl Link {
    /// The clients'. The task that makes the connection again and again ends with the set that it is put into.
    ///
    /// # Errors
    /// Where the address of Redis cannot be one.
    pub(super) fn start(
        settings: &Settings,
        epochs: Arc<Epochs>,
        keepers: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let (client, config) = (client(settings)?, connection_config(settings));
        let (users, patience, state) = (Users::Clients, Duration::ZERO, unconnected());
        let link = Self { users, patience, client, config, epochs, state };
        let kept = link.clone();
        keepers.spawn(async move { kept.keep_connected(&mut 0).await });
        Ok(link)
    }

    /// Another connection to the same Redis, for the thread that calls this.
    pub(super) fn of_this_thread(&self, keepers: &mut JoinSet<()>) -> Self {
        self.another(Users::Thread, Duration::ZERO, keepers)
    }

    /// Another connection to the same Redis, for what can wait for it so long.
    pub(super) fn of_the_background(&self, patience: Duration, keepers: &mut JoinSet<()>) -> Self {
        self.another(Users::Background, patience, keepers)
    }

    fn another(&self, users: Users, patience: Duration, keepers: &mut JoinSet<()>) -> Self {
        let link = Self { users, patience, state: unconnected(), ..self.clone() };
        let (kept, first) = (link.clone(), self.state.subscribe());
        keepers.spawn(async move { kept.keep_beside(first).await });
        link
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().is_ok()
    }

    pub(super) fn health(&self) -> Result<(), String> {
        self.state.borrow().as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Runs a script.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, InventoryError> {
        self.try_run(call).await?.map_err(|error| classify(&error))
    }

    /// Runs a script that answers so many requests together, and measures it.
    pub(super) async fn run_for<T: FromRedisValue>(
        &self,
        requests: usize,
        call: &Call,
    ) -> Result<T, InventoryError> {
        let (started, script) = (Instant::now(), call.script.name);
        let reply = self.run(call).await;
        metrics::histogram!("boxoffice_script_seconds", "script" => script).record(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a call answers at most 128 requests")]
        metrics::histogram!("boxoffice_batch_requests", "script" => script).record(requests as f64);
        reply
    }

    /// Runs a script by its hash; loads it where Redis does not know it, after a restart for instance. The answer's errors
    /// are left to the caller, who knows the script's own.
    pub(super) async fn try_run<T: FromRedisValue>(
        &self,
        call: &Call,
    ) -> Result<Result<T, RedisError>, InventoryError> {
        match self.try_command(&evalsha(call)).await? {
            Err(error) if is_unknown_script(&error) => {
                self.command::<()>(&load(call)).await?;
                self.try_command(&evalsha(call)).await
            }
            result => Ok(result),
        }
    }

    /// Runs a command.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, InventoryError> {
        self.try_command(command).await?.map_err(|error| classify(&error))
    }

    /// As [`Link::command`]; the errors that Redis answers with are left to the caller. One that it does not understand says
    /// nothing of the connection, which all others need.
    pub(super) async fn try_command<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Result<T, RedisError>, InventoryError> {
        let Connected { mut connection, number } = self.connected().await?;
        let answer: Result<Value, RedisError> = command.query_async(&mut connection).await;
        if let Err(error) = &answer
            && is_broken(error)
        {
            self.give_up(number, &error.to_string());
        }
        Ok(answer.and_then(|value| Ok(from_redis_value(value)?)))
    }

    async fn connected(&self) -> Result<Connected, InventoryError> {
        if !self.patience.is_zero() && !self.is_connected() {
            let mut state = self.state.subscribe();
            // Whether it comes in time or not, what is said is how things stand then.
            let _ = tokio::time::timeout(self.patience, state.wait_for(Result::is_ok)).await;
        }
        self.state.borrow().clone().map_err(InventoryError::RedisUnavailable)
    }

    /// A late word about an older connection says nothing of the present one.
    fn give_up(&self, number: u64, why: &str) {
        self.state.send_if_modified(|state| {
            let present = matches!(state, Ok(connected) if connected.number == number);
            if present {
                *state = Err(why.to_owned());
            }
            present
        });
    }

    /// Keeps a connection while there is the first one, and makes it anew whenever that was made anew: the address may name
    /// another Redis by then, while the old one still answers. What was decided there must be read there.
    async fn keep_beside(&self, mut first: watch::Receiver<State>) {
        let mut number = 0;
        while first.wait_for(Result::is_ok).await.is_ok() {
            tokio::select! {
                () = self.keep_connected(&mut number) => {}
                _ = first.changed() => {}
            }
            self.give_up(number, "the clients' connection was made anew");
        }
    }

    /// Makes connections until it is dropped; `number` is the last one's.
    async fn keep_connected(&self, number: &mut u64) {
        let mut retry = RETRY_FIRST;
        loop {
            let since = Instant::now();
            match self.connect().await {
                Ok(connection) => {
                    self.say_connected();
                    *number += 1;
                    let connected = Connected { connection: connection.clone(), number: *number };
                    self.state.send_modify(|state| *state = Ok(connected));
                    let mut state = self.state.subscribe();
                    tokio::select! {
                        // This task holds the sender.
                        _ = state.wait_for(Result::is_err) => {}
                        why = self.until_of_no_use(connection) => self.give_up(*number, &why.to_string()),
                    }
                    self.say_broken();
                }
                Err(error) => {
                    let reason = error.to_string();
                    if self.state.borrow().as_ref().err() != Some(&reason) {
                        tracing::warn!(users = ?self.users, %error, "cannot connect to Redis; trying again");
                    }
                    self.state.send_modify(|state| *state = Err(reason));
                }
            }
            // Redis takes a connection that is one too many, and ends it.
            if since.elapsed() < RETRY_MAX {
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            } else {
                retry = RETRY_FIRST;
            }
        }
    }

    /// A connection of which is known which shards stand in an ended epoch there; a thread's only where none does.
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        match self.users {
            Users::Clients => {
                self.epochs.note_over(&mut connection).await?;
            }
            Users::Thread if !self.epochs.over(&mut connection).await?.is_empty() => return Err(elsewhere()),
            Users::Thread | Users::Background => {}
        }
        Ok(connection)
    }

    /// Returns when Redis does not answer within the connection's time-out, has become a replica, or is a primary without its
    /// replicas in whose place another one answers by now. Another error is an answer.
    async fn until_of_no_use(&self, mut connection: MultiplexedConnection) -> RedisError {
        let (mut heard, mut is_over) = (None, false);
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let beat = redis::cmd("EVAL").arg(BEAT).arg(0).query_async::<Value>(&mut connection).await;
            // The other connections follow the clients'.
            let version = self.epochs.version();
            if self.users == Users::Clients && (heard.replace(version) != Some(version) || is_over) {
                match self.epochs.note_over(&mut connection).await {
                    Ok(any) => is_over = any,
                    Err(error) => return error,
                }
                if is_over && self.leads_elsewhere(&mut connection).await {
                    return elsewhere();
                }
            }
            let Err(error) = beat else { continue };
            if is_broken(&error) {
                return error;
            }
            if self.users == Users::Clients && error.code() == Some("NOREPLICAS") {
                if self.leads_elsewhere(&mut connection).await {
                    return error;
                }
                // It may lack them for long. A connection a second is enough to find out.
                tokio::time::sleep(HEARTBEAT).await;
            }
        }
    }

    /// Whether the address names another primary than the one that is connected. One that only lacks its replicas is not left.
    async fn leads_elsewhere(&self, connection: &mut MultiplexedConnection) -> bool {
        let by_name = self.client.get_multiplexed_async_connection_with_config(&self.config).await;
        let Ok(mut by_name) = by_name else { return false };
        match (primary(connection).await, primary(&mut by_name).await) {
            (Some(connected), Some(named)) => connected != named,
            _ => false,
        }
    }

    /// A thread's follows the clients'.
    fn say_connected(&self) {
        match self.users {
            Users::Thread => tracing::debug!("an HTTP thread is connected to Redis"),
            users => tracing::info!(?users, "connected to Redis"),
        }
    }

    fn say_broken(&self) {
        let state = self.state.borrow();
        let why = state.as_ref().err().map_or("unknown", String::as_str);
        match self.users {
            Users::Thread => tracing::debug!(why, "an HTTP thread's connection to Redis broke"),
            Users::Clients => {
                tracing::warn!(why, "the connection to Redis broke; bookings are refused until it is back");
            }
            Users::Background => {
                tracing::warn!(
                    why,
                    "the background's connection to Redis broke; decisions wait in the outbox until it is back"
                );
            }
        }
    }
}

/// Why a connection is left in which Redis stands in an ended epoch.
fn elsewhere() -> RedisError {
    (redis::ErrorKind::Client, "Redis stands in an epoch that is over").into()
}

/// Also where Redis has become a replica: whoever asks for it by its name anew may be led to the one that took over.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_timeout() || error.code() == Some("READONLY")
}

fn evalsha(call: &Call) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(call.script.sha1()).arg(call.keys.len()).arg(&call.keys).arg(&call.args);
    command
}

fn load(call: &Call) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(call.script.source());
    command
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// What an error of Redis means for whoever asked.
pub(super) fn classify(error: &RedisError) -> InventoryError {
    use boxoffice_schema::scripts::error_code;
    match error.code() {
        Some(error_code::UNVERIFIED) => InventoryError::Unverified,
        Some(error_code::WRITE_FAILED) => {
            tracing::error!(%error, "a script failed while it wrote; its shard is fenced until recovery has checked it");
            InventoryError::Unverified
        }
        Some("OOM") => InventoryError::OutboxFull,
        Some(code) => {
            InventoryError::RedisUnavailable(format!("{code} {}", error.detail().unwrap_or_default()))
        }
        None if error.is_timeout() => InventoryError::RedisUnavailable("no answer in time".to_owned()),
        None => InventoryError::RedisUnavailable(error.to_string()),
    }
}

/// The process that answers, where it is a primary.
async fn primary(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut info = redis::cmd("INFO");
    let info: InfoDict = info.arg("server").arg("replication").query_async(connection).await.ok()?;
    if info.get::<String>("role")? == "master" { info.get("run_id") } else { None }
}
