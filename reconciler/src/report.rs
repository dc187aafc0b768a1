//! Reports for a person who was woken up: what is wrong first, then where, then the command that mends it.

use std::fmt::Write as _;

use crate::audit::{Finding, FindingKind, Report};
use crate::dead_letters::DeadLetter;
use crate::limits::Offender;
use crate::once::{Summary, Verdict};
use crate::open::{Open, OpenItem};
use crate::repair;
use crate::repairs::Repair;
use crate::snapshot::Counts;
use crate::status::Status;

/// Lines of a kind of finding that are printed; their number is always told.
const LINES_MAX: usize = 50;

/// Writing into a `String` does not fail.
macro_rules! line {
    ($out:expr) => { $out.push('\n') };
    ($out:expr, $($part:tt)*) => { { let _ = writeln!($out, $($part)*); } };
}

/// The report of `once`.
pub(crate) fn of_once(summary: &Summary) -> String {
    let Summary { verdict, applied_elsewhere, unapplied_records, audit, open } = summary;
    let mut out = String::new();
    line!(out, "Boxoffice reconciliation, {} UTC", audit.started_at.format("%Y-%m-%d %H:%M:%S"));
    line!(out);
    let by = if *applied_elsewhere { " (by the process that holds the lease)" } else { "" };
    match unapplied_records.values().sum::<i64>() {
        0 => line!(out, "  log           applied to its end{by}, {} shards", audit.shards.len()),
        behind => line!(out, "  log           {behind} records are not applied: they lie behind gaps"),
    }
    audit_lines(&mut out, audit);
    line!(
        out,
        "  open          {} gaps, {} dead letters, {} alarms, {} repairs",
        open.gaps,
        open.dead_letters,
        open.alarms,
        open.repairs
    );
    line!(out);
    totals_table(&mut out, audit);
    problems(&mut out, audit, open);
    line!(out, "{}", verdict_line(*verdict, audit));
    out
}

/// The report of `audit`.
pub(crate) fn of_audit(report: &Report) -> String {
    let mut out = String::new();
    line!(out, "Boxoffice audit, {} UTC", report.started_at.format("%Y-%m-%d %H:%M:%S"));
    line!(out);
    audit_lines(&mut out, report);
    line!(out);
    totals_table(&mut out, report);
    problems(&mut out, report, &Open::default());
    let verdict = audit_verdict(report);
    line!(out, "{}", verdict_line(verdict, report));
    out
}

/// What an audit alone comes to.
pub(crate) fn audit_verdict(report: &Report) -> Verdict {
    match (report.is_ok(), report.not_compared + report.left_open.len()) {
        (false, _) => Verdict::Findings,
        (true, 0) => Verdict::Agreement,
        (true, _) => Verdict::Unfinished,
    }
}

fn audit_lines(out: &mut String, audit: &Report) {
    line!(
        out,
        "  compared      {} ticket types at equal positions, in {} ms",
        audit.compared,
        audit.duration_ms
    );
    if audit.not_compared > 0 {
        line!(
            out,
            "  not compared  {} ticket types: PostgreSQL was never at Redis' position",
            audit.not_compared
        );
    }
    if audit.lag > 0 {
        line!(
            out,
            "  lag           PostgreSQL was {} decisions behind Redis when the audit began",
            audit.lag
        );
    }
    line!(out, "  drift         {} tickets", audit.drift);
    if audit.bookings > 0 {
        line!(out, "  one by one    {} bookings", audit.bookings);
    }
    for why in audit.left_open.iter().take(LINES_MAX) {
        line!(out, "  not compared  {why}");
    }
}

fn totals_table(out: &mut String, audit: &Report) {
    if audit.compared == 0 {
        return;
    }
    let row = |out: &mut String, store: &str, counts: &Counts| {
        let available = counts.capacity - counts.held - counts.sold;
        line!(
            out,
            "  {store:<12} {:>12} {available:>12} {:>12} {:>12}",
            counts.capacity,
            counts.held,
            counts.sold
        );
    };
    line!(out, "  {:<12} {:>12} {:>12} {:>12} {:>12}", "on sale", "capacity", "available", "held", "sold");
    row(out, "Redis", &audit.totals.redis);
    row(out, "PostgreSQL", &audit.totals.postgres);
    line!(out);
}

fn problems(out: &mut String, audit: &Report, open: &Open) {
    for finding in audit.findings.iter().take(LINES_MAX) {
        finding_lines(out, finding);
    }
    if audit.findings.len() > LINES_MAX {
        line!(out, "  ... and {} more findings (--json lists all)", audit.findings.len() - LINES_MAX);
    }
    for item in open.items.iter().take(LINES_MAX) {
        line!(out, "{}", item_lines(item));
    }
    if open.items.len() > LINES_MAX {
        line!(out, "  ... and {} more open items", open.items.len() - LINES_MAX);
    }
    if !audit.findings.is_empty() || !open.items.is_empty() {
        line!(out);
    }
}

