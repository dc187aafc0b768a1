//! Who calls, once it is known, and whose bookings are theirs.

use std::fmt;
use std::sync::Arc;

use boxoffice_schema::text::{self, Customer};

use super::scope::{Scope, Scopes};
use crate::error::{Code, Problem};

/// Who sent a request. It costs nothing to clone.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Authentication is off: nobody is known, and everybody may do everything.
    Anyone,
    /// No credential was sent: what is public is theirs.
    Visitor,
    /// A storefront or an operator, by an API key.
    Key(Arc<KeyHolder>),
    /// A buyer, by a token.
    Buyer(Arc<Buyer>),
}

/// The visible part of an API key: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(pub(super) u64);

/// Whom a key belongs to and what it may do.
#[derive(Debug)]
pub(crate) struct KeyHolder {
    pub(crate) id: KeyId,
    /// As whoever made it called it.
    pub(crate) name: String,
    /// Scopes idempotency keys; the same for every key of a storefront, so that a key can be rotated.
    pub(crate) owner: text::Caller,
    /// Operators see every booking, storefronts those that they made.
    pub(crate) is_operator: bool,
    pub(crate) scopes: Scopes,
}

/// Whom a token names.
#[derive(Debug)]
pub(crate) struct Buyer {
    /// The token's subject.
    pub(crate) customer: Customer,
    /// Scopes idempotency keys: a buyer cannot meet another's.
    pub(crate) owner: text::Caller,
}

impl Caller {
    /// Whether an operator's call is theirs. To a buyer such calls do not exist.
    pub(crate) fn operates(&self, scope: Scope) -> Result<(), Problem> {
        match self {
            Self::Buyer(_) => Err(Problem::new(Code::NotFound)),
            _ => self.trades(scope),
        }
    }

    /// Whether a call about bookings is theirs; whose bookings is for [`Caller::owns`] to say.
    pub(crate) fn trades(&self, scope: Scope) -> Result<(), Problem> {
        match self {
            Self::Anyone | Self::Buyer(_) => Ok(()),
            Self::Visitor => Err(Problem::new(Code::Unauthenticated)),
            Self::Key(key) if key.scopes.contains(scope) => Ok(()),
            Self::Key(_) => Err(Problem::lacks(scope)),
        }
    }

    /// Whether a booking of this customer, made by this caller, is theirs to see and to change.
    pub(crate) fn owns(&self, customer: &str, maker: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Visitor => false,
            Self::Key(key) => key.is_operator || key.owner.as_str() == maker,
            Self::Buyer(buyer) => buyer.customer.as_str() == customer,
        }
    }

    /// The caller whose bookings alone a list may show them, unless they may see everybody's.
    pub(crate) fn lists_only(&self) -> Option<&str> {
        match self {
            Self::Key(key) if !key.is_operator => Some(key.owner.as_str()),
            _ => None,
        }
    }

    /// Whether [`Caller::owns`] has to be asked.
    pub(crate) fn owns_everything(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Key(key) => key.is_operator,
            Self::Visitor | Self::Buyer(_) => false,
        }
    }

    /// The scope of their idempotency keys.
    pub(crate) fn idempotency_scope(&self) -> text::Caller {
        match self {
            Self::Anyone | Self::Visitor => text::Caller::anonymous(),
            Self::Key(key) => key.owner.clone(),
            Self::Buyer(buyer) => buyer.owner.clone(),
        }
    }

    /// The customer, where the credential says who that is.
    pub(crate) fn customer(&self) -> Option<&Customer> {
        match self {
            Self::Buyer(buyer) => Some(&buyer.customer),
            _ => None,
        }
    }

    /// The API key that was used.
    pub(crate) fn key(&self) -> Option<KeyId> {
        match self {
            Self::Key(key) => Some(key.id),
            _ => None,
        }
    }
}

impl KeyId {
    /// As it is shown: 16 hexadecimal digits in lower case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

/// For logs and for the table of operators' actions.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Visitor => f.write_str("visitor"),
            Self::Key(key) => write!(f, "key {} ({})", key.id, key.name),
            Self::Buyer(buyer) => write!(f, "buyer {}", buyer.customer),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
