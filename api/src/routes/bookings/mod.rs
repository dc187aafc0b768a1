//! Bookings: made, confirmed, cancelled, read.

mod body;
pub(crate) mod create;
pub(crate) mod decide;
pub(crate) mod list;
pub(crate) mod read;

pub(crate) use create::create;
pub use create::is_booking_request;
pub(crate) use decide::{cancel, confirm};
pub(crate) use list::{of_customer, of_event};
pub(crate) use read::read;
