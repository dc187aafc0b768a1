//! The connection to Redis: scripts by their hash, and readings of a shard.

use std::time::Duration;

use anyhow::Context;
use boxoffice_schema::scripts::{Call, Script};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, ServerErrorKind};
use secrecy::ExposeSecret;

use crate::config::Config;

/// A reconnecting connection; cheap to clone.
#[derive(Clone)]
pub(crate) struct RedisLink {
    connection: ConnectionManager,
}

impl RedisLink {
    /// A link that connects when it is first used, and again when it has lost the connection.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        // The parser's error does not repeat the URL.
        let info: ConnectionInfo = config
            .redis_url
            .expose_secret()
            .into_connection_info()
            .context("BOXOFFICE_REDIS_URL is not a Redis URL")?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(500))
            .set_number_of_retries(2);
        let client = redis::Client::open(info).context("BOXOFFICE_REDIS_URL")?;
        Ok(Self { connection: ConnectionManager::new_lazy_with_config(client, settings)? })
    }

    /// The connection, for plain commands and pipelines.
    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// Whether Redis answers; while it loads its file it does not.
    pub(crate) async fn ping(&self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(&mut self.connection.clone()).await
    }

    /// Runs a script. Redis forgets scripts when it restarts; it is then sent the text, which it keeps.
    pub(crate) async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        match command("EVALSHA", call.script.sha1(), call).query_async(&mut connection).await {
            Err(error) if is_unknown_script(&error) => {
                command("EVAL", call.script.source(), call).query_async(&mut connection).await
            }
            answer => answer,
        }
    }

    /// Runs one script many times, in one round trip.
    pub(crate) async fn run_all<T: FromRedisValue>(&self, calls: &[Call]) -> Result<Vec<T>, RedisError> {
        let Some(first) = calls.first() else { return Ok(Vec::new()) };
        let mut connection = self.connection.clone();
        self.load(first.script).await?;
        let mut pipeline = redis::pipe();
        for call in calls {
            pipeline.add_command(command("EVALSHA", call.script.sha1(), call));
        }
        pipeline.query_async(&mut connection).await
    }

    async fn load(&self, script: &Script) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query_async(&mut connection).await
    }
}

fn command(name: &str, script: &str, call: &Call) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(call.keys.len()).arg(&call.keys);
    for argument in &call.args {
        command.arg(argument);
    }
    command
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
