//! The decision scripts on a real Redis, without any other process: `BOXOFFICE_REDIS_URL` says where it is
//! (`eval "$(scripts/stack env)"`).

mod fence;
mod golden;
mod model;
mod properties;
mod shard;
