//! Processor time by process, as the kernel accounts for it: user and system, of all threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Ticks of /proc/PID/stat a second; Linux has had 100 on every architecture since 2.6.
const TICKS: f64 = 100.0;

/// Who is measured: a name, and the process; PostgreSQL's sessions are children of the one that is named.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    members: Vec<(&'static str, u32)>,
}

/// Seconds of processor time by name.
pub(crate) type Spent = BTreeMap<&'static str, f64>;

impl Crew {
    /// Boxoffice's own processes, and the servers that run as processes of this machine. Servers in containers are
    /// left out.
    pub(crate) fn new(api: u32, reconciler: u32, servers: &Path) -> Self {
        let mut members = vec![("API", api), ("reconciler", reconciler)];
        for (name, folder) in [("Redis", "redis"), ("Kafka", "kafka"), ("PostgreSQL", "postgres")] {
            let pid = fs::read_to_string(servers.join(folder).join("pid")).ok();
            members.extend(pid.and_then(|text| Some((name, text.lines().next()?.parse().ok()?))));
        }
        members.push(("load generator", std::process::id()));
        Self { members }
    }

    /// What each has spent since its start, sessions of PostgreSQL that have ended included.
    pub(crate) fn spent(&self) -> Result<Spent> {
        let of_member = |(name, pid): &(&'static str, u32)| {
            let own = seconds(*pid)?;
            let children = if *name == "PostgreSQL" { of_children(*pid)? } else { 0.0 };
            Ok((*name, own + children))
        };
        self.members.iter().map(of_member).collect()
    }
}

/// The time between two readings, in microseconds a booking.
pub(crate) fn per_booking(before: &Spent, after: &Spent, bookings: f64) -> Spent {
    let spent = |(name, seconds): (&&'static str, &f64)| {
        let since = seconds - before.get(name).copied().unwrap_or_default();
        (*name, since * 1_000_000.0 / bookings)
    };
    after.iter().map(spent).collect()
}

/// A process' own time and that of the children that it has waited for, without what comes before the name.
fn fields(pid: u32) -> Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("a measured process has ended")?;
    let (_, rest) = text.rsplit_once(')').context("/proc/PID/stat")?;
    // The first is the state, which is a letter.
    Ok(rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or_default()).collect())
}

/// proc(5): ppid is field 4, utime and stime 14 and 15, of waited-for children 16 and 17.
const PARENT: usize = 0;
const TIMES: std::ops::RangeInclusive<usize> = 10..=13;

#[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
fn seconds(pid: u32) -> Result<f64> {
    let fields = fields(pid)?;
    let times = fields.get(TIMES).context("/proc/PID/stat is too short")?;
    Ok(times.iter().sum::<u64>() as f64 / TICKS)
}

fn of_children(parent: u32) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Whoever ends meanwhile is in its parent's account next time.
        if fields(pid).is_ok_and(|fields| fields.get(PARENT) == Some(&u64::from(parent))) {
            sum += seconds(pid).unwrap_or_default();
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_spends_time() {
        let me = std::process::id();
        let before = seconds(me).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::black_box(before);
        }
        assert!(seconds(me).unwrap() > before);
    }

    #[test]
    fn what_was_spent_between_two_readings_is_divided_by_the_bookings() {
        let before = Spent::from([("API", 1.0)]);
        let after = Spent::from([("API", 1.5)]);
        assert!((per_booking(&before, &after, 1_000.0)["API"] - 500.0).abs() < 1e-6);
    }
}
