//! Files that an operator points at, which may change while they are in use: read whole, within a bound, again and again.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

/// How often a file is read that is to be followed closely. Its content is compared, since times of files are too coarse,
/// and a link may lead elsewhere.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of a file: certificates, policies and keys have a few kilobytes.
const SIZE_MAX: u64 = 256 * 1024;

/// What the file holds. Blocks.
///
/// # Errors
/// Names the file, where it cannot be read or is too large.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    ensure!(bytes.len() as u64 <= SIZE_MAX, "{} has more than {SIZE_MAX} bytes", path.display());
    Ok(bytes)
}
