//! The states of bookings and events.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// The state of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BookingStatus {
    /// Reserved until it expires.
    Held,
    /// Sold.
    Confirmed,
    /// Given back by its buyer; final.
    Cancelled,
    /// Held for too long; its tickets went back, and a late confirmation may take them again.
    Expired,
}

impl BookingStatus {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Held, Self::Confirmed, Self::Cancelled, Self::Expired];

    /// As images hold it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Held => 1,
            Self::Confirmed => 2,
            Self::Cancelled => 3,
            Self::Expired => 4,
        }
    }

    /// From an image.
    ///
    /// # Errors
    /// An unknown code.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            1 => Ok(Self::Held),
            2 => Ok(Self::Confirmed),
            3 => Ok(Self::Cancelled),
            4 => Ok(Self::Expired),
            _ => Err(DecodeError::new("booking status", format!("unknown code {code}"))),
        }
    }

    /// As PostgreSQL and JSON hold it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// From PostgreSQL or a query.
    ///
    /// # Errors
    /// An unknown word.
    pub fn parse(word: &str) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| DecodeError::new("booking status", format!("unknown word {word:?}")))
    }
}

impl fmt::Display for BookingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// In PostgreSQL only; nothing can be sold.
    Draft,
    /// Published; sold within its window.
    OnSale,
    /// Published; nothing new is sold.
    Paused,
    /// Over; final.
    Closed,
}

impl EventStatus {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Draft, Self::OnSale, Self::Paused, Self::Closed];

    /// As all stores hold it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::OnSale => "on_sale",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }

    /// From a store.
    ///
    /// # Errors
    /// An unknown word.
    pub fn parse(word: &str) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| DecodeError::new("event status", format!("unknown word {word:?}")))
    }
}

impl fmt::Display for EventStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
