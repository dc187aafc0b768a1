//! The table at the end, for people.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter, Write as _},
};

use crate::summary::{Percentiles, Summary};

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Codes with their numbers, the most frequent first.
fn codes(codes: &BTreeMap<&'static str, u64>) -> String {
    let mut sorted: Vec<_> = codes.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut text = String::new();
    for (code, count) in sorted {
        let comma = if text.is_empty() { "" } else { ", " };
        let _infallible = write!(text, "{comma}{code} {}", grouped(*count));
    }
    text
}

/// One line: a label, a number, and what there is to say about it.
fn line(formatter: &mut Formatter<'_>, label: &str, number: u64, remark: &str) -> fmt::Result {
    let text = format!("  {label:<14}{:>10}   {remark}", grouped(number));
    writeln!(formatter, "{}", text.trim_end())
}

impl Display for Summary {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        self.write_load(formatter)?;
        self.write_outcomes(formatter)?;
        self.write_latency(formatter)?;
        self.write_verification(formatter)?;
        for example in &self.examples {
            writeln!(formatter, "  ! {example}")?;
        }
        match self.objections.as_slice() {
            [] => {
                let rows = grouped(self.verification.acknowledged);
                writeln!(
                    formatter,
                    "VERDICT: good: {rows} bookings acknowledged, each in PostgreSQL once, nothing oversold"
                )
            }
            objections => writeln!(formatter, "VERDICT: bad: {}", objections.join("; ")),
        }
    }
}

impl Summary {
    fn write_load(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let load = &self.load;
        let remark = format!(
            "{:.1}/s reached of {}/s wanted ({:.1} %), {} users, {} events, seed {}",
            load.rate_reached, load.target_rate, load.rate_percent, load.users, load.events, self.seed
        );
        line(formatter, "requested", load.requests_sent, &remark)?;
        if load.requests_sent < load.requests {
            line(formatter, "not sent", load.requests - load.requests_sent, "the time to catch up was over")?;
        }
        Ok(())
    }

    fn write_outcomes(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (outcomes, rows) = (&self.outcomes, &self.verification.rows_by_status);
        line(
            formatter,
            "sold",
            outcomes.sold,
            &format!("bookings, {} tickets", grouped(outcomes.sold_tickets)),
        )?;
        let remark = format!(
            "holds, {} tickets; {} confirmations, {} expired at the end",
            grouped(outcomes.held_tickets),
            grouped(outcomes.confirmed),
            grouped(rows.expired)
        );
        line(formatter, "held", outcomes.held, &remark)?;
        line(formatter, "cancelled", outcomes.cancelled, "")?;
        line(formatter, "refused", outcomes.refused, &codes(&outcomes.refused_by_code))?;
        let again = format!("and {} keys again after the run", grouped(self.verification.replays_checked));
        line(formatter, "replayed", outcomes.replayed, &again)?;
        line(formatter, "read", outcomes.reads, "")?;
        line(formatter, "unavailable", outcomes.unavailable, &codes(&outcomes.unavailable_by_code))?;
        let meant =
            format!("and {} given up on purpose, then tried again", grouped(outcomes.abandoned_on_purpose));
        line(formatter, "unanswered", outcomes.unanswered, &meant)?;
        line(formatter, "unexpected", outcomes.unexpected, "answers that the contract does not allow")
    }

    fn write_latency(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        let head = ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>9}")).concat();
        writeln!(formatter, "  {:<24}{head}", "latency in ms")?;
        let rows = [
            ("from the send", self.latency.service),
            ("from the intended start", self.latency.from_intended_start),
            ("sent late by", self.latency.send_lag),
        ];
        for (label, Percentiles { p50, p90, p99, p99_9, max, .. }) in rows {
            let cells = [p50, p90, p99, p99_9, max].map(|value| format!("{value:>9.2}")).concat();
            writeln!(formatter, "  {label:<24}{cells}")?;
        }
        writeln!(
            formatter,
            "  (open schedule: from the intended start, a stall counts for every request it delays; a closed loop hides it)"
        )?;
        writeln!(formatter)
    }

    fn write_verification(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let verified = &self.verification;
        let rows = format!(
            "= {} rows in PostgreSQL; {} missing, {} unexplained, {} of unanswered requests",
            grouped(verified.rows_acknowledged),
            grouped(verified.faults.lost),
            grouped(verified.faults.unexplained_rows),
            grouped(verified.rows_unanswered + verified.rows_refused_in_doubt),
        );
        line(formatter, "acknowledged", verified.acknowledged, &rows)?;
        line(formatter, "oversold", verified.faults.oversold_tickets, "tickets")?;
        let gaps = format!("tickets between Redis and PostgreSQL; {} gaps", verified.faults.gaps);
        line(formatter, "drift", verified.faults.drift, &gaps)?;
        if verified.excused > 0 {
            line(formatter, "lost", verified.excused, "acknowledged in a window whose loss the mode allows")?;
        }
        let drained = if verified.drained { "drained after" } else { "NOT drained after" };
        writeln!(formatter, "  {:<27}{drained} {:.1} s", "log and holds", verified.drain_seconds)?;
        writeln!(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1_000, 15_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "15,000", "1,234,567"]);
    }

    #[test]
    fn codes_come_most_frequent_first() {
        let counts = BTreeMap::from([("limit_exceeded", 20), ("sold_out", 4_000)]);
        assert_eq!(codes(&counts), "sold_out 4,000, limit_exceeded 20");
    }
}
