//! The part of an audit that compares bookings one by one, told as one finding for each kind and event.

use std::collections::BTreeMap;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;

use crate::deep::{self, Comparison, DeepError, Sources};

use super::{Finding, FindingKind, Report, Scope};

/// Differences that a finding tells in full; their number is always told.
const TOLD_MAX: usize = 5;

/// Compares the events of the scope, and adds what is found to the report. Bookings are compared where that is asked for; that an event
/// was never published, as far as PostgreSQL knows, is said in any case.
pub(super) async fn extend(
    report: &mut Report,
    sources: Sources<'_>,
    scope: &Scope,
) -> Result<(), DeepError> {
    let mut live = scope.live_events(sources.redis).await?;
    for shard in &scope.shards {
        let of_shard = live.remove(shard).unwrap_or_default();
        let mut compared = deep::compare_unpublished(sources, *shard, &of_shard).await?;
        if scope.deep {
            compared.extend(deep::compare_shard(sources, *shard, scope.event).await?);
        }
        for (event, comparison) in compared {
            report.bookings += comparison.bookings;
            for finding in findings(*shard, event, &comparison) {
                // The comparison of the counters may have said it.
                let is_known =
                    |known: &Finding| known.event_id == finding.event_id && known.kind == finding.kind;
                if !report.findings.iter().any(is_known) {
                    report.findings.push(finding);
                }
            }
            report.left_open.extend(comparison.not_compared);
        }
    }
    Ok(())
}

fn findings(shard: Shard, event: EventId, comparison: &Comparison) -> Vec<Finding> {
    let mut told: BTreeMap<&str, (FindingKind, Vec<&str>)> = BTreeMap::new();
    for difference in &comparison.differences {
        let of_kind = told.entry(difference.kind.as_str()).or_insert_with(|| (difference.kind, Vec::new()));
        of_kind.1.push(&difference.detail);
    }
    let mut findings = Vec::new();
    for (kind, details) in told.into_values() {
        let beyond = details.len().saturating_sub(TOLD_MAX) + comparison.untold;
        let mut detail = details[..details.len().min(TOLD_MAX)].join("; ");
        if beyond > 0 {
            detail = format!("{detail}; and {beyond} more");
        }
        findings.push(Finding { shard, event_id: Some(event), ticket_type_id: None, kind, detail, drift: 0 });
    }
    findings
}
