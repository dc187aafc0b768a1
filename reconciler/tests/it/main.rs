//! The reconciler against real Redis, Kafka and PostgreSQL. Each test has its own database, topics and key prefix, so
//! they run side by side. The servers are named by `BOXOFFICE_DATABASE_URL`, `BOXOFFICE_REDIS_URL` and
//! `BOXOFFICE_KAFKA_BROKERS` (`eval "$(scripts/stack env)"`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod applying;
mod auditing;
mod contradictions;
mod gaps;
mod limiting;
mod link;
mod metrics;
mod preparing;
mod rebuilding;
mod recovering;
mod references;
mod relaying;
mod repairing;
mod restating;
mod sale;
mod setting_aside;
mod stack;
