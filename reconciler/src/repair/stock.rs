//! Redis' counters, moved by what they differ from PostgreSQL's at the same position.
//!
//! While tickets are sold, no moment need come at which both sides stand at the same position and can be read. So Redis
//! is asked to say the event once more, with all its totals: when PostgreSQL applies that record, it compares its own
//! counts at exactly that position, and an alarm tells the difference. Decisions move both sides by the same amounts,
//! so the difference stays what it is until it is mended, once: the mend names the restatement on which it rests.

use std::time::Duration;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    Call, Restatement, RestatementReply, StockDifference, mend_stock, restate_event,
};
use boxoffice_schema::shard::Shard;

use crate::alarm::CountsDifference;
use crate::audit::{self, FindingKind};
use crate::findings;
use crate::open;
use crate::repairs::{Kind, Outcome};
use crate::snapshot;

use super::{BOUNDS, Mender};

/// How often a repair begins anew where something else restated the event meanwhile.
const TRIES: usize = 3;

/// For the look whether there is anything to mend; where tickets sell too fast for it, the event is restated.
const PATIENCE: Duration = Duration::from_secs(2);
const SNAPSHOTS: usize = 20;

impl Mender<'_> {
    /// Whether there is reason to compare the counters of an event by the log.
    pub(super) async fn has_doubtful_stock(&self, shard: Shard, event: EventId) -> anyhow::Result<bool> {
        if !findings::differing_counts(self.pool, event).await?.is_empty() {
            return Ok(true);
        }
        let scope = audit::Scope {
            shards: vec![shard],
            event: Some(event),
            with_rows: false,
            deep: false,
            patience: PATIENCE,
            tries: SNAPSHOTS,
        };
        let report = audit::audit(self.pool, self.redis, &scope).await?;
        let differs = |kind| matches!(kind, FindingKind::Drift | FindingKind::Oversold);
        Ok(report.not_compared > 0 || report.findings.iter().any(|finding| differs(finding.kind)))
    }

    pub(super) async fn mend_stock(&mut self, shard: Shard, event: &EventImage) -> anyhow::Result<()> {
        if self.is_obstructed(shard, event.id).await? {
            return Ok(());
        }
        for _ in 0..TRIES {
            let Some(stated) = self.say_event(shard, event.id).await? else { return Ok(()) };
            if !self.is_applied(shard, event.id, stated).await? {
                return Ok(());
            }
            // Whatever was set aside up to that position is open since it was applied at the latest.
            if self.is_obstructed(shard, event.id).await? {
                return Ok(());
            }
            let found = findings::differing_counts(self.pool, event.id).await?;
            if found.is_empty() {
                return Ok(());
            }
            if !self.counts_agree(event.id).await? {
                self.mend_counts(shard, event.id).await?;
                continue;
            }
            let differences: Vec<StockDifference> =
                found.iter().filter_map(|difference| in_redis(event, difference)).collect();
            if self.move_stock(shard, event, stated, &differences).await? {
                return Ok(());
            }
        }
        self.notes.push(format!("event {}: it was changed by others at every try; run this again", event.id));
        Ok(())
    }

    /// PostgreSQL is the measure only where it has all that was decided; where it has not, that is noted.
    async fn is_obstructed(&mut self, shard: Shard, event: EventId) -> sqlx::Result<bool> {
        let open = open::of_shard(self.pool, shard).await?;
        let obstacle = if open.gaps > 0 {
            "a gap of its shard is open: see `boxoffice-reconciler gaps list`"
        } else if open.dead_letters > 0 {
            "dead letters of its shard are open: see `boxoffice-reconciler dead-letters list`"
        } else {
            return Ok(false);
        };
        self.notes.push(format!("event {event}: counters are not mended: {obstacle}"));
        Ok(true)
    }

    /// Lets Redis say the event once more. Alarms about its counts are closed before: where they were right, applying
    /// this raises them again. Of a shard that is not certified none is closed. Redis would refuse, and its recovery must
    /// see them meanwhile: they keep it from restoring what may be wrong, and it closes them where it is not.
    pub(super) async fn say_event(
        &mut self,
        shard: Shard,
        event: EventId,
    ) -> anyhow::Result<Option<Position>> {
        if !self.can_be_said(shard, event).await? {
            return Ok(None);
        }
        let before = "Redis and PostgreSQL differ about the event, or cannot be compared at rest";
        let row = self.begin(Kind::Restate, shard, Some(event), before).await?;
        let resolved = findings::resolve_differing_counts(self.pool, event).await?;
        let call = restate_event(&self.redis.keys, shard, BOUNDS, event);
        let (said, outcome, after) = match self.run(&call).await {
            Ok(Restatement::Said(_, position)) => {
                (Some(position), Outcome::Done, format!("said once more at {position}"))
            }
            Ok(refusal) => (None, Outcome::Refused, told(&refusal).to_owned()),
            Err(error) => (None, Outcome::of_failure(&error), error.to_string()),
        };
        self.end(row, outcome, &after).await?;
        if said.is_none() {
            findings::reopen(self.pool, &resolved).await?;
            self.notes.push(format!("event {event}: {after}"));
        }
        Ok(said)
    }

    /// Whether Redis may say the event, and somebody could read what it says; where not, that is noted.
    async fn can_be_said(&mut self, shard: Shard, event: EventId) -> anyhow::Result<bool> {
        let live = snapshot::live_shards(self.redis, &[shard]).await?;
        if !live.get(&shard).is_some_and(|live| live.certified) {
            self.notes.push(format!(
                "event {event}: its shard is closed until recovery has compared Redis with PostgreSQL; the counters in \
                 Redis were not changed. If it stays closed, `boxoffice-reconciler status` says why"
            ));
            return Ok(false);
        }
        let live = snapshot::live(self.redis, shard, &[event]).await?.pop();
        if let Some((_, Err(error))) = live {
            self.notes.push(format!("event {event} in Redis: {error}: {}", told(&Restatement::Unverified)));
            return Ok(false);
        }
        Ok(true)
    }

    /// Returns whether this is done with, for better or worse; otherwise the knowledge was stale.
    async fn move_stock(
        &mut self,
        shard: Shard,
        event: &EventImage,
        stated: Position,
        differences: &[StockDifference],
    ) -> anyhow::Result<bool> {
        let before = describe(event, stated, differences);
        let row = self.begin(Kind::Stock, shard, Some(event.id), &before).await?;
        let call = mend_stock(&self.redis.keys, shard, BOUNDS, event.id, stated, differences);
        let (outcome, refusal) = match self.run(&call).await {
            Ok(Restatement::Said(image, position)) => {
                self.end(row, Outcome::Done, &counters(&image, position, differences)).await?;
                if self.is_applied(shard, event.id, position).await? {
                    findings::resolve_differing_counts(self.pool, event.id).await?;
                }
                return Ok(true);
            }
            Ok(Restatement::Stale) => {
                self.end(row, Outcome::Refused, told(&Restatement::Stale)).await?;
                return Ok(false);
            }
            Ok(refusal) => (Outcome::Refused, told(&refusal).to_owned()),
            Err(error) => (Outcome::of_failure(&error), error.to_string()),
        };
        self.end(row, outcome, &refusal).await?;
        self.notes.push(format!("event {}: {refusal}", event.id));
        Ok(true)
    }

    async fn run(&self, call: &Call) -> anyhow::Result<Restatement> {
        let reply: RestatementReply = self.redis.run(call).await?;
        Ok(Restatement::parse(&reply)?)
    }
}

