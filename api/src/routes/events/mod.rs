//! Events: made as drafts, published, changed, read.

pub(crate) mod amend;
pub(crate) mod availability;
mod body;
pub(crate) mod create;
pub(crate) mod list;
mod patch;
pub(crate) mod publish;
pub(crate) mod read;

pub(crate) use amend::{amend, try_patch, try_precondition};
pub(crate) use availability::availability;
pub(crate) use create::{create, try_new_event};
pub(crate) use list::list;
pub(crate) use publish::publish;
pub(crate) use read::read;
