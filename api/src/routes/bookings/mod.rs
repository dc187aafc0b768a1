//! Bookings: made, confirmed, cancelled, read.

mod body;
pub(crate) mod create;
pub(crate) mod decide;
pub(crate) mod list;
pub(crate) mod read;

pub(crate) use create::create;
pub(crate) use create::try_new_booking;
pub(crate) use decide::{cancel, confirm, try_payment};
pub(crate) use list::{of_customer, of_event};
pub(crate) use read::read;
