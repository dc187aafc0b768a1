//! Reconcilers: from the log to PostgreSQL.

use crate::protection::Protection;
use crate::record::Record;
use crate::scenario::Model;
use crate::system::State;

/// A record on its way from Kafka to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// To come.
    NotStarted,
    /// Fetched from PostgreSQL's own offset.
    Fresh(Record),
    /// Another reconciler has applied it meanwhile.
    Stale(Record),
    /// Applied, or passed over.
    Done,
}

impl State {
    pub(crate) fn apply(&self, model: &Model) -> Option<Self> {
        if !self.fetches.is_empty() {
            return None;
        }
        let mut next = self.clone();
        next.advance(model).then_some(next)
    }

    /// Applies the record at PostgreSQL's offset, and moves the offset; whether anything changed.
    fn advance(&mut self, model: &Model) -> bool {
        let Some(record) = self.log.first().copied() else { return false };
        let stood = self.postgres.alarms.gap;
        if self.postgres.apply(model, &record) {
            self.log.remove(0);
            return true;
        }
        !stood
    }

    pub(crate) fn fetch(&self, model: &Model, fetch: usize) -> Option<Self> {
        let is_next = self.fetches[fetch] == Fetch::NotStarted
            && (fetch == 0 || self.fetches[fetch - 1] != Fetch::NotStarted);
        if !is_next {
            return None;
        }
        let record = *self.log.first()?;
        let mut next = self.clone();
        next.fetches[fetch] = Fetch::Fresh(record);
        if !model.has(Protection::OffsetInTransaction) {
            next.log.remove(0);
        }
        Some(next)
    }

    pub(crate) fn write(&self, model: &Model, fetch: usize) -> Option<Self> {
        let mut next = self.clone();
        match &self.fetches[fetch] {
            Fetch::Fresh(record) if !model.has(Protection::OffsetInTransaction) => {
                next.postgres.apply(model, record);
            }
            Fetch::Fresh(_) => {
                next.advance(model);
                for other in &mut next.fetches {
                    if let Fetch::Fresh(record) = other {
                        *other = Fetch::Stale(*record);
                    }
                }
            }
            // Its offset has passed: whatever it holds is left alone.
            Fetch::Stale(_) => {}
            Fetch::NotStarted | Fetch::Done => return None,
        }
        next.fetches[fetch] = Fetch::Done;
        Some(next)
    }
}
