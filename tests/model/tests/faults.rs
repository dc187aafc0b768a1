//! With a protection left out, a promise is broken. A model that finds nothing proves nothing.
//!
//! Some look at a part of a scenario only, in which the counterexample is found sooner.

use boxoffice_model::explore::{explore, search};
use boxoffice_model::promise::{P1, P2, P3, P4, P5_GAP, P5_SILENT, P6};
use boxoffice_model::protection::Protection::{self, *};
use boxoffice_model::scenario::{Model, Scenario};

fn breaks(scenario: Scenario, left_out: &[Protection], promise: &'static str) {
    let verdict = search(&Model::without(scenario.clone(), left_out), promise);
    println!("{} without {left_out:?}: {verdict}", scenario.name);
    assert!(!verdict.broken.is_empty(), "{} holds without {left_out:?}: {promise}", scenario.name);
}

#[test]
fn without_the_fence_a_redis_that_forgot_a_booking_sells_its_ticket_again() {
    breaks(Scenario::lost_tail(), &[Fence], P1);
}

#[test]
fn without_the_fence_a_guess_is_sold() {
    breaks(Scenario::lost_tail(), &[Fence], P6);
}

#[test]
fn a_certificate_of_run_id_alone_stays_open_after_fail_over_and_fail_back() {
    breaks(Scenario::fail_over(), &[CertificateNamesHistory], P1);
}

#[test]
fn a_certificate_of_master_replid_alone_stays_open_after_a_restart() {
    breaks(Scenario::lost_tail(), &[CertificateNamesProcess], P1);
}

#[test]
fn publishing_unfenced_takes_a_position_twice() {
    breaks(Scenario::publication(), &[PublishFence], P5_GAP);
}

#[test]
fn expiry_by_ttl_gives_no_stock_back() {
    breaks(Scenario::holds(), &[ExpiryIsADecision], P4);
}

#[test]
fn expiry_by_ttl_forgets_the_key() {
    breaks(Scenario::holds(), &[ExpiryIsADecision], P2);
}

#[test]
fn answering_before_kafka_confirmed_loses_what_redis_loses() {
    breaks(Scenario::lost_tail(), &[AnswerAfterConfirmation], P3);
}

#[test]
fn answering_by_a_later_epochs_confirmation_acknowledges_what_was_lost() {
    breaks(Scenario::lost_tail(), &[AnswerInItsEpoch], P3);
}

#[test]
fn trimming_before_kafka_confirmed_loses_what_the_relay_loses() {
    breaks(Scenario::takeover(), &[TrimAfterConfirmation], P3);
}

#[test]
fn trimming_before_kafka_confirmed_leaves_a_gap() {
    breaks(Scenario::takeover(), &[TrimAfterConfirmation], P5_GAP);
}

#[test]
fn a_relay_that_trims_without_its_lease_acknowledges_what_came_too_late() {
    breaks(
        Scenario::lost_tail(),
        &[TrimChecksToken, TrimChecksEpoch, TrimChecksCertificate, NoteWhatWasTrimmed],
        P3,
    );
}

#[test]
fn a_relay_that_trims_in_an_uncertified_redis_acknowledges_what_came_too_late() {
    breaks(Scenario::fail_over(), &[TrimChecksCertificate], P3);
}

#[test]
fn a_relay_that_notes_what_was_gone_already_acknowledges_what_came_too_late() {
    breaks(Scenario { asks: 1, rounds: 1, ..Scenario::fail_over() }, &[NoteWhatWasTrimmed], P3);
}

#[test]
fn without_the_sequence_check_a_late_record_is_applied_and_its_ticket_sold_twice() {
    breaks(Scenario::lost_tail(), &[SequenceCheck], P1);
}

#[test]
fn offsets_committed_before_the_write_lose_what_was_in_flight() {
    breaks(Scenario::takeover(), &[OffsetInTransaction], P3);
}

#[test]
fn a_late_record_whose_number_was_used_again_is_passed_over_in_silence() {
    breaks(Scenario::lost_tail(), &[EpochEndsAreKept], P5_SILENT);
}

#[test]
fn without_a_barrier_a_late_record_takes_the_place_of_an_acknowledged_one() {
    breaks(Scenario::lost_tail(), &[Barrier], P3);
}

#[test]
fn without_a_barrier_redis_is_restored_from_a_postgresql_that_lags() {
    breaks(Scenario::lost_disk(), &[Barrier], P1);
}

#[test]
fn a_drain_of_another_redis_makes_a_gap_of_what_was_never_sent() {
    breaks(Scenario::lost_tails(), &[DrainChecksIdentity], P5_GAP);
}

#[test]
fn comparing_sequence_numbers_alone_certifies_another_history() {
    breaks(Scenario::fail_over(), &[CompareChecksLastDecision], P3);
}

#[test]
fn certifying_below_an_epoch_that_was_taken_loses_what_comes_behind_its_barrier() {
    breaks(Scenario { asks: 1, rounds: 1, ..Scenario::fail_over() }, &[CompareChecksTakenEpoch], P3);
}

#[test]
fn a_recoverer_that_slept_restores_over_what_was_sold_since() {
    breaks(Scenario { recoveries: 2, ..Scenario::lost_disk() }, &[RestoreChecksEpoch], P1);
}

#[test]
fn certifying_without_asking_which_redis_it_is_certifies_one_that_nobody_compared() {
    breaks(Scenario::lost_tails(), &[CertifyChecksIdentity], P6);
}

/// The token keeps two relays from doing the same work. What they may change is decided by epoch and certificate.
#[test]
fn without_the_token_alone_nothing_is_lost() {
    let verdict = explore(&Model::without(Scenario::takeover(), &[TrimChecksToken]));
    assert!(verdict.broken.is_empty(), "{verdict}");
}
