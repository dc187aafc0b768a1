//! Texts from outside with their bounds (see "Bounds" in the HTTP contract), parsed once at the edge.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text was refused, in words for the person who sent it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidText {
    /// Too short or too long.
    #[error("must have 1 to {max} characters")]
    Length {
        /// The most characters it may have.
        max: usize,
    },
    /// Holds a control character.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// An idempotency key with other bytes than visible ASCII.
    #[error("must be visible ASCII (bytes 0x21 to 0x7E)")]
    NotVisibleAscii,
}

fn check(text: &str, max: usize) -> Result<(), InvalidText> {
    // A character has at most four bytes, so that a huge text is refused without counting it.
    if text.is_empty() || text.len() > 4 * max || text.chars().count() > max {
        return Err(InvalidText::Length { max });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidText::ControlCharacter);
    }
    Ok(())
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The most characters it may have.
            pub const MAX: usize = $max;

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidText;

            fn try_from(text: String) -> Result<Self, InvalidText> {
                check(&text, Self::MAX)?;
                Ok(Self(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

bounded_text!(
    /// Who buys, as the storefront names them.
    Customer,
    255
);
bounded_text!(
    /// Whom another service asks the rate limiter about.
    RateSubject,
    255
);
bounded_text!(
    /// What the payment provider calls the payment.
    PaymentReference,
    255
);
bounded_text!(
    /// The name of an event or a ticket type.
    Name,
    200
);

/// The caller's scope of idempotency keys: `-` while authentication is off. No kind of caller can take the name of
/// another kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Caller(String);

impl Caller {
    /// The caller of an installation without authentication.
    pub fn anonymous() -> Self {
        Self("-".to_owned())
    }

    /// Whoever operates the installation.
    pub fn operator() -> Self {
        Self("operator".to_owned())
    }

    /// A storefront, whichever of its keys it uses.
    pub fn storefront(id: &str) -> Self {
        Self(format!("s:{id}"))
    }

    /// A buyer who comes with a token of their own: the one whom this issuer knows as this subject.
    pub fn buyer(issuer: &str, subject: &str) -> Self {
        let mut sha = Sha256::new();
        // The length keeps one issuer's subject from being read as the end of another's name.
        sha.update((issuer.len() as u64).to_be_bytes());
        sha.update(issuer);
        sha.update(subject);
        // The first sixteen bytes, with two digits each.
        Self(format!("b:{:.32x}", sha.finalize()))
    }

    /// A caller that one of the stores holds.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An `Idempotency-Key` header: 1 to 255 visible ASCII bytes, opaque
/// (IETF draft-ietf-httpapi-idempotency-key-header).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The most bytes it may have.
    pub const MAX: usize = 255;

    /// Parses the header's bytes.
    ///
    /// # Errors
    /// Names the length or the bytes that are not visible ASCII.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidText> {
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return Err(InvalidText::Length { max: Self::MAX });
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidText::NotVisibleAscii);
        }
        Ok(Self(bytes.iter().map(|b| char::from(*b)).collect()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_in_characters_and_free_of_control_characters() {
        let customer = |text: &str| Customer::try_from(text.to_owned());
        assert!(customer(&"ä".repeat(255)).is_ok());
        assert_eq!(customer(&"ä".repeat(256)), Err(InvalidText::Length { max: 255 }));
        assert_eq!(customer(""), Err(InvalidText::Length { max: 255 }));
        assert_eq!(customer("a\nb"), Err(InvalidText::ControlCharacter));
        assert_eq!(customer("a\u{85}b"), Err(InvalidText::ControlCharacter));
    }

    #[test]
    fn a_buyer_has_the_same_name_for_ever() {
        let buyer = Caller::buyer("https://id.example", "ada");
        assert_eq!(buyer.as_str(), "b:3cb95873aa319175601478aed3a0f86b");
    }

    #[test]
    fn an_idempotency_key_is_visible_ascii() {
        assert!(IdempotencyKey::parse(b"order-1{}*~!").is_ok());
        assert!(IdempotencyKey::parse(&[b'k'; 255]).is_ok());
        for bad in [&b""[..], &[b'k'; 256], b"a b", "schlüssel".as_bytes(), b"a\x7f", b"a\0"] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
