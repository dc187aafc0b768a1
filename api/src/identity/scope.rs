//! What a key may be allowed.

use std::fmt;

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Create, publish and change events.
    EventsWrite,
    /// Book, confirm and cancel.
    BookingsWrite,
    /// Read bookings, one by one and in lists.
    BookingsRead,
    /// Read the live invariant.
    AuditRead,
    /// Ask the rate limiter.
    LimitsCheck,
}

impl Scope {
    /// Every scope, in the order in which they are shown.
    pub(crate) const ALL: [Self; 5] =
        [Self::EventsWrite, Self::BookingsWrite, Self::BookingsRead, Self::AuditRead, Self::LimitsCheck];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::BookingsWrite => "bookings:write",
            Self::BookingsRead => "bookings:read",
            Self::AuditRead => "audit:read",
            Self::LimitsCheck => "limits:check",
        }
    }

    /// The scope of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

impl Scopes {
    pub(crate) fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Those of the set, in the order of [`Scope::ALL`].
    pub(crate) fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}
