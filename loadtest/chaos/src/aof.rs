//! Redis' append-only file, as far as its end is to be cut off.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, rngs::StdRng};

/// Commands that are cut off: at a few hundred bookings a second, from a tenth of a second to some seconds of them.
const CUT: std::ops::RangeInclusive<usize> = 500..=15_000;

/// Cuts off the tail of the newest incremental file in Redis' folder: at the border of a command or, as a power failure
/// would, in the middle of one. Returns the number of commands that are gone.
pub(crate) fn cut_tail(folder: &Path, lot: &mut StdRng) -> Result<usize> {
    let path = newest(&folder.join("appendonlydir"))?;
    let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let starts = starts(&bytes);
    // A younger file than the longest cut keeps its older half, so that something is cut and something is left.
    let cut = lot.random_range(CUT).min(starts.len() / 2);
    ensure!(cut > 0, "{} holds too little to cut anything off", path.display());
    let border = starts[starts.len() - cut];
    let middle = if lot.random_bool(0.5) { lot.random_range(1..4) } else { 0 };
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len((border + middle) as u64)?;
    file.sync_all()?;
    Ok(cut)
}

/// `appendonly.aof.N.incr.aof` with the highest N.
fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let numbered = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let number: u64 = name.strip_suffix(".incr.aof")?.rsplit('.').next()?.parse().ok()?;
        Some((number, entry.path()))
    });
    let newest = numbered.max_by_key(|(number, _)| *number);
    newest.map(|(_, path)| path).with_context(|| format!("{} holds no incremental file", folder.display()))
}

/// Where each whole command begins. Stops at the first thing that is none.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(end) = end_of_command(bytes, at) {
        starts.push(at);
        at = end;
    }
    starts
}

/// Behind the command `*N\r\n`, N times `$LENGTH\r\n...\r\n`, that begins at `at`.
fn end_of_command(bytes: &[u8], at: usize) -> Option<usize> {
    let (parts, mut at) = header(bytes, at, b'*')?;
    for _ in 0..parts {
        let (length, start) = header(bytes, at, b'$')?;
        at = start.checked_add(length)?.checked_add(2)?;
    }
    (at <= bytes.len()).then_some(at)
}

/// The number behind a sign, and what follows its line.
fn header(bytes: &[u8], at: usize, sign: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?.strip_prefix(&[sign])?;
    let length = rest.iter().take(20).position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    Some((number, at + 1 + length + 2))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nx\r\ny\r\n";
    const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

    #[test]
    fn commands_are_found_by_their_lengths_and_not_by_their_lines() {
        let bytes = [SET, MULTI, SET].concat();
        assert_eq!(starts(&bytes), [0, SET.len(), SET.len() + MULTI.len()]);
    }

    #[test]
    fn a_command_without_its_end_is_none() {
        let bytes = [SET, &SET[..SET.len() - 3]].concat();
        assert_eq!(starts(&bytes), [0]);
        assert!(starts(b"").is_empty());
        assert!(starts(b"REDIS0011").is_empty());
    }

    #[test]
    fn the_tail_of_the_newest_file_is_cut_off() {
        let folder = std::env::temp_dir().join(format!("boxoffice-aof-{}", uuid::Uuid::now_v7()));
        let files = folder.join("appendonlydir");
        fs::create_dir_all(&files).unwrap();
        let whole = SET.repeat(2_000);
        for number in [9, 10] {
            fs::write(files.join(format!("appendonly.aof.{number}.incr.aof")), &whole).unwrap();
        }
        let cut = cut_tail(&folder, &mut StdRng::seed_from_u64(1)).unwrap();
        let left = fs::metadata(files.join("appendonly.aof.10.incr.aof")).unwrap().len();
        let untouched = fs::metadata(files.join("appendonly.aof.9.incr.aof")).unwrap().len();
        let border = ((2_000 - cut) * SET.len()) as u64;
        assert!((border..border + 4).contains(&left), "{cut} commands cut, {left} bytes left");
        assert_eq!(untouched, whole.len() as u64);
        fs::remove_dir_all(&folder).unwrap();
    }
}
