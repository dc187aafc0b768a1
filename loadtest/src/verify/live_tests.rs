use super::*;
use crate::{plan::example, verify::stock::Counter};

/// Ten tickets of each type in PostgreSQL, of which three are sold.
fn counters(event: &Event) -> Counters {
    let counter = |id| Counter { id, capacity: 10, held: 0, sold: 3 };
    event.type_ids.iter().map(|id| (*id, counter(*id))).collect()
}

fn audit(event: &Event, redis: &str, sold: i64, drift: &str, gaps: &str) -> Audit {
    let kind = |id| {
        format!(
            r#"{{"ticket_type_id":"{id}","redis":{redis},
                "postgres":{{"capacity":10,"held":0,"sold":{sold}}},"drift":{drift}}}"#
        )
    };
    let (a, b) = (kind(event.type_ids[0]), kind(event.type_ids[1]));
    let text = format!(r#"{{"lag":0,"gaps":{gaps},"ticket_types":[{a},{b}]}}"#);
    serde_json::from_str(&text).expect("an audit")
}

const GOOD: &str = r#"{"capacity":10,"available":7,"held":0,"sold":3}"#;

fn audited(redis: &str, sold: i64, drift: &str, gaps: &str) -> crate::verdict::FaultCounts {
    let event = example(Role::Hot);
    let mut faults = Faults::default();
    check_audit(&event, &audit(&event, redis, sold, drift, gaps), &counters(&event), &mut faults);
    faults.counts
}

#[test]
fn an_audit_in_agreement_is_no_fault() {
    let counts = audited(GOOD, 3, "0", "[]");
    assert!(Fault::ALL.iter().all(|fault| counts.get(*fault) == 0), "{counts:?}");
}

#[test]
fn drift_and_gaps_are_faults_of_their_size() {
    assert_eq!(audited(GOOD, 3, "2", "[]").drift, 4, "both ticket types drift by 2");
    assert_eq!(audited(GOOD, 3, "0", r#"[{"epoch":1,"from":2,"to":3}]"#).gaps, 1);
}

#[test]
fn a_side_that_shows_other_numbers_is_a_fault() {
    assert_eq!(
        audited(r#"{"capacity":10,"available":6,"held":0,"sold":4}"#, 3, "0", "[]").live_mismatches,
        2
    );
    assert_eq!(
        audited(r#"{"capacity":10,"available":8,"held":0,"sold":3}"#, 3, "0", "[]").live_mismatches,
        2
    );
    assert_eq!(audited(GOOD, 4, "0", "[]").live_mismatches, 2);
    assert_eq!(audited("null", 3, "null", "[]").unreadable, 2);
}

#[test]
fn availability_must_be_what_postgresql_counts() {
    let event = example(Role::Hot);
    let shown = |sold: i64, stale: bool| {
        let kind = |id| {
            let available = 10 - sold;
            format!(
                r#"{{"ticket_type_id":"{id}","capacity":10,"available":{available},"held":0,"sold":{sold},"on_sale":true}}"#
            )
        };
        let (a, b) = (kind(event.type_ids[0]), kind(event.type_ids[1]));
        let text = format!(r#"{{"event_id":"{}","stale":{stale},"ticket_types":[{a},{b}]}}"#, event.id);
        let shown: Availability = serde_json::from_str(&text).expect("availability");
        let mut faults = Faults::default();
        check_availability(&event, &shown, &counters(&event), &mut faults);
        faults.counts.live_mismatches
    };
    assert_eq!(shown(3, false), 0);
    assert_eq!(shown(4, false), 2);
    assert_eq!(shown(3, true), 1);
}
