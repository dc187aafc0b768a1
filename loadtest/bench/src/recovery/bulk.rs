//! The floor beside a backlog: the same rows, copied into twins of the same tables by the same PostgreSQL.
//!
//! A twin has the columns, defaults, checks, primary key, unique constraint and indexes of its table, and neither foreign keys
//! nor triggers.
//! Rows go in by binary `COPY`, a transaction for every 4,000 bookings and their items, as many as one of the
//! reconciler's in a backlog. They are read before the clock starts, and nothing is decoded, judged or counted.

use anyhow::{Context, Result};
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::table::Goal;

use super::{Sale, per_second};

/// Bookings of a transaction.
const BATCH: usize = 4_000;

/// Bookings and items of a transaction, in PostgreSQL's binary format.
#[derive(Clone)]
struct Batch {
    bookings: Vec<u8>,
    items: Vec<u8>,
}

impl Sale<'_> {
    /// Copies the rows that there are with one connection and with two. The faster of them is what a backlog is held against.
    pub(super) async fn insert_in_bulk(&mut self, backlog_rate: f64) -> Result<()> {
        self.say("copying the same rows into tables without a reconciler");
        let batches = read_batches(&self.pool).await?;
        let rows = crate::record::bookings(&self.pool).await?;
        let rows = u64::try_from(rows)?;
        let mut best: f64 = 0.0;
        for connections in [1, 2] {
            let rate =
                copy_all(&self.pool, &batches, connections).await.map(|took| per_second(rows, took))?;
            let what = format!("bare bulk insert of the same {rows} rows, connections: {connections}");
            self.figure(what, rate, "/s", Goal::None);
            best = best.max(rate);
        }
        self.figure("backlog against the faster bulk insert", backlog_rate / best, "", Goal::AtLeast(0.5));
        Ok(())
    }
}

async fn read_batches(pool: &PgPool) -> Result<Vec<Batch>> {
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM bookings ORDER BY id").fetch_all(pool).await?;
    let mut batches = Vec::new();
    for ids in ids.chunks(BATCH) {
        let (first, last) = (ids[0], ids[ids.len() - 1]);
        let bookings = format!("SELECT * FROM bookings WHERE id BETWEEN '{first}' AND '{last}' ORDER BY id");
        let items = format!(
            "SELECT * FROM booking_items WHERE booking_id BETWEEN '{first}' AND '{last}' ORDER BY booking_id, ordinal"
        );
        batches.push(Batch { bookings: read(pool, &bookings).await?, items: read(pool, &items).await? });
    }
    Ok(batches)
}

async fn read(pool: &PgPool, query: &str) -> Result<Vec<u8>> {
    use futures_util::TryStreamExt;
    let stream = pool.copy_out_raw(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await?;
    let read = stream.try_fold(Vec::new(), |mut all, some| async move {
        all.extend_from_slice(&some);
        Ok(all)
    });
    read.await.context("rows could not be read back")
}

/// Into new twins, which are dropped afterwards; how long the copying took.
async fn copy_all(pool: &PgPool, batches: &[Batch], connections: usize) -> Result<std::time::Duration> {
    execute(pool, "CREATE TABLE bulk_bookings (LIKE bookings INCLUDING ALL)").await?;
    execute(pool, "CREATE TABLE bulk_items (LIKE booking_items INCLUDING ALL)").await?;
    let mut copying = JoinSet::new();
    let shares: Vec<Vec<Batch>> =
        (0..connections).map(|of| batches.iter().skip(of).step_by(connections).cloned().collect()).collect();
    let start = Instant::now();
    for share in shares {
        let pool = pool.clone();
        copying.spawn(async move {
            let mut connection = pool.acquire().await?;
            for batch in share {
                copy(&mut connection, batch).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = copying.join_next().await {
        ended??;
    }
    let took = start.elapsed();
    execute(pool, "DROP TABLE bulk_bookings, bulk_items").await?;
    Ok(took)
}

async fn copy(connection: &mut PgConnection, batch: Batch) -> Result<()> {
    use sqlx::Connection;
    let mut transaction = connection.begin().await?;
    for (table, rows) in [("bulk_bookings", batch.bookings), ("bulk_items", batch.items)] {
        let mut copy = transaction.copy_in_raw(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await?;
        copy.send(rows).await?;
        copy.finish().await?;
    }
    Ok(transaction.commit().await?)
}

async fn execute(pool: &PgPool, statement: &'static str) -> Result<()> {
    sqlx::query(statement).execute(pool).await?;
    Ok(())
}
