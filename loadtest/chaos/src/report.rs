//! What a run comes to, for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
    time::Duration,
};

use crate::prober::{Judgement, Outage};

/// One fault, as it went.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// When it began, since the load began.
    pub(crate) at: Duration,
    /// From the fault until it was healed and what had died ran again.
    pub(crate) lasted: Duration,
    /// How long sales were refused, from the fault until every probed event sold again.
    pub(crate) outage: Outage,
    /// Whether they did in time (`--patience`), and all shards were certified.
    pub(crate) resumed: bool,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Report {
    /// How many faults were planned.
    pub(crate) drawn: usize,
    /// Those that were carried out.
    pub(crate) lines: Vec<Line>,
    pub(crate) probes: Judgement,
    /// What Boxoffice itself finds wrong: by `audit --deep`, what is open, and what healed and should never have been.
    pub(crate) findings: Vec<String>,
    /// The load test's own words.
    pub(crate) load: String,
    pub(crate) load_is_good: bool,
    /// The command that draws the same again.
    pub(crate) again: String,
}

impl Report {
    /// Whether nothing is wrong, and the run shows it.
    pub(crate) fn is_good(&self) -> bool {
        self.is_unharmed() && self.lines.len() >= self.required()
    }

    /// Whether nothing is wrong, however few faults there were.
    pub(crate) fn is_unharmed(&self) -> bool {
        let resumed = self.lines.iter().all(|line| line.resumed);
        self.load_is_good && resumed && self.probes.violations.is_empty() && self.findings.is_empty()
    }

    /// Three quarters of what was planned, and never none: a run that came too late for its faults has survived nothing.
    fn required(&self) -> usize {
        (self.drawn * 3 / 4).max(1)
    }

    /// By kind: faults, and the median and longest time for which sales were refused.
    fn by_kind(&self) -> BTreeMap<&str, (usize, Duration, Duration)> {
        let mut outages: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for line in &self.lines {
            outages.entry(&line.name).or_default().push(line.outage.longest);
        }
        let sum_up = |(name, mut outages): (_, Vec<Duration>)| {
            outages.sort_unstable();
            let longest = outages.last().copied().unwrap_or_default();
            (name, (outages.len(), outages[outages.len() / 2], longest))
        };
        outages.into_iter().map(sum_up).collect()
    }
}

impl Display for Line {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (at, lasted) = (self.at.as_secs_f64(), self.lasted.as_secs_f64());
        let Outage { longest, refused } = self.outage;
        write!(
            formatter,
            "{at:7.1} s  {:<34} {lasted:5.1} s   sales refused {:6.2} s ({refused} requests)",
            self.name,
            longest.as_secs_f64()
        )?;
        if self.resumed { Ok(()) } else { write!(formatter, "  ! NOT RESUMED") }
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let kinds = self.by_kind();
        writeln!(
            formatter,
            "\n  {:<36} {:>5} {:>22} {:>10}",
            "fault", "times", "refused, median", "longest"
        )?;
        for (name, (times, median, longest)) in &kinds {
            let (median, longest) = (median.as_secs_f64(), longest.as_secs_f64());
            writeln!(formatter, "  {name:<36} {times:>5} {median:>20.2} s {longest:>8.2} s")?;
        }
        write!(formatter, "{}", self.load)?;
        let Judgement { booked, excused, violations } = &self.probes;
        writeln!(formatter, "probes: {booked} bookings acknowledged, {excused} lost as the mode allows")?;
        for violation in violations.iter().chain(&self.findings) {
            writeln!(formatter, "  ! {violation}")?;
        }
        let kinds: BTreeSet<&str> = self.lines.iter().flat_map(|line| line.name.split('+')).collect();
        let (faults, kinds, drawn) = (self.lines.len(), kinds.len(), self.drawn);
        if faults < self.required() {
            let required = self.required();
            writeln!(formatter, "  ! only {faults} of {drawn} faults came in time; {required} are required")?;
        }
        let verdict = if self.is_good() { "good: nothing lost, nothing sold twice" } else { "BAD" };
        writeln!(formatter, "CHAOS: {verdict}, after {faults} faults of {kinds} kinds")?;
        if self.is_good() { Ok(()) } else { writeln!(formatter, "The same faults again: {}", self.again) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, millis: u64) -> Line {
        let outage = Outage { longest: Duration::from_millis(millis), refused: 3 };
        Line {
            name: name.to_owned(),
            at: Duration::from_secs(5),
            lasted: Duration::from_secs(2),
            outage,
            resumed: true,
        }
    }

    fn report() -> Report {
        Report {
            drawn: 3,
            lines: vec![line("redis-kill", 700), line("redis-kill", 900), line("redis-kill", 800)],
            probes: Judgement { booked: 10, excused: 0, violations: Vec::new() },
            findings: Vec::new(),
            load: "VERDICT: good\n".to_owned(),
            load_is_good: true,
            again: "scripts/chaos --seed 7".to_owned(),
        }
    }

    #[test]
    fn faults_of_one_kind_are_summed_up() {
        let report = report();
        let (times, median, longest) = report.by_kind()["redis-kill"];
        assert_eq!((times, median.as_millis(), longest.as_millis()), (3, 800, 900));
        assert!(report.to_string().contains("after 3 faults of 1 kinds"));
        let pair = Report { lines: vec![line("redis-kill+api-kill", 1), line("api-kill", 1)], ..report };
        assert!(pair.to_string().contains("after 2 faults of 2 kinds"));
    }

    #[test]
    fn any_single_witness_makes_a_run_bad() {
        assert!(report().is_good());
        assert!(!Report { load_is_good: false, ..report() }.is_good());
        assert!(!Report { findings: vec!["1 open: gap".to_owned()], ..report() }.is_good());
        let hung = Line { resumed: false, ..line("redis-kill", 60_000) };
        assert!(!Report { drawn: 1, lines: vec![hung], ..report() }.is_good());
        let probes = Judgement { booked: 1, excused: 0, violations: vec!["lost".to_owned()] };
        let bad = Report { probes, ..report() };
        assert!(!bad.is_good());
        assert!(bad.to_string().contains("CHAOS: BAD") && bad.to_string().ends_with("--seed 7\n"));
    }

    #[test]
    fn a_run_of_too_few_faults_is_not_good() {
        let of = |carried_out, drawn| Report {
            drawn,
            lines: vec![line("redis-kill", 1); carried_out],
            ..report()
        };
        for (carried_out, drawn) in [(1, 1), (1, 2), (3, 4), (9, 12), (8, 11)] {
            assert!(of(carried_out, drawn).is_good(), "{carried_out} of {drawn}");
        }
        for (carried_out, drawn) in [(0, 0), (0, 1), (2, 4), (8, 12)] {
            let report = of(carried_out, drawn);
            assert!(!report.is_good() && report.is_unharmed(), "{carried_out} of {drawn}");
            assert!(report.to_string().contains("faults came in time"), "{report}");
        }
    }
}
