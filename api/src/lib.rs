//! The HTTP API of Boxoffice: parses a request, has Redis decide, answers, and relays decisions to Kafka.
//!
//! - What a process is told and how it starts: [`config`], [`startup`]; what it tells: `telemetry`.
//! - How bytes come in and go out: `transport`.
//! - What HTTP knows: `routes`, `request`, `error`, `observe`. Nothing else does.
//! - Who asks, and what they may do: [`identity`]; what operators did: `actions`.
//! - What is promised to clients, for machines to read: `contract`.
//! - Who is asked: `inventory` for decisions and stock, `catalogue` for what never changes once an event is
//!   published, `database` for drafts and for what Redis no longer holds.

pub mod cli;
pub mod config;
pub mod identity;
#[doc(hidden)]
pub mod outside;
pub mod startup;

mod actions;
mod catalogue;
mod contract;
mod database;
mod draft;
mod error;
mod file;
mod find;
mod inventory;
mod limits;
mod observe;
mod office;
mod record;
mod request;
mod routes;
mod telemetry;
mod transport;
