//! What makes a run good. Every rule here has a test in which it fails.

use serde::Serialize;

/// Faults of one kind that are told word for word, by one check.
const MAX_EXAMPLES: u64 = 3;

/// Declares each fault once: its name in the summary, and its sentence after the number in the verdict.
macro_rules! faults {
    ($($(#[$about:meta])+ $variant:ident $field:ident = $sentence:literal,)+) => {
        /// What verification may find wrong.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Fault { $($(#[$about])+ $variant,)+ }

        impl Fault {
            /// Every fault, in the order in which a verdict names them.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The fault's name in the summary.
            fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }

            /// What to say after the number of such faults.
            fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }

        /// Faults by kind; all are 0 in a good run.
        #[derive(Clone, Debug, Default, Serialize)]
        pub(crate) struct FaultCounts { $($(#[$about])+ pub(crate) $field: u64,)+ }

        impl FaultCounts {
            /// The number of such faults.
            pub(crate) fn get(&self, fault: Fault) -> u64 {
                match fault { $(Fault::$variant => self.$field,)+ }
            }

            fn count(&mut self, fault: Fault) -> &mut u64 {
                match fault { $(Fault::$variant => &mut self.$field,)+ }
            }
        }
    };
}

faults! {
    /// Tickets held or sold beyond a ticket type's capacity.
    Oversold oversold_tickets = "tickets were sold twice",
    /// Bookings that a client saw acknowledged and that are not in PostgreSQL.
    Lost lost = "acknowledged bookings are missing in PostgreSQL",
    /// Rows that no 201 and no unanswered request explains.
    Unexplained unexplained_rows = "rows in PostgreSQL were never acknowledged",
    /// Rows beyond the first for one idempotency key.
    DuplicateKey duplicate_keys = "idempotency keys have more than one row",
    /// Rows that differ from what was acknowledged: event, customer, items, price, payment.
    Mismatched mismatched_rows = "rows differ from what was acknowledged",
    /// Rows in a state that contradicts the last answer that the client saw.
    IllegalStatus illegal_statuses = "bookings are in a state that contradicts the last answer",
    /// Ticket types whose counters differ from the sums over their bookings, or whose capacity changed.
    CountMismatch count_mismatches = "ticket types are counted wrongly in PostgreSQL",
    /// Ticket types that the API shows otherwise than PostgreSQL, or that do not add up.
    LiveMismatch live_mismatches = "ticket types are shown wrongly by the API",
    /// Bookings or lists of bookings that the API shows otherwise than PostgreSQL.
    ReadMismatch read_mismatches = "bookings or lists are shown wrongly by the API",
    /// Customers with more tickets than their limit.
    LimitBreach limit_breaches = "customers have more tickets than their limit",
    /// Refusals for a limit that was not reached, or as sold out with tickets left.
    FalseRefusal false_refusals = "refusals were wrong",
    /// Acknowledged keys that were not answered with the same bytes after the run.
    ReplayDiffers replay_differences = "keys were not answered with the same bytes again",
    /// Sum of the differences between Redis and PostgreSQL at lag 0, in tickets.
    Drift drift = "tickets of drift between Redis and PostgreSQL",
    /// Gaps in the log.
    Gap gaps = "gaps in the log",
    /// Things that verification could not read.
    Unreadable unreadable = "checks could not be made",
}

/// Faults with some of them in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) counts: FaultCounts,
    pub(crate) examples: Vec<String>,
}

impl Faults {
    /// Notes a fault.
    pub(crate) fn add(&mut self, fault: Fault, what: impl Into<String>) {
        self.add_many(fault, 1, what);
    }

    /// Notes a fault of some size, such as tickets oversold. Nothing is noted for size 0.
    pub(crate) fn add_many(&mut self, fault: Fault, number: u64, what: impl Into<String>) {
        if number > 0 && self.counts.get(fault) < MAX_EXAMPLES {
            self.examples.push(format!("{}: {}", fault.name(), what.into()));
        }
        *self.counts.count(fault) += number;
    }

    /// Adds the faults of another check.
    pub(crate) fn extend(&mut self, other: Self) {
        for fault in Fault::ALL {
            *self.counts.count(*fault) += other.counts.get(*fault);
        }
        self.examples.extend(other.examples);
    }
}

/// What a verdict is based on.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) faults: FaultCounts,
    /// Answers that the contract does not allow.
    pub(crate) unexpected: u64,
    /// Whether lag, drift and holds all came to 0 in time.
    pub(crate) drained: bool,
    /// Bookings acknowledged.
    pub(crate) acknowledged: u64,
    /// The part of the wanted rate that was reached, in percent.
    pub(crate) rate_percent: f64,
    /// The part that must be reached.
    pub(crate) min_rate_percent: f64,
    /// Requests that got a 503 or 429, or no answer, in percent of those that were sent.
    pub(crate) turned_away_percent: f64,
    /// The part that may be.
    pub(crate) max_turned_away_percent: f64,
    /// p99 from the intended start, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The p99 that must not be exceeded, if any.
    pub(crate) max_p99_ms: Option<f64>,
}

/// The reasons against a good verdict; none, and it is good.
pub(crate) fn objections(evidence: &Evidence) -> Vec<String> {
    let mut reasons: Vec<String> = Fault::ALL
        .iter()
        .filter(|fault| evidence.faults.get(**fault) > 0)
        .map(|fault| format!("{} {}", evidence.faults.get(*fault), fault.sentence()))
        .collect();
    if evidence.unexpected > 0 {
        reasons.push(format!("{} answers that the contract does not allow", evidence.unexpected));
    }
    if !evidence.drained {
        reasons.push("the log did not drain in time (lag, drift or holds are left)".to_owned());
    }
    if evidence.acknowledged == 0 {
        reasons.push("nothing was sold, so nothing is shown".to_owned());
    }
    if evidence.rate_percent < evidence.min_rate_percent {
        let (reached, wanted) = (evidence.rate_percent, evidence.min_rate_percent);
        reasons.push(format!("only {reached:.1} % of the rate was reached, {wanted} % are required"));
    }
    if evidence.turned_away_percent > evidence.max_turned_away_percent {
        let (turned_away, max) = (evidence.turned_away_percent, evidence.max_turned_away_percent);
        reasons.push(format!(
            "{turned_away:.1} % of the requests were turned away (503, 429, no answer), {max} % may be"
        ));
    }
    if let Some(max) = evidence.max_p99_ms.filter(|max| evidence.p99_ms > *max) {
        reasons.push(format!("p99 is {:.1} ms, {max} ms are allowed", evidence.p99_ms));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            faults: FaultCounts::default(),
            unexpected: 0,
            drained: true,
            acknowledged: 1,
            rate_percent: 99.9,
            min_rate_percent: 95.0,
            turned_away_percent: 0.2,
            max_turned_away_percent: 1.0,
            p99_ms: 4.0,
            max_p99_ms: Some(15.0),
        }
    }

    #[test]
    fn a_run_without_objections_is_good() {
        assert_eq!(objections(&good()), Vec::<String>::new());
    }

    #[test]
    fn any_single_fault_is_an_objection() {
        for fault in Fault::ALL {
            let mut faults = Faults::default();
            faults.add(*fault, "example");
            let reasons = objections(&Evidence { faults: faults.counts, ..good() });
            assert_eq!(reasons, [format!("1 {}", fault.sentence())]);
        }
    }

    #[test]
    fn an_unexpected_answer_is_an_objection() {
        assert_eq!(objections(&Evidence { unexpected: 1, ..good() }).len(), 1);
    }

    #[test]
    fn a_log_that_does_not_drain_is_an_objection() {
        assert_eq!(objections(&Evidence { drained: false, ..good() }).len(), 1);
    }

    #[test]
    fn a_run_that_sells_nothing_is_an_objection() {
        assert_eq!(objections(&Evidence { acknowledged: 0, ..good() }).len(), 1);
    }

    #[test]
    fn a_rate_below_the_required_one_is_an_objection() {
        assert_eq!(objections(&Evidence { rate_percent: 94.9, ..good() }).len(), 1);
        assert!(objections(&Evidence { rate_percent: 10.0, min_rate_percent: 0.0, ..good() }).is_empty());
    }

    #[test]
    fn turning_buyers_away_is_an_objection() {
        assert_eq!(objections(&Evidence { turned_away_percent: 1.1, ..good() }).len(), 1);
        let chaos = Evidence { turned_away_percent: 60.0, max_turned_away_percent: 100.0, ..good() };
        assert!(objections(&chaos).is_empty());
    }

    #[test]
    fn a_p99_above_the_allowed_one_is_an_objection() {
        assert_eq!(objections(&Evidence { p99_ms: 15.1, ..good() }).len(), 1);
        assert!(objections(&Evidence { p99_ms: 900.0, max_p99_ms: None, ..good() }).is_empty());
    }

    #[test]
    fn examples_are_bounded_and_numbers_are_not() {
        let mut faults = Faults::default();
        for number in 0..1_000 {
            faults.add(Fault::Lost, format!("booking {number}"));
        }
        assert_eq!((faults.counts.lost, faults.examples.len()), (1_000, 3));
    }
}
