//! Figures with their goals, as a Markdown table.

use std::fmt;

use serde::Serialize;

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    /// No finite number where it was not measured.
    pub(crate) value: f64,
    /// Lowest and highest of several rounds.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Printed for orientation.
    None,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Self {
        Self { what: what.into(), value, spread: None, unit, goal }
    }

    /// The median of several rounds, with the lowest and the highest.
    pub(crate) fn of_rounds(what: impl Into<String>, rounds: &[f64], unit: &'static str, goal: Goal) -> Self {
        let (lowest, median, highest) = spread(rounds);
        Self { spread: Some((lowest, highest)), ..Self::new(what, median, unit, goal) }
    }

    /// The median of the ratios of each round: what slows a whole round down does not change its ratio.
    pub(crate) fn ratio(what: impl Into<String>, over: &[f64], under: &[f64], goal: Goal) -> Self {
        let ratios: Vec<f64> = over.iter().zip(under).map(|(over, under)| over / under).collect();
        Self::of_rounds(what, &ratios, "", goal)
    }

    /// Whether the goal is reached: not by what was not measured.
    pub(crate) fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.is_measured() && self.value <= most,
            Goal::AtLeast(least) => self.is_measured() && self.value >= least,
            Goal::None => true,
        }
    }

    /// A ratio to nothing is none, either.
    fn is_measured(&self) -> bool {
        self.value.is_finite()
    }

    /// The best round of one against the best of the other, where a busy machine must not raise an alarm.
    pub(crate) fn best_ratio(what: impl Into<String>, over: &[f64], under: &[f64], goal: Goal) -> Self {
        let best = |rounds: &[f64]| spread(rounds).2;
        Self::new(what, best(over) / best(under), "", goal)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        let spread = self.spread.map_or_else(String::new, |(lowest, highest)| {
            format!(" ({} to {})", plain(lowest), plain(highest))
        });
        let goal = match self.goal {
            Goal::AtMost(most) => format!("at most {}{unit}", plain(most)),
            Goal::AtLeast(least) => format!("at least {}{unit}", plain(least)),
            Goal::None => String::new(),
        };
        let verdict = match self.goal {
            Goal::None => "",
            _ if self.is_reached() => "reached",
            _ => "**missed**",
        };
        let measured = if self.is_measured() {
            format!("{}{unit}{spread}", plain(self.value))
        } else {
            "not measured".to_owned()
        };
        let cells = [self.what.as_str(), &measured, &goal, verdict];
        write!(
            f,
            "|{}|",
            cells.map(|cell| if cell.is_empty() { " ".to_owned() } else { format!(" {cell} ") }).join("|")
        )
    }
}

/// Lowest, median and highest; no numbers where there are none.
pub(crate) fn spread(rounds: &[f64]) -> (f64, f64, f64) {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(lowest), Some(highest)) = (sorted.first(), sorted.last()) else {
        return (f64::NAN, f64::NAN, f64::NAN);
    };
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    (*lowest, median, *highest)
}

/// Prints the table.
pub(crate) fn print(figures: &[Figure]) {
    println!("\n| what | measured | goal | |\n|---|---|---|---|");
    for figure in figures {
        println!("{figure}");
    }
}

/// Two decimals where they say something.
pub(crate) fn plain(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::with_capacity(digits.len() + 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_its_goal_is_reached() {
        let figure = |value, goal| Figure::new("wait", value, "s", goal);
        assert_eq!(figure(1.234, Goal::AtMost(2.0)).to_string(), "| wait | 1.23 s | at most 2 s | reached |");
        let ratio = Figure::ratio("a / b", &[1.0, 2.0, 8.0], &[2.0, 2.0, 2.0], Goal::AtLeast(0.8));
        assert_eq!(ratio.to_string(), "| a / b | 1 (0.50 to 4) | at least 0.80 | reached |");
        assert!(!figure(2.5, Goal::AtMost(2.0)).is_reached());
        assert!(!figure(29_999.0, Goal::AtLeast(30_000.0)).is_reached());
        assert_eq!(figure(30_000.0, Goal::None).to_string(), "| wait | 30,000 s | | |");
    }

    #[test]
    fn what_was_not_measured_reaches_no_goal() {
        for goal in [Goal::AtMost(1.0), Goal::AtLeast(0.0)] {
            for figure in [
                Figure::of_rounds("a", &[], "s", goal),
                Figure::ratio("a / b", &[], &[], goal),
                Figure::ratio("a / b", &[1.0], &[], goal),
                Figure::best_ratio("a / b", &[], &[1.0], goal),
                Figure::best_ratio("a / b", &[1.0], &[0.0], goal),
            ] {
                assert!(!figure.is_reached(), "{figure}");
                assert!(figure.to_string().contains("| not measured | "), "{figure}");
            }
        }
        let said = Figure::of_rounds("a", &[], "s", Goal::None).to_string();
        assert_eq!(said, "| a | not measured | | |");
    }
}
