//! Losses that a fault test allows: times in which Redis lost decisions that Kafka had not confirmed.
//!
//! Whoever makes such a fault writes the file before it, and completes it afterwards. It is read again whenever
//! something is wrong, which is rare: a run without faults never reads it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    history::Attempt,
    judge::{Finding, Lost, Wrong},
    shop::Judged,
};

/// Milliseconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Window {
    from_ms: u64,
    to_ms: u64,
}

/// What the file says.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Windows {
    /// Whether what was acknowledged in a window may be gone. Otherwise only refusals are excused.
    acknowledged: bool,
    windows: Vec<Window>,
}

/// Where the windows are told, if anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    file: Option<PathBuf>,
}

impl Losses {
    /// The losses told in `file`; none are allowed without a file.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// The windows as they are known now.
    pub(crate) fn read(&self) -> Result<Windows> {
        let Some(file) = &self.file else { return Ok(Windows::default()) };
        let failed = || format!("--loss-windows {} cannot be read", file.display());
        let text = fs::read_to_string(file).with_context(failed)?;
        serde_json::from_str(&text).with_context(failed)
    }

    /// An answer that is wrong only because what the client was told before is lost, and allowed to be, is excused.
    pub(crate) fn excuse(&self, judged: Judged, attempt: &Attempt) -> Judged {
        match judged {
            Some(Err(wrong)) if self.explain(&wrong, attempt) => Some(Ok(Finding::Excused)),
            judged => judged,
        }
    }

    /// Whether something is wrong only because of a loss that is allowed.
    pub(crate) fn explain(&self, wrong: &Wrong, attempt: &Attempt) -> bool {
        wrong.if_lost.is_some_and(|lost| self.read().is_ok_and(|windows| windows.cover(lost, attempt)))
    }
}

impl Windows {
    /// Whether this may be lost of what the client was told about the attempt. The last decision, where it was told of in a
    /// window. The booking, where its 201 lies in that window as well: one that was acknowledged before it must be there whatever
    /// was decided about it since, and so must one of which something was told behind it.
    pub(crate) fn cover(&self, lost: Lost, attempt: &Attempt) -> bool {
        let covers = |window: &Window| {
            let span = window.from_ms..=window.to_ms;
            span.contains(&attempt.told_ms) && (lost == Lost::Change || span.contains(&attempt.booked_ms))
        };
        self.acknowledged && self.windows.iter().any(covers)
    }

    /// Whether anything may have been lost at all. A refusal may then rest on a decision that was lost before anybody
    /// was told of it.
    pub(crate) fn any(&self) -> bool {
        !self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        client::Answer,
        history::{Acknowledged, Items, Life, Order},
        judge,
        plan::{Role, example},
        wire::Status,
    };

    const ONE_WINDOW: &str = r#"{"acknowledged":true,"windows":[{"from_ms":100,"to_ms":200}]}"#;

    /// A hold, acknowledged at one time and confirmed at another.
    fn attempt(booked_ms: u64, told_ms: u64) -> Attempt {
        let order = Order { number: 1, customer: 1, event: 0, items: Items::default(), hold: true };
        let seen = Acknowledged { booking: uuid::Uuid::from_u128(77), body: 1 };
        let life = Life { confirmations: 1, paid_by: Some(1), ..Life::new(Status::Confirmed) };
        let acknowledged = Some(seen);
        Attempt { booked_ms, told_ms, acknowledged, life, ..Attempt::new(order, Instant::now()) }
    }

    fn losses(content: &str) -> Losses {
        let file = std::env::temp_dir().join(format!("boxoffice-losses-{}", uuid::Uuid::now_v7()));
        fs::write(&file, content).unwrap();
        Losses::new(Some(file))
    }

    /// Whether it is excused that a booking is gone that was acknowledged and never changed.
    fn is_excused(losses: &Losses, booked_ms: u64) -> bool {
        let judged = Some(Err(Wrong::unless(Lost::Booking, "gone")));
        matches!(losses.excuse(judged, &attempt(booked_ms, booked_ms)), Some(Ok(Finding::Excused)))
    }

    /// A booking's answer of this status and code, or one that breaks the contract where that is said.
    fn refusal(status: u16, code: &str, problem: bool) -> Answer {
        let body = format!(
            r#"{{"type":"t","title":"t","status":{status},"detail":"d","code":"{code}","request_id":"r"}}"#
        );
        Answer { problem, ..Answer::of(status, body) }
    }

    #[test]
    fn only_what_was_told_in_a_window_is_excused() {
        let losses = losses(ONE_WINDOW);
        assert!(is_excused(&losses, 100) && is_excused(&losses, 200));
        assert!(!is_excused(&losses, 99) && !is_excused(&losses, 201));
    }

    #[test]
    fn a_booking_is_not_lost_in_a_window_in_which_it_was_only_changed_or_behind_which_it_was_seen() {
        let windows = losses(ONE_WINDOW).read().unwrap();
        assert!(windows.cover(Lost::Booking, &attempt(150, 180)));
        assert!(!windows.cover(Lost::Booking, &attempt(50, 150)), "acknowledged before");
        assert!(windows.cover(Lost::Change, &attempt(50, 150)), "but its confirmation may be gone");
        assert!(!windows.cover(Lost::Booking, &attempt(150, 250)), "it was confirmed after the loss");
        assert!(!windows.cover(Lost::Change, &attempt(150, 250)));
    }

    #[test]
    fn only_what_a_loss_explains_is_excused() {
        let (losses, event) = (losses(ONE_WINDOW), example(Role::Holds));
        let excused = |answer: &Answer, attempt: &Attempt| {
            let judged = judge::look(answer, attempt, &event, Instant::now());
            matches!(losses.excuse(Some(judged), attempt), Some(Ok(Finding::Excused)))
        };
        let inside = attempt(150, 150);
        assert!(excused(&refusal(404, "booking_not_found", true), &inside));
        assert!(
            !excused(&refusal(404, "booking_not_found", true), &attempt(50, 150)),
            "confirmed inside only"
        );
        assert!(!excused(&refusal(404, "booking_not_found", false), &inside), "no problem document");
        assert!(!excused(&refusal(404, "event_not_found", true), &inside), "the event is older");
        assert!(!excused(&refusal(500, "internal_error", true), &inside));
        assert!(!excused(&Answer::of(200, "{}".to_owned()), &inside));
        let shown = |id: u128, status: &str| {
            let id = uuid::Uuid::from_u128(id);
            let body = format!(
                r#"{{"id":"{id}","event_id":"{id}","customer":"c","items":[],"total":{{"amount":0,"currency":"EUR"}},
                    "status":"{status}","expires_at":null,"payment_reference":null}}"#
            );
            Answer::of(200, body)
        };
        assert!(excused(&shown(77, "held"), &attempt(50, 150)), "its confirmation is lost");
        assert!(!excused(&shown(77, "cancelled"), &inside), "nobody cancelled it");
        assert!(!excused(&shown(78, "held"), &inside), "somebody else's");
    }

    #[test]
    fn nothing_acknowledged_is_excused_where_the_mode_promises_to_keep_it() {
        let losses = losses(r#"{"acknowledged":false,"windows":[{"from_ms":100,"to_ms":200}]}"#);
        assert!(!is_excused(&losses, 150));
        assert!(losses.read().unwrap().any());
    }

    #[test]
    fn nothing_is_excused_without_a_file_or_with_an_unreadable_one() {
        assert!(!is_excused(&Losses::new(None), 150));
        assert!(!is_excused(&Losses::new(Some("/nonexistent".into())), 150));
        assert!(!is_excused(&losses("no JSON"), 150));
    }
}
