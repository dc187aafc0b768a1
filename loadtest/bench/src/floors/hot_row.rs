//! PostgreSQL's hot row, as tickets are sold without Redis: one row counts what is left, and every sale updates it and
//! inserts a booking, in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Driven;

/// Clients that sell at the same time.
pub(crate) const CLIENTS: u32 = 16;

const PREPARE: &str = "
    DROP SCHEMA IF EXISTS hot CASCADE;
    CREATE SCHEMA hot;
    CREATE TABLE hot.events (id int PRIMARY KEY, available int NOT NULL CHECK (available >= 0));
    CREATE TABLE hot.bookings (id uuid PRIMARY KEY, event int NOT NULL REFERENCES hot.events (id),
        customer text NOT NULL, idempotency_key text NOT NULL UNIQUE, quantity int NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO hot.events VALUES (1, 10000000);
";

/// Sells for so long; every sale is a row afterwards, or it is an error.
pub(crate) async fn sell(database_url: &str, time: Duration) -> Result<Driven> {
    let pool =
        PgPoolOptions::new().min_connections(CLIENTS).max_connections(CLIENTS).connect(database_url).await?;
    sqlx::raw_sql(PREPARE).execute(&pool).await?;
    let start = Instant::now();
    let sold = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (pool, sold) = (pool.clone(), sold.clone());
        clients.spawn(async move {
            while start.elapsed() < time {
                sell_one(&pool).await?;
                sold.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let driven = Driven { done: sold.load(Ordering::Relaxed), took: start.elapsed() };
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM hot.bookings").fetch_one(&pool).await?;
    ensure!(u64::try_from(rows)? == driven.done, "{} sales and {rows} rows", driven.done);
    pool.close().await;
    Ok(driven)
}

async fn sell_one(pool: &PgPool) -> Result<()> {
    let id = Uuid::now_v7();
    let customer = id.to_string();
    let mut transaction = pool.begin().await?;
    let taken =
        sqlx::query("UPDATE hot.events SET available = available - $1 WHERE id = $2 AND available >= $1")
            .bind(1)
            .bind(1)
            .execute(&mut *transaction)
            .await?;
    ensure!(taken.rows_affected() == 1, "the hot row is sold out");
    sqlx::query(
        "INSERT INTO hot.bookings (id, event, customer, idempotency_key, quantity) VALUES ($1, 1, $2, $2, 1)",
    )
    .bind(id)
    .bind(customer)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}
