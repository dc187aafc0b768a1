//! With all protections, every promise holds in every state, and what should be possible is possible.

use boxoffice_model::explore::explore;
use boxoffice_model::scenario::{Model, Scenario};

fn holds(scenario: Scenario) {
    let verdict = explore(&Model::new(scenario.clone()));
    println!("{}: {verdict}", scenario.name);
    assert!(verdict.broken.is_empty() && verdict.impossible.is_empty(), "{}: {verdict}", scenario.name);
}

#[test]
fn holds_may_be_confirmed_cancelled_and_expired_at_once() {
    holds(Scenario::holds());
}

#[test]
fn relays_and_readers_may_sleep_and_be_replaced() {
    holds(Scenario::takeover());
}

#[test]
fn redis_may_lose_the_tail_of_its_file() {
    holds(Scenario::lost_tail());
}

#[test]
fn redis_may_lose_the_tail_of_its_file_again_while_it_is_recovered() {
    holds(Scenario::lost_tails());
}

#[test]
fn redis_may_lose_the_tail_of_its_file_while_an_event_is_published() {
    holds(Scenario::publication());
}

#[test]
fn redis_may_lose_its_folder() {
    holds(Scenario::lost_disk());
}

#[test]
fn a_replica_that_lags_may_be_promoted_and_its_master_after_it() {
    holds(Scenario::fail_over());
}
