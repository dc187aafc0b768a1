//! The text of an API key: `bok_`, 16 hexadecimal digits that everybody may see, `_`, and 64 that are the secret.
//!
//! What is kept is the SHA-256 of the whole text. A password hash would be slow on purpose, because people choose what
//! can be guessed; 256 random bits cannot be, so that a fast hash is as good, and the booking path can afford it.

use std::fmt;

use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::caller::KeyId;

/// Begins every key, so that scanners of repositories and logs can find those that leaked.
pub(crate) const PREFIX: &str = "bok_";

/// The length of the whole text.
const LENGTH: usize = PREFIX.len() + 16 + 1 + 64;

/// What is kept of a key. Two are compared in constant time.
#[derive(Clone, Copy)]
pub(crate) struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the same time wherever they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// A key that has just been made: the only time that its text is known here.
pub(crate) struct NewKey {
    pub(crate) id: KeyId,
    pub(crate) text: SecretString,
    pub(crate) digest: KeyDigest,
}

impl NewKey {
    /// From the system's random numbers.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        OsRng.try_fill_bytes(&mut id)?;
        OsRng.try_fill_bytes(&mut secret)?;
        let id = KeyId(u64::from_be_bytes(id));
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{PREFIX}{id}_{secret}");
        Ok(Self { id, digest: digest(&text), text: text.into() })
    }
}

/// Which key a text claims to be, and its digest; `None` where it is none at all.
pub(super) fn read(text: &str) -> Option<(KeyId, KeyDigest)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(16)?;
    let is_whole = text.len() == LENGTH && secret.starts_with('_');
    Some((KeyId::parse(id)?, digest(text))).filter(|_| is_whole)
}

fn digest(text: &str) -> KeyDigest {
    KeyDigest(Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let key = NewKey::random().unwrap();
        let (id, digest) = read(key.text.expose_secret()).unwrap();
        assert!(id == key.id && digest.is(&key.digest));
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let (one, other) = (NewKey::random().unwrap(), NewKey::random().unwrap());
        assert!(one.id != other.id && !one.digest.is(&other.digest));
    }

    #[test]
    fn what_is_no_key_is_not_looked_up() {
        let key = NewKey::random().unwrap();
        let text = key.text.expose_secret();
        let upper = text.to_uppercase().replace("BOK", "bok");
        for bad in ["", "bok_", &text[1..], &text[..84], &format!("{text}0"), "bok_äöüäöüäöü", &upper]
        {
            assert!(read(bad).is_none_or(|(_, digest)| !digest.is(&key.digest)), "{bad}");
        }
        assert!(read(&text[..84]).is_none() && read("bok_ääääääääääää").is_none());
    }
}
