#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
//! The decision scripts on a real Redis, without any other process: `BOXOFFICE_REDIS_URL` says where it is
//! (`eval "$(scripts/stack env)"`).

mod fence;
mod golden;
mod look;
mod lost;
mod model;
mod properties;
mod rate_model;
mod rates;
mod repair;
mod shard;
mod unreadable;
mod versions;
