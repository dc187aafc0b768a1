//! The connection that the booking path holds: one, shared by all shards, its requests pipelined.
//!
//! While it is down, callers are told so at once instead of waiting for another attempt: a task makes the attempts.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::scripts::Call;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError, Value};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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

/// A connection that is made again after it broke. Whoever finds it broken says so for all, at once: nobody else waits
/// for a time-out of their own.
#[derive(Clone)]
pub(super) struct Link {
    state: Arc<watch::Sender<State>>,
}

/// The client for an address, with `TCP_NODELAY`: a script call must not wait for more bytes.
pub(super) fn client(settings: &Settings) -> anyhow::Result<Client> {
    use redis::IntoConnectionInfo;
    let info = settings.redis_url.expose_secret().into_connection_info()?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(Client::open(info.set_tcp_settings(tcp))?)
}

/// Every wait for Redis ends after the configured time-out.
pub(super) fn connection_config(settings: &Settings) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.redis_timeout))
        .set_response_timeout(Some(settings.redis_timeout))
}

impl Link {
    pub(super) fn start(
        settings: &Settings,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let client = client(settings)?;
        let config = connection_config(settings);
        let link = Self { state: Arc::new(watch::Sender::new(Err("not connected yet".to_owned()))) };
        let (kept, shutdown) = (link.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = kept.keep_connected(client, config) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(link)
    }

    pub(super) fn health(&self) -> Result<(), String> {
        self.state.borrow().as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Runs a script by its hash; loads it where Redis does not know it, after a restart for instance.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, InventoryError> {
        let Connected { mut connection, number } =
            self.state.borrow().clone().map_err(InventoryError::RedisUnavailable)?;
        let result = match evalsha(call).query_async(&mut connection).await {
            Err(error) if is_unknown_script(&error) => {
                load(call).query_async::<()>(&mut connection).await.map_err(|e| self.failed(number, &e))?;
                evalsha(call).query_async(&mut connection).await
            }
            result => result,
        };
        result.map_err(|error| self.failed(number, &error))
    }

    fn failed(&self, number: u64, error: &RedisError) -> InventoryError {
        if is_broken(error) {
            self.give_up(number);
        }
        classify(error)
    }

    /// A late word about an older connection says nothing of the present one.
    fn give_up(&self, number: u64) {
        self.state.send_if_modified(|state| {
            let present = matches!(state, Ok(connected) if connected.number == number);
            if present {
                *state = Err("the connection broke".to_owned());
            }
            present
        });
    }

    async fn keep_connected(&self, client: Client, config: AsyncConnectionConfig) {
        let mut retry = RETRY_FIRST;
        let mut number = 0;
        loop {
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => {
                    tracing::info!("connected to Redis");
                    retry = RETRY_FIRST;
                    number += 1;
                    let connected = Connected { connection: connection.clone(), number };
                    self.state.send_modify(|state| *state = Ok(connected));
                    let mut state = self.state.subscribe();
                    tokio::select! {
                        // This task holds the sender.
                        _ = state.wait_for(Result::is_err) => {}
                        () = until_silent(connection) => self.give_up(number),
                    }
                    tracing::warn!("the connection to Redis broke; bookings are refused until it is back");
                }
                Err(error) => {
                    let reason = error.to_string();
                    if self.state.borrow().as_ref().err() != Some(&reason) {
                        tracing::warn!(%error, "cannot connect to Redis; trying again");
                    }
                    self.state.send_modify(|state| *state = Err(reason));
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

fn is_broken(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_timeout()
}

pub(super) fn evalsha(call: &Call) -> redis::Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(call.script.sha1()).arg(call.keys.len());
    for key in &call.keys {
        command.arg(key);
    }
    for arg in &call.args {
        command.arg(arg.as_slice());
    }
    command
}

pub(super) fn load(call: &Call) -> redis::Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(call.script.source());
    command
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
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

/// Returns when Redis does not answer within the connection's time-out. An error is an answer.
async fn until_silent(mut connection: MultiplexedConnection) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let pong = redis::cmd("PING").query_async::<Value>(&mut connection).await;
        if pong.is_err_and(|error| is_broken(&error)) {
            return;
        }
    }
}
