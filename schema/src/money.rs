//! Money in minor units with its currency.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An ISO 4217 alphabetic code: three upper-case letters. Whether the code is assigned is the storefront's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// The text is not three upper-case letters.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be an ISO 4217 code: three upper-case letters")]
pub struct InvalidCurrency;

impl Currency {
    /// Parses a code.
    ///
    /// # Errors
    /// Where it is not three upper-case ASCII letters.
    pub fn parse(text: &str) -> Result<Self, InvalidCurrency> {
        let bytes: [u8; 3] = text.as_bytes().try_into().map_err(|_| InvalidCurrency)?;
        if bytes.iter().all(u8::is_ascii_uppercase) { Ok(Self(bytes)) } else { Err(InvalidCurrency) }
    }

    /// The code's three letters.
    pub fn as_str(&self) -> &str {
        // Only upper-case ASCII gets in, which is UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidCurrency;

    fn try_from(text: String) -> Result<Self, InvalidCurrency> {
        Self::parse(&text)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in the currency's minor unit (cents for EUR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Money {
    /// Minor units; a ticket's price is at most 10^12, so that a booking of 20,000 tickets fits.
    pub amount: u64,
    /// ISO 4217.
    pub currency: Currency,
}
