//! The connection to Redis: commands, and scripts by their hash.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::scripts::{BEAT, Call, Script};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    ServerErrorKind,
};
use secrecy::ExposeSecret;

use crate::config::Config;

/// A connection is kept for so long, whatever is heard over it: a primary may lack its replicas for hours, and be asked by
/// many at a time.
const KEPT_AT_LEAST: Duration = Duration::from_secs(1);

/// A reconnecting connection; cheap to clone.
///
/// [`ConnectionManager`] connects again when a connection breaks. One that is silent for ever, as to a primary that was
/// cut off, it would keep, and one to a primary that has become a replica or lacks its own: where an answer does not come
/// in time, or says that, the link takes a new one, which leads to whoever has the address by then.
#[derive(Clone)]
pub(crate) struct RedisLink {
    /// The names of the keys in it.
    pub(crate) keys: Keys,
    client: Client,
    settings: ConnectionManagerConfig,
    taken: Arc<RwLock<Taken>>,
}

struct Taken {
    connection: ConnectionManager,
    at: Instant,
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
        let client = Client::open(info).context("BOXOFFICE_REDIS_URL")?;
        let taken = Arc::new(RwLock::new(Taken::new(&client, &settings)?));
        Ok(Self { keys: config.keys(), client, settings, taken })
    }

    /// Runs a command.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        self.heard(command.query_async(&mut self.connection()).await)
    }

    /// Runs commands in one round trip.
    pub(crate) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        self.heard(commands.query_async(&mut self.connection()).await)
    }

    /// Runs commands in one round trip, each with an answer of its own: see [`of_its_type`].
    pub(crate) async fn ask_each<T: FromRedisValue>(
        &self,
        commands: &mut Pipeline,
    ) -> Result<Vec<Option<T>>, RedisError> {
        let answers: Vec<Result<T, RedisError>> = self.ask_all(commands.ignore_errors()).await?;
        answers.into_iter().map(of_its_type).collect()
    }

    /// To be taken anew for each question: the last one's answer may have been the end of it.
    fn connection(&self) -> ConnectionManager {
        self.taken.read().unwrap_or_else(PoisonError::into_inner).connection.clone()
    }

    /// Takes another connection where the answer did not come in time, or comes from who takes no writes.
    fn heard<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        if answer.as_ref().is_err_and(is_of_no_use) {
            let mut taken = self.taken.write().unwrap_or_else(PoisonError::into_inner);
            if taken.at.elapsed() >= KEPT_AT_LEAST {
                *taken = Taken::new(&self.client, &self.settings)?;
            }
        }
        answer
    }

    /// Looks whether Redis takes writes. A primary that was cut off from its replicas answers every read, and its certificates
    /// are valid: nothing else would show that one of them was promoted.
    pub(crate) async fn beat(&self) -> Result<(), RedisError> {
        self.ask(redis::cmd("EVAL").arg(BEAT).arg(0)).await
    }

    /// Whether Redis answers; while it loads its file it does not.
    pub(crate) async fn ping(&self) -> Result<(), RedisError> {
        self.ask(&redis::cmd("PING")).await
    }

    /// Runs a script. Redis forgets scripts when it restarts; it is then sent the text, which it keeps.
    pub(crate) async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, RedisError> {
        match self.ask(&command("EVALSHA", call.script.sha1(), call)).await {
            Err(error) if is_unknown_script(&error) => {
                self.ask(&command("EVAL", call.script.source(), call)).await
            }
            answer => answer,
        }
    }

    /// Runs one script many times, in one round trip.
    pub(crate) async fn run_all<T: FromRedisValue>(&self, calls: Calls) -> Result<Vec<T>, RedisError> {
        let Some(script) = calls.script else { return Ok(Vec::new()) };
        self.load(script).await?;
        self.ask_all(&calls.pipeline).await
    }

    async fn load(&self, script: &Script) -> Result<(), RedisError> {
        self.ask(redis::cmd("SCRIPT").arg("LOAD").arg(script.source())).await
    }
}

impl Taken {
    fn new(client: &Client, settings: &ConnectionManagerConfig) -> Result<Self, RedisError> {
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), settings.clone())?;
        Ok(Self { connection, at: Instant::now() })
    }
}

/// Calls of one script, ready to be sent: each is taken into the message as it comes, and is held no longer.
#[derive(Default)]
pub(crate) struct Calls {
    script: Option<&'static Script>,
    pipeline: Pipeline,
}

impl FromIterator<Call> for Calls {
    fn from_iter<I: IntoIterator<Item = Call>>(calls: I) -> Self {
        let mut all = Self::default();
        for call in calls {
            all.pipeline.add_command(command("EVALSHA", call.script.sha1(), &call));
            all.script = Some(call.script);
        }
        all
    }
}

fn command(name: &str, script: &str, call: &Call) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(call.keys.len()).arg(&call.keys);
    for argument in &call.args {
        command.arg(argument);
    }
    command
}

/// What a command found under a key; none where something of another type lies there than the command is for.
pub(crate) fn of_its_type<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn is_of_no_use(error: &RedisError) -> bool {
    error.is_timeout() || matches!(error.code(), Some("READONLY" | "NOREPLICAS"))
}
