//! What the figures of Boxoffice are held against, measured in the same rounds on the same servers.

mod calls;
mod driver;
pub(crate) mod hot_row;
pub(crate) mod redis_benchmark;

pub(crate) use calls::{CheckScript, Script, SetCommand};
pub(crate) use driver::{Drive, Driven};
