//! Events that Redis sells although PostgreSQL knows of no publication: the word of it went with a gap that was accepted, or a backup
//! is from before somebody made them. All that begins with PostgreSQL's events passes them over.

use std::collections::BTreeSet;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;

use crate::audit::FindingKind;
use crate::snapshot::{self, LiveEvent};
use crate::stored;

use super::{Comparison, DeepError, Sources, wait_until_applied};

/// Says which of these events of a shard PostgreSQL should know, since it has applied all that Redis had decided. The word of a
/// publication may also be on its way.
pub(crate) async fn compare_unpublished(
    sources: Sources<'_>,
    shard: Shard,
    events: &BTreeSet<EventId>,
) -> Result<Vec<(EventId, Comparison)>, DeepError> {
    let suspected = stored::unpublished(sources.pool, events).await?;
    if suspected.is_empty() {
        return Ok(Vec::new());
    }
    let live = snapshot::live_shards(sources.redis, &[shard]).await?;
    let position = live.get(&shard).and_then(|live| live.position).unwrap_or_default();
    let is_applied = wait_until_applied(sources.pool, shard, position).await?;
    let unpublished = stored::unpublished(sources.pool, &suspected.into_iter().collect()).await?;
    let mut compared = Vec::new();
    for (event, live) in snapshot::live(sources.redis, shard, &unpublished).await? {
        let told = match live {
            Ok(LiveEvent { event: None, .. }) => continue,
            Ok(LiveEvent { event: Some(image), .. }) => format!("the event is {} in Redis", image.status),
            Err(error) => format!("the event cannot be read in Redis ({error})"),
        };
        let mut found = Comparison::default();
        if is_applied {
            let detail = format!("{told}, and PostgreSQL has no publication of it");
            found.add(FindingKind::EventDiffers, None, detail);
        } else {
            found.leave_open(format!("event {event}: PostgreSQL stands still before decision {position}"));
        }
        compared.push((event, found));
    }
    Ok(compared)
}
