//! Bookings: made, confirmed, cancelled, read.

mod body;
mod create;
mod decide;
mod list;
mod read;

pub(crate) use create::create;
pub use create::is_booking_request;
pub(crate) use decide::{cancel, confirm};
pub(crate) use list::{of_customer, of_event};
pub(crate) use read::read;