fn finding_lines(out: &mut String, finding: &Finding) {
    let mark = if finding.kind.is_notice() { "note" } else { "WRONG" };
    line!(out, "  {mark:<5} {} {}: {}", finding.shard, finding.kind.as_str(), finding.detail);
    if let Some(event) = finding.event_id {
        let ticket_type = finding.ticket_type_id.map_or_else(String::new, |id| format!(", ticket type {id}"));
        line!(out, "        event {event}{ticket_type}");
    }
    for step in next_steps(finding) {
        line!(out, "        next: {step}");
    }
}

/// The commands that show more of a finding, and mend it.
fn next_steps(finding: &Finding) -> Vec<String> {
    let event = finding.event_id.map_or_else(String::new, |event| format!(" --event {event}"));
    let command = |line: &str| format!("boxoffice-reconciler {line}");
    let repair =
        command(&format!("repair{event} --dry-run, then without --dry-run   (while tickets are sold)"));
    let set_aside =
        command("dead-letters list   (a record that was refused explains most; resolve it first)");
    let rebuild = match finding.event_id {
        Some(event) => command(&format!("rebuild --event {event}   (its shard pauses meanwhile)")),
        None => command(&format!("rebuild --shard {}   (it pauses meanwhile)", finding.shard.number())),
    };
    match finding.kind {
        FindingKind::Drift | FindingKind::Oversold => vec![set_aside, repair],
        FindingKind::RowsDiffer | FindingKind::EventDiffers | FindingKind::UnrecordedBookings => vec![repair],
        FindingKind::BookingsDiffer => {
            vec![command("alarms list   (two histories may share a topic)"), rebuild]
        }
        FindingKind::UnreadableBookings => {
            let honour = "its client may hold a 201: honour it by hand, or tell the customer, before its tickets are sold again";
            vec![set_aside, honour.to_owned(), rebuild]
        }
        FindingKind::MissingInventory
        | FindingKind::UnreadableInventory
        | FindingKind::RedisBehind
        | FindingKind::LostBookings
        | FindingKind::LostExpiries
        | FindingKind::AllowancesDiffer => vec![rebuild],
        FindingKind::OverdueHolds => vec!["start an API instance; it expires holds".to_owned()],
    }
}

fn item_lines(item: &OpenItem) -> String {
    format!(
        "  WRONG s{:02} {} {}: {}\n        since {} UTC; next: {}",
        item.shard,
        item.kind,
        item.id,
        item.what,
        item.since.format("%Y-%m-%d %H:%M:%S"),
        item.mend
    )
}

fn verdict_line(verdict: Verdict, audit: &Report) -> String {
    match verdict {
        Verdict::Agreement => "Redis and PostgreSQL agree.".to_owned(),
        Verdict::Findings => "Something is wrong; each line above names the next step.".to_owned(),
        Verdict::Unfinished => format!(
            "Not finished: not everything was compared ({} ticket types were not). Tickets may be selling too fast for a moment of rest, or \
             decisions wait in Redis for an API instance to relay them; run it again.",
            audit.not_compared
        ),
    }
}

/// The report of `status`.
pub(crate) fn of_status(status: &Status) -> String {
    let mut out = String::new();
    match &status.lease {
        Some(lease) => {
            line!(out, "lease        {} until {} UTC", lease.holder, lease.expires_at.format("%H:%M:%S"));
        }
        None => line!(out, "lease        nobody"),
    }
    match &status.last_reconciliation {
        Some(last) => line!(
            out,
            "last audit   {} UTC, {} ms: compared {}, not compared {}, lag {}, drift {}{}",
            last.started_at.format("%Y-%m-%d %H:%M:%S"),
            last.duration_ms,
            last.compared,
            last.not_compared,
            last.lag,
            last.drift,
            if last.ok { "" } else { "  NOT OK" }
        ),
        None => line!(out, "last audit   never"),
    }
    line!(out);
    line!(out, "shard  certified  redis            postgresql       kafka offset          lag");
    for shard in &status.shards {
        let text = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
        line!(
            out,
            "{:<6} {:<10} {:<16} {:<16} {:<12} {:>12}",
            shard.shard.to_string(),
            match shard.certified {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "?",
            },
            text(shard.redis.map(|position| position.to_string())),
            shard.postgres.to_string(),
            shard.next_offset,
            text(shard.lag_records.map(|lag| lag.to_string()))
        );
    }
    line!(out);
    for item in status.open.items.iter().take(LINES_MAX) {
        line!(out, "{}", item_lines(item));
    }
    if status.healthy {
        line!(out, "Healthy.");
    }
    for problem in &status.problems {
        line!(out, "Problem: {problem}.");
    }
    out
}