/// What must be added in Redis.
fn in_redis(event: &EventImage, difference: &CountsDifference) -> Option<StockDifference> {
    let ordinal = event.ticket_types.iter().position(|t| t.id == difference.ticket_type_id)?;
    let ordinal = u8::try_from(ordinal).ok()?;
    Some(StockDifference { ordinal, held: difference.held, sold: difference.sold })
}

fn describe(event: &EventImage, stated: Position, differences: &[StockDifference]) -> String {
    let types = differences.iter().map(|difference| {
        let ticket_type = &event.ticket_types[usize::from(difference.ordinal)];
        format!("ticket type {}: held {:+}, sold {:+}", ticket_type.id, -difference.held, -difference.sold)
    });
    let types: Vec<String> = types.collect();
    format!("at {stated} Redis differed from PostgreSQL by {}", types.join("; "))
}

fn counters(event: &EventImage, position: Position, differences: &[StockDifference]) -> String {
    let types = differences.iter().filter_map(|difference| {
        let ticket_type = event.ticket_types.get(usize::from(difference.ordinal))?;
        Some(format!("ticket type {}: held {}, sold {}", ticket_type.id, ticket_type.held, ticket_type.sold))
    });
    let types: Vec<String> = types.collect();
    format!("mended at {position}: Redis has {}", types.join("; "))
}

fn told(refusal: &Restatement) -> &'static str {
    match refusal {
        Restatement::Said(..) => "said",
        Restatement::Stale => "the event was restated, mended or restored since; nothing was changed",
        Restatement::Impossible => {
            "a counter would be below 0, or more would be held and sold than there is; nothing was changed. Pause the \
             event, and see `boxoffice-reconciler audit` for it"
        }
        Restatement::OutboxFull => "too much waits for Kafka; nothing was changed",
        Restatement::Unverified => {
            "a key or a field of the event is missing in Redis, or holds what it cannot hold; nothing was changed. Rebuild the \
             event with `boxoffice-reconciler rebuild --event`. If that is refused for alarms about counts while no dead letter \
             is open: `boxoffice-reconciler alarms resolve ID` of each `counts_differ` of its shard, and then again"
        }
    }
}
