//! Figures with their goals, as a Markdown table.

use std::fmt;

/// A figure.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Printed for orientation.
    None,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Self {
        Self { what: what.into(), value, unit, goal }
    }

    /// Whether the goal is reached.
    pub(crate) fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.value <= most,
            Goal::AtLeast(least) => self.value >= least,
            Goal::None => true,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, unit, goal } = self;
        let (goal, verdict) = match goal {
            Goal::AtMost(most) => (format!("at most {} {unit}", plain(*most)), self.is_reached()),
            Goal::AtLeast(least) => (format!("at least {} {unit}", plain(*least)), self.is_reached()),
            Goal::None => return write!(f, "| {what} | {} {unit} | | |", plain(*value)),
        };
        let verdict = if verdict { "reached" } else { "**missed**" };
        write!(f, "| {what} | {} {unit} | {goal} | {verdict} |", plain(*value))
    }
}

/// Prints the table.
pub(crate) fn print(figures: &[Figure]) {
    println!("\n| what | measured | goal | |\n|---|---|---|---|");
    for figure in figures {
        println!("{figure}");
    }
}

/// Two decimals where they say something.
fn plain(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_its_goal_is_reached() {
        let figure = |value, goal| Figure::new("wait", value, "s", goal);
        assert_eq!(figure(1.234, Goal::AtMost(2.0)).to_string(), "| wait | 1.23 s | at most 2 s | reached |");
        assert!(!figure(2.5, Goal::AtMost(2.0)).is_reached());
        assert!(!figure(29_999.0, Goal::AtLeast(30_000.0)).is_reached());
        assert_eq!(figure(30_000.0, Goal::None).to_string(), "| wait | 30000 s | | |");
    }
}
