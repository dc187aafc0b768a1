//! A model of the protocol (placeholder).

pub mod action;
pub mod explore;
pub mod postgres;
pub mod promise;
pub mod protection;
pub mod record;
pub mod recovery;
pub mod redis;
pub mod scenario;
pub mod system;
