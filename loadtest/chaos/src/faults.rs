//! What each kind of fault does, and what heals it.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use rand::{Rng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    house::House,
    proxy::{Flow, Proxy},
    redis_pair::now_ms,
    schedule::{Kind, Victim},
    windows::Windows,
};

/// How far a replica lags when it is promoted.
const LAG_MS: std::ops::RangeInclusive<u64> = 500..=2_000;

/// What heals a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Remedy {
    /// Start the API instance again.
    StartApi(usize),
    /// Let the API instance go on.
    ContinueApi(usize),
    /// Start the reconciler again.
    StartReconciler(usize),
    /// Let the reconciler go on.
    ContinueReconciler(usize),
    /// Start the server again.
    Start(Victim),
    /// Let the server go on.
    Continue(Victim),
    /// Let connections to the server pass.
    Open(Victim),
    /// Lead clients back to the first Redis.
    FailBack,
    /// It heals by itself.
    Nothing,
}

/// Does the harm.
pub(crate) async fn harm(
    house: &mut House,
    kind: Kind,
    windows: &mut Windows,
    lot: &mut StdRng,
) -> Result<Remedy> {
    if kind == Kind::RedisFailover {
        house.redis.leave_replica_behind().await?;
        sleep(Duration::from_millis(lot.random_range(LAG_MS))).await;
    }
    if kind.loses_redis() {
        windows.open(house.redis.unconfirmed_since().await?)?;
    }
    let victim = kind.victim();
    Ok(match kind {
        Kind::ApiKill => kill_api(house, lot.random_range(0..2)).await?,
        Kind::RelayKill => kill_api(house, house.relay_owner().await).await?,
        Kind::ApiPause => pause_api(house, lot.random_range(0..2))?,
        Kind::RelayPause => pause_api(house, house.relay_owner().await)?,
        Kind::ReconcilerKill => {
            let leader = house.leader().await;
            house.reconcilers[leader].program.kill().await?;
            Remedy::StartReconciler(leader)
        }
        Kind::ReconcilerPause => {
            let leader = house.leader().await;
            house.reconcilers[leader].program.signal(Signal::SIGSTOP)?;
            Remedy::ContinueReconciler(leader)
        }
        Kind::RedisKill | Kind::KafkaKill | Kind::PostgresKill => {
            server(house, victim).kill().await?;
            Remedy::Start(victim)
        }
        Kind::RedisPause | Kind::KafkaPause | Kind::PostgresPause => {
            server(house, victim).pause()?;
            Remedy::Continue(victim)
        }
        Kind::RedisTail => {
            house.redis.kill_and_cut_tail(lot).await?;
            Remedy::Start(victim)
        }
        Kind::RedisWipe => {
            house.redis.kill_and_wipe().await?;
            Remedy::Start(victim)
        }
        Kind::RedisFlushall => {
            house.redis.flush().await?;
            windows.close(now_ms())?;
            Remedy::Nothing
        }
        Kind::RedisFailover => {
            house.redis.fail_over().await?;
            Remedy::FailBack
        }
        Kind::RedisCut | Kind::KafkaCut | Kind::PostgresCut => {
            way(house, victim).set(Flow::Cut);
            Remedy::Open(victim)
        }
        Kind::RedisFreeze | Kind::KafkaFreeze | Kind::PostgresFreeze => {
            way(house, victim).set(Flow::Frozen);
            Remedy::Open(victim)
        }
    })
}

/// Heals, and waits until a server that was started again is healthy.
pub(crate) async fn heal(house: &mut House, remedy: Remedy, windows: &mut Windows) -> Result<()> {
    match remedy {
        Remedy::StartApi(at) => house.apis[at].program.start()?,
        Remedy::ContinueApi(at) => house.apis[at].program.signal(Signal::SIGCONT)?,
        Remedy::StartReconciler(at) => house.reconcilers[at].program.start()?,
        Remedy::ContinueReconciler(at) => house.reconcilers[at].program.signal(Signal::SIGCONT)?,
        Remedy::Start(victim) => {
            server(house, victim).start().await?;
            if victim == Victim::Redis {
                windows.close(now_ms())?;
            }
        }
        Remedy::Continue(victim) => server(house, victim).resume()?,
        Remedy::Open(victim) => way(house, victim).set(Flow::Open),
        Remedy::FailBack => {
            windows.close(now_ms())?;
            house.redis.fail_back().await?;
        }
        Remedy::Nothing => {}
    }
    Ok(())
}

async fn kill_api(house: &mut House, at: usize) -> Result<Remedy> {
    house.apis[at].program.kill().await?;
    Ok(Remedy::StartApi(at))
}

fn pause_api(house: &mut House, at: usize) -> Result<Remedy> {
    house.apis[at].program.signal(Signal::SIGSTOP)?;
    Ok(Remedy::ContinueApi(at))
}

/// The server behind a victim. API and reconcilers are no servers of a stack; their kinds never come here.
fn server(house: &House, victim: Victim) -> &crate::server::Server {
    match victim {
        Victim::Kafka => &house.kafka.0,
        Victim::Postgres => &house.postgres.0,
        Victim::Redis | Victim::Api | Victim::Reconciler => &house.redis.primary,
    }
}

/// The proxy before a victim.
fn way(house: &House, victim: Victim) -> &Proxy {
    match victim {
        Victim::Kafka => &house.kafka.1,
        Victim::Postgres => &house.postgres.1,
        Victim::Redis | Victim::Api | Victim::Reconciler => &house.redis.way,
    }
}
