//! Boxoffice api.
pub mod inventory;
