//! What a run came to: Markdown for people, JSON for machines. Ratios come first, since only they compare between
//! machines.

use std::fmt::Write as _;
use std::fs;

use boxoffice_schema::shard::ShardCount;
use serde::Serialize;

use crate::table::{Figure, plain, spread};

/// A run of some or all sections.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) started_at: String,
    pub(crate) machine: String,
    /// Of each installation.
    pub(crate) shards: u16,
    /// Figures with goals, and those that say how things compare.
    pub(crate) ratios: Vec<Figure>,
    pub(crate) sections: Vec<Section>,
    /// Sections whose figures count for nothing, and why.
    pub(crate) void: Vec<String>,
}

/// Figures that were measured in the same rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// What one has to know to read it.
    pub(crate) remark: String,
    pub(crate) rows: Vec<Row>,
}

/// One thing that was measured, round by round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// What must have happened before a sale counts.
    pub(crate) durability: String,
    pub(crate) columns: Vec<Column>,
}

/// One aspect of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<f64>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, durability: impl Into<String>) -> Self {
        Self { what: what.into(), durability: durability.into(), columns: Vec::new() }
    }

    /// Notes a round's value.
    pub(crate) fn note(&mut self, name: &'static str, value: f64) {
        match self.columns.iter_mut().find(|column| column.name == name) {
            Some(column) => column.rounds.push(value),
            None => self.columns.push(Column { name, rounds: vec![value] }),
        }
    }

    /// The values of all rounds, in order.
    pub(crate) fn rounds(&self, name: &str) -> &[f64] {
        self.columns.iter().find(|column| column.name == name).map_or(&[], |column| &column.rounds)
    }

    /// Median, and the spread where there are several rounds and it is the first column.
    fn cell(&self, name: &str, first: bool) -> String {
        let rounds = self.rounds(name);
        let (lowest, median, highest) = spread(rounds);
        match rounds {
            [] => " ".to_owned(),
            [_, _, ..] if first => format!(" {} ({} to {}) ", plain(median), plain(lowest), plain(highest)),
            _ => format!(" {} ", plain(median)),
        }
    }
}

impl Section {
    /// A table with a column for each name that a row has.
    fn write(&self, out: &mut String) {
        let mut names: Vec<&str> = Vec::new();
        for column in self.rows.iter().flat_map(|row| &row.columns) {
            if !names.contains(&column.name) {
                names.push(column.name);
            }
        }
        // Writing into a string does not fail.
        let _ = writeln!(out, "\n### {}\n\n{}\n", self.title, self.remark);
        let _ = writeln!(
            out,
            "| what | {} | durability |\n|{}",
            names.join(" | "),
            "---|".repeat(names.len() + 2)
        );
        for row in &self.rows {
            let cells = names.iter().enumerate().map(|(at, name)| row.cell(name, at == 0));
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(out, "| {} |{}| {} |", row.what, cells.join("|"), row.durability);
        }
    }
}

impl Report {
    pub(crate) fn new(shards: ShardCount) -> Self {
        let started_at = chrono::Utc::now().to_rfc3339();
        Self { started_at, machine: machine(), shards: shards.get(), ..Self::default() }
    }

    /// As docs/BENCHMARKS.md has it.
    pub(crate) fn markdown(&self) -> String {
        let day = self.started_at.get(..10).unwrap_or_default();
        let Self { machine, shards, .. } = self;
        let mut out = format!(
            "Measured on {day} on {machine}, with {shards} shards. Median of the rounds (lowest to highest).\n"
        );
        for void in &self.void {
            let _ = writeln!(out, "\n**Void: {void}**");
        }
        if !self.ratios.is_empty() {
            out.push_str("\n| what | measured | goal | |\n|---|---|---|---|\n");
        }
        for figure in &self.ratios {
            let _ = writeln!(out, "{figure}");
        }
        for section in &self.sections {
            section.write(&mut out);
        }
        out
    }

    /// Whether every figure counts.
    pub(crate) fn is_valid(&self) -> bool {
        self.void.is_empty()
    }

    /// Whether every goal is reached.
    pub(crate) fn is_reached(&self) -> bool {
        self.ratios.iter().all(Figure::is_reached)
    }
}

/// Processors by name and number, and the memory.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores ({processor}), {} GB", kilobytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_a_table_with_medians() {
        let mut fast = Row::new("fast", "none");
        for value in [3_000.0, 1_000.0, 2_000.0] {
            fast.note("sales/s", value);
        }
        let mut slow = Row::new("slow", "all");
        slow.note("p99 ms", 1.5);
        let section = Section { title: "Title", remark: "Remark.".to_owned(), rows: vec![fast, slow] };
        let report = Report { sections: vec![section], ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("| what | sales/s | p99 ms | durability |\n|---|---|---|---|\n"), "{text}");
        assert!(text.contains("| fast | 2,000 (1,000 to 3,000) | | none |"), "{text}");
        assert!(text.contains("| slow | | 1.50 | all |"), "{text}");
    }
}
