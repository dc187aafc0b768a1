//! Events: made as drafts, published, changed, read.

mod amend;
mod availability;
mod body;
mod create;
mod list;
mod patch;
mod publish;
mod read;

pub(crate) use amend::amend;
pub(crate) use availability::availability;
pub(crate) use create::create;
pub(crate) use list::list;
pub(crate) use publish::publish;
pub(crate) use read::read;
