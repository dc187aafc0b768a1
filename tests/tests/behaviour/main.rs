#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]
//! Boxoffice through its front door: HTTP in, PostgreSQL and Redis read back. API and reconciler run in this process,
//! on the real servers that `BOXOFFICE_REDIS_URL`, `BOXOFFICE_DATABASE_URL` and `BOXOFFICE_KAFKA_BROKERS` name
//! (`eval "$(scripts/stack env)"`). Each test has a world of its own: database, keys, topics.

mod audit;
mod back_pressure;
mod bad_input;
mod bookings;
mod deadlines;
mod dependencies;
mod documented;
mod events;
mod fences;
mod gate;
mod holds;
mod http;
mod identity;
mod limits;
mod log;
mod lost_keys;
mod old_primary;
mod post_mortems;
mod private_redis;
mod processes;
mod races;
mod rate_limits;
mod reads;
mod rebuild;
mod records;
mod recovery;
mod replays;
mod semantics;
mod sold_out;
mod strict;
mod takeover;
mod temporary;
mod threads;
mod transport;
mod world;
