//! How callers are authenticated.

/// Fixed when an installation first starts: it decides what scopes idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Everybody may do everything; on a loopback address only.
    Off,
    /// By API keys.
    Keys,
    /// By API keys and, for buyers, by tokens of an identity provider.
    #[value(name = "keys+jwt")]
    KeysAndTokens,
}

impl Mode {
    /// As in the configuration, and as the installation keeps it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Keys => "keys",
            Self::KeysAndTokens => "keys+jwt",
        }
    }
}
