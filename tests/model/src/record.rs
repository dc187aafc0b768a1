//! What decisions are: positions, bookings, and the records that travel from Redis over Kafka to PostgreSQL.

/// Counts the recoveries of the shard; 0 is a shard that Redis does not know.
pub type Epoch = u8;

/// Where a decision stands in the shard's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The epoch in which it was decided.
    pub epoch: Epoch,
    /// Its number; it never restarts.
    pub sequence: u8,
}

/// The states of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its ticket is reserved.
    Held,
    /// Its ticket is sold.
    Confirmed,
    /// Its ticket was given back on request.
    Cancelled,
    /// Its ticket was given back because nobody confirmed the hold.
    Expired,
}

/// A booking of one ticket, as its last decision left it. Each client has one idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Booking {
    /// Unlike that of any other attempt to book.
    pub id: u8,
    /// The client, whose idempotency key it is too.
    pub client: u8,
    /// What it is now.
    pub status: Status,
    /// Of its last change.
    pub position: Position,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The booking as it is after the decision.
    Booking(Booking),
    /// A decision about an event: here only its position counts.
    Event,
    /// All epochs before the record's own have ended. It takes no sequence number of its own.
    Barrier {
        /// The last decision that Redis knew.
        last: Position,
    },
}

/// One record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Of the decision; of a barrier only the epoch counts.
    pub position: Position,
    /// What was decided.
    pub change: Change,
}

/// The tickets that are not for sale any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stock {
    /// Tickets of live holds.
    pub held: i8,
    /// Tickets of confirmed bookings.
    pub sold: i8,
}

impl Stock {
    /// What a set of bookings amounts to.
    pub fn of(bookings: &[Booking]) -> Self {
        let mut stock = Self::default();
        for booking in bookings {
            stock.count(booking.status, 1);
        }
        stock
    }

    /// Adds `sign` tickets to the counter of a status.
    pub fn count(&mut self, status: Status, sign: i8) {
        match status {
            Status::Held => self.held += sign,
            Status::Confirmed => self.sold += sign,
            Status::Cancelled | Status::Expired => {}
        }
    }

    /// Tickets that are held or sold.
    pub const fn taken(self) -> i8 {
        self.held + self.sold
    }
}
