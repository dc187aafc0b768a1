//! What a person sees while the load test runs.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{report::grouped, shop::Shop};

/// How often one updating line is drawn on a terminal.
const ON_A_TERMINAL: Duration = Duration::from_secs(1);

/// How often a line is printed elsewhere, such as in a log.
const IN_A_LOG: Duration = Duration::from_secs(5);

/// Says on stderr what is being done, unless quiet.
pub(crate) fn say(quiet: bool, text: &str) {
    if !quiet {
        clear();
        eprintln!("{text}");
    }
}

/// Draws the state of something that takes a while, over the last such line on a terminal.
pub(crate) fn update(quiet: bool, text: &str) {
    if !quiet && stderr().is_terminal() {
        eprint!("\r\x1b[2K{text}");
        let _unimportant = stderr().flush();
    }
}

/// Removes the updating line.
pub(crate) fn clear() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}

/// Shows elapsed time, rate, sales, refusals and latency until it is aborted.
pub(crate) async fn watch(shop: Arc<Shop>) {
    let terminal = stderr().is_terminal();
    let mut ticks = interval(if terminal { ON_A_TERMINAL } else { IN_A_LOG });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sent_before, mut elapsed_before) = (0, Duration::ZERO);
    loop {
        ticks.tick().await;
        let (sent, elapsed) = (shop.schedule.sent(), shop.schedule.elapsed());
        if elapsed.is_zero() {
            continue;
        }
        let line = line(&shop, sent - sent_before, elapsed - elapsed_before);
        if terminal {
            update(false, &line);
        } else {
            eprintln!("{line}");
        }
        (sent_before, elapsed_before) = (sent, elapsed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "only shown to people")]
fn line(shop: &Shop, sent: u64, during: Duration) -> String {
    let (counts, recent) = shop.tally.peek();
    let elapsed = shop.schedule.elapsed().as_secs_f64();
    let length = shop.schedule.length().as_secs_f64();
    let rate = sent as f64 / during.as_secs_f64().max(0.001);
    let p99 = recent.value_at_quantile(0.99) as f64 / 1_000.0;
    let trouble = counts.unexpected + counts.unanswered + counts.unavailable();
    let trouble =
        if trouble > 0 { format!("  unavailable or worse {}", grouped(trouble)) } else { String::new() };
    format!(
        "  {elapsed:5.1} of {length:.0} s  {rate:6.0}/s  sold {}  held {}  refused {}  p99 {p99:.1} ms{trouble}",
        grouped(counts.sold),
        grouped(counts.held),
        grouped(counts.refused()),
    )
}
