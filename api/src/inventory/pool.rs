//! Calls that are not on the path of a booking or a reader: administration, the relay. They share pooled connections.

use std::future::Future;
use std::time::Duration;

use boxoffice_schema::scripts::Call;
use deadpool_redis::{Connection, Manager, PoolError, Runtime};
use redis::{FromRedisValue, RedisError};

use super::link::{classify, client, connection_config, evalsha, is_unknown_script, load};
use super::{InventoryError, Settings};

/// The most connections: a relay for each of the usual sixteen shards, and as many for everything else.
const CONNECTIONS: usize = 32;

/// What a call may take beyond one answer of Redis: its wait for a connection, and the connection's test.
const CONNECTION_WITHIN: Duration = Duration::from_millis(200);

pub(super) struct Pool {
    connections: deadpool_redis::Pool,
    within: Duration,
}

impl Pool {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let info = client(settings)?.get_connection_info().clone();
        let manager = Manager::new_with_config(info, connection_config(settings))?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.redis_timeout))
            .create_timeout(Some(settings.redis_timeout))
            .recycle_timeout(Some(settings.redis_timeout))
            .build()?;
        Ok(Self { connections: pool, within: settings.redis_timeout + CONNECTION_WITHIN })
    }

    /// Bounds a whole call. A Redis that hangs would otherwise cost a time-out for each pooled connection that is
    /// tested, and one for each step.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, InventoryError>>,
    ) -> Result<T, InventoryError> {
        let late =
            || InventoryError::RedisUnavailable(format!("no answer within {} ms", self.within.as_millis()));
        tokio::time::timeout(self.within, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn connection(&self) -> Result<Connection, InventoryError> {
        self.connections.get().await.map_err(|error| match error {
            PoolError::Backend(error) => classify(&error),
            other => InventoryError::RedisUnavailable(other.to_string()),
        })
    }

    /// Runs a script; the answer's errors are left to the caller, who knows the script's own.
    pub(super) async fn try_run<T: FromRedisValue>(
        &self,
        call: &Call,
    ) -> Result<Result<T, RedisError>, InventoryError> {
        self.in_time(async {
            let mut connection = self.connection().await?;
            match evalsha(call).query_async(&mut connection).await {
                Err(error) if is_unknown_script(&error) => {
                    load(call).query_async::<()>(&mut connection).await.map_err(|e| classify(&e))?;
                    Ok(evalsha(call).query_async(&mut connection).await)
                }
                result => Ok(result),
            }
        })
        .await
    }

    pub(super) async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, InventoryError> {
        self.try_run(call).await?.map_err(|error| classify(&error))
    }

    pub(super) async fn command<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, InventoryError> {
        self.try_command(command).await?.map_err(|error| classify(&error))
    }

    /// As [`Pool::command`]; what Redis itself refuses is left to the caller.
    pub(super) async fn try_command<T: FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<Result<T, RedisError>, InventoryError> {
        self.in_time(async {
            let mut connection = self.connection().await?;
            Ok(command.query_async(&mut connection).await)
        })
        .await
    }
}