/// A list of open items.
pub(crate) fn of_items(items: &[OpenItem]) -> String {
    if items.is_empty() {
        return "Nothing is open.\n".to_owned();
    }
    items.iter().fold(String::new(), |out, item| out + &item_lines(item) + "\n")
}

/// A dead letter in full.
pub(crate) fn of_dead_letter(letter: &DeadLetter) -> String {
    let mut out = String::new();
    let position = match (letter.epoch, letter.sequence) {
        (Some(epoch), Some(sequence)) => format!("{epoch}-{sequence}"),
        _ => "unknown".to_owned(),
    };
    line!(out, "dead letter {}: {}", letter.id, letter.outcome.as_deref().unwrap_or("open"));
    line!(out, "  kind       {}", letter.kind);
    line!(out, "  reason     {}", letter.reason);
    line!(
        out,
        "  place      shard s{:02}, offset {}, position {position}",
        letter.shard,
        letter.kafka_offset
    );
    line!(out, "  received   {} UTC", letter.received_at.format("%Y-%m-%d %H:%M:%S"));
    line!(out, "  payload    {}", letter.payload);
    if letter.outcome.is_none() {
        line!(
            out,
            "  next       boxoffice-reconciler dead-letters retry {0}, or discard {0} and then repair",
            letter.id
        );
    }
    out
}

/// Mends, each with what was before and after.
pub(crate) fn of_repairs(rows: &[Repair]) -> String {
    let mut out = String::new();
    if rows.is_empty() {
        line!(out, "Nothing was ever repaired.");
    }
    for row in rows {
        let event = row.event_id.map_or_else(String::new, |event| format!(" event {event}"));
        line!(
            out,
            "{:>6}  {} UTC  s{:02} {}{event}: {}",
            row.id,
            row.asked_at.format("%Y-%m-%d %H:%M:%S"),
            row.shard,
            row.kind,
            row.outcome.as_deref().unwrap_or("not ended")
        );
        line!(out, "        by      {}", row.asked_by);
        line!(out, "        before  {}", row.before);
        if let Some(after) = &row.after {
            line!(out, "        after   {after}");
        }
    }
    out
}

/// Whom the rate limits refused most.
pub(crate) fn of_offenders(rows: &[Offender]) -> String {
    let mut out = String::new();
    if rows.is_empty() {
        line!(out, "Nobody was refused.");
        return out;
    }
    line!(out, "{:>10} {:>10} {:>10}  {:16}  policy, key", "refused", "of memory", "allowed", "last (UTC)");
    for row in rows {
        let key = if row.key.is_empty() { "(others)" } else { &row.key };
        line!(
            out,
            "{:>10} {:>10} {:>10}  {:16}  {} {key}",
            row.refused + row.refused_from_memory,
            row.refused_from_memory,
            row.allowed,
            row.last_refused.format("%Y-%m-%d %H:%M").to_string(),
            row.policy
        );
    }
    out
}

/// What an audit finds that was made instead of a mend.
pub(crate) fn of_dry_run(found: &Report) -> String {
    of_audit(found) + "Dry run: nothing was changed.\n"
}

/// What a repair mended, what stood in its way, and what is left.
pub(crate) fn of_repair(summary: &repair::Summary) -> String {
    let mut out = String::new();
    match summary.repairs.as_slice() {
        [] => line!(out, "Nothing was mended."),
        repairs => out.push_str(&of_repairs(repairs)),
    }
    for note in &summary.notes {
        line!(out, "  note  {note}");
    }
    line!(out);
    line!(out, "What is left:");
    out + &of_audit(&summary.left)
}

/// What a repair comes to.
pub(crate) fn repair_verdict(summary: &repair::Summary) -> Verdict {
    match audit_verdict(&summary.left) {
        Verdict::Agreement if !summary.notes.is_empty() => Verdict::Unfinished,
        verdict => verdict,
    }
}

/// What came of rebuilds.
pub(crate) fn of_rebuilds(rows: &[Repair]) -> String {
    let mut out = of_repairs(rows);
    if rows.iter().any(|row| row.outcome.as_deref() == Some("refused")) {
        line!(out, "Refused: what is missing in PostgreSQL must be mended first.");
        line!(
            out,
            "        next: boxoffice-reconciler status   (gaps, dead letters and alarms, each with its command)"
        );
    }
    if rows.iter().any(|row| row.outcome.is_none()) {
        line!(out, "Not finished in time; it stays asked for.");
        line!(
            out,
            "        next: boxoffice-reconciler status   (why the shard is not certified), then repairs list"
        );
    }
    out
}
